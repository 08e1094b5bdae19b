"""polars: Series in, Series out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

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
    """All rows as a DataFrame."""
    return _frame(table)


def _series(column: Column, name: str) -> pl.Series:
    return pl.Series(column).alias(name)


def _frame(data: Any) -> pl.DataFrame:
    return pl.DataFrame(data)
