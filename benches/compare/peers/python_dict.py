"""A Python dict, private to each process."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from benches.compare import data
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa


class PythonDict(Peer):
    title = "Python dict"
    single = "d.get(key)"
    modules = ("pyarrow",)
    notes = "it has no file: opening is building it again from the Arrow file"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        self.map = self._filled(table)
        return {}

    def _filled(self, table: pa.Table) -> dict[str, str]:
        pairs = chain.from_iterable(zip(*columns, strict=True) for columns in data.string_batches(table))
        return dict(pairs)

    def size_bytes(self, place: Path) -> int | None:
        return None

    def open(self, place: Path) -> None:
        rows = data.load(place.parent / "data").rows_file
        self.map = self._filled(data.read_table(rows))
        _return_memory()

    def getter(self) -> Callable[[str], str | None]:
        return self.map.get

    def extras(self, keys: pa.Array) -> dict[str, Callable[[], tuple[int, Callable[[], Any]]]]:
        def subscript() -> tuple[int, Callable[[], Any]]:
            known = self.map
            present = [key for key in keys.to_pylist() if key in known]
            fresh = [key.encode().decode() for key in present]  # without the hash that the filter cached
            return len(fresh), lambda: [known[key] for key in fresh]

        return {"m[key], hits only": subscript}


def _return_memory() -> None:
    """Gives back what reading the Arrow file left in allocators: it is not the dict's."""
    import ctypes
    import gc

    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


PEER = PythonDict()
