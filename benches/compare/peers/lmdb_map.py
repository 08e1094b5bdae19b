"""LMDB through py-lmdb, loaded in key order with the append flag, its fastest way."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from benches.compare.data import KEY, VALUE
from benches.compare.peers.base import Peer, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

MAP_BYTES_MAX = 1 << 38


class Lmdb(Peer):
    title = "LMDB (py-lmdb)"
    distribution = "lmdb"
    single = "txn.get(key.encode()).decode(), one read transaction"
    batch = "cursor.getmulti of 1000"
    modules = ("lmdb",)
    notes = "built by sorting in Arrow, then putmulti(append=True) in one transaction; build includes fsync"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        import lmdb
        import pyarrow as pa

        start = perf_counter()
        table = table.sort_by(KEY)
        sorted_at = perf_counter()

        def pairs() -> Iterator[tuple[bytes, bytes]]:
            for batch in table.to_batches(max_chunksize=65_536):
                keys, values = (batch.column(name).cast(pa.large_binary()).to_pylist() for name in (KEY, VALUE))
                yield from zip(keys, values, strict=True)

        with lmdb.open(str(place / "lmdb"), map_size=MAP_BYTES_MAX) as env, env.begin(write=True) as txn:
            txn.cursor().putmulti(pairs(), append=True)
        return {"sort": sorted_at - start, "append": perf_counter() - sorted_at}

    def size_bytes(self, place: Path) -> int | None:
        return (place / "lmdb" / "data.mdb").stat().st_size

    def open(self, place: Path) -> None:
        import lmdb

        self.env = lmdb.open(str(place / "lmdb"), map_size=MAP_BYTES_MAX, readonly=True, readahead=False)
        self.txn = self.env.begin()

    def getter(self) -> Callable[[str], str | None]:
        lookup = self.txn.get

        def get(key: str) -> str | None:
            value = lookup(key.encode())
            return None if value is None else value.decode()

        return get

    def lookup_batch(self, keys: list[str]) -> list[str | None]:
        cursor = self.txn.cursor()
        found: list[str | None] = []
        for part in slices(keys):
            asked = [key.encode() for key in part]
            pairs = dict(cursor.getmulti(asked))
            found += [None if (value := pairs.get(key)) is None else value.decode() for key in asked]
        return found


PEER = Lmdb()
