"""Little memory under everything that changes something: address space, a control group, no overcommitment.

A process that gets no memory is told so, or it ends as one that is killed: the store is as before or as afterwards, and
usable. Never is it SIGBUS or SIGSEGV that ends it.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import kill_children as work
import pytest
from killing import LONG, SERVER, START_SECONDS_MAX, check_failures

import pheon

MIB = 1 << 20
# Each thread of a build has a stack and an arena of its own: 64 MiB of addresses, and more.
ROOMS_MIB = [*range(0, 64, 2), *range(64, 1024, 16)] if LONG else [0, 1, 16]
NAMES = [name for name in work.OPERATIONS if LONG or name in {"parts", "compact", "live: grow"}]
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def check(store: pheon.Store, name: str, number: int, exitcode: int | None, allowed: set[int]) -> bool:
    """Whether the operation was done; fails if that is not clear."""
    is_as_before, is_done = work.OPERATIONS[name].look(store, number)
    assert exitcode in allowed, f"{name}, round {number}: ended with {exitcode}"
    assert is_as_before != is_done, f"{name}, round {number}: neither as before nor as afterwards"
    assert is_done or exitcode != 0, f"{name}, round {number}: what was acknowledged is lost"
    for dataset in store:
        assert store.verify(dataset).ok
    return is_done


# Of each operation, how its process ended with so little room.
ENDS: dict[str, list[int | None]] = {}


@pytest.mark.timeout(3600 if LONG else 300, method="thread")
@pytest.mark.parametrize("name", NAMES)
def test_little_address_space(name: str, memory_path: Path) -> None:
    failures = memory_path / "failures"
    failures.mkdir()
    store = pheon.open(memory_path / "store")
    ends: list[int | None] = []
    for number, room in enumerate(ROOMS_MIB):
        work.OPERATIONS[name].prepare(store, number)
        args = (memory_path / "store", name, number, room * MIB, failures)
        child = SERVER.Process(target=work.do_with_little_memory, args=args, daemon=True)
        child.start()
        child.join(START_SECONDS_MAX)
        check_failures(failures)
        # What Rust's own collections do not get is no error that one could handle: it ends the process by SIGABRT. A
        # new thread that does not get its data ends it with 127, which is the C library's doing.
        check(store, name, number, child.exitcode, {0, 3, 127, -signal.SIGABRT})
        ends.append(child.exitcode)
    work.OPERATIONS[name].prepare(store, len(ROOMS_MIB))
    print(name, dict(zip(ROOMS_MIB, ends, strict=True)))
    ENDS[name] = ends


def test_some_room_was_too_little() -> None:
    if not ENDS:
        pytest.skip("no operation was tried")
    assert any(any(ends) for ends in ENDS.values()), ENDS
    # Of some operation want of memory was an error that could be handled; each got by with the most there was.
    assert any(3 in ends for ends in ENDS.values()), ENDS
    assert all(ends[-1] == 0 for ends in ENDS.values()), ENDS


@pytest.fixture
def group() -> Iterator[tuple[Path, Path, str]]:
    """A control group of ours: its folder, the file that processes join by, and the name of the file with its limit."""
    name = f"pheon-test-{uuid.uuid4().hex}"
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    try:
        if (v1 / "memory.limit_in_bytes").exists():
            folder, limit = v1 / name, "memory.limit_in_bytes"
        elif "memory" in (v2 / "cgroup.subtree_control").read_text().split():
            folder, limit = v2 / name, "memory.max"
        else:
            pytest.skip("no control groups here that limit memory")
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"control groups may not be made here: {error}")
    # What is swapped out is not short.
    for setting in ("memory.swap.max", "memory.swappiness"):
        if (folder / setting).exists():
            (folder / setting).write_text("0")
    yield folder, folder / "cgroup.procs", limit
    folder.rmdir()


@pytest.mark.timeout(3600 if LONG else 300, method="thread")
@pytest.mark.parametrize("name", [name for name in NAMES if LONG or name == "live: grow"])
def test_a_small_control_group(name: str, memory_path: Path, group: tuple[Path, Path, str]) -> None:
    """The store is in memory and counts as well: what is too much is killed there."""
    folder, join, limit = group
    store = pheon.open(memory_path / "store")
    killed = 0
    for number in range(400):
        # From a page on, by so many parts more each time.
        (folder / limit).write_text(f"{int(4096 * (1.06 if LONG else 1.5) ** number)}")
        work.OPERATIONS[name].prepare(store, number)
        args = (memory_path / "store", name, number, [join])
        child = SERVER.Process(target=work.do_in_a_group, args=args, daemon=True)
        child.start()
        child.join(START_SECONDS_MAX)
        is_done = check(store, name, number, child.exitcode, {0, -signal.SIGKILL})
        if child.exitcode == 0 and is_done:
            break
        killed += 1
    else:
        pytest.fail("it never had enough")
    work.OPERATIONS[name].prepare(store, 400)
    print(f"{name}: killed {killed} times for want of memory, then done")
    assert killed > 0, "there was always enough memory"


@pytest.fixture
def no_overcommitment() -> Iterator[None]:
    """The machine promises no more memory than it has, while this lasts: all of the machine, so only if asked for."""
    if not LONG:
        pytest.skip("changes a setting of the whole machine: only with PHEON_LONG=1")
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("other tests run beside this one: `make test-long` runs it alone afterwards")
    before = OVERCOMMIT.read_text()
    try:
        OVERCOMMIT.write_text("2")
    except OSError as error:
        pytest.skip(f"the setting may not be changed here: {error}")
    try:
        yield
    finally:
        OVERCOMMIT.write_text(before)


@pytest.mark.usefixtures("no_overcommitment")
def test_everything_works_without_overcommitment(memory_path: Path) -> None:
    store = pheon.open(memory_path / "store")
    for name, operation in work.OPERATIONS.items():
        operation.prepare(store, 0)
        operation.act(store, 0)
        assert operation.look(store, 0) == (False, True), name
    # Files of other processes are mapped without being charged for.
    assert OVERCOMMIT.read_text().strip() == "2"
