"""A progress bar on the terminal, for ``progress=True``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pheon._native import Progress

_WIDTH = 24


class ProgressBar:
    """Draws one line and redraws it; ends it when the last phase ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_len = 0

    def __call__(self, progress: Progress) -> None:
        line = render(progress)
        padding = " " * max(0, self._last_len - len(line))
        self._last_len = len(line)
        end = "\n" if progress.phase == "sync" else ""
        self._stream.write(f"\r{line}{padding}{end}")
        self._stream.flush()


def render(progress: Progress) -> str:
    """One line: phase, bar, rows, rate, remaining time."""
    parts = [f"{progress.phase:<5}"]
    if progress.rows_total:
        part = min(1.0, progress.rows_done / progress.rows_total)
        filled = round(part * _WIDTH)
        parts.append(f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {part:4.0%}")
    parts.append(f"{progress.rows_done:,} rows")
    if progress.rows_per_second > 0:
        parts.append(f"{progress.rows_per_second:,.0f}/s")
    if progress.eta_seconds is not None:
        parts.append(f"{progress.eta_seconds:.0f} s left")
    return "  ".join(parts)


def bar_if_terminal() -> Callable[[Progress], object] | None:
    """A bar on stderr if that is a terminal; nobody reads one in a log file."""
    return ProgressBar(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else None
