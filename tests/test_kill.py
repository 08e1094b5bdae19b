"""Processes are killed at random points, and versions published and collected under running readers.

Whatever happens, the store holds the old version or the new one, whole; readers see one version at a time; the next
writer clears away what the killed one left. Seeds are printed; PHEON_SEED repeats a run, PHEON_LONG=1 makes it ten
times as long.
"""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import children
import pytest
from format import reader
from killing import LONG, SERVER, START_SECONDS_MAX, check_failures, wait_for

import pheon

TIMES = 10 if LONG else 1
LIFETIME_SECONDS_MAX = 0.1
READ_SECONDS = 4.0 * TIMES
# Rounds go on until enough has been killed in the middle of something: a slow machine takes more of them.
ROUNDS_MIN, ROUNDS_MAX = 120 * TIMES, 600 * TIMES
LEFTOVERS_MIN = 20 * TIMES


@pytest.fixture
def failures(memory_path: Path) -> Path:
    """Where children leave their tracebacks."""
    folder = memory_path / "failures"
    folder.mkdir()
    return folder


# Killed writers ------------------------------------------------------------------------------------------------------


def _leftovers(path: Path) -> list[str]:
    """Names that no finished writer leaves: temporary ones, and files that no manifest names."""
    known = set()
    for manifest in (path / "m").glob("manifest-*.json"):
        for segment in reader.document(manifest, 2)["segments"]:
            known.add(f"seg-{segment['id']}")
            if "hidden" in segment:
                known.add(f"hidden-{segment['hidden']['id']}.arrow")
    return [
        entry.name
        for entry in (*path.iterdir(), *(path / "m").glob("*"))
        if entry.name.startswith(".tmp-") or (entry.name.startswith(("seg-", "hidden-")) and entry.name not in known)
    ]


@pytest.mark.timeout(900 * TIMES, method="thread")
def test_kill_the_writer(memory_path: Path, failures: Path, rng: random.Random) -> None:
    path = memory_path / "store"
    store = pheon.open(path)
    held = store.put_map("m", children.content(0))
    seen_leftovers = seen_versions = 0
    acknowledged, rows_min = SERVER.RawValue("q"), 6 * children.SERIES_STEP
    # Writers live longer while what is still missing does not come: a slow machine gets to it, too.
    rounds_without = {"leftovers": 0, "rows": 0}
    for round_number in range(ROUNDS_MAX):
        if round_number >= ROUNDS_MIN and seen_leftovers >= LEFTOVERS_MIN and acknowledged.value >= rows_min:
            break
        ready = SERVER.RawValue("b")
        child = SERVER.Process(
            target=children.write_for_ever,
            args=(path, rng.getrandbits(32), ready, acknowledged, failures),
            daemon=True,
        )
        child.start()
        wait_for(
            lambda ready=ready, child=child: bool(ready.value) or not child.is_alive(), "the writer does not start"
        )
        had_leftovers, had_rows = seen_leftovers, acknowledged.value
        time.sleep(rng.random() * LIFETIME_SECONDS_MAX * (1 + max(rounds_without.values()) / 10))
        child.kill()
        child.join()
        check_failures(failures)
        assert child.exitcode == -signal.SIGKILL, f"round {round_number}: the writer ended with {child.exitcode}"

        assert set(store) <= {"m", "s"}
        if "s" in store:
            rows = len(store.table("s"))
            assert rows in {acknowledged.value, acknowledged.value + children.SERIES_STEP}, (rows, acknowledged.value)
            assert store.table("s").to_numpy("value").tolist() == list(range(rows))
            assert store.verify("s").ok
        if "m" in store:
            versions = [v.version for v in store.versions("m")]
            assert versions == list(range(versions[0], versions[-1] + 1)), versions
            report = store.verify("m")
            assert report.ok, report.problems
            for version in versions[-3:]:
                children.tag_of(store.map("m", version=version))
            seen_versions += len(versions)
        assert children.tag_of(held) == 0, "a handle changed under its holder"
        seen_leftovers += bool(_leftovers(path))
        for what, is_enough, has_come in (
            ("leftovers", seen_leftovers >= LEFTOVERS_MIN, seen_leftovers > had_leftovers),
            ("rows", acknowledged.value >= rows_min, acknowledged.value > had_rows),
        ):
            rounds_without[what] = 0 if is_enough or has_come else rounds_without[what] + 1
        if rng.random() < 0.5:
            # The lock died with its holder, so this waits for nobody, and it clears away all that is left.
            store.put_map("m", children.content(round_number), lock_timeout=5)
            store.gc("m", keep=2)
            assert [
                name for name in _leftovers(path) if not name.startswith(".tmp-") or (path / "m" / name).exists()
            ] == []
            assert children.tag_of(store.map("m")) == round_number
    print(f"{seen_leftovers} writers were killed while they had work on disk, {seen_versions} versions checked")
    assert seen_leftovers >= LEFTOVERS_MIN, "too few writers were killed in the middle of something"
    assert acknowledged.value >= rows_min, "too few appends were acknowledged"


@pytest.mark.timeout(300 * TIMES, method="thread")
def test_ctrl_c_leaves_the_store_as_it_was(memory_path: Path, rng: random.Random) -> None:
    path = memory_path / "store"
    store = pheon.open(path)
    store.put_map("m", children.content(7))
    for _ in range(8 * TIMES):
        ready = SERVER.RawValue("b")
        child = SERVER.Process(target=children.write_until_interrupted, args=(path, ready), daemon=True)
        child.start()
        wait_for(lambda ready=ready: bool(ready.value), "the writer does not start")
        before = [v.version for v in store.versions("m")]
        time.sleep(rng.random() * 0.3)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
        child.join(START_SECONDS_MAX)
        assert child.exitcode == 130, f"ended with {child.exitcode} after Ctrl-C"
        assert _leftovers(path) == []
        after = [v.version for v in store.versions("m")]
        assert after[: len(before)] == before
        assert store.verify("m").ok
    assert children.tag_of(store.map("m", version=1)) == 7


# Running readers -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(int(600 + 2 * READ_SECONDS), method="thread")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_publish_collect_and_kill_under_readers(
    memory_path: Path, failures: Path, rng: random.Random, method: str, processes: list[BaseProcess]
) -> None:
    context = multiprocessing.get_context(method)
    path = memory_path / "store"
    store = pheon.open(path)
    m = store.put_map("m", children.content(0))
    stop, counts = context.RawValue("b"), context.RawArray("L", 64)
    readers: list[BaseProcess] = []

    def start_reader() -> None:
        number = len(processes)
        # The first ones get the handle: inherited by fork, pickled as how to reopen its version otherwise. Later ones
        # of those methods would find that version collected.
        handle = m if method == "fork" or number < 3 else None
        process = context.Process(
            target=children.read_until, args=(path, handle, stop, counts, number, failures), daemon=True
        )
        process.start()
        readers.append(process)
        processes.append(process)

    for _ in range(3):
        start_reader()
    wait_for(lambda: all(counts[:3]) or any(failures.iterdir()), "the readers do not start")

    published = killed = 0
    next_kill = time.monotonic() + rng.random()
    end = time.monotonic() + READ_SECONDS
    # A slow machine goes on until there is something to look at.
    while not any(failures.iterdir()) and (time.monotonic() < end or min(published, sum(counts), 5 * killed) < 5):
        published += 1
        store.put_map("m", children.content(published))
        if published % rng.randrange(1, 4) == 0:
            store.gc("m", keep=rng.randrange(1, 3))
        if published % 10 == 0:
            store.rollback("m", store.versions("m")[0].version)
        if time.monotonic() > next_kill and len(processes) < len(counts):
            victim = readers.pop(rng.randrange(len(readers)))
            victim.kill()
            victim.join()
            killed += 1
            start_reader()
            next_kill = time.monotonic() + rng.random()
    stop.value = 1
    for process in readers:
        process.join(START_SECONDS_MAX)
    check_failures(failures)
    assert all(process.exitcode == 0 for process in readers), [process.exitcode for process in readers]
    print(f"{published} versions under {sum(counts)} rounds of reading, {killed} readers killed")
    assert store.verify("m").ok
    store.gc("m", keep=1)
    assert len(store.versions("m")) == 1
    assert _leftovers(path) == []
    assert children.tag_of(m) == 0, "the first version is gone, but not for those who hold it"


@pytest.mark.timeout(300, method="thread")
def test_the_space_of_a_collected_version_is_freed_with_its_last_reader(memory_path: Path, failures: Path) -> None:
    """A killed reader holds nothing: neither a lock nor a mapping."""
    path = memory_path / "store"
    store = pheon.open(path)
    m = store.put_map("m", children.content(1))
    stop, counts = SERVER.RawValue("b"), SERVER.RawArray("L", 1)
    child = SERVER.Process(target=children.read_until, args=(path, m, stop, counts, 0, failures), daemon=True)
    child.start()
    wait_for(lambda: bool(counts[0]) or any(failures.iterdir()), "the reader does not start")
    check_failures(failures)
    maps = Path(f"/proc/{child.pid}/maps").read_text()
    mapped = [line for line in maps.splitlines() if line.endswith(".arrow")]
    assert {line.split()[1] for line in mapped} == {"r--s"}, "files must be mapped read-only and shared"
    child.kill()
    child.join()
    store.put_map("m", children.content(2))
    report = store.gc("m", keep=1)
    assert report.versions_removed == [1]
    assert report.segments_removed == 1
    assert report.bytes_freed > 0
    del m
    own = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(memory_path) in line]
    assert not [line for line in own if line.endswith("(deleted)")], own
