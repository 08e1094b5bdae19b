"""NumPy: arrays in, arrays of the same shape out."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from pheon._native import Batch, Column, column_of_buffer

if TYPE_CHECKING:
    from pheon._map import MapFace
    from pheon._native import TableHandle
    from pheon._table import Table


def get_many(mapping: MapFace, keys: np.ndarray[Any, Any], default: Any, threads: int | None) -> Any:
    """An array of values; a dict of arrays for several value columns.

    Floats have NaN and timestamps NaT where nothing was found; other types become arrays of objects with None there.
    """
    found = mapping.get_arrow(key_data(mapping, keys), default, threads)
    if isinstance(found, Batch):
        return {name: column_to_numpy(found.column(name)).reshape(keys.shape) for name in found.column_names}
    return column_to_numpy(found).reshape(keys.shape)


def contains_many(mapping: MapFace, keys: np.ndarray[Any, Any], threads: int | None) -> Any:
    """An array of bool."""
    found = mapping.contains_arrow(key_data(mapping, keys), threads)
    return column_to_numpy(found).reshape(keys.shape)


def column_to_numpy(column: Column) -> np.ndarray[Any, Any]:
    """A column as an array, without a copy where the layouts agree."""
    if column.encoded:
        return _objects(column.to_pylist())
    plain = column.without_nulls()
    if hasattr(plain, "__array_interface__"):
        return np.asarray(plain)
    if plain.type_name == "Boolean" and plain.null_count == 0:
        return np.array(plain.to_pylist(), dtype=np.bool_)
    if plain.type_name == "Date32":
        return np.array(plain.to_pylist(), dtype="datetime64[D]")
    return _objects(plain.to_pylist())


def copies(table: Table) -> dict[str, str | None]:
    """For each column why `Table.to_numpy` copies it; None: it does not."""
    pieces = _pieces(table)
    return {name: _reason(table[name], pieces) for name in table.column_names}


_VIEWED = ("Int", "UInt", "Float", "Timestamp", "Duration", "Date64")
_WITH_NAN = ("Float32", "Float64")
_WITH_NAT = ("Timestamp", "Duration")


def _reason(column: Column, pieces: int) -> str | None:  # noqa: PLR0911 - one a reason
    kind = column.type_name
    if column.encoded:
        return "encoded values are decoded to Python objects"
    if kind == "Boolean" and column.null_count == 0:
        return "booleans are bits in Arrow and bytes in NumPy"
    if kind == "Date32" and column.null_count == 0:
        return "NumPy counts days in 64 bits, these have 32"
    if not kind.startswith(_VIEWED) or kind.startswith("Interval"):
        return f"NumPy has no {kind.split('(')[0]}; they become Python objects"
    if column.null_count:
        stands = "NaN" if kind.startswith(_WITH_NAN) else "NaT" if kind.startswith(_WITH_NAT) else "None, among objects"
        return f"{column.null_count:,} nulls become {stands}"
    if pieces > 1:
        return f"the rows lie in {pieces} pieces, a NumPy array in one; Store.compact joins them"
    return None


def _pieces(table: Table) -> int:
    """In how many pieces the rows lie: as the stream tells, or, where pyarrow is not there to read it, at most."""
    if not table.num_columns or find_spec("pyarrow") is None:
        return table.info().segments
    return table.to_pyarrow().column(0).num_chunks


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    # Not np.array(values): that would make one dimension more of values that are lists.
    return np.fromiter(values, dtype=np.object_, count=len(values))


def key_data(mapping: MapFace | TableHandle, keys: np.ndarray[Any, Any]) -> Column:
    """Keys as Arrow data."""
    flat = np.ascontiguousarray(keys).reshape(-1)
    kind = flat.dtype.kind
    if kind == "u":
        return column_of_buffer(flat.astype("<u8"), "u8")
    if kind == "i":
        return column_of_buffer(flat.astype("<i8"), "i8")
    unit = np.datetime_data(flat.dtype)[0] if kind in "mM" else ""
    if kind == "M" and unit in ("s", "ms", "us", "ns"):
        return column_of_buffer(flat.view("<i8"), f"M8[{unit}]")
    if kind == "m" and unit in ("s", "ms", "us", "ns"):
        return column_of_buffer(flat.view("<i8"), f"m8[{unit}]")
    return mapping.key_column(flat.tolist())
