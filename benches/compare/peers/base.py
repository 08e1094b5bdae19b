"""What a peer is: something that is built from an Arrow table, opened in another process and asked for values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

LIST_BATCH = 1000


class MissingError(Exception):
    """The peer cannot run here; the message says what is not installed."""


class Peer(ABC):
    """A peer and its adapter.

    Everybody gets and gives Python strings one by one; what a library needs to turn its bytes into them counts. In
    batches a library that speaks Arrow (or its own frames) gets and gives that; the others get and give lists.
    """

    title: ClassVar[str]
    distribution: ClassVar[str | None] = None  # on the package index; None: the standard library
    single_count: ClassVar[int] = 500_000  # how many of the questions are asked one by one
    batch_count: ClassVar[int] = 500_000
    single: ClassVar[str] = "a Python call a key"
    batch: ClassVar[str | None] = None  # None: the library has no batch call, the single loop is all there is
    notes: ClassVar[str] = ""
    has_server: ClassVar[bool] = False  # then `build` replaces what the server holds
    modules: ClassVar[tuple[str, ...]] = ()  # loaded before opening is timed
    reader_count: ClassVar[int] = 100_000  # lookups of a process whose memory is measured
    reader_slice: ClassVar[int] = LIST_BATCH  # keys that `lookup_all` gets at a time

    def version(self) -> str:
        """The installed version. Raises MissingError if there is none."""
        if self.distribution is None:
            return "standard library"
        try:
            return version(self.distribution)
        except PackageNotFoundError as why:
            raise MissingError(f"the Python package {self.distribution} is not installed") from why

    def load(self) -> None:
        """Imports the library, so that opening is measured without that."""
        for module in self.modules:
            import_module(module)

    @contextmanager
    def serving(self, place: Path) -> Iterator[list[int]]:
        """Runs the server that the peer needs, if any, while the block runs; yields its process ids."""
        yield []

    @abstractmethod
    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        """Builds the map in the empty folder `place`. Returns parts of the time worth reporting, in seconds."""

    def size_bytes(self, place: Path) -> int | None:
        """Bytes on disk; None if there are none."""
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())

    @abstractmethod
    def open(self, place: Path) -> None:
        """Opens the map for reading in a process that did not build it."""

    def getter(self) -> Callable[[str], str | None]:
        """The function that looks one key up."""
        raise NotImplementedError(f"{self.title} has no single lookup")

    def prepare_batch(self, keys: pa.Array) -> Any:
        """Turns the questions into what `lookup_batch` takes. Not timed."""
        return keys.to_pylist()

    def lookup_batch(self, keys: Any) -> Any:
        """Looks all keys up in the library's own way."""
        raise NotImplementedError(f"{self.title} has no batch lookup")

    def answers(self, found: Any) -> pa.Array:
        """What `lookup_batch` returned as an Arrow column. Not timed."""
        import pyarrow as pa

        return pa.array(found, pa.large_string())

    def lookup_all(self, keys: list[str]) -> list[str | None] | None:
        """What a reader process does whose memory is measured. None: nothing was looked up."""
        get = self.getter()
        return [get(key) for key in keys]

    def extras(self, keys: pa.Array) -> dict[str, Callable[[], tuple[int, Callable[[], Any]]]]:
        """More measures worth a line: name -> a function that prepares (untimed) and gives (lookups, timed call)."""
        return {}


def slices(keys: list[str], size: int = LIST_BATCH) -> Iterator[list[str]]:
    """Keys in lists of `size`, the last one shorter."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
