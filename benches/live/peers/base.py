"""What a peer is: a dictionary that one process makes and others attach to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benches.live import data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

MEMORY = Path("/dev/shm")


class MissingError(Exception):
    """The peer cannot run here; the message says what is not installed."""


@dataclass(frozen=True)
class Place:
    """Where a map is and what will be in it. `name` is in the names of all its files in /dev/shm."""

    name: str
    folder: str
    size: int
    shape: str
    writes_bytes: int = 128 << 20  # shared memory for writes, where a library wants to be told


class Peer(ABC):
    """An adapter. After `create` or `attach` it has one map open."""

    title: ClassVar[str]
    distribution: ClassVar[str | None] = None  # on the package index; None: the standard library
    shared: ClassVar[bool] = True  # by several processes
    memory_divide: ClassVar[int] = 1  # how much less data this peer gets where memory is measured
    memory_reads: ClassVar[int] = 100_000  # of each process there
    how: ClassVar[str] = ""  # it was used, for the report
    native_increment: ClassVar[str | None] = None  # the peer's own call to add to a number
    waiting: ClassVar[str | None] = None  # what a process calls to sleep until something changes

    modules: ClassVar[tuple[str, ...]] = ()

    map: Any = None  # a dict or something like it

    def version(self) -> str:
        """The installed version. Raises MissingError if there is none."""
        if self.distribution is None:
            return "standard library"
        try:
            return version(self.distribution)
        except PackageNotFoundError as why:
            raise MissingError(f"the Python package {self.distribution} is not installed") from why

    def load(self) -> None:
        """Imports the library, so that attaching is measured without that."""
        for module in self.modules:
            import_module(module)

    @contextmanager
    def serving(self, place: Place) -> Iterator[Any]:
        """Runs the server that the peer needs, if any; yields what other processes need to attach."""
        yield place

    @property
    def servers(self) -> list[int]:
        """Process ids of the server."""
        return []

    @abstractmethod
    def create(self, handle: Any, entries: dict[str, data.Value]) -> None:
        """Makes the map with these entries, as the library's manual does."""

    def fill(self, handle: Any, place: Place) -> None:
        """Makes the map of a place, in the way that takes least memory. Not timed."""
        self.create(handle, {})
        for part in data.filling(place.size, place.shape):
            self.update(part)

    @abstractmethod
    def attach(self, handle: Any, *, writers: int = 0) -> None:
        """Opens the map in another process; `writers`: how many processes write meanwhile."""

    def close(self) -> None:
        """Lets go of the map."""
        self.map = None

    def unlink(self) -> None:
        """Removes the map; whoever made it does."""
        self.close()

    def read(self, keys: list[str]) -> list[Any]:
        """One lookup after the other."""
        d = self.map
        return [d[key] for key in keys]

    def fetch(self, keys: list[str]) -> list[Any]:
        """Values of many keys in the fastest way there is. None: the key is missing."""
        d = self.map
        return [d.get(key) for key in keys]

    def count(self) -> int:
        """Entries."""
        return len(self.map)

    def write(self, pairs: Iterable[data.Pair]) -> None:
        """One write after the other."""
        d = self.map
        for key, value in pairs:
            d[key] = value

    def update(self, entries: dict[str, data.Value]) -> None:
        """Many writes in one call."""
        self.map.update(entries)

    def lock(self) -> AbstractContextManager[Any]:
        """The lock of the map, across processes."""
        return nullcontext()

    def add(self, key: str, amount: int) -> None:
        """Reads and writes a number under the lock."""
        d = self.map
        with self.lock():
            d[key] = d[key] + amount

    def increment(self, key: str, amount: int) -> None:
        """Adds to a number with `native_increment`."""
        raise NotImplementedError(self.title)

    def nest(self, handle: Any) -> None:
        """Puts {"n": 0} under the key "nested"."""
        self.map["nested"] = {"n": 0}

    def add_nested(self) -> None:
        """Adds 1 to the inner number."""
        inner = self.map["nested"]
        inner["n"] += 1
        self.map["nested"] = inner

    def nested(self) -> int:
        """The inner number."""
        return self.map["nested"]["n"]

    def notify(self, key: str, value: int) -> None:
        """Writes, and does what wakes those who `wait`."""
        self.map[key] = value

    def wait(self, timeout: float) -> None:
        """Sleeps until something changes."""
        raise NotImplementedError(self.title)


def files(name: str) -> list[Path]:
    """Files and folders of the map with this name in /dev/shm."""
    return sorted(MEMORY.glob(f"*{name}*"))
