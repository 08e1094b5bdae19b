"""The rows, made from their numbers, so that every answer can be computed again by whoever checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY, VALUE = "key", "value"
VALUE_BYTES_MIN, VALUE_BYTES_END = 32, 96
BATCH_ROWS = 1 << 18
SEED = 20_260_101

Numbers = npt.NDArray[np.uint64]

_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_SAME = np.frombuffer(b" is what every value of this map has in common, as those of most", dtype=np.uint8)


def _mix(numbers: Numbers) -> Numbers:
    """Different, evenly spread words for different numbers (splitmix64)."""
    words = numbers + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _digits(words: Numbers) -> npt.NDArray[np.uint8]:
    """16 hexadecimal digits a word, the highest first: texts are ordered as the words are."""
    octets = words.astype(">u8").view(np.uint8).reshape(len(words), 8)
    return np.stack([_HEX[octets >> 4], _HEX[octets & 15]], axis=2).reshape(len(words), 16)


def _texts(lengths: npt.NDArray[np.int64], octets: npt.NDArray[np.uint8]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(octets))


def keys(numbers: Numbers) -> pa.Array:
    """``user:`` and 16 digits."""
    head = np.broadcast_to(np.frombuffer(b"user:", dtype=np.uint8), (len(numbers), 5))
    octets = np.concatenate([head, _digits(_mix(numbers))], axis=1)
    return _texts(np.full(len(numbers), octets.shape[1], dtype=np.int64), np.ascontiguousarray(octets).reshape(-1))


def values(numbers: Numbers) -> pa.Array:
    """32 digits, and up to 63 letters that are the same in all: something to compress."""
    words = [_digits(_mix(numbers * np.uint64(8) + np.uint64(part))) for part in (1, 2)]
    octets = np.concatenate([*words, np.broadcast_to(_SAME, (len(numbers), len(_SAME)))], axis=1)
    spread = np.uint64(VALUE_BYTES_END - VALUE_BYTES_MIN)
    lengths = (VALUE_BYTES_MIN + _mix(~numbers) % spread).astype(np.int64)
    return _texts(lengths, octets[np.arange(octets.shape[1]) < lengths[:, None]])


def in_key_order(rows: int) -> Numbers:
    """The numbers of all rows, ascending by key."""
    numbers = np.arange(rows, dtype=np.uint64)
    return numbers[np.argsort(_mix(numbers), kind="stable")]


def batches(numbers: Numbers) -> Iterator[pa.RecordBatch]:
    """Rows with these numbers, some at a time."""
    for start in range(0, len(numbers), BATCH_ROWS):
        part = numbers[start : start + BATCH_ROWS]
        yield pa.record_batch([keys(part), values(part)], names=[KEY, VALUE])


def schema() -> pa.Schema:
    """Of those batches."""
    return pa.schema([pa.field(KEY, pa.large_string(), nullable=False), pa.field(VALUE, pa.large_string())])


def questions(rows: int, count: int, misses: float, seed: int) -> Numbers:
    """Numbers of random rows, and of a share that are not there."""
    dice = np.random.default_rng(SEED + seed)
    asked = dice.integers(0, rows, count, dtype=np.uint64)
    asked[dice.random(count) < misses] += np.uint64(rows)
    return asked


def answers(rows: int, asked: Numbers) -> list[str | None]:
    """What a map of `rows` rows says to those keys."""
    found = values(asked).to_pylist()
    return [text if number < rows else None for number, text in zip(asked.tolist(), found, strict=True)]
