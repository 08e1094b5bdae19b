"""pyarrow: arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pheon._native import Column

if TYPE_CHECKING:
    from pheon._map import MapFace
    from pheon._table import Table


def get_many(mapping: MapFace, keys: Any, default: Any, threads: int | None) -> Any:
    """Array to Array, ChunkedArray to ChunkedArray; a Table for several value columns."""
    found = mapping.get_arrow(keys, default, threads)
    return _like(keys, found) if isinstance(found, Column) else pa.table(found)


def contains_many(mapping: MapFace, keys: Any, threads: int | None) -> Any:
    """Array to Array of bool, ChunkedArray alike."""
    return _like(keys, mapping.contains_arrow(keys, threads))


def copies(table: Table) -> dict[str, str | None]:
    """For each column why `Table.to_pyarrow` copies it: never, the file is Arrow's own layout."""
    return dict.fromkeys(table.column_names)


def _like(keys: Any, found: Column) -> Any:
    array = pa.array(found)
    return pa.chunked_array([array]) if isinstance(keys, pa.ChunkedArray) else array
