"""Arrow columns in the forms that `pandas_forms` chooses."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pheon._adapters.pandas_dtypes import Description, texts_of
from pheon._adapters.pandas_forms import Form, default_form, form_of
from pheon._adapters.pandas_objects import to_objects


class View:
    """Memory of an Arrow buffer as NumPy takes it; lives as long as an array of it does."""

    __slots__ = ("__array_interface__", "__weakref__", "_owner")

    def __init__(self, owner: Any, address: int, length: int, typestr: str) -> None:
        self._owner = owner
        self.__array_interface__ = {"version": 3, "shape": (length,), "typestr": typestr, "data": (address, True)}


def convert(values: pa.ChunkedArray, form: Form) -> tuple[Any, View | None]:  # noqa: PLR0911, PLR0912 - one a form
    """The values in that form, and the view of the file that they are, if NumPy views it."""
    match form.kind:
        case "numpy" | "filled":
            return _numbers(values, form.dtype)
        case "boolean":
            return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.bool_), None
        case "datetimetz":
            instants, view = _numbers(values, np.dtype(f"M8[{form.dtype.unit}]"))
            return pd.array(instants.view("i8"), dtype=form.dtype, copy=False), view
        case "period":
            counts, view = _numbers(values, np.dtype("i8"), np.iinfo("i8").min)
            return pd.arrays.PeriodArray(counts, dtype=form.dtype), view
        case "string":
            return form.dtype.__from_arrow__(values), None
        case "named":
            return form.dtype.__from_arrow__(values), None
        case "masked":
            return _masked(values, form.dtype), None
        case "object":
            return to_objects(values, *form.dtype), None
        case "category":
            return _category(values, *form.dtype)
        case "plain category":
            return _plain_category(values, *form.dtype), None
        case "sparse":
            dtype, dense = form.dtype
            return pd.arrays.SparseArray(convert(values, dense)[0], dtype=dtype), None
        case "interval":
            return _interval(values, *form.dtype), None
        case _:
            return _arrow(values, form.dtype), None


def _numbers(
    values: pa.ChunkedArray, dtype: np.dtype[Any], missing: Any = None
) -> tuple[np.ndarray[Any, Any], View | None]:
    native = dtype.newbyteorder("=")
    if values.num_chunks == 1 and values.null_count == 0:
        array, view = _viewed(values.chunk(0), native)
        return (array, view) if dtype.isnative else (array.astype(dtype), None)
    filled = np.empty(len(values), dtype=native)
    at = 0
    for chunk in values.chunks:
        part = filled[at : at + len(chunk)]
        part[:], _ = _viewed(chunk, native)
        if chunk.null_count:
            part[_null_mask(chunk)] = _missing_of(native) if missing is None else missing
        at += len(chunk)
    return filled.astype(dtype, copy=False), None


def _missing_of(dtype: np.dtype[Any]) -> Any:
    return np.array("NaT", dtype) if dtype.kind in "mM" else np.nan


def _null_mask(chunk: pa.Array) -> np.ndarray[Any, Any]:
    return chunk.is_null().to_numpy(zero_copy_only=False)


def _viewed(chunk: pa.Array, dtype: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], View]:
    """The values buffer of a chunk, nulls as they lie there."""
    buffer = chunk.buffers()[1]
    if buffer is None or not len(chunk):
        view = View(None, 0, 0, dtype.str)
        return np.empty(0, dtype), view
    view = View(buffer, buffer.address + chunk.offset * dtype.itemsize, len(chunk), dtype.str)
    return np.asarray(view), view


def _masked(values: pa.ChunkedArray, dtype: Any) -> Any:
    if pa.types.is_boolean(values.type):
        data = values.fill_null(False).to_numpy(zero_copy_only=False)
    else:
        data = np.array(_numbers(values, np.dtype(dtype.numpy_dtype), 0)[0])
    return dtype.construct_array_type()(data, values.is_null().to_numpy())


def _arrow(values: pa.ChunkedArray, original: pa.DataType | None) -> Any:
    if original is not None and original != values.type:
        with contextlib.suppress(pa.ArrowException):
            values = _cast(values, original)
    return pd.arrays.ArrowExtensionArray(values)


def _cast(values: pa.ChunkedArray, to: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_run_end_encoded(to):
        plain = values.cast(to.value_type)
        chunks = [
            pc.call_function("run_end_encode", [chunk], pc.RunEndEncodeOptions(to.run_end_type))
            for chunk in plain.chunks
        ]
        return pa.chunked_array(chunks, type=to)
    if pa.types.is_dictionary(to) and not pa.types.is_dictionary(values.type):
        return values.cast(to.value_type).dictionary_encode().cast(to)
    if pa.types.is_dictionary(to):
        chunks = [
            pa.DictionaryArray.from_arrays(
                chunk.indices.cast(to.index_type), chunk.dictionary.cast(to.value_type), ordered=to.ordered
            )
            for chunk in values.chunks
        ]
        return pa.chunked_array(chunks, type=to)
    return values.cast(to)


def _category(
    values: pa.ChunkedArray, dtype: pd.CategoricalDtype, renumbered: np.ndarray[Any, Any] | None, code: np.dtype[Any]
) -> tuple[Any, View | None]:
    values = values.unify_dictionaries()
    stored = np.dtype(values.type.index_type.to_pandas_dtype())
    view = None
    if values.num_chunks == 1 and values.null_count == 0 and stored == code and renumbered is None:
        codes, view = _viewed(values.chunk(0).indices, stored)
    else:
        codes = np.empty(len(values), dtype=code)
        at = 0
        for chunk in values.chunks:
            part = codes[at : at + len(chunk)]
            given, _ = _viewed(chunk.indices, stored)
            missing = _null_mask(chunk)
            if renumbered is None:
                part[:] = given
            else:
                # What lies under a null is no code.
                part[:] = renumbered[np.where(missing, 0, given)] if len(renumbered) else -1
            part[missing] = -1
            at += len(chunk)
    # The engine has checked that codes are within the dictionary.
    return pd.Categorical.from_codes(codes, dtype=dtype, validate=False), view


def index_of_array(values: pa.Array, description: Description | None) -> pd.Index:
    """An index of the values."""
    column = pa.chunked_array([values])
    converted, _ = convert(column, form_of(column, description))
    return pd.Index(converted, dtype=object if is_objects(converted) else None, copy=False, tupleize_cols=False)


def _plain_category(values: pa.ChunkedArray, dtype: pd.CategoricalDtype, texts: bool) -> Any:
    """Values that were categorical; as they are, if one is in no category."""
    if dtype.categories is None:  # pyright: ignore[reportUnnecessaryComparison] - its type says it never is
        return pd.Categorical(_default(values), ordered=dtype.ordered)
    plain = pd.Index(_default(values))
    categories = pd.Index(texts_of(dtype.categories), dtype=plain.dtype) if texts else dtype.categories
    codes = categories.get_indexer(plain)
    if int((codes < 0).sum()) > values.null_count:
        return _default(values)
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _default(values: pa.ChunkedArray) -> Any:
    return convert(values, default_form(values))[0]


def _interval(values: pa.ChunkedArray, dtype: pd.IntervalDtype, bound: Description) -> Any:
    whole = values.combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    bounds = [
        convert(column, form_of(column, bound))[0] for column in (pa.chunked_array([part]) for part in whole.flatten())
    ]
    return pd.arrays.IntervalArray.from_arrays(*bounds, closed=dtype.closed, copy=True)


def is_objects(values: Any) -> bool:
    """Whether the values are a NumPy array of Python objects."""
    return isinstance(values, np.ndarray) and values.dtype == object
