"""What the tests run in other processes. Imports nothing but Pheon, so that a child starts in milliseconds.

A child may be killed at any point, so it shares nothing with its parent that has a lock: plain memory for flags and
counts, a file for what went wrong. It ends when its parent is gone.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pheon

KEYS = 3000
SERIES_STEP = 100


def content(tag: int) -> dict[str, str]:
    """A version whose every value names it."""
    return {f"key {i}": f"{tag}:{i}" for i in range(KEYS)}


def tag_of(m: pheon.Map) -> int:
    """The tag of a version, all of which is read and must agree."""
    assert len(m) in {KEYS, KEYS + 1}, len(m)
    values = m.get_many([f"key {i}" for i in range(KEYS)])
    tag = int(values[0].split(":")[0])
    assert values == [f"{tag}:{i}" for i in range(KEYS)], f"version {m.version} is a mixture"
    assert ("extra" in m) == (len(m) > KEYS)
    return tag


@contextmanager
def reporting(failures: Path) -> Iterator[None]:
    """Leaves the traceback of a failure in a folder, where the parent looks for it."""
    try:
        yield
    except Exception:  # noqa: BLE001 - reported, whatever it is
        (failures / str(os.getpid())).write_text(traceback.format_exc())
        sys.exit(1)


def _until_orphaned() -> Iterator[None]:
    # Not by getppid: a fork server lives as long as its children.
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        yield


def series(start: int) -> dict[int, int]:
    """The next rows of a series that only grows: each key is its value."""
    return {i: i for i in range(start, start + SERIES_STEP)}


def write_for_ever(path: Path, seed: int, ready: Any, acknowledged: Any, failures: Path) -> None:
    """All that a writer may do, until killed. `acknowledged`: rows of the series that it was told are published."""
    rng = random.Random(seed)
    with reporting(failures):
        store = pheon.open(path)
        ready.value = 1
        for _ in _until_orphaned():
            tag = rng.getrandbits(40)
            actions = ("dict", "writer", "upsert", "delete", "compact", "series", "rollback", "gc", "drop")
            action = rng.choices(actions, (4, 2, 4, 2, 2, 6, 1, 2, 1))[0]
            if action == "series":
                rows = len(store.table("s")) if "s" in store else 0
                assert rows >= acknowledged.value, (rows, acknowledged.value)
                acknowledged.value = rows
                add = store.append if rows else store.put_map
                add("s", series(rows))
                acknowledged.value = rows + SERIES_STEP
                if rng.random() < 0.2:
                    store.gc("s", keep=2)
            elif action == "dict" or "m" not in store:
                store.put_map("m", content(tag))
            elif action == "upsert":
                store.upsert("m", content(tag), keep=rng.choice((None, 3)))
            elif action == "delete":
                # Keys that nobody has: a version is whole whatever happens.
                store.upsert("m", content(tag) | {"extra": f"{tag}:x"}, compact=False)
                store.delete("m", ["extra", "nobody's"])
            elif action == "compact":
                store.compact("m")
            elif action == "writer":
                with store.map_writer("m") as writer:
                    pairs = list(content(tag).items())
                    for start in range(0, KEYS, 500):
                        writer.update(pairs[start : start + 500])
            elif action == "rollback":
                store.rollback("m", store.versions("m")[-1].version)
            elif action == "gc":
                store.gc("m", keep=rng.randrange(1, 4))
            else:
                store.drop("m")


def write_until_interrupted(path: Path, ready: Any) -> None:
    """Publishes large versions; ends with 130 after Ctrl-C, as a shell would say."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        store = pheon.open(path)
        ready.value = 1
        for _ in _until_orphaned():
            store.put_map("m", ((f"{i}", "x" * (i % 100)) for i in range(100_000)))
    except KeyboardInterrupt:
        sys.exit(130)


def read_until(  # noqa: PLR0917 - a process has no keywords
    path: Path, handle: pheon.Map | None, stop: Any, counts: Any, number: int, failures: Path
) -> None:
    """Refreshes, reopens and reads in every way, and checks that it never sees two versions at once."""
    rng = random.Random(os.getpid())
    with reporting(failures):
        store = pheon.open(path, read_only=True)
        m = store.map("m") if handle is None else handle
        last = 0
        for _ in _until_orphaned():
            if stop.value:
                break
            m.refresh()
            fresh = store.map("m")
            assert fresh.version >= m.version >= last, (fresh.version, m.version, last)
            last = m.version
            old_tag, held = tag_of(m), m.table()
            tag_of(fresh)
            for i in rng.sample(range(KEYS), 50):
                assert m[f"key {i}"] == f"{old_tag}:{i}"
            part = m.range("key 1", "key 2")
            m.refresh()
            for row in (part[0], part[len(part) - 1], held[len(held) - KEYS], held[len(held) - 1]):
                # Slices stay on the version that they were taken from.
                assert row["value"] == f"{old_tag}:{row['key'].split()[1]}"
            counts[number] += 1


def hold_the_lock(path: Path, held: Any, release: Any) -> None:
    """Begins a version, and publishes it when told to."""
    store = pheon.open(path)
    with store.map_writer("m", threads=1) as writer:
        # So many pairs that some of them must have been handed to the engine, which has the lock then.
        writer.update((f"{i}", "by the child") for i in range(200_000))
        held.value = 1
        for _ in _until_orphaned():
            if release.value:
                break
            time.sleep(0.005)


def publish_five_times(path: Path, number: int) -> None:
    """Five versions that name their writer."""
    for _ in range(5):
        pheon.open(path).put_map("m", {"writer": number})


def list_as_nobody(folder: Path) -> None:
    """Tries to look into a folder as another user; ends with the error's number."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        os.listdir(folder)
    except OSError as error:
        sys.exit(error.errno)
