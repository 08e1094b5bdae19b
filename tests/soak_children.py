"""What a soak's processes do: one round after the other, each answer checked, until told to rest or to end.

Imports nothing but Pheon, so that a child starts at once. What is shared is plain memory: a child may be killed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import children
import live_children
from children import reporting

import pheon

# Phases. At rest a process has closed all that it had open, so that it can be measured.
WORK, REST, END = range(3)
# Processes that stay, by what they do; the others come and go.
STAYING = ("writer", "reader", "live", "client")
SLOTS = len(STAYING) + 6
TABLE_ROWS = 5000


class Board:
    """The numbers that all share."""

    NUMBERS = 2 + 4 * SLOTS

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    @property
    def phase(self) -> int:
        return self.numbers[0]

    def rounds(self, slot: int) -> int:
        return 2 + 4 * slot

    def rested(self, slot: int) -> int:
        return 3 + 4 * slot

    def begun(self, slot: int) -> int:
        return 4 + 4 * slot

    def acked(self, slot: int) -> int:
        return 5 + 4 * slot


def trim() -> None:
    """Gives free memory back, so that what is left is in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


class Role:
    """What one process does."""

    def __init__(self, place: Path, location: str, board: Board, slot: int, seed: int) -> None:
        self.place, self.location, self.board, self.slot = place, location, board, slot
        self.rng = random.Random(seed)

    def step(self) -> None:
        """One round."""
        raise NotImplementedError

    def rest(self) -> None:
        """Closes what is open."""


class Writer(Role):
    """Publishes versions of "m", changes and collects them; the one that stays appends to "s", too."""

    def step(self) -> None:
        with pheon.open(self.place) as store:
            rng, tag = self.rng, self.rng.getrandbits(40)
            action = rng.choice(("put", "writer", "parts", "upsert", "delete", "compact", "rollback", "gc", "series"))
            if action == "put":
                store.put_map("m", children.content(tag))
            elif action == "writer":
                with store.map_writer("m") as writer:
                    writer.update(children.content(tag))
            elif action == "parts":
                pairs = list(children.content(tag).items())
                with store.map_writer("m") as writer:
                    for first in range(0, len(pairs), 1000):
                        with writer.part() as part:
                            part.update(pairs[first : first + 1000])
            elif action == "upsert":
                store.upsert("m", children.content(tag), keep=3)
            elif action == "delete":
                store.upsert("m", children.content(tag) | {"extra": f"{tag}:x"}, compact=False)
                store.delete("m", ["extra", "nobody's"])
            elif action == "compact":
                store.compact("m", keep=3)
            elif action == "rollback":
                # The version may be collected meanwhile.
                with suppress(pheon.NotFoundError):
                    store.rollback("m", store.versions("m")[0].version)
            elif action == "gc":
                store.gc("m", keep=2)
            elif self.slot == STAYING.index("writer"):
                self.append(store)

    def append(self, store: pheon.Store) -> None:
        """Rows that are acknowledged stay. At last all of them go, in one step."""
        numbers = self.board.numbers
        rows = len(store.table("s")) if "s" in store else 0
        assert rows == numbers[1], (rows, numbers[1])
        if rows >= TABLE_ROWS:
            store.drop("s")
            rows = 0
        (store.append if rows else store.put_map)("s", children.series(rows))
        numbers[1] = rows + children.SERIES_STEP


class Reader(Role):
    """Has versions open and sees that they stay what they are."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.held: list[tuple[pheon.Map, int]] = []

    def step(self) -> None:
        with pheon.open(self.place, read_only=True) as store:
            m = store.map("m")
            self.held.append((m, children.tag_of(m)))
            if len(self.held) > 5:
                del self.held[self.rng.randrange(len(self.held))]
            held, tag = self.rng.choice(self.held)
            assert children.tag_of(held) == tag, "a handle changed under its holder"
            part = m.range("key 1", "key 2")
            for row in (part[0], part[len(part) - 1]):
                assert row["value"].split(":")[1] == row["key"].split()[1]
            counted = store.sql("select count(*) from m").to_pyarrow().column(0)[0].as_py()
            assert counted in {children.KEYS, children.KEYS + 1}, counted
            held.refresh()
            self.held = [pair for pair in self.held if pair[0] is not held]

    def rest(self) -> None:
        self.held.clear()


class Live(Role):
    """Counts, and sets values that name their writer, in two live maps; makes and removes others."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.maps: list[pheon.LiveMap] = []

    def step(self) -> None:
        if not self.maps:
            store = pheon.open(self.place)
            self.maps = [store.live("l", create=False), pheon.LiveMap(name=memory_name(self.place), create=False)]
        rng, me = self.rng, self.slot
        live = self.maps[rng.randrange(len(self.maps))]
        live[me, 0] = live_children.value_of(me, 0, rng.randrange(1000))
        with live.batch() as batch:
            change = rng.randrange(1000)
            for key in (1, 2):
                batch[me, key] = live_children.value_of(me, key, change)
        if rng.random() < 0.3:
            live["filler", me] = bytes([me]) * 200_000
            live.update({(me, 9, i): i for i in range(200)})
            for i in range(200):
                del live[me, 9, i]
        changes: dict[tuple[int, int], int] = {}
        for key, value in live.snapshot().items():
            if len(key) == 2 and key[0] != "filler" and key[0] != "n":
                changes[key] = live_children.change_in(key, value)
        for writer in range(SLOTS):
            assert changes.get((writer, 1)) == changes.get((writer, 2)), f"the pair of {writer} is torn"
        numbers, board = self.board.numbers, self.board
        numbers[board.begun(me)] += 1
        self.maps[0].increment(("n", me))
        numbers[board.acked(me)] += 1
        if rng.random() < 0.2:
            made = pheon.LiveMap({i: i for i in range(500)}, name=f"{memory_name(self.place)}-{os.getpid()}")
            assert made.get_many([3, 700]) == [3, None]
            made.unlink()

    def rest(self) -> None:
        for live in self.maps:
            live.close()
        self.maps.clear()


class Client(Role):
    """Asks the server, over a new connection each time."""

    def step(self) -> None:
        with pheon.connect(self.location, local=self.rng.random() < 0.2, timeout=60) as store:
            # A version that is collected at the server is of no use any more.
            with suppress(pheon.NotFoundError):
                m = store.map("m")
                children.tag_of(m)
                rows = len(m.range("key 1", "key 2").to_pyarrow())
                assert rows in {1111, 1112}, rows
            name = f"r{self.slot}"
            first = self.rng.randrange(1000)
            store.put_map(name, {i: i + first for i in range(100)})
            store.append(name, {100: 100 + first})
            assert store.map(name).get_many([0, 100, 101]) == [first, 100 + first, None]
            found = store.sql(f'select "value" from {name} where "key" = ?', [50]).to_pyarrow()
            assert found.column(0).to_pylist() == [50 + first]
            store.gc(name, keep=1)
            live = store.live("l")
            live[self.slot, 5] = live_children.value_of(self.slot, 5, first)
            assert live_children.change_in((self.slot, 5), live[self.slot, 5]) == first


ROLES: dict[str, type[Role]] = {"writer": Writer, "reader": Reader, "live": Live, "client": Client}


def memory_name(place: Path) -> str:
    """The live map in memory that belongs to this soak."""
    return f"soak-{place.parent.name}"


# What a soak must notice: a test plants it.
LEAKS: dict[str, Any] = {}


def leak(what: str, place: Path) -> None:
    """Keeps something that should have been given back."""
    kept = LEAKS.setdefault(what, [])
    if what == "descriptor":
        kept.append(os.open(place, os.O_RDONLY))
    elif what == "mapping":
        kept.append(pheon.open(place, read_only=True).map("m"))
    elif what == "memory" and not kept:
        kept.append(b"\1" * (64 << 20))
    elif what == "entry":
        (place / "m" / f"left-{len(kept)}").touch()
        kept.append(None)


def work(  # noqa: PLR0917 - a process has no keywords
    role: str, place: Path, location: str, numbers: Any, slot: int, seed: int, failures: Path, leaks: tuple[str, ...]
) -> None:
    """A process that stays: it works and rests as it is told."""
    board = Board(numbers)
    with reporting(failures):
        worker, has_rested = ROLES[role](place, location, board, slot, seed), False
        for _ in children._until_orphaned():
            if board.phase == END:
                return
            if board.phase == REST:
                if not numbers[board.rested(slot)]:
                    worker.rest()
                    trim()
                    has_rested = True
                    numbers[board.rested(slot)] = 1
                time.sleep(0.005)
                continue
            worker.step()
            # What is there at the first rest is what everything is compared with.
            for what in leaks if has_rested else ():
                leak(what, place)
            numbers[board.rounds(slot)] += 1


def work_a_while(  # noqa: PLR0917 - a process has no keywords
    role: str, place: Path, location: str, numbers: Any, slot: int, seed: int, failures: Path
) -> None:
    """A process that comes and goes; it may be killed before."""
    board = Board(numbers)
    with reporting(failures):
        worker = ROLES[role](place, location, board, slot, seed)
        for _ in range(worker.rng.randrange(1, 10)):
            if board.phase != WORK:
                return
            worker.step()
            numbers[board.rounds(slot)] += 1
