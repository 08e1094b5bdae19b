"""Sets of keys as polars compares them, and the way from there to the keys that `Table.range` takes.

A key is an *ordinal* here: an int, a str or bytes that orders as the column does. Dates, times, durations and
decimals are the int that polars stores. Bounds given to the index may be too wide, never too narrow: whoever
narrows rows by them filters what is left.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import polars as pl

Ordinal: TypeAlias = int | str | bytes
# From the first ordinal, inclusive, to the second, exclusive; None: open.
Interval: TypeAlias = tuple[Any, Any]

_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_DAY = _EPOCH.toordinal()
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY_MICROSECONDS = 86_400_000_000
_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Disjoint intervals of ordinals, ascending."""

    intervals: tuple[Interval, ...]

    @staticmethod
    def of(intervals: Iterable[Interval]) -> KeySet:
        """The union of intervals in any order; empty ones vanish."""
        merged: list[Interval] = []
        filled = [i for i in intervals if i[0] is None or i[1] is None or i[0] < i[1]]
        for low, high in sorted(filled, key=lambda i: (i[0] is not None, i[0] if i[0] is not None else 0)):
            if merged and (merged[-1][1] is None or low is None or low <= merged[-1][1]):
                merged[-1] = (merged[-1][0], _greater_stop(merged[-1][1], high))
            else:
                merged.append((low, high))
        return KeySet(tuple(merged))

    def union(self, other: KeySet) -> KeySet:
        """Keys of either."""
        return KeySet.of(self.intervals + other.intervals)

    def intersect(self, other: KeySet) -> KeySet:
        """Keys of both."""
        common: list[Interval] = []
        left, right = list(self.intervals), list(other.intervals)
        i = j = 0
        while i < len(left) and j < len(right):
            (low_a, high_a), (low_b, high_b) = left[i], right[j]
            low = low_a if low_b is None or (low_a is not None and low_a >= low_b) else low_b
            a_ends_first = high_a is not None and (high_b is None or high_a <= high_b)
            high = high_a if a_ends_first else high_b
            if low is None or high is None or low < high:
                common.append((low, high))
            if a_ends_first:
                i += 1
            else:
                j += 1
        return KeySet(tuple(common))


NOTHING = KeySet(())
EVERYTHING = KeySet(((None, None),))


def _greater_stop(a: Any, b: Any) -> Any:
    return None if a is None or b is None else max(a, b)


@dataclass(frozen=True, slots=True)
class KeyDomain:
    """The keys of one column: their type in polars and how an ordinal becomes a key that `Table.range` takes."""

    dtype: pl.DataType
    # The key at an ordinal; if there is none, the next one above (True) or below. None: no such key.
    key: Callable[[Any, bool], Any]
    # Whether `key` is exact.
    exact: Callable[[Any], bool]

    def ordinals(self, values: pl.Series) -> list[Ordinal]:
        """The ordinals of values of this very type; nulls are dropped, as no key is null."""
        values = values.drop_nulls()
        if isinstance(self.dtype, pl.Boolean):
            return [int(v) for v in values.to_list()]
        if isinstance(self.dtype, (pl.String, pl.Binary)):
            return values.to_list()
        return values.to_physical().to_list()

    def after(self, ordinal: Any) -> Ordinal:
        """The least ordinal that is greater."""
        if isinstance(ordinal, str):
            return ordinal + "\0"
        if isinstance(ordinal, bytes):
            return ordinal + b"\0"
        return ordinal + 1

    def points(self, interval: Interval, most: int) -> list[Any] | None:
        """The ordinals of an interval; None: more than `most`, or not a count."""
        low, high = interval
        if low is None or high is None:
            return None
        if isinstance(low, int):
            return list(range(low, high)) if high - low <= most else None
        return [low] if high == self.after(low) else None


def domain_of(dtype: pl.DataType, arrow_type: str) -> KeyDomain | None:
    """How keys of a column are given to the index; None: unknown, nothing goes to the index."""
    if arrow_type == "Date64":
        return KeyDomain(dtype, _date_of_milliseconds, lambda ms: ms % 86_400_000 == 0)
    match dtype:
        case pl.Boolean():
            found = KeyDomain(dtype, _bool_key, _always)
        case pl.Date():
            found = KeyDomain(dtype, _date_of_days, _always)
        case pl.Time():
            found = KeyDomain(dtype, _time_key, lambda ns: ns % 1000 == 0)
        case pl.Datetime():
            found = _datetime_domain(dtype)
        case pl.Duration():
            found = _duration_domain(dtype)
        case pl.Decimal():
            scale = dtype.scale
            found = KeyDomain(dtype, lambda unscaled, _: _decimal(unscaled, scale), _always)
        case _:
            plain = dtype.is_integer() or isinstance(dtype, (pl.String, pl.Binary))
            found = KeyDomain(dtype, lambda ordinal, _: ordinal, _always) if plain else None
    return found


def _datetime_domain(dtype: pl.Datetime) -> KeyDomain:
    per_microsecond, microseconds = _scale(dtype.time_unit)
    zone = None if dtype.time_zone is None else dt.UTC

    def key(ordinal: int, up: bool) -> dt.datetime | None:
        return _datetime(_microseconds(ordinal, up, per_microsecond, microseconds), up, zone)

    return KeyDomain(dtype, key, lambda ordinal: ordinal % per_microsecond == 0)


def _duration_domain(dtype: pl.Duration) -> KeyDomain:
    per_microsecond, microseconds = _scale(dtype.time_unit)

    def key(ordinal: int, up: bool) -> dt.timedelta | None:
        try:
            return _microseconds(ordinal, up, per_microsecond, microseconds) * _MICROSECOND
        except OverflowError:
            return None

    return KeyDomain(dtype, key, lambda ordinal: ordinal % per_microsecond == 0)


def _always(ordinal: Any) -> bool:
    del ordinal
    return True


def after_prefix(prefix: Any) -> Any:
    """The least str or bytes that is greater than all that begin with `prefix`; None: there is none."""
    if isinstance(prefix, bytes):
        kept = prefix.rstrip(b"\xff")
        return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
    kept = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)


def _scale(unit: str) -> tuple[int, int]:
    """Ticks of a microsecond and microseconds of a tick; one of the two is 1."""
    return {"ns": (1000, 1), "us": (1, 1), "ms": (1, 1000)}[unit]


def _microseconds(ordinal: int, up: bool, per_microsecond: int, microseconds: int) -> int:
    return (-(-ordinal // per_microsecond) if up else ordinal // per_microsecond) * microseconds


def _datetime(microseconds: int, up: bool, zone: dt.tzinfo | None) -> dt.datetime | None:
    try:
        return (_EPOCH + microseconds * _MICROSECOND).replace(tzinfo=zone)
    except OverflowError:
        # Years that Python lacks: the nearest it has, if that lies on the right side.
        if up == (microseconds < 0):
            return (dt.datetime.min if up else dt.datetime.max).replace(tzinfo=zone)
        return None


def _date_of_days(days: int, up: bool) -> dt.date | None:
    try:
        return dt.date.fromordinal(_EPOCH_DAY + days)
    except (OverflowError, ValueError):
        if up == (days < 0):
            return dt.date.min if up else dt.date.max
        return None


def _date_of_milliseconds(milliseconds: int, up: bool) -> dt.date | None:
    return _date_of_days(-(-milliseconds // 86_400_000) if up else milliseconds // 86_400_000, up)


def _time_key(nanoseconds: int, up: bool) -> dt.time | None:
    microseconds = _microseconds(nanoseconds, up, 1000, 1)
    return (_EPOCH + microseconds * _MICROSECOND).time() if 0 <= microseconds < _DAY_MICROSECONDS else None


def _bool_key(ordinal: int, up: bool) -> bool | None:
    del up
    return bool(ordinal) if ordinal in (0, 1) else None


def _decimal(unscaled: int, scale: int) -> Decimal:
    # The constructor is exact; arithmetic would round to the context's digits.
    return Decimal((int(unscaled < 0), tuple(int(d) for d in str(abs(unscaled))), -scale))
