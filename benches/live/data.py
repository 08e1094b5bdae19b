"""Keys and values as formulas, and what must stand in a map after so many writes: the oracle of every answer.

A value says whose it is (the number of its key) and which write it comes from (its generation; 0: it was there at the
start). Each writer owns every n-th key and writes its keys in a fixed order again and again, so that the number of its
writes alone tells the generation of each key in the end.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING, Any

from benches.compare.oracle import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Value = int | str
Pair = tuple[str, Value]

INT, MAIN = "int", "str20"
BATCH = 1_000  # entries of one `update`
FILL_BATCH = 10_000  # entries of one `update` while a map is filled, which is not timed
PAIRS_MIN, PAIRS_MAX = 100_000, 500_000  # prepared writes of a writer; after the last one it begins again
GENERATION_BITS = 24
HEAD = 20  # characters of number and generation


def width(shape: str) -> int:
    """Bytes of one value."""
    return 8 if shape == INT else int(shape.removeprefix("str"))


def key(number: int) -> str:
    """The key with this number; a new string each time, so that nobody finds a hash in it."""
    return f"user:{number:06}"


def keys(numbers: Iterable[int]) -> list[str]:
    """Keys with these numbers."""
    return [f"user:{number:06}" for number in numbers]


def value(shape: str, number: int, generation: int = 0) -> Value:
    """The value that a key has after this generation of writes."""
    if shape == INT:
        return number << GENERATION_BITS | generation
    head = f"{number:08}.{generation:011}"
    size = width(shape)
    return head if size == HEAD else head + (f"~{number:07}" * (size // 8))[: size - HEAD]


def generation(shape: str, number: int, found: Any) -> int:
    """The generation that a value says it is of.

    Raises:
        WrongAnswerError: it is no value of this key.
    """
    said = -1
    if isinstance(found, int) and shape == INT:
        said = found & ((1 << GENERATION_BITS) - 1)
    elif isinstance(found, str) and shape != INT and found[9:HEAD].isdecimal():
        said = int(found[9:HEAD])
    if said < 0 or found != value(shape, number, said):
        raise WrongAnswerError(f"{key(number)} is {found!r}, which nobody wrote")
    return said


def filling(size: int, shape: str) -> Iterator[dict[str, Value]]:
    """All entries of a new map, in parts."""
    for first in range(0, size, FILL_BATCH):
        yield {key(number): value(shape, number) for number in range(first, min(first + FILL_BATCH, size))}


def owned(size: int, writer: int, writers: int) -> list[int]:
    """The numbers of the keys that a writer owns, in the order in which it writes them."""
    numbers = list(range(writer, size, writers))
    random.Random(writer).shuffle(numbers)
    return numbers


def prepared(size: int, writer: int, writers: int) -> int:
    """How many writes a writer prepares: two to each of its keys, or as many as memory and patience allow."""
    return max(PAIRS_MIN, min(2 * len(range(writer, size, writers)), PAIRS_MAX))


def _generation_after(count: int, position: int, keys: int) -> int:
    """Of the key at this position in a writer's order, after so many writes; 0: not yet written."""
    return max(0, (count - 1 - position) // keys + 1)


def latest(size: int, writers: int) -> int:
    """The highest generation that any key can have."""
    return max(
        _generation_after(prepared(size, writer, writers), 0, len(range(writer, size, writers)))
        for writer in range(writers)
    )


def writes(size: int, shape: str, writer: int, writers: int) -> list[Pair]:
    """All prepared writes of a writer, in order."""
    numbers = owned(size, writer, writers)
    count = prepared(size, writer, writers)
    generations = range(1, _generation_after(count, 0, len(numbers)) + 1)
    every = ((key(number), value(shape, number, each)) for each in generations for number in numbers)
    return list(islice(every, count))


def batches(pairs: list[Pair], size: int) -> list[dict[str, Value]]:
    """The same writes as dicts of `size` entries; `size` must not exceed the writer's keys."""
    found = []
    parts = iter(pairs)
    while part := dict(islice(parts, size)):
        found.append(part)
    return found


def last_generations(size: int, counts: list[int]) -> list[int]:
    """By number of key: the generation in the end, after each writer has made so many writes."""
    found = [0] * size
    writers = len(counts)
    for writer, count in enumerate(counts):
        numbers = owned(size, writer, writers)
        again, rest = divmod(count, prepared(size, writer, writers))
        before = prepared(size, writer, writers) if again else 0
        for position, number in enumerate(numbers):
            now = _generation_after(rest, position, len(numbers))
            found[number] = now or _generation_after(before, position, len(numbers))
    return found


def check(what: str, numbers: Iterable[int], found: list[Any], expected: list[Any]) -> None:
    """Compares values one by one.

    Raises:
        WrongAnswerError: one is different, or one is missing.
    """
    if found == expected:
        return
    if len(found) != len(expected):
        raise WrongAnswerError(f"{what}: {len(found)} values, expected {len(expected)}")
    wrong = [three for three in zip(numbers, found, expected, strict=True) if three[1] != three[2]]
    number, got, right = wrong[0]
    raise WrongAnswerError(f"{what}: {key(number)} is {got!r}, expected {right!r}; {len(wrong)} are wrong")
