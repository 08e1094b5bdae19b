"""shared-memory-dict: one pickled dict in shared memory, read and written as a whole by each call."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from benches.live import data
from benches.live.crew import SPAWN
from benches.live.peers.base import Peer, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

OVERHEAD_BYTES = 32  # of an entry, pickled, beside its value


class SharedMemoryDict(Peer):
    title = "shared-memory-dict"
    distribution = "shared-memory-dict"
    memory_divide = 10
    memory_reads = 2
    modules = ("shared_memory_dict",)
    how = (
        "its own lock does not reach processes that are not forked, and without one it loses writes: each call while "
        "somebody writes is under a multiprocessing.RLock; memory is measured between calls; during one a process "
        "holds twice the data and more"
    )

    @contextmanager
    def serving(self, place: Place) -> Iterator[Any]:
        yield place, SPAWN.RLock()

    def create(self, handle: Any, entries: dict[str, data.Value]) -> None:
        self.attach(handle, writers=1)
        self.map.update(entries)

    def fill(self, handle: Any, place: Place) -> None:
        entries: dict[str, data.Value] = {}
        for part in data.filling(place.size, place.shape):
            entries.update(part)
        self.create(handle, entries)

    def attach(self, handle: Any, *, writers: int = 0) -> None:
        import shared_memory_dict

        place, self._lock = handle
        self._locked = writers > 0
        size = place.size * (data.width(place.shape) + OVERHEAD_BYTES) + (1 << 20)
        self.map = shared_memory_dict.SharedMemoryDict(name=place.name, size=size)

    def close(self) -> None:
        self.map.cleanup()

    def unlink(self) -> None:
        self.map.shm.close()
        self.map.shm.unlink()

    def lock(self) -> AbstractContextManager[Any]:
        return self._lock if self._locked else nullcontext()

    def read(self, keys: list[str]) -> list[Any]:
        if not self._locked:
            return super().read(keys)
        found = []
        for key in keys:
            with self._lock:
                found.append(self.map[key])
        return found

    def fetch(self, keys: list[str]) -> list[Any]:
        with self._lock:
            whole = dict(self.map.items())
        return [whole.get(key) for key in keys]

    def write(self, pairs: Iterable[data.Pair]) -> None:
        for key, value in pairs:
            with self._lock:
                self.map[key] = value

    def update(self, entries: dict[str, data.Value]) -> None:
        with self._lock:
            self.map.update(entries)
