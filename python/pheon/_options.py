"""Options of a build: checked here once, passed to the engine as one dict."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack

from pheon._progress import bar_if_terminal

if TYPE_CHECKING:
    from pheon._native import Progress

Access: TypeAlias = Literal["auto", "memory", "random"]
Mode: TypeAlias = Literal["put", "append", "upsert"]
OnDuplicate: TypeAlias = Literal["error", "first", "last"]
ProgressOption: TypeAlias = "bool | Callable[[Progress], object] | None"
StrPath: TypeAlias = str | os.PathLike[str]
# max_entries, max_age, max_bytes, durable
LiveLimits: TypeAlias = tuple[int | None, float | None, int | None, bool]

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SIZE_END = 2**64
_THREADS_END = 2**32


class BuildOptions(TypedDict):
    """What the engine takes; `None`: its default."""

    on_duplicate: str
    memory_limit: int | None
    threads: int | None
    spill_dir: str | None
    progress: Callable[[Progress], object] | None
    lock_timeout: float | None
    mode: Mode
    compact: bool
    keep: int | None
    max_age: float | None


def parse_bytes(size: int | str | None, option: str = "size") -> int | None:
    """Bytes of ``2_000_000``, ``"2GB"`` (powers of 1000) or ``"2GiB"`` (powers of 1024); `option` is for messages."""
    if size is None:
        return None
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(f'{option} is {size!r}; expected for example 500_000_000, "500MB", "2GB" or "2GiB"')
        from fractions import Fraction

        # Text without a point is exact; a float would round long numbers, and be infinite for very long ones.
        number = int(Fraction(match[1]) * unit)
    else:
        number = _integer(size, option, "a number of bytes")
    if not 0 <= number < _SIZE_END:
        raise ValueError(f"{option} is {size!r}; expected 0 to 2**64 - 1 bytes")
    return number


def _integer(value: object, option: str, what: str) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{option} is {value!r}; expected {what}")
    try:
        return operator.index(value)  # type: ignore[arg-type] - that is what is found out here
    except TypeError:
        raise TypeError(f"{option} is {value!r}, a {type(value).__name__}; expected {what}") from None


def check_threads(threads: int | None) -> int | None:
    """A number of threads; None: the engine's default.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 0 or beyond 32 bits.
    """
    if threads is None:
        return None
    number = _integer(threads, "threads", "a number of threads")
    if not 0 <= number < _THREADS_END:
        raise ValueError(f"threads is {threads!r}; expected 1 or more, or None")
    return number


def check_seconds(seconds: float | timedelta | None, option: str) -> float | None:
    """Seconds as a float; None stays None.

    Raises:
        TypeError: it is neither a number nor a timedelta.
        ValueError: it is below 0, not finite, or beyond 2**63.
    """
    if seconds is None:
        return None
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, (bool, str)):
        raise TypeError(f"{option} is {seconds!r}, a {type(seconds).__name__}; expected seconds")
    try:
        number = float(seconds)
    except OverflowError:
        raise ValueError(f"{option} is {seconds!r}; expected seconds, 0 to 2**63") from None
    except (TypeError, ValueError):
        raise TypeError(f"{option} is {seconds!r}, a {type(seconds).__name__}; expected seconds") from None
    if not 0 <= number < 2**63:
        raise ValueError(f"{option} is {seconds!r}; expected seconds, 0 to 2**63")
    return number


def check_keep(keep: int | None) -> int | None:
    """A number of versions to keep; None: all.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1 or beyond 64 bits.
    """
    if keep is None:
        return None
    number = _integer(keep, "keep", "a number of versions")
    if not 1 <= number < _SIZE_END:
        raise ValueError(f"keep is {keep!r}; expected 1 or more: the newest version stays always")
    return number


def check_live(
    name: str | None, create: bool | None, codec: str, limits: LiveLimits
) -> tuple[int | None, float | None, int | None, bool]:
    """The limits that a live map is made with, `max_age` in seconds; whether it is here or at a server.

    Raises:
        TypeError: something is of another type.
        ValueError: there is no such codec, or a limit is out of range.
    """
    if codec not in ("msgpack", "pickle"):
        raise ValueError(f"codec is 'msgpack' or 'pickle', found {codec!r}")
    if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"name is a str or None, found {name!r}")
    if create is not None and not isinstance(create, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"create is None, True or False, found {create!r}")
    max_entries, max_age, max_bytes, durable = limits
    for value, what in ((max_entries, "max_entries"), (max_bytes, "max_bytes")):
        # What callers pass, whatever their checker says.
        given: Any = value
        if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
            raise TypeError(f"{what} is an int or None, found {value!r}")
        if value is not None and not 1 <= value < 2**63:
            raise ValueError(f"{what} is at least 1 and less than 2**63, found {value}")
    max_age = check_seconds(max_age, "max_age")
    if max_age is not None and max_age <= 0:
        raise ValueError(f"max_age is more than 0 seconds, found {max_age}")
    return max_entries, max_age, max_bytes, durable


class BuildKeywords(TypedDict, total=False):
    """The keyword arguments of everything that builds; `Store` explains them."""

    memory_limit: int | str | None
    threads: int | None
    spill_dir: StrPath | None
    progress: ProgressOption
    lock_timeout: float | None


class ChangeKeywords(BuildKeywords, total=False):
    """The keyword arguments of what changes a dataset; `Store.append` explains them."""

    compact: bool
    keep: int | None
    max_age: float | timedelta | None


def build_options(
    duplicates: OnDuplicate = "error",
    /,
    *,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    spill_dir: StrPath | None = None,
    progress: ProgressOption = None,
    lock_timeout: float | None = None,
) -> BuildOptions:
    """The options dict of a build."""
    if progress is None or isinstance(progress, bool):
        callback = bar_if_terminal() if progress else None
    elif callable(progress):
        callback = progress
    else:
        raise TypeError(f"progress must be None, True or a callable, got {type(progress).__name__}")
    return {
        "on_duplicate": duplicates,
        "memory_limit": parse_bytes(memory_limit, "memory_limit"),
        "threads": check_threads(threads),
        "spill_dir": None if spill_dir is None else os.fspath(spill_dir),
        "progress": callback,
        "lock_timeout": check_seconds(lock_timeout, "lock_timeout"),
        "mode": "put",
        "compact": True,
        "keep": None,
        "max_age": None,
    }


def change_options(
    mode: Mode,
    duplicates: OnDuplicate = "error",
    /,
    *,
    compact: bool = True,
    keep: int | None = None,
    max_age: float | timedelta | None = None,
    **build: Unpack[BuildKeywords],
) -> BuildOptions:
    """The options dict of a change."""
    options = build_options(duplicates, **build)
    options["mode"] = mode
    options["compact"] = bool(compact)
    options["keep"] = check_keep(keep)
    options["max_age"] = check_seconds(max_age, "max_age")
    return options
