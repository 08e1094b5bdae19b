"""Columns of Python objects: to Arrow and back.

A column is stored only if what comes back equals what was given, value by value and type by type: Arrow would turn an
int among floats into a float and give every dict the keys of all others.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

# Kinds whose type pandas has checked value by value, so that nothing needs to be compared.
_CERTAIN = {"string": str, "bytes": bytes, "boolean": bool}

_MISSING: dict[str, Any] = {"None": None, "nan": np.nan, "NA": pd.NA, "NaT": pd.NaT}

_KINDS: tuple[tuple[str, type], ...] = (
    ("timestamp", pd.Timestamp),
    ("timedelta", pd.Timedelta),
    ("str", str),
    ("bytes", bytes),
    ("bool", bool),
    ("int", int),
    ("float", float),
    ("datetime", dt.datetime),
    ("date", dt.date),
    ("time", dt.time),
    ("duration", dt.timedelta),
    ("decimal", decimal.Decimal),
    ("tuple", tuple),
    ("ndarray", np.ndarray),
    ("list", list),
    ("dict", dict),
)

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "timestamp": pd.Timestamp,
    "timedelta": pd.Timedelta,
    "tuple": tuple,
}


def to_arrow(values: np.ndarray[Any, Any]) -> tuple[pa.Array, list[str | None]]:
    """The objects as an Arrow array, and ``[kind, what stands for missing values]`` for `to_objects`.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, TypeError, ValueError: Arrow cannot hold these objects.
    """
    missing = np.fromiter((_is_missing(value) for value in values), dtype=bool, count=len(values))
    present = values[~missing]
    marker = _marker(values[missing])
    inferred = pd.api.types.infer_dtype(present, skipna=False)
    if not len(present):
        return pa.nulls(len(values)), [None, marker]
    # Without nulls an empty mask would still cost a bitmap.
    array = pa.array(values, mask=missing if missing.any() else None, from_pandas=False)
    if inferred in _CERTAIN:
        return array, [_CERTAIN[inferred].__name__, marker]
    kind = next((name for name, of in _KINDS if isinstance(_plain(present[0]), of)), None)
    restored = to_objects(array, kind, marker)
    for row, (given, back) in enumerate(zip(values, restored, strict=True)):
        if not missing[row] and not _same(_plain(given), back):
            raise ValueError(
                f"row {row} holds {_short(given)}, which Arrow would keep as {_short(back)} (type {array.type}); "
                "make the objects alike, or store text (json.dumps)"
            )
    return array, [kind, marker]


def to_objects(array: Any, kind: str | None, marker: str | None) -> np.ndarray[Any, Any]:
    """Arrow values as an array of Python objects."""
    decode = _DECODERS.get(kind or "")
    if kind == "ndarray":
        decode = partial(np.asarray, dtype=array.type.value_type.to_pandas_dtype())
    missing = _MISSING[marker or "None"]
    values = (missing if value is None else value if decode is None else decode(value) for value in array.to_pylist())
    # Not np.array(values): that would make one dimension more of values that are lists.
    return np.fromiter(values, dtype=np.object_, count=len(array))


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)  # noqa: PLR0124


def _marker(missing: np.ndarray[Any, Any]) -> str | None:
    """What stands for missing values; the first kind, where there are several."""
    if not len(missing):
        return None
    first = missing[0]
    return next((name for name, of in _MISSING.items() if first is of), "nan")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _same(given: Any, back: Any) -> bool:  # noqa: PLR0911 - one a kind
    given = _plain(given)
    if type(given) is not type(back):
        return False
    if isinstance(given, np.ndarray):
        return given.dtype == back.dtype and _same_items(given.tolist(), back.tolist())
    if isinstance(given, dict):
        return list(given) == list(back) and _same_items(list(given.values()), list(back.values()))
    if isinstance(given, (list, tuple)):
        return _same_items(given, back)
    if isinstance(given, float) and given != given:  # noqa: PLR0124
        return back != back  # noqa: PLR0124
    if isinstance(given, (dt.datetime, dt.time)) and (given.tzinfo is None) != (back.tzinfo is None):
        return False
    return bool(given == back)


def _same_items(given: Any, back: Any) -> bool:
    return len(given) == len(back) and all(_same(a, b) for a, b in zip(given, back, strict=True))


def _short(value: Any) -> str:
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) <= 60 else f"{text[:57]}..."
