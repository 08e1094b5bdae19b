"""polars: Series in, Series out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import polars as pl

from pheon._errors import SchemaError
from pheon._native import Batch, Column

if TYPE_CHECKING:
    from pheon._map import MapFace
    from pheon._native import TableHandle
    from pheon._table import Table


def get_many(mapping: MapFace, keys: Any, default: Any, threads: int | None) -> Any:
    """Series to Series of the same name; a DataFrame for several value columns."""
    found = mapping.get_arrow(keys, default, threads)
    return read_columns(found, found.column_names) if isinstance(found, Batch) else _series(found, keys.name)


def contains_many(mapping: MapFace, keys: Any, threads: int | None) -> Any:
    """Series to Series of bool."""
    return _series(mapping.contains_arrow(keys, threads), keys.name)


def table_to_polars(table: Table) -> pl.DataFrame:
    """All rows as a DataFrame.

    Raises:
        SchemaError: polars has no such type; the message names the column.
    """
    kinds = table.schema
    for name, kind in kinds.items():
        reason = _reason(kind)
        if reason == _UNKNOWN:
            raise SchemaError(f"column {name!r} is {kind}, which polars has no type for; leave it out, or use pyarrow")
    handle = table._handle  # noqa: SLF001
    return with_sorted_key(read_columns(handle, table.column_names), table.key)


def read_columns(rows: TableHandle | Batch, names: list[str]) -> pl.DataFrame:
    """Columns of some rows; those of fixed width share the memory."""
    known = rows.column_names
    all_types = [rows.column(name).type_name for name in known] if isinstance(rows, Batch) else rows.column_types
    types = dict(zip(known, all_types, strict=True))
    if names and not any(_is_misread(types[name]) for name in names):
        return pl.DataFrame(rows if names == known else rows.select(names))
    return pl.DataFrame([_series(rows.column(name), name) for name in names])


def with_sorted_key(frame: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Tell polars that the first key column ascends, where its order is that of the file."""
    if not key or key[0] not in frame.columns:
        return frame
    at = frame.get_column_index(key[0])
    column = frame.to_series(at)
    if column.dtype.is_integer() or column.dtype.is_temporal() or isinstance(column.dtype, (pl.String, pl.Binary)):
        frame = frame.clone().replace_column(at, column.set_sorted())
    return frame


def copies(table: Table) -> dict[str, str | None]:
    """For each column why `Table.to_polars` copies it; None: it does not."""
    return {name: _reason(kind) for name, kind in table.schema.items()}


_UNKNOWN = "polars has no such type"
_WIDENED = "polars has decimals of 128 bits only"

# The first that is found in a type's text, children included, is the reason.
_COPIES = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"\bDecimal256\b|\bInterval\b", _UNKNOWN),
        (r"\bDecimal(32|64)\b", _WIDENED),
        (r"\bDictionary\b", "polars numbers categories its own way, and has other dictionaries as plain values"),
        (r"\bMap\b|\bList\b", "polars has 64-bit offsets in lists, these have 32-bit ones"),
        (r"\b(Large)?(Utf8|Binary)\b", "polars refers to strings by views, of 16 bytes a value, that must be made"),
        (r"\bFixedSizeBinary\b", "polars has no binaries of fixed size, and refers to others by views"),
        (r"\b(Timestamp|Duration)\(s\b", "polars has no unit of seconds"),
        (r"\bTime32\b|\bTime64\((?!ns)", "polars counts times of day in nanoseconds"),
    )
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def _reason(kind: str) -> str | None:
    # Names of fields and time zones are no types.
    bare = _QUOTED.sub("", kind)
    return next((reason for pattern, reason in _COPIES if pattern.search(bare)), None)


def _series(column: Column, name: str) -> pl.Series:
    if _is_misread(column.type_name):
        return pl.Series(name, column.to_pylist(), dtype=pl.Series(column[:0]).dtype)
    return pl.Series(column).alias(name)


def _is_misread(arrow_type: str) -> bool:
    """Whether polars (2.1) takes the 4 or 8 bytes of a column's decimals for the 16 that its own have."""
    return "Decimal32" in arrow_type or "Decimal64" in arrow_type
