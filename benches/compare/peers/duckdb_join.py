"""DuckDB: a left join of the questions with a table in a database file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare.data import KEY, VALUE
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

JOIN = (
    f"SELECT d.{VALUE} FROM (SELECT row_number() OVER () AS number, {KEY} FROM asked) AS a "
    f"LEFT JOIN files AS d ON a.{KEY} = d.{KEY} ORDER BY a.number"
)


class DuckDbJoin(Peer):
    title = "DuckDB left join"
    distribution = "duckdb"
    single_count = 20
    single = "SELECT ... WHERE key = ?: it scans"
    batch = "one left join, Arrow in and out, in the order of the questions"
    modules = ("duckdb",)
    reader_slice = 100_000
    notes = "CREATE TABLE AS from Arrow, no index; threads=1 for lookups; build includes fsync"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        import duckdb

        with duckdb.connect(str(place / "map.duckdb")) as db:
            db.register("arrow_rows", table)
            db.execute("CREATE TABLE files AS SELECT * FROM arrow_rows")
        return {}

    def open(self, place: Path) -> None:
        import duckdb

        self.db = duckdb.connect(str(place / "map.duckdb"), read_only=True, config={"threads": 1})

    def getter(self) -> Callable[[str], str | None]:
        def get(key: str) -> str | None:
            rows = self.db.execute(f"SELECT {VALUE} FROM files WHERE {KEY} = ?", [key]).fetchall()
            return rows[0][0] if rows else None

        return get

    def prepare_batch(self, keys: pa.Array) -> pa.Table:
        import pyarrow as pa

        return pa.table({KEY: keys})

    def lookup_batch(self, keys: pa.Table) -> Any:
        self.db.register("asked", keys)
        return self.db.sql(JOIN).to_arrow_table()

    def answers(self, found: Any) -> pa.Array:
        return found.column(0)

    def lookup_all(self, keys: list[str]) -> list[str | None] | None:
        import pyarrow as pa

        return self.lookup_batch(pa.table({KEY: keys})).column(0).to_pylist()


PEER = DuckDbJoin()
