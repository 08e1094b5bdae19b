"""pandas: Series in, Series with the same index out; frames and their indexes as sources."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pandas as pd

from pheon._native import Batch, Column

if TYPE_CHECKING:
    from pheon._map import Map
    from pheon._native import TableHandle
    from pheon._table import Table

_INDEX_NAME = "index"
_VALUE_NAME = "value"


def get_many(mapping: Map, keys: Any, default: Any, threads: int | None) -> Any:
    """Series to Series with its index, Index to Index; a DataFrame for several value columns."""
    found = mapping.get_arrow(key_data(mapping, keys), default, threads)
    index = None if isinstance(keys, pd.Index) else keys.index
    if isinstance(found, Batch):
        columns = {name: _series(found.column(name), index) for name in found.column_names}
        return pd.DataFrame(columns, index=index)
    return _like(keys, _series(found, index))


def contains_many(mapping: Map, keys: Any, threads: int | None) -> Any:
    """Series to Series of bool with its index, Index to Index."""
    found = mapping.contains_arrow(key_data(mapping, keys), threads)
    return _like(keys, _series(found, None if isinstance(keys, pd.Index) else keys.index))


def table_to_pandas(table: Table) -> pd.DataFrame:
    """All rows as a DataFrame, sharing memory where pandas can."""
    # Blocks of one column each: a block of several is a copy.
    return table.to_pyarrow().to_pandas(split_blocks=True)


def frame_source(data: Any) -> tuple[Any, list[str]]:
    """A frame as Arrow data, and the names of the columns that its index became (none for a plain count)."""
    import pyarrow as pa

    if isinstance(data, pd.Series):
        data = data.to_frame(_VALUE_NAME if data.name is None else str(data.name))
        if data.index.nlevels == 1 and data.index.name is None:
            # Not data.index.name = ...: the index is still the caller's.
            data = data.rename_axis(_INDEX_NAME)
    elif isinstance(data, pd.Index):
        data = data.to_frame(index=False)
    # None keeps a RangeIndex as its bounds only and any other index as a column; a named one is to be a column always.
    named = any(name is not None for name in data.index.names)
    table = pa.Table.from_pandas(data, preserve_index=True if named else None)
    described = (table.schema.pandas_metadata or {}).get("index_columns", [])
    return table, [name for name in described if isinstance(name, str)]


def key_data(mapping: Map | TableHandle, keys: Any) -> Any:
    """Keys as Arrow data."""
    if isinstance(keys, (pd.DataFrame, pd.MultiIndex)):
        return _tuples(mapping, keys)
    if getattr(keys.dtype, "kind", "") == "f" and (mapping.key_type or "").lower().lstrip("u").startswith("int"):
        # Integers with gaps are floats in pandas. Others are no keys, which the lookup says.
        with contextlib.suppress(TypeError, ValueError):
            keys = keys.astype("Int64")
    try:
        import pyarrow as pa
    except ImportError:
        missing = pd.isna(keys)
        return mapping.key_column([None if gap else key for key, gap in zip(keys.tolist(), missing, strict=True)])
    return pa.array(keys, from_pandas=True)


def _tuples(mapping: Map | TableHandle, keys: Any) -> Any:
    """Keys of several columns."""
    if isinstance(mapping.key, str) or len(mapping.key) == 1:
        raise TypeError(f"expected one Series of keys, got a {type(keys).__name__}: choose a column")
    frame = keys.to_frame(index=False) if isinstance(keys, pd.MultiIndex) else keys
    try:
        import pyarrow as pa
    except ImportError:
        named = frame[mapping.key] if set(mapping.key) <= set(frame.columns) else frame
        return mapping.key_column(list(named.itertuples(index=False, name=None)))
    return pa.Table.from_pandas(frame, preserve_index=False).to_struct_array()


def _series(column: Column, index: Any) -> pd.Series:
    if column.encoded:
        return pd.Series(column.to_pylist(), index=index, dtype="object")
    try:
        import pyarrow as pa
    except ImportError:
        return pd.Series(column.to_pylist(), index=index)
    array = pa.array(column)
    # Integers and booleans with gaps stay what they are, in pandas' nullable types.
    nullable = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    if array.null_count and array.type in nullable:
        return pd.Series(nullable[array.type].__from_arrow__(array), index=index)
    series = array.to_pandas()
    return series if index is None else series.set_axis(index)


def _like(keys: Any, found: pd.Series) -> Any:
    if isinstance(keys, pd.DataFrame):
        return found
    return found.rename(keys.name) if isinstance(keys, pd.Series) else pd.Index(found, name=keys.name)
