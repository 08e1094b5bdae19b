"""pyarrow: index_in over the mapped key column, then take. It hashes the whole column at every call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.compare.data import KEY, VALUE
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa


class ArrowIndexIn(Peer):
    title = "pyarrow index_in + take"
    distribution = "pyarrow"
    single_count = 5
    single = "the same with one key"
    batch = "one call, Arrow in and out"
    modules = ("pyarrow",)
    reader_slice = 100_000
    notes = "build writes an uncompressed Arrow IPC file; set_cpu_count(1) for lookups"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        import pyarrow as pa

        whole = table.combine_chunks()
        with pa.ipc.new_file(str(place / "map.arrow"), whole.schema) as writer:
            writer.write_table(whole)
        return {}

    def open(self, place: Path) -> None:
        import pyarrow as pa

        pa.set_cpu_count(1)
        self.table = pa.ipc.open_file(pa.memory_map(str(place / "map.arrow"))).read_all()

    def getter(self) -> Callable[[str], str | None]:
        import pyarrow as pa

        def get(key: str) -> str | None:
            return self.lookup_batch(pa.array([key], pa.large_string()))[0].as_py()

        return get

    def prepare_batch(self, keys: pa.Array) -> pa.Array:
        return keys

    def lookup_batch(self, keys: pa.Array) -> pa.ChunkedArray:
        import pyarrow.compute as pc

        options = pc.SetLookupOptions(value_set=self.table[KEY])
        return self.table[VALUE].take(pc.call_function("index_in", [keys], options))

    def answers(self, found: pa.ChunkedArray) -> pa.ChunkedArray:
        return found

    def lookup_all(self, keys: list[str]) -> list[str | None] | None:
        import pyarrow as pa

        return self.lookup_batch(pa.array(keys, pa.large_string())).to_pylist()


PEER = ArrowIndexIn()
