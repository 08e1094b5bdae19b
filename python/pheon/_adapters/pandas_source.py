"""pandas frames as Arrow tables that `pandas_frame` turns into the same frames again.

The values go to Arrow without a copy where a column is contiguous and of the same layout. What Arrow has no place for
(labels, indexes, dtypes, attributes) goes into the schema metadata: under `pheon.pandas` all of it, under `pandas` what
pyarrow's own readers understand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from pheon._adapters.pandas_dtypes import Description, describe, describe_categories, texts_of, unused
from pheon._adapters.pandas_labels import METADATA_KEY, METADATA_VERSION, to_json
from pheon._adapters.pandas_objects import to_arrow as objects_to_arrow
from pheon._errors import SchemaError

# Up to so many categories are kept in the metadata too: a table without rows has no dictionary to take them from.
_CATEGORIES_KEPT_MAX = 1_000

_INDEX_NAME = "index"
_VALUE_NAME = "value"

_KEY_TYPES = (
    pa.types.is_integer,
    pa.types.is_boolean,
    pa.types.is_temporal,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
# Types of categories that Arrow dictionaries of any reader hold; others are stored as text.
_CATEGORY_TYPES = (*_KEY_TYPES, pa.types.is_floating)


@dataclass(slots=True)
class _Part:
    """A column or an index level, and what it becomes."""

    label: Any
    field: str
    values: Any
    where: str
    array: Any = None
    dtype: Description | None = None


def frame_source(data: Any, key: list[Any] | None = None) -> tuple[pa.Table, list[str]]:
    """A frame as an Arrow table, and the names of its key columns.

    `key`: labels of columns or names of index levels; None: the index, if it has a name or is no plain count, and can
    be a key (its types are allowed and nothing is missing).

    Raises:
        SchemaError: a column holds what Arrow cannot hold; the message names it.
    """
    frame = _as_frame(data)
    levels, columns = _parts(frame, _INDEX_NAME if isinstance(data, pd.Series) else None)
    wanted = None if key is None else [_field_of(label, columns, levels) for label in key]
    for part in levels:
        as_key = wanted is None or part.field in wanted
        part.array, part.dtype = _encode(part.values, part.where, plain=as_key)
    for part in columns:
        part.array, part.dtype = _encode(part.values, part.where, plain=wanted is not None and part.field in wanted)
    parts = columns + levels
    metadata = {METADATA_KEY: _own_metadata(frame, columns, levels), b"pandas": _stock_metadata(frame, columns, levels)}
    schema = pa.schema([pa.field(part.field, part.array.type) for part in parts], metadata=metadata)
    table = pa.Table.from_arrays([part.array for part in parts], schema=schema)
    return table, wanted if wanted is not None else _key_of(levels)


def _as_frame(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Index):
        return data.to_frame(index=False)
    frame = data.to_frame(_VALUE_NAME if data.name is None else data.name)
    frame.attrs = data.attrs
    return frame


def _parts(frame: pd.DataFrame, index_name: str | None) -> tuple[list[_Part], list[_Part]]:
    """Columns and index levels. With `index_name`, that of an index without one, a plain count is kept as well."""
    labels = list(frame.columns)
    taken: set[str] = set()
    columns = [
        _Part(label, unused(str(label), taken), frame.iloc[:, at], f"column {label!r}")
        for at, label in enumerate(labels)
    ]
    index = frame.index
    if _is_plain_count(index) and columns and index_name is None:
        return [], columns
    levels: list[_Part] = []
    # Without names, because a name that is a number would be taken for a level's.
    nameless = index.set_names([None] * index.nlevels)
    for at, name in enumerate(index.names):
        shown = index_name if name is None and index.nlevels == 1 else name
        known = isinstance(shown, str) and shown not in taken
        field = unused(str(shown) if known else f"__index_level_{at}__", taken)
        where = f"index level {at if name is None else name!r}"
        levels.append(_Part(name, field, nameless.get_level_values(at), where))
    return levels, columns


def _is_plain_count(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex) and index.name is None and (index.start, index.step) == (0, 1)


def _field_of(label: Any, columns: list[_Part], levels: list[_Part]) -> str:
    """The file's name of the one column or index level with this label; else the label itself."""
    found = [part.field for part in (*columns, *levels) if type(part.label) is type(label) and part.label == label]
    if len(found) > 1:
        raise SchemaError(f"the key {label!r} is the label of {len(found)} columns or index levels; rename all but one")
    return found[0] if found else label


def _key_of(levels: list[_Part]) -> list[str]:
    possible = all(part.array.null_count == 0 and _is_any(part.array.type, _KEY_TYPES) for part in levels)
    if not possible:
        return []
    return [part.field for part in levels]


def _is_any(kind: pa.DataType, tests: Any) -> bool:
    return any(test(kind) for test in tests)


# Values ---------------------------------------------------------------------------------------------------------------


def _encode(values: Any, where: str, *, plain: bool) -> tuple[Any, Description]:
    """A column as Arrow, and the description of its dtype; `plain`: not as a dictionary."""
    try:
        return _to_arrow(values, where, plain=plain)
    except SchemaError:
        raise
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise SchemaError(f"{where} of dtype {values.dtype} cannot be stored: {error}") from error


def _to_arrow(  # noqa: PLR0911 - one a kind of dtype
    values: Any, where: str, *, plain: bool = False
) -> tuple[Any, Description]:
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind == "O":
            array, content = objects_to_arrow(values.to_numpy())
            return array, {"object": content}
        return _numbers(values.to_numpy()), describe(dtype, where)
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories(values.array, dtype, where, plain=plain)
    if isinstance(dtype, pd.DatetimeTZDtype):
        instants = _numbers(values.to_numpy(dtype=f"M8[{dtype.unit}]"))
        return instants.cast(pa.timestamp(dtype.unit, dtype.tz)), describe(dtype, where)
    if isinstance(dtype, pd.SparseDtype):
        return _to_arrow(pd.Series(values.array.to_dense()), where)[0], describe(dtype, where)
    if isinstance(dtype, pd.PeriodDtype):
        return pa.array(values.array).storage, describe(dtype, where)
    if isinstance(dtype, pd.IntervalDtype):
        bounds = [_to_arrow(bound, where)[0] for bound in (values.array.left, values.array.right)]
        missing = values.isna()
        mask = pa.array(np.asarray(missing)) if missing.any() else None
        return pa.StructArray.from_arrays(bounds, ["left", "right"], mask=mask), describe(dtype, where)
    if hasattr(values.array, "_mask"):
        return _masked(values.array), describe(dtype, where)
    array = pa.array(values.array)
    if array.type == pa.string() or array.type == pa.string_view():
        array = array.cast(pa.large_string())
    return array, describe(dtype, where)


def _numbers(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.dtype.kind == "c" or values.dtype.itemsize > 8:
        raise TypeError(
            "Arrow has no such numbers; store real and imaginary parts, or float64, in columns of their own"
        )
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    # Not from_pandas: NaN is a value here, and a validity bitmap would cost readers the zero copy.
    return pa.array(values, from_pandas=False)


def _masked(values: Any) -> pa.Array:
    # Not by way of pandas, which has NaN for missing.
    data, mask = values._data, values._mask  # noqa: SLF001 - no public way shares them
    return pa.array(data, mask=mask if mask.any() else None, from_pandas=False)


def _categories(values: Any, dtype: Any, where: str, *, plain: bool) -> tuple[Any, Description]:
    codes = values.codes
    missing = codes < 0
    indices = pa.array(codes, mask=missing if missing.any() else None)
    stored: Any = None
    try:
        # Numbers for periods would mean nothing to other readers.
        if not isinstance(dtype.categories.dtype, pd.PeriodDtype):
            stored = _to_arrow(dtype.categories, where)[0]
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError, SchemaError):
        pass
    if isinstance(stored, pa.ChunkedArray):
        stored = stored.combine_chunks()
    texts = stored is None or stored.null_count > 0 or not _is_any(stored.type, _CATEGORY_TYPES)
    if texts:
        stored = pa.array(texts_of(dtype.categories), pa.large_string())
    few = len(dtype.categories) <= _CATEGORIES_KEPT_MAX
    description = describe_categories(dtype, where) if plain or texts or few else describe(dtype, where)
    description["category"]["texts"] = texts
    stored = cast("pa.Array", stored)
    array = stored.take(indices) if plain else pa.DictionaryArray.from_arrays(indices, stored, ordered=dtype.ordered)
    return array, description


# Metadata -------------------------------------------------------------------------------------------------------------


def _own_metadata(frame: pd.DataFrame, columns: list[_Part], levels: list[_Part]) -> bytes:
    content = {
        "version": METADATA_VERSION,
        "columns": [
            {"field": part.field, "label": to_json(part.label, f"the label of {part.where}"), "dtype": part.dtype}
            for part in columns
        ],
        "index": [
            {"field": part.field, "label": to_json(part.label, f"the name of {part.where}"), "dtype": part.dtype}
            for part in levels
        ],
        "labels": _describe_labels(frame.columns),
        "attrs": to_json(dict(frame.attrs), "the frame's attrs"),
    }
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _describe_labels(labels: pd.Index) -> dict[str, Any]:
    """What the index of the column labels is, beside the labels."""
    where = "the frame's column index"
    names = [to_json(name, f"the name of {where}") for name in labels.names]
    if isinstance(labels, pd.RangeIndex):
        return {"names": names, "range": [labels.start, labels.stop, labels.step]}
    if isinstance(labels, pd.MultiIndex):
        return {"names": names, "levels": [_describe_level(level.dtype, where) for level in labels.levels]}
    return {"names": names, "dtype": _describe_level(labels.dtype, where)}


def _describe_level(dtype: Any, where: str) -> Description:
    return describe_categories(dtype, where) if isinstance(dtype, pd.CategoricalDtype) else describe(dtype, where)


def _stock_metadata(frame: pd.DataFrame, columns: list[_Part], levels: list[_Part]) -> bytes:
    """The metadata that pyarrow writes, as far as its readers are able to apply it."""
    stock = pd.DataFrame({part.field: pd.Series(dtype=object) for part in columns}).columns
    plain = [str(label) for label in frame.columns] == list(stock)
    if plain and isinstance(frame.columns, pd.MultiIndex) and all(isinstance(s, str) for t in frame.columns for s in t):
        kinds = [(name, "unicode", "object") for name in frame.columns.names]
    elif plain and frame.columns.dtype == np.int64:
        kinds = [(frame.columns.name, "int64", "int64")]
    else:
        kinds = [(frame.columns.name, "unicode", "object")]
    nested = any(pa.types.is_nested(part.array.type) for part in levels)
    described = {
        # pyarrow makes dicts of structs, of which pandas can make no index.
        "index_columns": [] if nested else [part.field for part in levels],
        "column_indexes": [
            {
                "name": name if isinstance(name, str) else None,
                "field_name": name if isinstance(name, str) else None,
                "pandas_type": logical,
                "numpy_type": physical,
                "metadata": {"encoding": "UTF-8"} if logical == "unicode" else None,
            }
            for name, logical, physical in kinds
        ],
        "columns": [_stock_column(part, part.field) for part in columns]
        + [_stock_column(part, part.label if isinstance(part.label, str) else None) for part in levels],
        "attributes": _plain_attributes(frame.attrs),
        "creator": {"library": "pheon", "version": str(METADATA_VERSION)},
        "pandas_version": pd.__version__,
    }
    return json.dumps(described).encode()


def _stock_column(part: _Part, name: str | None) -> dict[str, Any]:
    dtype = part.values.dtype
    metadata: dict[str, Any] | None = None
    physical = _reparsed(dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        metadata = {"num_categories": len(part.values.array.categories), "ordered": bool(dtype.ordered)}
        physical = str(part.values.array.codes.dtype)
    elif isinstance(dtype, pd.DatetimeTZDtype):
        metadata = {"timezone": part.array.type.tz}
        physical = f"datetime64[{dtype.unit}]"
    elif isinstance(dtype, pd.SparseDtype):
        physical = str(dtype.subtype)
    elif isinstance(dtype, pd.IntervalDtype) and not isinstance(dtype.subtype, np.dtype):
        # pandas does not make these of Arrow, if there are no rows.
        physical = "object"
    return {
        "name": name,
        "field_name": part.field,
        "pandas_type": _logical(part.array.type),
        "numpy_type": physical,
        "metadata": metadata,
    }


def _reparsed(dtype: Any) -> str:
    """The dtype's name, if pandas makes the same dtype of it."""
    name = str(dtype)
    try:
        return name if pd.api.types.pandas_dtype(name) == dtype else "object"
    except (TypeError, ValueError, NotImplementedError):
        return "object"


def _logical(kind: pa.DataType) -> str:
    for name, test in (
        ("bool", pa.types.is_boolean),
        ("unicode", partial(_is_any, tests=_KEY_TYPES[4:7])),
        ("bytes", partial(_is_any, tests=_KEY_TYPES[7:])),
        ("date", pa.types.is_date),
        ("time", pa.types.is_time),
        ("decimal", pa.types.is_decimal),
        ("categorical", pa.types.is_dictionary),
        ("empty", pa.types.is_null),
    ):
        if test(kind):
            return name
    if pa.types.is_timestamp(kind):
        return "datetime" if kind.tz is None else "datetimetz"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return str(np.dtype(kind.to_pandas_dtype()))
    return "timedelta" if pa.types.is_duration(kind) else "object"


def _plain_attributes(attributes: dict[Any, Any]) -> dict[Any, Any]:
    try:
        return json.loads(json.dumps(attributes, allow_nan=False))
    except (TypeError, ValueError):
        return {}
