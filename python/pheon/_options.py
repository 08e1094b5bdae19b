"""Options of a build: checked here once, passed to the engine as one dict."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from pheon._progress import bar_if_terminal

if TYPE_CHECKING:
    from pheon._native import Progress

OnDuplicate: TypeAlias = Literal["error", "first", "last"]
ProgressOption: TypeAlias = "bool | Callable[[Progress], object] | None"
StrPath: TypeAlias = str | os.PathLike[str]

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


class BuildOptions(TypedDict):
    """What the engine takes; `None`: its default."""

    on_duplicate: str
    memory_limit: int | None
    threads: int | None
    spill_dir: str | None
    progress: Callable[[Progress], object] | None
    lock_timeout: float | None


def parse_bytes(size: int | str | None) -> int | None:
    """Bytes of ``2_000_000``, ``"2GB"`` (powers of 1000) or ``"2GiB"`` (powers of 1024)."""
    if size is None:
        return None
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(f'{size!r} is no size; expected for example 500_000_000, "500MB", "2GB" or "2GiB"')
        return int(float(match[1]) * unit)
    if isinstance(size, bool) or size < 0:
        raise ValueError(f"a size must be a number of bytes, got {size!r}")
    return int(size)


def build_options(
    *,
    on_duplicate: OnDuplicate = "error",
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
        "on_duplicate": on_duplicate,
        "memory_limit": parse_bytes(memory_limit),
        "threads": threads,
        "spill_dir": None if spill_dir is None else os.fspath(spill_dir),
        "progress": callback,
        "lock_timeout": lock_timeout,
    }
