"""Pheon and its peers: how each is filled, opened and asked here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benches.cold import data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

MAP_BYTES_MAX = 1 << 38
PART = 1000  # keys in one call where a library takes lists


class Engine(ABC):
    """A map of texts to texts on a disk."""

    title: str
    distribution: str
    how: str

    def version(self) -> str:
        """Of the library."""
        return version(self.distribution)

    @abstractmethod
    def build(self, place: Path, rows: int) -> None:
        """Writes all rows."""

    @abstractmethod
    def open(self, place: Path) -> None:
        """Opens what was built."""

    @abstractmethod
    def get(self, key: str) -> str | None:
        """One value."""

    @abstractmethod
    def batch(self, keys: pa.Array) -> Any:
        """Many values."""

    def answers(self, found: Any) -> list[str | None]:
        """What `batch` gave, as a list."""
        return found

    @abstractmethod
    def scan(self, start: str, stop: str, count: int) -> list[tuple[str, str]]:
        """The `count` rows from one key up to another."""

    def rehearse(self, place: Path) -> None:
        """Loads what the library loads at first use, without reading the rows."""
        __import__(self.distribution)

    def facts(self) -> dict[str, Any]:
        """What it says about how it reads."""
        return {}


class Pheon(Engine):
    title, distribution = "Pheon", "pheon"
    how = "m.get(key); m.get_many(Arrow array); m.range(start, stop), its columns as lists"

    def __init__(self, access: str = "auto") -> None:
        self.access: Any = access

    def version(self) -> str:
        import pheon

        return pheon.__version__

    def build(self, place: Path, rows: int) -> None:
        import numpy as np
        import pyarrow as pa

        import pheon

        numbers = np.arange(rows, dtype=np.uint64)
        reader = pa.RecordBatchReader.from_batches(data.schema(), data.batches(numbers))
        store = pheon.open(place / "store")
        store.put_map("m", reader, key=data.KEY, value=data.VALUE)
        store.put_map("tiny", {"a": "b"}, key=data.KEY, value=data.VALUE)

    def rehearse(self, place: Path) -> None:
        import pyarrow as pa

        import pheon

        self.map = pheon.open(place / "store", read_only=True).map("tiny")
        self.batch(pa.array(["a"]))
        self.scan("a", "c", 1)

    def open(self, place: Path) -> None:
        import pheon

        self.map = pheon.open(place / "store", read_only=True, access=self.access).map("m")

    def get(self, key: str) -> str | None:
        return self.map.get(key)

    def batch(self, keys: pa.Array) -> Any:
        return self.map.get_many(keys)

    def answers(self, found: Any) -> list[str | None]:
        import pyarrow as pa

        return pa.array(found).to_pylist()

    def scan(self, start: str, stop: str, count: int) -> list[tuple[str, str]]:
        rows = self.map.range(start, stop).to_pyarrow()
        return list(zip(rows[data.KEY].to_pylist(), rows[data.VALUE].to_pylist(), strict=True))

    def facts(self) -> dict[str, Any]:
        return {"access": self.map.info().access}


class Lmdb(Engine):
    title, distribution = "LMDB (py-lmdb)", "lmdb"
    how = "txn.get; cursor.getmulti of 1,000; cursor.set_range and iternext; opened with MDB_NORDAHEAD"

    def build(self, place: Path, rows: int) -> None:
        import lmdb

        def pairs() -> Iterator[tuple[bytes, bytes]]:
            for batch in data.batches(data.in_key_order(rows)):
                texts = (column.to_pylist() for column in batch.columns)
                yield from ((key.encode(), value.encode()) for key, value in zip(*texts, strict=True))

        with lmdb.open(str(place / "lmdb"), map_size=MAP_BYTES_MAX) as env, env.begin(write=True) as txn:
            txn.cursor().putmulti(pairs(), append=True)

    def open(self, place: Path) -> None:
        import lmdb

        self.env = lmdb.open(str(place / "lmdb"), map_size=MAP_BYTES_MAX, readonly=True, readahead=False)
        self.txn = self.env.begin()

    def get(self, key: str) -> str | None:
        value = self.txn.get(key.encode())
        return None if value is None else value.decode()

    def batch(self, keys: pa.Array) -> Any:
        cursor = self.txn.cursor()
        found: list[str | None] = []
        for start in range(0, len(keys), PART):
            asked = [key.encode() for key in keys.slice(start, PART).to_pylist()]
            pairs = dict(cursor.getmulti(asked))
            found += [None if (value := pairs.get(key)) is None else value.decode() for key in asked]
        return found

    def scan(self, start: str, stop: str, count: int) -> list[tuple[str, str]]:
        del stop
        cursor = self.txn.cursor()
        cursor.set_range(start.encode())
        rows = zip(range(count), cursor.iternext(), strict=False)
        return [(key.decode(), value.decode()) for _, (key, value) in rows]


class Rocks(Engine):
    title, distribution = "RocksDB (rocksdict), default compression", "rocksdict"
    how = "db.get; db.get(list of 1,000); db.items(from_key=...); compacted once after a bulk load; default cache"
    compressed = True

    def _options(self) -> Any:
        from rocksdict import DBCompressionType, Options

        options = Options()
        if not self.compressed:
            options.set_compression_type(DBCompressionType.none())
        return options

    def build(self, place: Path, rows: int) -> None:
        import numpy as np
        from rocksdict import Rdict, WriteBatch

        options = self._options()
        options.create_if_missing(True)
        options.prepare_for_bulk_load()
        db = Rdict(str(place / "rocks"), options)
        for batch in data.batches(np.arange(rows, dtype=np.uint64)):
            writes = WriteBatch()
            for key, value in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                writes.put(key, value)
            db.write(writes)
        db.flush()
        db.compact_range(None, None)
        db.close()

    def open(self, place: Path) -> None:
        from rocksdict import AccessType, Rdict

        self.db: Any = Rdict(str(place / "rocks"), self._options(), access_type=AccessType.read_only())

    def get(self, key: str) -> str | None:
        return self.db.get(key)

    def batch(self, keys: pa.Array) -> Any:
        found: list[str | None] = []
        for start in range(0, len(keys), PART):
            found += self.db.get(keys.slice(start, PART).to_pylist())
        return found

    def scan(self, start: str, stop: str, count: int) -> list[tuple[str, str]]:
        del stop
        return [row for _, row in zip(range(count), self.db.items(from_key=start), strict=False)]


class RocksPlain(Rocks):
    title = "RocksDB (rocksdict), uncompressed"
    compressed = False


ENGINES: dict[str, type[Engine]] = {"pheon": Pheon, "lmdb": Lmdb, "rocksdb": Rocks, "rocksdb-plain": RocksPlain}


def find(name: str) -> Engine:
    """The engine of that name. Its library is loaded only when it is used."""
    return ENGINES[name]()
