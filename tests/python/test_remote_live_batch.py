"""What holds for batches of live maps of this machine holds for those at a server: their tests, run over Flight."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
import test_live_batch
from remote_store import adopt, shared_server, store, store_path

import pheon

__all__ = ["shared_server", "store", "store_path"]


@pytest.fixture
def make_live(store: pheon.RemoteStore) -> Iterator[Callable[..., pheon.RemoteLiveMap]]:
    made: list[str] = []

    def make(**limits: int) -> pheon.RemoteLiveMap:
        made.append(f"test-{uuid.uuid4().hex}")
        return store.live(made[-1], create=True, **limits)

    yield make
    for name in made:
        store.drop_live(name)


@pytest.fixture
def live(make_live: Callable[..., pheon.RemoteLiveMap]) -> pheon.RemoteLiveMap:
    return make_live()


LOCAL_ONLY = {
    "test_a_batch_of_a_killed_process_never_was": "there is no lock that it could keep",
    "test_others_see_all_or_nothing": "there is no lock: who reads what others change meanwhile begins again",
}

adopt(globals(), (test_live_batch,), LOCAL_ONLY)
