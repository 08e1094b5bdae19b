"""Sizes of a run, and its measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PHEON = "Pheon"


@dataclass(frozen=True)
class Sizes:
    """The defaults are the full sizes."""

    table_rows: int = 25_000_000  # of 80 bytes
    streams: tuple[int, ...] = (1, 4)
    map_entries: int = 1_000_000
    batches: tuple[int, ...] = (1_000, 100_000)
    lookup_keys: int = 2_000_000  # of a round
    singles: int = 20_000
    connections: int = 1_000
    bound_keys: int = 10_000


QUICK = Sizes(100_000, (1, 2), 20_000, (100, 10_000), 40_000, 200, 50, 500)


@dataclass(frozen=True)
class Run:
    """How a run is made: the program under test, sizes, rounds, and a folder for its files."""

    command: str
    sizes: Sizes
    repeat: int
    folder: Path
