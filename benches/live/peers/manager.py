"""multiprocessing.Manager().dict(): a server process, a pickled message a call."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benches.live.crew import SPAWN
from benches.live.peers.base import Peer, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from benches.live import data


class Manager(Peer):
    title = "multiprocessing.Manager().dict()"
    how = "increments under a multiprocessing.RLock, faster than the manager's own; waiting with its Condition"
    waiting = "manager.Condition().wait()"
    memory_reads = 10_000
    _server: int | None = None

    @contextmanager
    def serving(self, place: Place) -> Iterator[Any]:
        before = {process.pid for process in SPAWN.active_children()}
        with SPAWN.Manager() as manager:
            (self._server,) = {process.pid for process in SPAWN.active_children()} - before
            yield manager.dict(), SPAWN.RLock(), manager.Condition()

    @property
    def servers(self) -> list[int]:
        return [] if self._server is None else [self._server]

    def create(self, handle: Any, entries: dict[str, data.Value]) -> None:
        self.attach(handle)
        self.map.update(entries)

    def attach(self, handle: Any, *, writers: int = 0) -> None:
        self.map, self._lock, self._condition = handle
        len(self.map)  # connects

    def fetch(self, keys: list[str]) -> list[Any]:
        whole = self.map.copy()
        return [whole.get(key) for key in keys]

    def lock(self) -> AbstractContextManager[Any]:
        return self._lock

    def notify(self, key: str, value: int) -> None:
        with self._condition:
            self.map[key] = value
            self._condition.notify_all()

    def wait(self, timeout: float) -> None:
        with self._condition:
            self._condition.wait(timeout)
