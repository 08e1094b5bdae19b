"""polars: Series in, Series out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import polars as pl

from pheon._errors import SchemaError
from pheon._native import Batch, Column

if TYPE_CHECKING:
    from pheon._map import Map
    from pheon._table import Table


def get_many(mapping: Map, keys: Any, default: Any, threads: int | None) -> Any:
    """Series to Series of the same name; a DataFrame for several value columns."""
    found = mapping.get_arrow(keys, default, threads)
    return _frame(found) if isinstance(found, Batch) else _series(found, keys.name)


def contains_many(mapping: Map, keys: Any, threads: int | None) -> Any:
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
        if reason == _UNKNOWN or (reason == _WIDENED and not kind.startswith("Decimal")):
            raise SchemaError(f"column {name!r} is {kind}, which polars has no type for; leave it out, or use pyarrow")
    if any(_reason(kind) == _WIDENED for kind in kinds.values()):
        return _frame(_wide_decimals(table))
    return _frame(table)


def _wide_decimals(table: Table) -> Any:
    """The table with its decimals in 128 bits: of others polars reads as many bits all the same, and beyond the end."""
    import pyarrow as pa

    data = table.to_pyarrow()
    for at, field in enumerate(data.schema):
        if str(field.type).startswith("decimal"):
            wide = field.with_type(pa.decimal128(field.type.precision, field.type.scale))
            data = data.set_column(at, wide, data.column(at).cast(wide.type))
    return data


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
    return pl.Series(column).alias(name)


def _frame(data: Any) -> pl.DataFrame:
    return pl.DataFrame(data)
