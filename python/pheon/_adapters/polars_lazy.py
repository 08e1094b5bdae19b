"""`Table.lazy`: a polars LazyFrame that reads what a query needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from pheon._adapters.polars import read_columns, with_sorted_key
from pheon._adapters.polars_keys import KeyDomain, domain_of
from pheon._adapters.polars_plan import Decision, Run, decide
from pheon._native import TableHandle
from pheon._table import Table

# Rows that are read and filtered at once: few at first, for queries that stop early, then more.
_ROWS_AT_FIRST = 1 << 17
_ROWS_AT_MOST = 1 << 22
# A run of so many rows is read by itself, without a copy; shorter ones are put together.
_ROWS_ALONE = 1 << 14


def lazy_frame(table: Table) -> pl.LazyFrame:
    """A LazyFrame over the rows that `table` has now."""
    source = TableSource(table[:])
    rows, key = f"{len(table):,} rows", f", key {', '.join(table.key)}" if table.key else ""
    options: dict[str, Any] = {
        "is_pure": True,
        "explain_name": "pheon",
        "explain_detail": f"{table.name} version {table.version}: {rows}{key}",
    }
    # Older versions of polars lack some of these.
    known = inspect.signature(register_io_source).parameters
    options = {name: value for name, value in options.items() if name in known}
    return register_io_source(source, schema=source.schema, **options)


class TableSource:
    """Reads a table for polars: the columns, rows and keys that a query asks for."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.schema = pl.DataFrame(table[:0]).schema
        self._domains = _domains(table, self.schema)

    def decide(self, predicate: pl.Expr | None, n_rows: int | None = None) -> Decision:
        """Which of the rows, or of the first `n_rows`, are read for `predicate`."""
        return decide(self._first(n_rows), predicate, self._domains)

    def __call__(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        """The rows as frames, ascending by key. polars limits to `n_rows` first and filters then."""
        names = list(self.schema) if with_columns is None else with_columns
        rows = self._first(n_rows)
        empty = True
        for frame in self._pieces(rows, names, predicate, batch_size):
            # Cutting a frame is free; a batch of its own costs a call into the table a column.
            for batch in frame.iter_slices(batch_size) if batch_size else (frame,):
                empty = False
                yield batch
        if empty:
            # A predicate that does not fit the types must fail also where no row is left to try it on.
            nothing = rows.slice(0, 0)
            yield (
                _read(nothing, names)
                if predicate is None
                else _read(nothing, rows.column_names).filter(predicate).select(names)
            )

    def _pieces(
        self, rows: TableHandle, names: list[str], predicate: pl.Expr | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        """What is kept of each piece that is read; no empty ones."""
        step = min(max(batch_size or 0, _ROWS_AT_FIRST), _ROWS_AT_MOST)
        for parts in _batches(decide(rows, predicate, self._domains).runs, step):
            if len(parts) == 1:
                [(start, stop)] = parts
                piece = rows.slice(start, stop - start)
                kept = _read(piece, names) if predicate is None else _filtered(piece, names, predicate)
            elif predicate is None:
                kept = _gathered(rows, parts, names)
            else:
                asked = [name for name in rows.column_names if name in {*names, *predicate.meta.root_names()}]
                kept = _selected(_gathered(rows, parts, asked).filter(predicate), names)
            if kept.height:
                yield kept

    def _first(self, n_rows: int | None) -> TableHandle:
        handle = self._table._handle  # noqa: SLF001
        return handle if n_rows is None else handle.slice(0, n_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return TableSource, (self._table,)


def _domains(table: Table, schema: pl.Schema) -> dict[str, KeyDomain]:
    """The key columns that the index can be asked about: up to the first that it cannot."""
    found: dict[str, KeyDomain] = {}
    for name in table.key:
        # A column that was not selected cannot be asked about.
        domain = domain_of(schema[name], table.schema[name]) if name in schema else None
        if domain is None:
            break
        found[name] = domain
    return found


def _batches(runs: Iterable[Run], step: int) -> Iterator[list[Run]]:
    """Runs cut and gathered into pieces to read at once: of about `step` rows, growing; a long run is a piece alone."""
    short: list[Run] = []
    gathered = 0
    for start, stop in runs:
        at = start
        while at < stop:
            end = min(at + step, stop)
            if end - at >= _ROWS_ALONE:
                if short:
                    yield short
                    short, gathered = [], 0
                yield [(at, end)]
                step = min(2 * step, _ROWS_AT_MOST)
            else:
                short.append((at, end))
                gathered += end - at
                if gathered >= step:
                    yield short
                    short, gathered = [], 0
            at = end
    if short:
        yield short


def _selected(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Some columns of a frame; with none it keeps its height, unlike in polars."""
    return frame.select(names) if names else pl.DataFrame(height=frame.height)


def _gathered(rows: TableHandle, parts: list[Run], names: list[str]) -> pl.DataFrame:
    """Columns of several runs of rows, ascending, in one frame: a copy."""
    if not names:
        return pl.DataFrame(height=sum(stop - start for start, stop in parts))
    return with_sorted_key(read_columns(rows.select(names).gather(parts), names), rows.key)


def _read(rows: TableHandle, names: list[str]) -> pl.DataFrame:
    """Columns of some rows, known to ascend by key. No columns: as many rows of nothing."""
    if not names:
        return pl.DataFrame(height=rows.num_rows)
    return with_sorted_key(read_columns(rows, names), rows.key)


def _filtered(rows: TableHandle, names: list[str], predicate: pl.Expr) -> pl.DataFrame:
    """The rows that `predicate` keeps. What it does not look at is read only around those."""
    asked = [name for name in rows.column_names if name in set(predicate.meta.root_names())]
    if not asked:
        return _read(rows, names).filter(predicate)
    seen = _read(rows, asked)
    mask = seen.select(predicate).to_series()
    if mask.len() != seen.height:
        return _read(rows, names).filter(predicate)
    kept = mask.arg_true()
    if kept.is_empty():
        return _read(rows.slice(0, 0), names)
    first, last = int(kept[0]), int(kept[-1])
    count = last - first + 1
    around = _read(rows.slice(first, count), names)
    return around if kept.len() == count else around.filter(mask.slice(first, count))
