"""Processes of a build in parts are killed at random points, the writer and those that write parts.

Whatever happens, a version that appears is whole; a build that is taken up again finds the parts that were finished and
no others. Seeds are printed; PHEON_SEED repeats a run, PHEON_LONG=1 makes it ten times as long.
"""

import os
import random
import signal
import time
from pathlib import Path

import part_children
import pytest
from killing import LONG, SERVER, START_SECONDS_MAX, check_failures, wait_for

import pheon

TIMES = 10 if LONG else 1
LIFETIME_SECONDS_MAX = 0.3
# Rounds go on until enough has been killed in the middle of something: a slow machine takes more of them.
ROUNDS_MIN, ROUNDS_MAX = 4 * TIMES, 100 * TIMES
TAKEN_UP_MIN = 2 * TIMES


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _finished_parts(path: Path) -> int:
    return len(list((path / "m" / "resume").glob("part-*/part.json")))


@pytest.mark.timeout(900 * TIMES, method="thread")
def test_kill_writers_of_parts(memory_path: Path, rng: random.Random) -> None:
    path, failures = memory_path / "store", memory_path / "failures"
    failures.mkdir()
    store = pheon.open(path)
    want = part_children.whole()
    killed_parts = killed_writers = taken_up = published = 0
    for round_number in range(ROUNDS_MAX):
        if round_number >= ROUNDS_MIN and min(taken_up, 2 * killed_parts, 2 * killed_writers) >= TAKEN_UP_MIN:
            break
        resume = rng.random() < 0.8
        # Counted: what an interrupted build has finished, and this one finds.
        found = _finished_parts(path)
        counts = SERVER.RawArray("i", [0, -1])
        args = (path, rng.getrandbits(32), counts, resume, failures)
        child = SERVER.Process(target=part_children.build, args=args)
        child.start()
        assert child.pid is not None
        wait_for(lambda counts=counts, child=child: counts[0] > 0 or not child.is_alive(), "no part is begun")
        # A slow machine gets somewhere, too: what is killed lives longer while nothing is finished.
        time.sleep(rng.random() * LIFETIME_SECONDS_MAX * (1 + round_number / 10))
        parts = _children_of(child.pid)
        victim = rng.choice(parts) if parts and rng.random() < 0.5 else child.pid
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            killed_writers += victim == child.pid and child.is_alive()
            killed_parts += victim != child.pid
        child.join(START_SECONDS_MAX)
        assert child.exitcode in {0, -signal.SIGKILL}
        check_failures(failures)
        # Unless the lock was held: processes of a killed writer may still be at it, and finish some more.
        finished = counts[1]
        if finished >= 0:
            assert finished >= found if resume else finished == 0
            taken_up += finished > 0
        if "m" in store:
            published += 1
            assert dict(store.map("m")) == want
            assert store.verify("m").ok
            if rng.random() < 0.7:
                store.drop("m")
    print(
        f"{killed_parts} parts and {killed_writers} writers were killed, {taken_up} builds taken up, {published} seen"
    )
    assert taken_up >= TAKEN_UP_MIN, "too few builds were taken up"
    assert min(killed_parts, killed_writers) > 0, "nobody was killed"

    def builds_one() -> bool:
        # Processes of a killed writer may still be at it: then this build says so, and the next one finds their parts.
        part_children.build(path, rng.getrandbits(32), SERVER.RawArray("i", 2), True, failures)
        check_failures(failures)
        return "m" in store

    if "m" in store:
        store.drop("m")
    wait_for(builds_one, "no build comes to an end")
    assert dict(store.map("m")) == want
    store.put_map("m", want)
    store.gc("m", keep=1)
    names = sorted(entry.name for entry in (path / "m").iterdir())
    assert [name for name in names if not name.startswith(("LOCK", "manifest-", "seg-"))] == [], names
