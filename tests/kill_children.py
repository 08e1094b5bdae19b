"""Operations that `test_kill_each.py` kills in the middle: how each is prepared, done and checked.

Imports nothing but Pheon, so that a child starts at once.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from children import KEYS, SERIES_STEP, _until_orphaned, content, reporting, series, tag_of

import pheon

GROUP = 1500


@dataclass(frozen=True)
class Operation:
    """All of them take the store and the number of the round."""

    prepare: Callable[[pheon.Store, int], Any]
    act: Callable[[pheon.Store, int], Any]
    # Of what is there: whether it is as before, and whether it is as afterwards. It fails for anything else.
    look: Callable[[pheon.Store, int], tuple[bool, bool]]


def put_old(store: pheon.Store, n: int) -> None:
    store.put_map("m", content(n), lock_timeout=5)
    store.gc("m", keep=1)


def tags(store: pheon.Store, n: int) -> tuple[bool, bool]:
    tag = tag_of(store.map("m"))
    return tag == n, tag == n + 1


def write_parts(store: pheon.Store, n: int) -> None:
    pairs = list(content(n + 1).items())
    with store.map_writer("m") as writer:
        for first in range(0, KEYS, 1000):
            with writer.part() as part:
                part.update(pairs[first : first + 1000])


def put_extra(store: pheon.Store, n: int) -> None:
    store.put_map("m", content(n) | {"extra": f"{n}:x"}, lock_timeout=5)
    store.gc("m", keep=1)


def put_two(store: pheon.Store, n: int) -> None:
    put_old(store, n + 1)
    store.put_map("m", content(n))


def roll_back(store: pheon.Store, n: int) -> None:
    store.rollback("m", store.versions("m")[-2].version)


def put_many_versions(store: pheon.Store, n: int) -> None:
    put_old(store, n)
    for _ in range(3):
        store.upsert("m", content(n), compact=False)


def is_collected(store: pheon.Store, n: int) -> tuple[bool, bool]:
    assert tag_of(store.map("m")) == n
    versions = [v.version for v in store.versions("m")]
    assert versions == list(range(versions[0], versions[-1] + 1)), versions
    for version in versions:
        assert tag_of(store.map("m", version=version)) == n
    # Cut short it has collected some of them.
    return len(versions) > 1, len(versions) == 1


def is_dropped(store: pheon.Store, n: int) -> tuple[bool, bool]:
    if "m" not in store:
        return False, True
    assert tag_of(store.map("m")) == n
    return True, False


def put_series(store: pheon.Store, _: int) -> None:
    store.put_map("s", series(0), lock_timeout=5)
    for step in range(1, 4):
        store.append("s", series(step * SERIES_STEP), compact=False)
    store.gc("s", keep=1)


def series_in(store: pheon.Store) -> int:
    rows = store.table("s").to_numpy("value").tolist()
    assert rows == list(range(len(rows)))
    assert len(rows) % SERIES_STEP == 0, f"{len(rows)} rows: some batch is there in part"
    return len(rows) // SERIES_STEP


def is_appended(store: pheon.Store, _: int) -> tuple[bool, bool]:
    steps = series_in(store)
    return steps == 4, steps == 5


def is_compacted(store: pheon.Store, _: int) -> tuple[bool, bool]:
    assert series_in(store) == 4
    return len(store.versions("s")) == 1, len(store.versions("s")) == 2


# Live maps ------------------------------------------------------------------------------------------------------------


def live_of(store: pheon.Store, name: str) -> pheon.LiveMap:
    limits: dict[str, Any] = {"cache": {"max_entries": GROUP}, "durable": {"durable": True}}.get(name, {})
    return store.live(name, **limits)


def group(n: int) -> dict[Any, str]:
    """So many entries that the index and the log grow while they come."""
    return {(n, i): f"{n}:{i}:" + "x" * (i % 300) for i in range(GROUP)}


def put_group(name: str) -> Callable[[pheon.Store, int], None]:
    def prepare(store: pheon.Store, n: int) -> None:
        if name in store.live_names():
            store.drop_live(name)
        live_of(store, name).update(group(n))

    return prepare


def change_group(name: str) -> Callable[[pheon.Store, int], None]:
    def act(store: pheon.Store, n: int) -> None:
        live = live_of(store, name)
        with live.batch() as batch:
            batch.clear()
            batch.update(group(n + 1))

    return act


def crowd_out(store: pheon.Store, n: int) -> None:
    live_of(store, "cache").update(group(n + 1))


def groups(name: str) -> Callable[[pheon.Store, int], tuple[bool, bool]]:
    def look(store: pheon.Store, n: int) -> tuple[bool, bool]:
        entries = dict(live_of(store, name).snapshot())
        ((first, _), *_) = entries
        assert entries == group(first), f"{len(entries)} entries, the first of group {first}, in round {n}"
        return first == n, first == n + 1

    return look


def freeze(store: pheon.Store, n: int) -> None:
    store.live("frozen", create=False).freeze("m")


def to_freeze(store: pheon.Store, n: int) -> None:
    put_old(store, n)
    if "frozen" in store.live_names():
        store.drop_live("frozen")
    store.live("frozen").update(content(n + 1))


def make_live(store: pheon.Store, n: int) -> None:
    live_of(store, "made")["n"] = n


def no_live(store: pheon.Store, n: int) -> None:
    if "made" in store.live_names():
        store.drop_live("made")
    # Who makes one removes what others left.
    store.live("another").unlink()


def is_made(store: pheon.Store, n: int) -> tuple[bool, bool]:
    if "made" not in store.live_names():
        return True, False
    live = store.live("made", create=False)
    assert dict(live) in ({}, {"n": n})
    return len(live) == 0, len(live) == 1


def unlink_live(store: pheon.Store, n: int) -> None:
    store.drop_live("made")


def is_unlinked(store: pheon.Store, n: int) -> tuple[bool, bool]:
    try:
        live = store.live("made", create=False)
    except pheon.NotFoundError:
        return False, True
    assert dict(live) == {"n": n}
    return True, False


OPERATIONS = {
    "put": Operation(put_old, lambda s, n: s.put_map("m", content(n + 1)), tags),
    "parts": Operation(put_old, write_parts, tags),
    "upsert": Operation(put_old, lambda s, n: s.upsert("m", content(n + 1)), tags),
    "delete": Operation(
        put_extra,
        lambda s, n: s.delete("m", ["extra"], compact=False),
        lambda s, n: (tag_of(s.map("m")) == n and "extra" in s.map("m"), "extra" not in s.map("m")),
    ),
    "rollback": Operation(put_two, roll_back, tags),
    "gc": Operation(put_many_versions, lambda s, n: s.gc("m", keep=1), is_collected),
    "drop": Operation(put_old, lambda s, n: s.drop("m"), is_dropped),
    "append": Operation(put_series, lambda s, n: s.append("s", series(4 * SERIES_STEP), compact=False), is_appended),
    "compact": Operation(put_series, lambda s, n: s.compact("s"), is_compacted),
    "freeze": Operation(to_freeze, freeze, tags),
    "live: grow": Operation(put_group("grow"), change_group("grow"), groups("grow")),
    "live: durable": Operation(put_group("durable"), change_group("durable"), groups("durable")),
    "live: evict": Operation(put_group("cache"), crowd_out, groups("cache")),
    "live: make": Operation(no_live, make_live, is_made),
    "live: unlink": Operation(make_live, unlink_live, is_unlinked),
}


def do_with_little_memory(path: Path, name: str, number: int, room_bytes: int, failures: Path) -> None:
    """One operation in so much more address space than there is already. 0: done; 3: it said that it is not."""
    with reporting(failures):
        # What is loaded when it is first needed is there before.
        other = pheon.open(path.with_name(f"other-{os.getpid()}"))
        OPERATIONS[name].prepare(other, 0)
        OPERATIONS[name].act(other, 0)
        store = pheon.open(path)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room_bytes, resource.RLIM_INFINITY))
        try:
            OPERATIONS[name].act(store, number)
        except (OSError, MemoryError) as error:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                raise
            os._exit(3)
        except BaseException:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            raise
        os._exit(0)


def do_in_a_group(path: Path, name: str, number: int, join: list[Path]) -> None:
    """One operation as a member of a control group."""
    for tasks in join:
        tasks.write_text(str(os.getpid()))
    OPERATIONS[name].act(pheon.open(path), number)
    os._exit(0)


def do(path: Path, name: str, number: int, state: Any, failures: Path) -> None:
    """One operation; 1: about to begin, 2: acknowledged."""
    with reporting(failures):
        store = pheon.open(path)
        state.value = 1
        OPERATIONS[name].act(store, number)
        state.value = 2
        for _ in _until_orphaned():
            time.sleep(0.001)


def read(path: Path, name: str, stop: Any, rounds: Any, failures: Path) -> None:
    """Reads all that is there, whatever the operation does to it: each version and each moment is whole."""
    with reporting(failures):
        store = pheon.open(path, read_only=True)
        # Nothing else takes a dataset away.
        stay = set() if name == "drop" else set(store)
        held: list[tuple[pheon.Map, int]] = []
        for _ in _until_orphaned():
            if stop.value:
                return
            assert stay <= set(store), "a dataset was gone for a while"
            # It may be dropped, and made anew.
            with nullcontext() if "m" in stay else suppress(pheon.NotFoundError):
                m = store.map("m")
                held = [*held[-3:], (m, tag_of(m))]
            for m, tag in held:
                assert tag_of(m) == tag, "a handle changed under its holder"
            with nullcontext() if "s" in stay else suppress(pheon.NotFoundError):
                assert series_in(store) in {1, 2, 3, 4, 5}
            for map_name in ("grow", "durable", "cache"):
                # Unlinked meanwhile.
                with suppress(pheon.NotFoundError, pheon.ClosedError):
                    entries = dict(store.live(map_name, create=False).snapshot())
                    if entries:
                        ((first, _), *_) = entries
                        assert entries == group(first), f"half of group {first} of {map_name}"
            with suppress(pheon.NotFoundError, pheon.ClosedError):
                assert list(store.live("made", create=False).snapshot()) in ([], ["n"])
            rounds.value += 1
            # Leaves most of the machine to who is killed.
            time.sleep(0.005)
