"""pandas dtypes as JSON, as the `pheon.pandas` metadata holds them.

A description is an object of one member:

==================  ====================================================================================
``numpy``           NumPy's type string, such as ``<f8`` or ``<M8[us]``
``object``          ``[kind of the objects or null, what stands for missing values]``, see `pandas_objects`
``string``          ``[storage, "nan" or "NA"]``
``named``           a name that pandas knows: nullable, period and registered extension dtypes
``datetimetz``      ``[unit, zone]``
``category``        ``{"ordered", "dtype", "categories", "texts"}``: the categories' dtype; themselves, if they are
                    few or not in the file; whether the file has texts instead of them
``arrow``           the Arrow type as a base64 Arrow schema of one field
``sparse``          ``[the values' NumPy type string, fill value]``
``interval``        ``[the bounds' description, closed side]``
==================  ====================================================================================
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pheon._adapters.pandas_labels import from_json, to_json, zone_text

Description = dict[str, Any]


def describe(dtype: Any, where: str) -> Description:  # noqa: PLR0911 - one a kind of dtype
    """The description of a dtype; a category without its categories.

    Raises:
        SchemaError: a part of it cannot be kept.
    """
    if isinstance(dtype, np.dtype):
        return {"object": [None, None]} if dtype.kind == "O" else {"numpy": dtype.str}
    if isinstance(dtype, pd.StringDtype):
        return {"string": [_storage(dtype), "NA" if dtype.na_value is pd.NA else "nan"]}
    if isinstance(dtype, pd.DatetimeTZDtype):
        return {"datetimetz": [dtype.unit, zone_text(dtype.tz)]}
    if isinstance(dtype, pd.CategoricalDtype):
        return {"category": {"ordered": bool(dtype.ordered), "dtype": describe(dtype.categories.dtype, where)}}
    if isinstance(dtype, pd.ArrowDtype):
        return {"arrow": type_text(dtype.pyarrow_dtype)}
    if isinstance(dtype, pd.SparseDtype):
        return {"sparse": [dtype.subtype.str, to_json(dtype.fill_value, where)]}
    if isinstance(dtype, pd.IntervalDtype) and dtype.subtype is not None:
        return {"interval": [describe(dtype.subtype, where), dtype.closed]}
    return {"named": str(dtype)}


def described(description: Description) -> Any:  # noqa: PLR0911 - one a kind of dtype
    """The dtype of a description: of a category only if it holds the categories."""
    (kind, content), *_ = description.items()
    match kind:
        case "numpy":
            return np.dtype(content)
        case "object":
            return np.dtype(object)
        case "string":
            return string_dtype(*content)
        case "datetimetz":
            return pd.DatetimeTZDtype(*content)
        case "category":
            values = content.get("categories")
            categories = None if values is None else index_of(from_json(values), content["dtype"])
            return pd.CategoricalDtype(categories, ordered=content["ordered"])
        case "arrow":
            return pd.ArrowDtype(type_of_text(content))
        case "sparse":
            return pd.SparseDtype(np.dtype(content[0]), from_json(content[1]))
        case "interval":
            return pd.IntervalDtype(described(content[0]), content[1])
        case _:
            return pd.api.types.pandas_dtype(content)


def describe_categories(dtype: pd.CategoricalDtype, where: str) -> Description:
    """The description of a category with its categories."""
    description = describe(dtype, where)
    description["category"]["categories"] = to_json(dtype.categories.tolist(), where)
    return description


def texts_of(categories: pd.Index) -> list[str]:
    """Different texts for categories that no Arrow dictionary of any reader can hold."""
    taken: set[str] = set()
    return [unused(str(category), taken) for category in categories]


def unused(name: str, taken: set[str]) -> str:
    """`name`, with a number behind it if it is taken; it is so afterwards."""
    # Arrow's C interface ends names at a NUL.
    name = name.replace("\0", "\\0")
    unique, count = name, 1
    while unique in taken:
        unique = f"{name}.{count}"
        count += 1
    taken.add(unique)
    return unique


def index_of(values: list[Any], description: Description, name: Any = None) -> pd.Index:
    """An index of these labels and of the dtype described."""
    dtype = described(description)
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        # Labels that are instants keep their unit this way.
        return pd.Index(pd.Index(values, dtype=object).astype(dtype), name=name)
    return pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)


def string_dtype(storage: str, missing: str) -> Any:
    """pandas' string dtype with this storage and "nan" or "NA" for missing values."""
    if missing == "NA":
        return pd.StringDtype(storage)
    try:
        return pd.StringDtype(storage, na_value=np.nan)
    except TypeError:  # pandas 2.2
        return pd.StringDtype("pyarrow_numpy")


def _storage(dtype: pd.StringDtype) -> str:
    return "python" if dtype.storage == "python" else "pyarrow"


def type_text(kind: pa.DataType) -> str:
    """An Arrow type as text."""
    return base64.b64encode(pa.schema([pa.field("", kind)]).serialize().to_pybytes()).decode("ascii")


def type_of_text(text: str) -> pa.DataType:
    """The type that `type_text` was given."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type
