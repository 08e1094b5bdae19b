"""What the tests of live maps run in other processes. Imports nothing but Pheon, so that a child starts at once.

A child may be killed at any point, so it shares plain memory with its parent, no lock. It ends when its parent is gone.

Each writer owns keys. A key's state is a number: ``c`` when its value is that of change ``c``, ``-c`` when change ``c``
deleted it, 0 when it was never set. Before a change the writer notes the coming state as begun, and afterwards as
acknowledged: what the map has must be one of the two, whoever is killed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from children import _until_orphaned, reporting

import pheon

T = TypeVar("T")

WRITERS = 4
READERS = 8
# Single keys of a writer, then the pair, then the number of its group: keys that come and go as a whole, newly named.
SINGLES = 24
PAIR = (SINGLES, SINGLES + 1)
GROUP = SINGLES + 2
KEYS = SINGLES + 3
GROUP_KEYS = 100
FILLER_MAX = 5000
# Nothing takes so long, on any machine, but what hangs.
HANG_SECONDS = 100.0
COUNTERS = ("hits", "locked", "key locked")

# Numbers in the shared memory: for each writer begun and acknowledged states, then begun and acknowledged counts.
WRITER_NUMBERS = 2 * KEYS + 2 * len(COUNTERS) + 1
# For each process the rounds that it did, and the longest operation in microseconds.
PROCESS_NUMBERS = 2
ALL_NUMBERS = 1 + WRITERS * WRITER_NUMBERS + (WRITERS + READERS) * PROCESS_NUMBERS


class Board:
    """The shared memory of a torture."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    @property
    def stop(self) -> bool:
        return bool(self.numbers[0])

    def end(self) -> None:
        self.numbers[0] = 1

    def begun(self, writer: int, key: int) -> int:
        return 1 + writer * WRITER_NUMBERS + key

    def acked(self, writer: int, key: int) -> int:
        return 1 + writer * WRITER_NUMBERS + KEYS + key

    def counts(self, writer: int, counter: int) -> tuple[int, int]:
        """Where begun and acknowledged counts of a counter are."""
        at = 1 + writer * WRITER_NUMBERS + 2 * KEYS + 2 * counter
        return at, at + 1

    def last(self, writer: int) -> int:
        """Where the number of the writer's last change is."""
        return 1 + writer * WRITER_NUMBERS + 2 * KEYS + 2 * len(COUNTERS)

    def rounds(self, process: int) -> int:
        return 1 + WRITERS * WRITER_NUMBERS + process * PROCESS_NUMBERS

    def timed(self, process: int, operation: Callable[..., T], *args: Any) -> T:
        """Runs one operation, which must not hang, and notes how long it took."""
        began = time.monotonic()
        result = operation(*args)
        seconds = time.monotonic() - began
        at = self.rounds(process) + 1
        self.numbers[at] = max(self.numbers[at], int(seconds * 1e6))
        assert seconds < HANG_SECONDS, f"{operation} took {seconds:.1f} s"
        return result

    def longest_seconds(self) -> float:
        return max(self.numbers[self.rounds(process) + 1] for process in range(WRITERS + READERS)) / 1e6


def open_map(place: tuple[str, str | None], *, create: bool | None = None) -> pheon.LiveMap:
    """A map in memory, or in a store: (name, the store's path)."""
    name, store = place
    return pheon.LiveMap(name=name, create=create) if store is None else pheon.open(store).live(name, create=create)


def value_of(writer: int, key: int, change: int) -> str:
    """Says who wrote it, and every byte of it can be checked."""
    unit = f"{writer}.{key}.{change}|"
    # Most values are short, some have some pages.
    length = (change * 7919 + key * 104_729) % (FILLER_MAX + 1)
    if change % 4:
        length //= 40
    return f"{writer}:{key}:{change}:" + (unit * (length // len(unit) + 1))[:length]


def group_of_key(key: tuple[int, ...]) -> str:
    return "{}:{}:{}:".format(*key)


def group_of(writer: int, change: int) -> dict[tuple[int, int, int], str]:
    """The entries that a change of a writer's group brought."""
    keys = [(writer, GROUP + i, change) for i in range(GROUP_KEYS)]
    return {key: group_of_key(key) for key in keys}


def group_in(entries: Mapping[Any, Any], writer: int) -> int:
    """The change that brought a writer's group, which must be whole, or 0."""
    group = {key: value for key, value in entries.items() if len(key) == 3 and key[0] == writer}
    if not group:
        return 0
    (_, _, change), *_ = group
    assert group == group_of(writer, change), f"the group of writer {writer} is torn: {len(group)} keys"
    return change


def change_in(key: tuple[int, ...], value: Any) -> int:
    """The number of the change that wrote a value, all of which is checked."""
    writer, of, change, _ = value.split(":", 3)
    assert (int(writer), int(of)) == key[:2], f"key {key} has the value of another: {value[:80]!r}"
    expected = value_of(*key, int(change)) if len(key) == 2 else group_of_key(key)
    assert value == expected, f"a torn value of {key}: {value[:80]!r}, {len(value)} bytes, not {len(expected)}"
    return int(change)


# Writers -------------------------------------------------------------------------------------------------------------


class Writer:
    """One that may be killed at any point."""

    def __init__(self, live: pheon.LiveMap, board: Board, number: int, rng: random.Random) -> None:
        self.live, self.board, self.number, self.rng = live, board, number, rng
        self.numbers = board.numbers

    def check_predecessor(self) -> None:
        """Everything acknowledged is there; what was begun is there as a whole or not at all."""
        numbers, board, me = self.numbers, self.board, self.number
        shown = self.live.snapshot()
        found = []
        for key in range(KEYS):
            begun, acked = numbers[board.begun(me, key)], numbers[board.acked(me, key)]
            if key == GROUP:
                change = group_in(shown, me)
            else:
                value = self.live.get((me, key))
                assert shown.get((me, key)) == value, "nobody else writes this key"
                change = 0 if value is None else change_in((me, key), value)
            # Of a missing key only one of the two states can be that of a deletion, but where nothing was under way.
            state = change or (begun if begun <= 0 else acked)
            assert state in {begun, acked} and (change or state <= 0), (  # noqa: PT018
                f"key {(me, key)} is of change {change}, begun {begun}, acknowledged {acked}"
            )
            found.append((begun != acked, state == begun))
            numbers[board.begun(me, key)] = numbers[board.acked(me, key)] = state
        # At most one change was under way, so its keys are all as begun or all as before.
        assert len({as_begun for touched, as_begun in found if touched}) <= 1, "half of a transaction"
        for counter in range(len(COUNTERS)):
            begun_at, acked_at = board.counts(me, counter)
            assert 0 <= numbers[begun_at] - numbers[acked_at] <= 1

    def change(self, keys: list[int], make: Callable[[int], Any], *, delete: bool) -> None:
        board, numbers, me = self.board, self.numbers, self.number
        numbers[board.last(me)] += 1
        number = numbers[board.last(me)]
        state = -number if delete else number
        for key in keys:
            numbers[board.begun(me, key)] = state
        board.timed(me, make, number)
        for key in keys:
            numbers[board.acked(me, key)] = state

    def one(self) -> None:
        key = self.rng.randrange(SINGLES)
        me, live = self.number, self.live
        if self.numbers[self.board.acked(me, key)] > 0 and self.rng.random() < 0.3:
            take = self.rng.choice((live.__delitem__, live.pop))
            self.change([key], lambda _: take((me, key)), delete=True)
        else:
            self.change([key], lambda c: live.__setitem__((me, key), value_of(me, key, c)), delete=False)

    def several(self) -> None:
        """The pair, and some others, in one transaction."""
        me, live = self.number, self.live
        keys = [*PAIR, *self.rng.sample(range(SINGLES), 5)]

        def in_a_batch(change: int) -> None:
            with live.batch() as batch:
                for key in keys:
                    batch[me, key] = value_of(me, key, change)

        def in_an_update(change: int) -> None:
            live.update({(me, key): value_of(me, key, change) for key in keys})

        self.change(keys, self.rng.choice((in_a_batch, in_an_update)), delete=False)

    def group(self) -> None:
        """Many keys come or go at once under new names, so that the index fills with deleted keys and is made anew."""
        me, live = self.number, self.live
        before = self.numbers[self.board.acked(me, GROUP)]

        def take_out(_: int) -> None:
            with live.batch() as batch:
                for key in group_of(me, before):
                    del batch[key]

        def put_in(change: int) -> None:
            live.update(group_of(me, change))

        def change_for_another(change: int) -> None:
            with live.batch() as batch:
                for key in group_of(me, before):
                    del batch[key]
                batch.update(group_of(me, change))

        if before <= 0:
            self.change([GROUP], put_in, delete=False)
        elif self.rng.random() < 0.5:
            self.change([GROUP], take_out, delete=True)
        else:
            self.change([GROUP], change_for_another, delete=False)

    def count(self) -> None:
        counter = self.rng.randrange(len(COUNTERS))
        name, live = COUNTERS[counter], self.live
        begun_at, acked_at = self.board.counts(self.number, counter)

        def increment() -> None:
            if name == "hits":
                live.increment(name)
                return
            lock = live.lock(timeout=HANG_SECONDS) if name == "locked" else live.lock_key(name, HANG_SECONDS)
            with lock:
                live[name] = live.get(name, 0) + 1

        self.numbers[begun_at] += 1
        self.board.timed(self.number, increment)
        self.numbers[acked_at] += 1


def write_until_killed(place: tuple[str, str | None], numbers: Any, number: int, seed: int, failures: Path) -> None:
    """Changes its keys in all ways, after a look at what its predecessor left."""
    board, rng = Board(numbers), random.Random(seed)
    with reporting(failures):
        live = open_map(place, create=False)
        writer = Writer(live, board, number, rng)
        board.timed(number, writer.check_predecessor)
        ways = (writer.one, writer.several, writer.group, writer.count)
        for _ in _until_orphaned():
            for _ in range(10):
                if board.stop:
                    return
                rng.choices(ways, (6, 3, 1, 4))[0]()
                numbers[board.rounds(number)] += 1


# Readers -------------------------------------------------------------------------------------------------------------


class Reader:
    """Looks at everything in every way, and remembers what it saw."""

    def __init__(self, live: pheon.LiveMap, rng: random.Random) -> None:
        self.live, self.rng = live, rng
        self.seen: dict[Any, int] = {}

    def saw(self, key: Any, value: Any) -> int:
        """Time goes forward: no older value of a key than one that was seen."""
        change = value if isinstance(key, str) else change_in(key, value)
        assert change >= self.seen.get(key, 0), f"{key!r} went back from {self.seen[key]} to {change}"
        self.seen[key] = change
        return change

    def some(self) -> None:
        keys: list[Any] = [(self.rng.randrange(WRITERS), self.rng.randrange(GROUP)) for _ in range(30)]
        keys += COUNTERS
        for key in keys:
            value = self.live.get(key)
            if value is not None:
                self.saw(key, value)
        for key, value in zip(keys, self.live.get_many(keys), strict=True):
            if value is not None:
                self.saw(key, value)

    def all(self) -> None:
        """One moment: each key once, pairs equal, groups whole."""
        shown = self.live.snapshot()
        items = list(shown.items())
        entries = dict(items)
        assert len(items) == len(entries) == len(shown), (len(items), len(entries), len(shown))
        changes = {key: self.saw(key, value) for key, value in items if len(key) != 3}
        for writer in range(WRITERS):
            one, other = (changes.get((writer, key)) for key in PAIR)
            assert one == other, f"the pair of writer {writer} is torn: {one}, {other}"
            change = group_in(entries, writer)
            assert change >= self.seen.get(("group", writer), 0) or not change
            self.seen["group", writer] = max(change, self.seen.get(("group", writer), 0))
        for key in self.rng.sample(sorted(entries, key=str), min(len(entries), 20)):
            assert shown[key] == entries[key]
        assert list(shown) == [key for key, _ in items]

    def iterate(self) -> None:
        keys = list(self.live)
        assert len(keys) == len(set(keys)), "a key twice"
        most = WRITERS * (KEYS + GROUP_KEYS) + len(COUNTERS)
        assert len(keys) <= most
        assert len(self.live) <= most
        for key, value in self.live.items():
            if len(key) != 3:
                self.saw(key, value)

    def wait(self) -> None:
        changed = self.live.wait(timeout=0.02)
        assert all(isinstance(key, tuple) or key in COUNTERS for key in changed), changed

    def under_the_lock(self) -> None:
        """Nothing changes, so length and iteration agree."""
        with self.live.lock:
            assert len(self.live) == len(list(self.live)) == len(self.live.snapshot())


def read_until_stopped(place: tuple[str, str | None], numbers: Any, number: int, seed: int, failures: Path) -> None:
    board, rng = Board(numbers), random.Random(seed)
    with reporting(failures):
        reader = Reader(open_map(place, create=False), rng)
        ways = (reader.some, reader.all, reader.iterate, reader.wait, reader.under_the_lock)
        for _ in _until_orphaned():
            if board.stop:
                return
            board.timed(number, rng.choices(ways, (8, 3, 2, 2, 0.3))[0])
            numbers[board.rounds(number)] += 1
            # Leaves most of the machine to the writers.
            time.sleep(rng.random() * 0.05)


# Locks ---------------------------------------------------------------------------------------------------------------


def lock_of(live: pheon.LiveMap, kind: str, timeout: float | None = None) -> Any:
    return live.lock(timeout=timeout) if kind == "map" else live.lock_key("k", timeout)


def hold(place: tuple[str, str | None], kind: str, state: Any, failures: Path) -> None:
    """Takes a lock, twice, and a write inside; 1: held; set to 2 by the parent: let go; 3: did so."""
    with reporting(failures):
        live = open_map(place)
        with lock_of(live, kind), lock_of(live, kind):
            live["holder"] = 1
            state.value = 1
            for _ in _until_orphaned():
                if state.value == 2:
                    break
                time.sleep(0.002)
        state.value = 3


def take(place: tuple[str, str | None], kind: str, state: Any, failures: Path) -> None:
    """1: about to wait for a lock; 2: had it."""
    with reporting(failures):
        live = open_map(place)
        state.value = 1
        with lock_of(live, kind, HANG_SECONDS):
            live.increment("taken")
        state.value = 2


def wait_for_a_change(place: tuple[str, str | None], state: Any, failures: Path) -> None:
    """1: about to wait; 2: was told of a change of "x"."""
    with reporting(failures):
        live = open_map(place)
        state.value = 1
        for _ in _until_orphaned():
            if "x" in live.wait(timeout=1):
                state.value = 2
                return


# Creating and removing -----------------------------------------------------------------------------------------------


def make_and_remove(  # noqa: PLR0917 - a process has no keywords
    store: str | None, names: list[str], rounds: Any, number: int, seed: int, failures: Path
) -> None:
    """Opens maps that others make, use and remove at the same time. Whatever is opened is whole."""
    rng = random.Random(seed)
    with reporting(failures):
        for _ in _until_orphaned():
            live = open_map((rng.choice(names), store))
            try:
                live["n"] = [number] * 50
                live.increment("rounds")
                if rng.random() < 0.3:
                    live.update(dict.fromkeys(range(100), "x" * 1000))
                if rng.random() < 0.5:
                    live.unlink()
            except (pheon.NotFoundError, pheon.ClosedError):
                # Unlinked by another one before, or while it is written to.
                pass
            rounds[number] += 1
