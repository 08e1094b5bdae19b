"""Each operation that changes something is killed at random points of it, under readers.

What is there afterwards is what was there before or what was to come, and the latter if it was acknowledged; readers
see nothing else; the next writer needs nobody's lock and removes what was left. Seeds are printed; PHEON_SEED repeats a
run, PHEON_LONG=1 kills a hundred times as many.
"""

import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import kill_children as work
import pytest
from killing import LONG, SERVER, START_SECONDS_MAX, check_failures, wait_for

import pheon

TIMES = 100 if LONG else 1
INTERRUPTED_MIN = 2 * TIMES
# The others only if asked for; `test_kill.py` and `test_live_kill.py` kill all kinds of writers.
SHORT = {"parts", "compact", "gc", "drop", "freeze", "live: durable", "live: make"}
BUILDS = {"put", "parts", "upsert", "delete", "append", "compact", "freeze"}
NAMES = [name for name in work.OPERATIONS if LONG or name in SHORT]
ROUNDS_MAX = 60 * TIMES


def leftovers(path: Path) -> list[Path]:
    """Names that nobody needs, anywhere in the store."""
    return [entry for entry in path.rglob(".tmp-*") if entry.parent.name != "resume"]


@pytest.mark.timeout(300 * TIMES, method="thread")
@pytest.mark.parametrize("name", NAMES)
def test_kill(name: str, memory_path: Path, rng: random.Random, processes: list[BaseProcess]) -> None:
    path, failures = memory_path / "store", memory_path / "failures"
    failures.mkdir()
    operation = work.OPERATIONS[name]
    store = pheon.open(path)
    operation.prepare(store, 0)
    stop, rounds = SERVER.RawValue("b"), SERVER.RawValue("q")
    reader = SERVER.Process(target=work.read, args=(path, name, stop, rounds, failures), daemon=True)
    reader.start()
    processes.append(reader)
    wait_for(lambda: rounds.value > 0 or not reader.is_alive(), "the reader does not start")

    before = done = acknowledged = left = 0
    patience = 0.0
    for number in range(ROUNDS_MAX):
        if before + done - acknowledged >= INTERRUPTED_MIN:
            break
        operation.prepare(store, number)
        assert leftovers(path) == [], "the next writer leaves what a killed one left"
        state = SERVER.RawValue("b")
        child = SERVER.Process(target=work.do, args=(path, name, number, state, failures), daemon=True)
        child.start()
        processes.append(child)
        wait_for(lambda state=state, child=child: state.value > 0 or not child.is_alive(), "it does not begin")
        if number == 0:
            # The first one is killed when it is done, which tells how long it takes.
            began = time.monotonic()
            wait_for(lambda state=state, child=child: state.value == 2 or not child.is_alive(), "it does not end")
            patience = time.monotonic() - began
        else:
            time.sleep(rng.random() * patience)
        child.kill()
        was_acknowledged = state.value == 2
        child.join(START_SECONDS_MAX)
        check_failures(failures)
        assert child.exitcode == -signal.SIGKILL, child.exitcode
        # What is learned from one that was slow by chance is mended on the way.
        patience *= 0.8 if was_acknowledged else 1.1
        left += not was_acknowledged and leftovers(path) != []

        is_as_before, is_done = operation.look(store, number)
        assert is_as_before != is_done, f"round {number}: neither as before nor as afterwards"
        assert is_done or not was_acknowledged, f"round {number}: what was acknowledged is lost"
        before += is_as_before
        done += is_done
        acknowledged += was_acknowledged
        for dataset in store:
            report = store.verify(dataset)
            assert report.ok, report.problems
        processes.remove(child)
    operation.prepare(store, ROUNDS_MAX)
    assert leftovers(path) == []
    stop.value = 1
    reader.join(START_SECONDS_MAX)
    check_failures(failures)
    assert reader.exitcode == 0
    print(
        f"{name}: killed {before + done} times: {before} as before, {done - acknowledged} done but not acknowledged, "
        f"{acknowledged} acknowledged; {left} left something; {rounds.value} rounds of reading"
    )
    assert before + done - acknowledged >= INTERRUPTED_MIN, "too few were killed in the middle of it"
    if LONG and name in BUILDS:
        assert left > 0, "none was killed while it built something"
