"""RocksDB through rocksdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare import data
from benches.compare.peers.base import Peer, slices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa


class Rocks(Peer):
    title = "RocksDB (rocksdict)"
    distribution = "rocksdict"
    single = "db.get(key)"
    batch = "db.get(list of 1000 keys)"
    modules = ("rocksdict",)
    notes = "WriteBatch of 65,536, Options.prepare_for_bulk_load, then one compaction; no fsync; default cache"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        from rocksdict import Options, Rdict, WriteBatch

        options = Options()
        options.create_if_missing(True)
        options.prepare_for_bulk_load()
        db = Rdict(str(place / "rocks"), options)
        for keys, values in data.string_batches(table):
            batch = WriteBatch()
            for key, value in zip(keys, values, strict=True):
                batch.put(key, value)
            db.write(batch)
        db.flush()
        db.compact_range(None, None)
        db.close()
        return {}

    def open(self, place: Path) -> None:
        from rocksdict import AccessType, Options, Rdict

        self.map: Any = Rdict(str(place / "rocks"), Options(), access_type=AccessType.read_only())

    def getter(self) -> Callable[[str], str | None]:
        return self.map.get

    def lookup_batch(self, keys: list[str]) -> list[str | None]:
        found: list[str | None] = []
        for part in slices(keys):
            found += self.map.get(part)
        return found


PEER = Rocks()
