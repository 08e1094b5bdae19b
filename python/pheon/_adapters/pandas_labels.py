"""Single values as JSON: labels of pandas axes, categories and attributes, as the `pheon.pandas` metadata holds them.

What JSON has stands for itself; everything else is an object of one member that names its kind.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pheon._errors import SchemaError

# Where the description of a frame lies in the schema metadata.
METADATA_KEY = b"pheon.pandas"
METADATA_VERSION = 1


def to_json(value: Any, where: str) -> Any:
    """`value` for ``json.dumps``; `where` says in messages what it is part of.

    Raises:
        SchemaError: a value of this kind cannot be kept.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [to_json(item, where) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [to_json(item, where) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[to_json(key, where), to_json(item, where)] for key, item in value.items()]}
    encoded = _missing(value) or _pandas_scalar(value, where) or _python_scalar(value)
    if encoded is None:
        raise SchemaError(
            f"{where} is or holds {value!r}, a {type(value).__name__}, which a file cannot keep; replace or drop it"
        )
    return encoded


def from_json(value: Any) -> Any:
    """The value that `to_json` was given."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    return _DECODERS[kind](content)


def _missing(value: Any) -> Any:
    if value is pd.NA:
        return {"missing": "NA"}
    return {"missing": "NaT"} if value is pd.NaT else None


def _pandas_scalar(value: Any, where: str) -> Any:
    if isinstance(value, pd.Timestamp):
        count = int(value.to_datetime64().astype("i8"))
        return {"timestamp": [count, value.unit, None if value.tz is None else zone_text(value.tz)]}
    if isinstance(value, pd.Timedelta):
        return {"timedelta": [int(value.to_timedelta64().astype("i8")), value.unit]}
    if isinstance(value, pd.Period):
        return {"period": [value.ordinal, value.freqstr]}
    if isinstance(value, pd.Interval):
        return {"interval": [to_json(value.left, where), to_json(value.right, where), value.closed]}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"numpy": [value.dtype.str, to_json(value.item(), where)]}
    return None


def _python_scalar(value: Any) -> Any:  # noqa: PLR0911 - one a type
    kind = type(value)
    if kind is np.str_:
        return str(value)
    if kind is dt.datetime and value.tzinfo in (None, dt.UTC):
        return {"datetime": value.isoformat()}
    if kind is dt.date:
        return {"date": value.isoformat()}
    if kind is dt.time and value.tzinfo is None:
        return {"time": value.isoformat()}
    if kind is dt.timedelta:
        return {"duration": [value.days, value.seconds, value.microseconds]}
    if kind is decimal.Decimal:
        return {"decimal": str(value)}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode("ascii")}
    return None


def zone_text(zone: Any) -> str:
    """A time zone's name, or its offset, as Arrow has it.

    Raises:
        ValueError: the zone has neither.
    """
    import pyarrow as pa

    return pa.timestamp("ns", zone).tz


def _timestamp(content: list[Any]) -> Any:
    count, unit, zone = content
    instant = pd.Timestamp(np.datetime64(count, unit))
    return instant if zone is None else instant.tz_localize("UTC").tz_convert(pd.DatetimeTZDtype(unit, zone).tz)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    # pandas compares some labels by identity, so not just any NaN.
    "float": lambda text: np.nan if text == "nan" else float(text),
    "tuple": lambda items: tuple(from_json(item) for item in items),
    "dict": lambda pairs: {from_json(key): from_json(item) for key, item in pairs},
    "missing": lambda kind: pd.NA if kind == "NA" else pd.NaT,
    "timestamp": _timestamp,
    "timedelta": lambda parts: pd.Timedelta(np.timedelta64(parts[0], parts[1])),
    "period": lambda parts: pd.Period(ordinal=parts[0], freq=parts[1]),
    "interval": lambda parts: pd.Interval(from_json(parts[0]), from_json(parts[1]), parts[2]),
    "numpy": lambda parts: np.dtype(parts[0]).type(from_json(parts[1])),
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "duration": lambda parts: dt.timedelta(*parts),
    "decimal": decimal.Decimal,
    "bytes": base64.b64decode,
}
