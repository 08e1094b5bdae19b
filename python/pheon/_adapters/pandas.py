"""pandas: Series in, Series with the same index out. Frames are in `pandas_source` and `pandas_frame`."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from pheon._native import Batch, Column

if TYPE_CHECKING:
    from pheon._map import MapFace
    from pheon._native import TableHandle
    from pheon._table import Table


def get_many(mapping: MapFace, keys: Any, default: Any, threads: int | None) -> Any:
    """Series to Series with its index, Index to Index; a DataFrame for several value columns."""
    found = mapping.get_arrow(key_data(mapping, keys), default, threads)
    index = None if isinstance(keys, pd.Index) else keys.index
    if isinstance(found, Batch):
        columns = {name: _series(found.column(name), index) for name in found.column_names}
        return pd.DataFrame(columns, index=index)
    return _like(keys, _series(found, index))


def contains_many(mapping: MapFace, keys: Any, threads: int | None) -> Any:
    """Series to Series of bool with its index, Index to Index."""
    found = mapping.contains_arrow(key_data(mapping, keys), threads)
    return _like(keys, _series(found, None if isinstance(keys, pd.Index) else keys.index))


def copies(table: Table) -> dict[str, str | None]:
    """For each column why `Table.to_pandas` copies it; None: it does not."""
    from pheon._adapters.pandas_frame import copies as copies_of_frame

    return copies_of_frame(table.to_pyarrow())


def key_data(mapping: MapFace | TableHandle, keys: Any) -> Any:
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


def _tuples(mapping: MapFace | TableHandle, keys: Any) -> Any:
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


_ZONE = re.compile(r'Timestamp\(\w+, "(.+)"\)')


def time_span(text: str, key_type: str) -> tuple[Any, Any]:
    """The first and the last instant of what text such as "2026-01" means, for keys of this printed Arrow type.

    Text with an offset from UTC is that instant in the keys' time zone; text without is a time there.

    Raises:
        ValueError: it is no time, ambiguous or missing in the time zone, or has an offset where keys have no zone.
    """
    try:
        period, stamp = pd.Period(text), pd.Timestamp(text)
    except ValueError:
        period = stamp = pd.NaT
    if not isinstance(period, pd.Period) or not isinstance(stamp, pd.Timestamp):
        raise ValueError(f"{text!r} is no time or date; expected text such as 2026-01-05 12:30, or 2026-01")
    first, last = period.start_time, period.end_time
    zone = _ZONE.fullmatch(key_type)
    if stamp.tzinfo is not None:
        if zone is None:
            raise ValueError(f"{text!r} has an offset from UTC, and the keys have no time zone")
        # What is left of the period is how long it is.
        begin = stamp.tz_convert(zone[1])
        return begin, begin + (last - first)
    if key_type.startswith("Date"):
        return first.date(), last.date()
    return (first, last) if zone is None else (first.tz_localize(zone[1]), last.tz_localize(zone[1]))
