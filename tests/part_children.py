"""What the tests of builds in parts run in other processes.

Imports nothing but Pheon, so that a child starts in milliseconds.
"""

import multiprocessing
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pheon

PARTS = 4
ROWS_A_PART = 20_000


def until_orphaned() -> Iterator[None]:
    """As long as the parent lives."""
    # Not by getppid: a fork server lives as long as its children.
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        yield


def fill(part: pheon.MapPart, pairs: Any) -> None:
    """Write a whole part."""
    with part:
        part.update(pairs)


def fill_and_tell(part: pheon.MapPart, pairs: Any, told: Any) -> None:
    """Write a whole part; send back None, or the class and text of the exception."""
    try:
        fill(part, pairs)
    except Exception as error:  # noqa: BLE001 - reported, whatever it is
        told.send((type(error).__name__, str(error)))
    else:
        told.send(None)


def hold(part: pheon.MapPart, held: Any) -> None:
    """Keep a part open until killed."""
    with part:
        part.put("held", "by a child")
        held.value = 1
        for _ in until_orphaned():
            time.sleep(0.005)


def rows_of(number: int) -> dict[str, str]:
    """The rows of one part; some keys are in the part before, too."""
    first = number * ROWS_A_PART
    return {f"key {(i * 7919) % (PARTS * ROWS_A_PART)}": f"{number}" for i in range(first - 500, first + ROWS_A_PART)}


def whole() -> dict[str, str]:
    """What all parts make, where the last one counts."""
    merged: dict[str, str] = {}
    for number in range(PARTS):
        merged |= rows_of(number)
    return merged


def write_part(part: pheon.MapPart, number: int, counts: Any, failures: Path) -> None:
    """Write one part slowly enough to be killed in the middle."""
    try:
        rows = list(rows_of(number).items())
        with part:
            counts[0] += 1
            for start in range(0, len(rows), 4000):
                part.update(rows[start : start + 4000])
    except pheon.Error as error:
        # The writer was killed, and its other processes were not: they are at it still, or another build has begun.
        if not any(said in str(error) for said in ("is over", "being written by process", "finished already")):
            (failures / f"part-{number}").write_text(traceback.format_exc())
            raise


def build(path: Path, seed: int, counts: Any, resume: bool, failures: Path) -> None:
    """A whole build, a process for each part; finished ones are left alone. `counts`: begun, and finished before."""
    rng = random.Random(seed)
    context = multiprocessing.get_context("fork")
    try:
        store = pheon.open(path)
        with store.map_writer("m", on_duplicate="last", resume=resume) as writer:
            parts = [writer.part(f"part {number}", threads=1) for number in range(PARTS)]
            counts[1] = sum(part.finished for part in parts)
            order = [number for number in range(PARTS) if not parts[number].finished]
            rng.shuffle(order)
            children = [
                context.Process(target=write_part, args=(parts[number], number, counts, failures)) for number in order
            ]
            for child in children:
                child.start()
            for child in children:
                child.join()
    except Exception as error:  # noqa: BLE001 - reported, whatever it is
        if not any(said in str(error) for said in ("was never", "still being written")):
            (failures / "build").write_text(traceback.format_exc())
