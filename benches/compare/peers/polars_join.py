"""polars: a left join of the questions with the mapped table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare.data import KEY, VALUE
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl
    import pyarrow as pa


class PolarsJoin(Peer):
    title = "polars left join"
    distribution = "polars"
    single_count = 20
    single = "a filter: it scans"
    batch = "one left join in and out of polars frames"
    modules = ("polars",)
    reader_slice = 100_000
    notes = "build writes an uncompressed Arrow IPC file; POLARS_MAX_THREADS=1 for lookups"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        import polars as pl

        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame.write_ipc(place / "map.arrow", compression="uncompressed")
        return {}

    def open(self, place: Path) -> None:
        import polars as pl

        self.frame = pl.read_ipc(place / "map.arrow")

    def getter(self) -> Callable[[str], str | None]:
        import polars as pl

        def get(key: str) -> str | None:
            rows = self.frame.filter(pl.col(KEY) == key)
            return rows.item(0, VALUE) if rows.height else None

        return get

    def prepare_batch(self, keys: pa.Array) -> pl.DataFrame:
        import polars as pl

        return pl.DataFrame({KEY: pl.Series(keys.to_pylist(), dtype=pl.String)})

    def lookup_batch(self, keys: Any) -> Any:
        return keys.join(self.frame, on=KEY, how="left", maintain_order="left")

    def answers(self, found: Any) -> pa.Array:
        import pyarrow as pa

        return pa.array(found[VALUE].to_list(), pa.large_string())

    def lookup_all(self, keys: list[str]) -> list[str | None] | None:
        import polars as pl

        return self.lookup_batch(pl.DataFrame({KEY: keys}))[VALUE].to_list()


PEER = PolarsJoin()
