"""Maps that this process has yet to unlink: when it ends, if not before.

Each is kept by its name and identity, not by a handle, so its memory is not held.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from pheon._errors import Error
from pheon._native import LiveHandle


@dataclass(frozen=True)
class _Owed:
    name: str
    group: int | None
    store: str | None
    uuid: str
    pid: int


_owed: dict[int, _Owed] = {}
_tokens = count()
_prepared_pid = 0
# Below 0: after the children that multiprocessing knows were joined.
_EXIT_PRIORITY = -100


def owe(live: LiveHandle, group: int | None, store: str | None) -> int:
    """Unlink this map when this process ends; a token for `settle`."""
    global _prepared_pid  # noqa: PLW0603 - the state of a process
    pid = os.getpid()
    if _prepared_pid != pid:
        # Children of multiprocessing end without atexit, and without what they inherit.
        from multiprocessing.util import Finalize

        Finalize(None, _unlink_all, exitpriority=_EXIT_PRIORITY)
        _prepared_pid = pid
    token = next(_tokens)
    _owed[token] = _Owed(live.name, group, store, live.facts()["uuid"], pid)
    return token


def settle(token: int | None) -> None:
    """Forget it: the map was unlinked, or is to stay."""
    if token is not None:
        _owed.pop(token, None)


def unlink_owed(token: int) -> None:
    """Unlink it now, if this process owes that and nobody did it before."""
    owed = _owed.pop(token, None)
    if owed is None or owed.pid != os.getpid():
        return
    with suppress(Error, OSError):
        handle = LiveHandle(owed.name, owed.group, owed.store, False, True, False, False, None, None, None, False)
        # Else the name is another map's by now.
        if handle.facts()["uuid"] == owed.uuid:
            handle.unlink()


def _unlink_all() -> None:
    for token in list(_owed):
        unlink_owed(token)
