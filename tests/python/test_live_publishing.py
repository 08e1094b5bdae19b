"""What others can see of a live map from the moment that it appears, and who takes it away."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

import pheon
from pheon.ultradict import UltraDict

SECONDS_MAX = 60


def memory_bytes() -> int:
    found = os.statvfs("/dev/shm")
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def mapped_files(path: str) -> int:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return sum(path in line and "/log-" in line for line in maps)


def fresh(what: str) -> str:
    return f"test-{what}-{os.getpid()}-{os.urandom(4).hex()}"


def test_initial_data_is_there_when_the_name_appears() -> None:
    name = fresh("initial")
    child = os.fork()
    if child == 0:
        try:
            for _ in range(300):
                pheon.LiveMap({i: i for i in range(200)}, name=name, create=True).unlink()
        finally:
            os._exit(0)
    lengths: set[int] = set()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        try:
            lengths.add(len(pheon.LiveMap(name=name, create=False)))
        except pheon.NotFoundError:
            continue
    assert lengths == {200}


@pytest.mark.parametrize("create", [None, True])
def test_data_that_cannot_be_stored_makes_no_map(create: bool | None) -> None:
    name = fresh("bad")
    with pytest.raises(pheon.SchemaError):
        pheon.LiveMap({"a": 1, "b": object()}, name=name, create=create)
    with pytest.raises(pheon.StoreFullError, match=name):
        pheon.LiveMap({"a": "x" * 5000}, name=name, create=create, max_bytes=1000)
    assert name not in pheon.LiveMap.list_names()


def test_initial_data_is_as_that_of_update() -> None:
    pairs = [(1, "a"), (True, "b"), ("k", {"n": [1]}), (1.0, "c")]
    with pheon.LiveMap(pairs, auto_unlink=True, extra=5) as live:
        assert repr(live) == repr(dict(pairs) | {"extra": 5})
        assert live.sequence == 2
        live["k"]["n"].append(2)
        assert live["k"] == {"n": [1, 2]}
        with pheon.LiveMap({"more": 1}, name=live.name) as other:
            assert other.made is False
            assert live["more"] == 1
    with pheon.LiveMap({i: i for i in range(5)}, max_entries=3, auto_unlink=True) as cache:
        assert list(cache) == [2, 3, 4]


def test_initial_data_in_a_durable_map(tmp_path: Any) -> None:
    store = pheon.open(tmp_path / "store")
    live = store.live("d", durable=True)
    live["a"] = 1
    assert dict(live.items()) == {"a": 1}


def test_an_ultradict_attaches_at_once_to_what_a_live_map_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pheon.LiveMap(name=fresh("plain"), auto_unlink=True, codec="pickle", allow_pickle=True) as live:

        def sleep(seconds: float) -> None:
            pytest.fail(f"it sleeps for {seconds} s")

        monkeypatch.setattr(time, "sleep", sleep)
        assert dict(UltraDict(name=live.name)) == {}


def unlinking_child(kind: str) -> None:
    match kind:
        case "auto_unlink":
            KEPT.append(pheon.LiveMap({"a": 1}, auto_unlink=True))
        case "copy":
            KEPT.append(pheon.LiveMap({"a": 1}, auto_unlink=True).copy())
        case "fromkeys":
            KEPT.append(pheon.LiveMap.fromkeys("ab"))
        case _:
            KEPT.append(UltraDict({"a": 1}))


KEPT: list[Any] = []


@pytest.mark.parametrize("kind", ["auto_unlink", "copy", "fromkeys", "ultradict"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_leave_no_maps(kind: str, method: str) -> None:
    with pheon.LiveMap(auto_unlink=True) as mine:
        before = pheon.LiveMap.list_names()
        child = multiprocessing.get_context(method).Process(target=unlinking_child, args=(kind,))
        child.start()
        child.join(SECONDS_MAX)
        assert child.exitcode == 0
        assert pheon.LiveMap.list_names() == before
        mine["still"] = 1


def test_auto_unlink_gives_memory_back_when_closed() -> None:
    before = memory_bytes()
    for _ in range(5):
        live = pheon.LiveMap({"a": b"x" * 20_000_000}, auto_unlink=True)
        live.close()
    del live
    gc.collect()
    assert memory_bytes() < before + 50_000_000


def test_auto_unlink_spares_the_next_map_of_that_name() -> None:
    first = pheon.LiveMap({"a": 1}, name=fresh("next"), auto_unlink=True)
    pheon.LiveMap.unlink_by_name(first.name)
    second = pheon.LiveMap({"b": 2}, name=first.name, create=True)
    first.close()
    assert second == {"b": 2}
    assert pheon.LiveMap(name=first.name, create=False) == {"b": 2}
    second.unlink()


def test_close_lets_go_of_memory_while_the_handle_lives() -> None:
    one = pheon.LiveMap({"a": b"x" * 5_000_000}, name=fresh("close"))
    two = pheon.LiveMap(name=one.name)
    snapshot = one.snapshot()
    one.unlink()
    assert mapped_files(one.path.rsplit("/", 1)[0])
    one.close()
    assert len(two["a"]) == 5_000_000
    two.close()
    assert len(snapshot["a"]) == 5_000_000
    before = memory_bytes()
    del snapshot
    assert memory_bytes() < before - 4_000_000
    assert one.closed
    assert two.closed


def test_a_closed_map_opens_again() -> None:
    one = pheon.LiveMap({"a": 1}, name=fresh("again"))
    with one.lock:
        one.close()
    two = pheon.LiveMap(name=one.name, create=False)
    two["b"] = 2
    assert two == {"a": 1, "b": 2}
    assert two.popitem() == ("b", 2)
    one.unlink()


def test_length_counts_what_is_not_too_old() -> None:
    with pheon.LiveMap({"x": 1}, max_age=0.3, auto_unlink=True) as live:

        def until(condition: Callable[[], bool]) -> None:
            watchdog = time.monotonic() + SECONDS_MAX
            while not condition():
                assert time.monotonic() < watchdog
                time.sleep(0.01)

        def same_count() -> bool:
            """Between the two questions "y" may have become too old: then they are asked again."""
            live["y"] = 2
            return len(live) == len(list(live)) == 1

        def same_count_in_a_batch() -> bool:
            live["y"] = 2
            with live.batch() as batch:
                return len(batch) == len(list(batch)) == 1

        until(lambda: "x" not in live)
        until(same_count)
        until(same_count_in_a_batch)
        until(lambda: len(live) == 0)
        assert (len(live), list(live), bool(live)) == (0, [], False)
        with live.batch() as batch:
            assert not batch
