"""Pheon's map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare.data import KEY, VALUE
from benches.compare.peers.base import LIST_BATCH, MissingError, Peer, slices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa


class PheonMap(Peer):
    title = "Pheon"
    distribution = "pheon"
    single = "m.get(key)"
    batch = "m.get_many(Arrow array), one call"
    modules = ("pheon",)
    notes = "build includes fsync"

    def version(self) -> str:
        try:
            import pheon
        except ImportError as why:
            raise MissingError(f"the Python package pheon is not installed: {why}") from why
        return pheon.__version__

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        import pheon

        with pheon.open(place / "store") as store:
            store.put_map("files", table, key=KEY, value=VALUE)
        return {}

    def open(self, place: Path) -> None:
        import pheon

        self.map = pheon.open(place / "store", read_only=True).map("files")

    def getter(self) -> Callable[[str], str | None]:
        return self.map.get

    def prepare_batch(self, keys: pa.Array) -> pa.Array:
        return keys

    def lookup_batch(self, keys: pa.Array) -> pa.Array:
        return self.map.get_many(keys)

    def answers(self, found: pa.Array) -> pa.Array:
        return found

    def extras(self, keys: pa.Array) -> dict[str, Callable[[], tuple[int, Callable[[], Any]]]]:
        def of_lists() -> tuple[int, Callable[[], Any]]:
            asked = keys.to_pylist()
            return len(asked), lambda: [self.map.get_many(part) for part in slices(asked)]

        def of_arrays() -> tuple[int, Callable[[], Any]]:
            parts = [keys.slice(start, LIST_BATCH) for start in range(0, len(keys), LIST_BATCH)]
            return len(keys), lambda: [self.map.get_many(part) for part in parts]

        def subscript() -> tuple[int, Callable[[], Any]]:
            present = keys.filter(self.map.contains_many(keys)).to_pylist()
            return len(present), lambda: [self.map[key] for key in present]

        return {
            f"get_many of lists of {LIST_BATCH}": of_lists,
            f"get_many of Arrow arrays of {LIST_BATCH}": of_arrays,
            "m[key], hits only": subscript,
        }


PEER = PheonMap()
