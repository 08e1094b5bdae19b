"""Writers of live maps are killed at random points, and nothing of it is seen: no torn value, no lost write, no hang.

Seeds are printed; PHEON_SEED repeats a run as far as kills allow, PHEON_LONG=1 kills twenty times as many.
"""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import live_children as children
import pytest
from killing import LONG, SERVER, START_SECONDS_MAX, check_failures, wait_for
from live_children import Board

import pheon

TIMES = 20 if LONG else 1


@pytest.fixture
def failures(tmp_path: Path) -> Path:
    """Where children leave their tracebacks."""
    folder = tmp_path / "failures"
    folder.mkdir()
    return folder


@pytest.fixture(params=["memory", "store"])
def place(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[tuple[str, str | None]]:
    """Name and store of a map, which is gone afterwards with all that it had in memory."""
    name = f"test-{uuid.uuid4().hex}"
    where = (name, str(memory_path / "store") if request.param == "store" else None)
    yield where
    folder = _folder(where)
    if folder.exists():
        children.open_map(where).unlink()
        assert not folder.exists()
    assert [entry for entry in os.listdir("/dev/shm") if name in entry] == []


def _folder(place: tuple[str, str | None]) -> Path:
    name, store = place
    return Path("/dev/shm", f"pheon-live-{os.geteuid()}-{name}") if store is None else Path(store, ".live", name)


# Writers and readers at once ------------------------------------------------------------------------------------------


@pytest.mark.timeout(600 * TIMES, method="thread")
def test_torture(
    place: tuple[str, str | None], failures: Path, rng: random.Random, processes: list[BaseProcess]
) -> None:
    kills_wanted = 50 * TIMES
    live = children.open_map(place, create=True)
    # So much that the log is cleaned from the beginning.
    for i in range(5):
        live["filler"] = bytes([i]) * (1 << 20)
    del live["filler"]
    numbers = SERVER.RawArray("q", children.ALL_NUMBERS)
    board = Board(numbers)
    running: dict[int, BaseProcess] = {}
    # What killed writers had begun to count: it may be counted or not.
    lost = [0] * len(children.COUNTERS)

    def start(number: int) -> None:
        target = children.write_until_killed if number < children.WRITERS else children.read_until_stopped
        numbers[board.rounds(number)] = 0
        args = (place, numbers, number, rng.getrandbits(32), failures)
        running[number] = SERVER.Process(target=target, args=args, daemon=True)
        running[number].start()
        processes.append(running[number])

    for number in range(children.WRITERS + children.READERS):
        start(number)

    kills = interrupted = readers_killed = 0
    last_progress = time.monotonic()

    def acknowledged(counter: int) -> int:
        return sum(numbers[board.counts(writer, counter)[1]] for writer in range(children.WRITERS))

    def is_enough() -> bool:
        """Also on a slow machine: kills in the middle of something, and each counter counted."""
        counted = all(acknowledged(counter) for counter in range(len(children.COUNTERS)))
        return kills >= kills_wanted and interrupted >= kills_wanted // 4 and counted

    while not is_enough() and not any(failures.iterdir()):
        time.sleep(rng.random() * 0.03)
        ready = [number for number in range(children.WRITERS) if numbers[board.rounds(number)] > 0]
        if not ready:
            assert time.monotonic() < last_progress + START_SECONDS_MAX, "no writer gets ahead"
            continue
        last_progress = time.monotonic()
        number = rng.choice(ready)
        if rng.random() < 0.1:
            number = children.WRITERS + rng.randrange(children.READERS)
            readers_killed += 1
        else:
            kills += 1
        victim = running[number]
        victim.kill()
        victim.join(START_SECONDS_MAX)
        assert victim.exitcode in {-signal.SIGKILL, 1}, victim.exitcode
        if number < children.WRITERS:
            at_work = False
            for counter in range(len(lost)):
                begun_at, acked_at = board.counts(number, counter)
                at_work |= numbers[begun_at] != numbers[acked_at]
                lost[counter] += numbers[begun_at] - numbers[acked_at]
                numbers[begun_at] = numbers[acked_at]
            for key in range(children.KEYS):
                at_work |= numbers[board.begun(number, key)] != numbers[board.acked(number, key)]
            interrupted += at_work
        start(number)
    wait_for(lambda: all(map(board_started(board), range(children.WRITERS))) or any(failures.iterdir()), "no start")
    board.end()
    for process in running.values():
        process.join(START_SECONDS_MAX)
    check_failures(failures)
    assert [process.exitcode for process in running.values()] == [0] * len(running)

    rounds = sum(numbers[board.rounds(number)] for number in range(len(running)))
    print(
        f"{kills} writers killed, {interrupted} of them in the middle of a change; {readers_killed} readers killed; "
        f"{rounds} rounds of those that were left; longest operation {board.longest_seconds():.3f} s; {live.info()}"
    )
    for counter, name in enumerate(children.COUNTERS):
        acked = acknowledged(counter)
        assert acked <= live.get(name, 0) <= acked + lost[counter], (name, acked, live.get(name), lost[counter])
    for number in range(children.WRITERS):
        children.Writer(live, board, number, rng).check_predecessor()
    children.Reader(live, rng).all()
    live["after"] = "all"
    assert live["after"] == "all"


def board_started(board: Board) -> Callable[[int], bool]:
    return lambda number: board.numbers[board.rounds(number)] > 0


# Locks ---------------------------------------------------------------------------------------------------------------


class Child:
    """A process with a number in shared memory that says how far it is."""

    def __init__(
        self, processes: list[BaseProcess], failures: Path, target: Callable[..., None], *args: object
    ) -> None:
        self.state, self.failures = SERVER.RawValue("b"), failures
        self.process = SERVER.Process(target=target, args=(*args, self.state, failures), daemon=True)
        self.process.start()
        processes.append(self.process)

    def reaches(self, state: int) -> None:
        wait_for(lambda: self.state.value >= state or any(self.failures.iterdir()), f"not reached: {state}")
        check_failures(self.failures)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(START_SECONDS_MAX)
        assert self.process.exitcode == -signal.SIGKILL

    def ends(self) -> None:
        self.process.join(START_SECONDS_MAX)
        check_failures(self.failures)
        assert self.process.exitcode == 0


def _seconds_until_asleep(process: BaseProcess) -> None:
    """Waits until the process sleeps in the kernel."""

    def sleeps() -> bool:
        return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S"

    wait_for(sleeps, "it does not wait")


@pytest.mark.timeout(300, method="thread")
@pytest.mark.parametrize("kind", ["map", "key"])
def test_the_lock_of_a_killed_holder_is_free(
    place: tuple[str, str | None], kind: str, failures: Path, processes: list[BaseProcess]
) -> None:
    live = children.open_map(place, create=True)
    longest = 0.0
    for round_number in range(3):
        holder = Child(processes, failures, children.hold, place, kind)
        holder.reaches(1)
        waiters = [Child(processes, failures, children.take, place, kind) for _ in range(3)]
        for waiter in waiters:
            waiter.reaches(1)
            _seconds_until_asleep(waiter.process)
        with pytest.raises(pheon.LockTimeout), children.lock_of(live, kind, 0.05):
            pass
        # One is killed while it waits: nobody notices.
        waiters.pop().kill()
        assert not any(waiter.state.value == 2 for waiter in waiters), "the lock was given to two"
        holder.kill()
        began = time.monotonic()
        with children.lock_of(live, kind, children.HANG_SECONDS):
            longest = max(longest, time.monotonic() - began)
            assert live["holder"] == 1
        for waiter in waiters:
            waiter.ends()
        assert live["taken"] == 2 * (round_number + 1)
    print(f"longest wait for the lock of a killed holder: {longest:.3f} s")


@pytest.mark.timeout(300, method="thread")
@pytest.mark.parametrize("kind", ["map", "key"])
def test_the_lock_of_a_stopped_holder_is_never_taken_from_it(
    place: tuple[str, str | None], kind: str, failures: Path, processes: list[BaseProcess]
) -> None:
    live = children.open_map(place, create=True)
    live["x"] = 1
    holder = Child(processes, failures, children.hold, place, kind)
    holder.reaches(1)
    pid = holder.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "it does not stop")
    waiter = Child(processes, failures, children.take, place, kind)
    waiter.reaches(1)
    for _ in range(5):
        with pytest.raises(pheon.LockTimeout), children.lock_of(live, kind, 0.2):
            pass
        # Who only reads waits for nobody.
        assert live["x"] == 1
        assert dict(live.snapshot()) == dict(live) == {"x": 1, "holder": 1}
        assert live.wait(timeout=0.01) <= {"holder"}
    if kind == "key":
        # It stops who takes it, nobody else.
        live["y"] = 1
        del live["y"]
    assert waiter.state.value == 1
    os.kill(pid, signal.SIGCONT)
    holder.state.value = 2
    holder.ends()
    waiter.ends()
    with children.lock_of(live, kind, children.HANG_SECONDS):
        live["x"] = 2
    assert dict(live) == {"x": 2, "holder": 1, "taken": 1}


@pytest.mark.timeout(300, method="thread")
def test_a_timeout_for_a_key_counts_also_while_the_map_is_locked(
    place: tuple[str, str | None], failures: Path, processes: list[BaseProcess]
) -> None:
    """The first lock of a key makes the file of these locks."""
    live = children.open_map(place, create=True)
    holder = Child(processes, failures, children.hold, place, "map")
    holder.reaches(1)
    with pytest.raises(pheon.LockTimeout), live.lock_key("k", timeout=0.2):
        pass
    holder.kill()
    with live.lock_key("k", timeout=children.HANG_SECONDS):
        pass


@pytest.mark.timeout(300, method="thread")
def test_killed_while_waiting_for_a_change(
    place: tuple[str, str | None], failures: Path, processes: list[BaseProcess]
) -> None:
    live = children.open_map(place, create=True)
    waiters = [Child(processes, failures, children.wait_for_a_change, place) for _ in range(3)]
    for waiter in waiters:
        waiter.reaches(1)
        _seconds_until_asleep(waiter.process)
    waiters.pop().kill()
    live["x"] = 1
    for waiter in waiters:
        waiter.ends()
        assert waiter.state.value == 2


# Creating and removing -----------------------------------------------------------------------------------------------


def _unfinished(store: str | None) -> set[str]:
    folder = Path("/dev/shm") if store is None else Path(store, ".live")
    prefix = f"pheon-live-{os.geteuid()}-.tmp-" if store is None else ".tmp-"
    return {entry for entry in os.listdir(folder) if entry.startswith(prefix)}


@pytest.mark.timeout(600 * TIMES, method="thread")
def test_kill_those_who_make_and_remove_maps(
    place: tuple[str, str | None], failures: Path, rng: random.Random, processes: list[BaseProcess]
) -> None:
    name, store = place
    if store is not None:
        pheon.open(store)
    names = [name, f"{name}.2", f"{name}.3"]
    rounds = SERVER.RawArray("q", 6)
    running: dict[int, BaseProcess] = {}

    def start(number: int) -> None:
        args = (store, names, rounds, number, rng.getrandbits(32), failures)
        running[number] = SERVER.Process(target=children.make_and_remove, args=args, daemon=True)
        running[number].start()
        processes.append(running[number])

    for number in range(len(rounds)):
        start(number)
    for _ in range(30 * TIMES):
        if any(failures.iterdir()):
            break
        number = rng.randrange(len(rounds))
        seen = rounds[number]
        wait_for(
            lambda number=number, seen=seen: rounds[number] > seen or any(failures.iterdir()), "it does not get ahead"
        )
        time.sleep(rng.random() * 0.005)
        running[number].kill()
        running[number].join(START_SECONDS_MAX)
        start(number)
    # All at once, until something is left.
    for attempt in range(100):
        if attempt > 0:
            for number in running:
                start(number)
            before = sum(rounds)
            wait_for(lambda before=before: sum(rounds) > before or any(failures.iterdir()), "nobody gets ahead")
        time.sleep(rng.random() * 0.005)
        for process in running.values():
            process.kill()
        for process in running.values():
            process.join(START_SECONDS_MAX)
        check_failures(failures)
        # In memory those of other tests lie beside them.
        if (left := _unfinished(store)) or store is None:
            break
    else:
        pytest.fail("killed ones left nothing, so nobody had to remove it")
    for one in names:
        # Whole or absent: whoever opens it can use it.
        live = children.open_map((one, store))
        live["after"] = 1
        assert live["after"] == 1
        assert len(live) == len(list(live))
        live.unlink()
        assert not _folder((one, store)).exists()
    # All of them may have been whole, and opening one makes nothing.
    children.open_map((name, store), create=True).unlink()
    assert not left & _unfinished(store), "the next one who makes a map removes what killed ones left"
    print(f"{sum(rounds)} maps opened, {len(left)} unfinished folders at the end")
