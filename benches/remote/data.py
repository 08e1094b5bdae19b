"""What is served: a table of numbers, and a map of strings whose values follow from their keys."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from benches.compare.oracle import WrongAnswerError
from pyarrow import ipc

import pheon

if TYPE_CHECKING:
    from pathlib import Path

    from benches.remote.plan import Sizes

TABLE, MAP = "table", "map"
MISSES_EVERY = 5  # one question in so many has no answer
FLOATS = 9
CHUNK_ROWS = 65_536


def key(number: int) -> str:
    """20 bytes."""
    return f"user-{number * 2654435761 % 10**15:015d}"


def value(number: int) -> str:
    """20 bytes."""
    return f"{number:08d}-{number * 40503 % 10**11:011d}"


def table(sizes: Sizes) -> pa.Table:
    """`table_rows` rows: an ascending number and nine random ones."""
    dice = np.random.default_rng(1)
    numbers = {f"value_{i}": dice.random(sizes.table_rows) for i in range(FLOATS)}
    return pa.table({"id": np.arange(sizes.table_rows), **numbers})


def entries(sizes: Sizes) -> pa.Table:
    """The map's."""
    numbers = range(sizes.map_entries)
    return pa.table({"key": [key(i) for i in numbers], "value": [value(i) for i in numbers]})


def make_table(sizes: Sizes, folder: Path) -> tuple[Path, Path]:
    """The table as a store and as an Arrow file."""
    rows = table(sizes)
    store, file = folder / "store", folder / "table.arrow"
    with pheon.open(store) as opened:
        opened.put(TABLE, rows)
    with ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=CHUNK_ROWS)
    return store, file


def make_map(sizes: Sizes, folder: Path) -> Path:
    """The map as a store."""
    store = folder / "store"
    with pheon.open(store) as opened:
        opened.put_map(MAP, entries(sizes), key="key", value="value")
    return store


def questions(sizes: Sizes, count: int) -> tuple[list[str], list[str | None]]:
    """Keys in random order, and their right answers."""
    dice = Random(2)
    keys: list[str] = []
    right: list[str | None] = []
    for i in range(count):
        number = dice.randrange(sizes.map_entries)
        there = i % MISSES_EVERY != 0
        keys.append(key(number) if there else f"none-{number:015d}")
        right.append(value(number) if there else None)
    return keys, right


def check(who: str, found: list[str | None], right: list[str | None]) -> None:
    """Compares answers by value.

    Raises:
        WrongAnswerError: one is wrong.
    """
    if found != right:
        pairs = enumerate(zip(found, right, strict=False))
        where = next((i for i, (a, b) in pairs if a != b), min(len(found), len(right)))
        raise WrongAnswerError(f"{who}: answer {where} of {len(right)} is wrong")
