"""What an Arrow column becomes in pandas, and whether that costs a copy."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pheon._adapters.pandas_dtypes import Description, described, string_dtype, texts_of, type_of_text

_PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3

_STRINGS = string_dtype("pyarrow", "nan") if _PANDAS_3 else pd.StringDtype("pyarrow")


class Form(NamedTuple):
    """What a column becomes: `kind` chooses the conversion, `dtype` steers it, `copy` says why it copies, if so."""

    kind: str
    dtype: Any = None
    copy: str | None = None


def form_of(values: pa.ChunkedArray, description: Description | None) -> Form:
    """The form of a column that had the dtype described; None: of unknown origin."""
    if description is not None:
        (kind, content), *_ = description.items()
        original = _ORIGINALS[kind](values, content, description)
        if original is not None:
            return original
    return default_form(values)


def default_form(values: pa.ChunkedArray) -> Form:  # noqa: PLR0911 - a choice among many
    """The form of a column of unknown origin."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        with contextlib.suppress(NotImplementedError):
            dtype = kind.to_pandas_dtype()
            if hasattr(dtype, "__from_arrow__"):
                return Form("named", dtype, f"pandas makes {dtype} of it")
        return Form("arrow")
    if pa.types.is_large_string(kind):
        return Form("string", _STRINGS)
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return Form("string", _STRINGS, f"pandas' strings have 64-bit offsets, these are {kind}")
    if pa.types.is_dictionary(kind):
        return _category_form(values, None)
    if values.null_count == 0:
        if pa.types.is_boolean(kind):
            return Form("boolean", copy=_BITS)
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return Form("datetimetz", pd.DatetimeTZDtype(kind.unit, kind.tz), _chunked(values))
        dtype = _numpy_dtype(kind)
        if dtype is not None:
            return Form("numpy", dtype, _chunked(values))
    return Form("arrow")


_BITS = "booleans are bits in Arrow and bytes in NumPy"


def _chunked(values: pa.ChunkedArray) -> str | None:
    """Why a NumPy array of the values is a copy, if they lie in several pieces."""
    if values.num_chunks <= 1:
        return None
    return f"the rows lie in {values.num_chunks} pieces, a NumPy array in one; Store.compact joins them"


def _nulls(values: pa.ChunkedArray, stands: str) -> str:
    return f"{values.null_count:,} nulls become {stands}"


@lru_cache(maxsize=256)
def _numpy_dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype())
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return np.dtype(f"M8[{kind.unit}]")
    return np.dtype(f"m8[{kind.unit}]") if pa.types.is_duration(kind) else None


def _numpy_form(values: pa.ChunkedArray, content: str, _: Description) -> Form | None:
    dtype = np.dtype(content)
    if dtype.kind == "b" and pa.types.is_boolean(values.type):
        return Form("boolean", copy=_BITS) if values.null_count == 0 else None
    stored = _numpy_dtype(values.type)
    if stored != dtype.newbyteorder("="):
        return None
    if values.null_count and dtype.kind in "iu":
        return None
    if values.null_count:
        return Form("filled", dtype, _nulls(values, "NaT" if dtype.kind in "mM" else "NaN"))
    if not dtype.isnative:
        return Form("numpy", dtype, "its bytes were in another order")
    return Form("numpy", dtype, _chunked(values))


def _object_form(_: pa.ChunkedArray, content: list[Any], __: Description) -> Form:
    return Form("object", content, "they were Python objects")


def _string_form(values: pa.ChunkedArray, content: list[str], _: Description) -> Form | None:
    if not (pa.types.is_large_string(values.type) or pa.types.is_string(values.type)):
        return None
    dtype = string_dtype(*content)
    if content[0] == "python":
        return Form("string", dtype, "they were Python strings")
    copied = (
        None if pa.types.is_large_string(values.type) else f"pandas' strings have 64-bit offsets, not {values.type}"
    )
    return Form("string", dtype, copied)


def _named_form(values: pa.ChunkedArray, content: str, _: Description) -> Form | None:  # noqa: PLR0911 - as above
    try:
        dtype = pd.api.types.pandas_dtype(content)
    except (TypeError, ValueError, NotImplementedError):
        return None
    if isinstance(dtype, pd.PeriodDtype) and values.type == pa.int64():
        if values.null_count:
            return Form("period", dtype, _nulls(values, "NaT"))
        return Form("period", dtype, _chunked(values))
    if not hasattr(dtype, "__from_arrow__"):
        return None
    stored = getattr(dtype, "numpy_dtype", None)
    if stored is None:
        return Form("named", dtype, f"pandas makes {dtype} of it")
    if pa.from_numpy_dtype(stored) != values.type:
        return None
    return Form("masked", dtype, f"{dtype} keeps a mask of one byte a row")


def _datetimetz_form(values: pa.ChunkedArray, content: list[str], _: Description) -> Form | None:
    kind = values.type
    if not pa.types.is_timestamp(kind) or kind.tz is None or kind.unit != content[0]:
        return None
    dtype = pd.DatetimeTZDtype(content[0], content[1])  # type: ignore[arg-type] - one of four units
    return Form("datetimetz", dtype, _nulls(values, "NaT") if values.null_count else _chunked(values))


def _category_form(values: pa.ChunkedArray, content: dict[str, Any] | None, *_: Any) -> Form:
    kind = values.type
    if not pa.types.is_dictionary(kind):
        dtype = described({"category": content or {"ordered": False, "dtype": None}})
        return Form("plain category", (dtype, bool(content and content.get("texts"))), "a key has no codes")
    dictionary = dictionary_of(values)
    if dictionary.null_count or pa.types.is_nested(kind.value_type):
        return Form("arrow")
    dtype, renumbered = _categories(dictionary, kind.ordered, content)
    stored, code = np.dtype(kind.index_type.to_pandas_dtype()), _code_dtype(len(dtype.categories))
    if values.null_count:
        reason = _nulls(values, "the code -1")
    elif renumbered is not None:
        reason = "the file numbers the categories in another order"
    elif stored != code:
        reason = f"pandas has {code} codes of so many categories, not {stored}"
    else:
        reason = _chunked(values)
    return Form("category", (dtype, renumbered, code), reason)


def dictionary_of(values: pa.ChunkedArray) -> pa.Array:
    """The categories of all chunks."""
    if values.num_chunks == 0:
        return pa.array([], values.type.value_type)
    return values.unify_dictionaries().chunk(0).dictionary


def _categories(
    dictionary: pa.Array, ordered: bool, content: dict[str, Any] | None
) -> tuple[pd.CategoricalDtype, np.ndarray[Any, Any] | None]:
    """The dtype, and for each entry of the dictionary its code, if that is not its position."""
    from pheon._adapters.pandas_values import index_of_array

    if content is None:
        # pandas 2 has objects for strings in indexes.
        objects = {"object": ["str", None]} if pa.types.is_large_string(dictionary.type) and not _PANDAS_3 else None
        return pd.CategoricalDtype(index_of_array(dictionary, objects), ordered=ordered), None
    ordered, texts = content["ordered"], content.get("texts", False)
    there = index_of_array(dictionary, None if texts else content["dtype"])
    if "categories" in content:
        dtype = described({"category": content})
        expected = pd.Index(texts_of(dtype.categories), dtype=there.dtype) if texts else dtype.categories
        codes = expected.get_indexer(there)
        # Rows that came later may hold others.
        if (codes >= 0).all():
            return dtype, None if (codes == np.arange(len(codes))).all() else codes
    return pd.CategoricalDtype(there, ordered=ordered), None


def _code_dtype(categories: int) -> np.dtype[Any]:
    """The type of pandas' codes for so many categories."""
    return next(np.dtype(f"i{size}") for size in (1, 2, 4, 8) if categories < 2 ** (8 * size - 1))


def _arrow_form(values: pa.ChunkedArray, content: str, _: Description) -> Form:
    original = type_of_text(content)
    if original == values.type:
        return Form("arrow")
    return Form("arrow", original, f"it was {original} and is stored as {values.type}")


def _sparse_form(values: pa.ChunkedArray, _: Any, description: Description) -> Form | None:
    dtype = described(description)
    dense = _numpy_form(values, dtype.subtype.str, description)
    return (
        None
        if dense is None
        else Form("sparse", (dtype, dense), "pandas finds the values that differ from the fill value")
    )


def _interval_form(values: pa.ChunkedArray, content: list[Any], description: Description) -> Form | None:
    if not pa.types.is_struct(values.type):
        return None
    return Form("interval", (described(description), content[0]), "pandas checks and copies the bounds of intervals")


_ORIGINALS: dict[str, Any] = {
    "numpy": _numpy_form,
    "object": _object_form,
    "string": _string_form,
    "named": _named_form,
    "datetimetz": _datetimetz_form,
    "category": _category_form,
    "arrow": _arrow_form,
    "sparse": _sparse_form,
    "interval": _interval_form,
}
