"""Unlinking live maps that others use, by others that are stopped, killed, or not allowed to; and names used again."""

import os
import random
import signal
import time
import uuid
from multiprocessing.process import BaseProcess
from pathlib import Path

import live_unlink_children as children
import pytest
from killing import LONG, check_failures, wait_for
from live_children import HANG_SECONDS, hold, open_map
from test_live_kill import Child, _folder, failures, place

import pheon

__all__ = ["failures", "place"]

STATE_OFFSET = 136  # in CTRL; docs/live.md
TIMES = 20 if LONG else 1


@pytest.mark.timeout(120, method="thread")
def test_a_reader_that_lacks_the_newest_files_is_told(
    place: tuple[str, str | None], failures: Path, processes: list[BaseProcess]
) -> None:
    """It cannot map them any more: neither old values nor half a transaction, and no search without end."""
    live = open_map(place, create=True)
    live["a"] = 1
    reads = ["get", "get missing", "contains", "snapshot", "iterate", "wait", "set", "lock key"]
    readers = [Child(processes, failures, children.read_after_unlinking, place, reads[i:]) for i in range(len(reads))]
    for reader in readers:
        reader.reaches(1)
    for i in range(100):
        live.update({"b": "x" * 5000, i: i})
    live.unlink()
    assert live["a"] == 1, "who has all files goes on reading"
    assert len(live) == len(dict(live)) == 102
    for reader in readers:
        reader.state.value = 2
        reader.ends()
        assert reader.state.value == 3


@pytest.mark.timeout(120, method="thread")
def test_who_has_a_map_open_that_is_removed_although_damaged_is_told(
    failures: Path, processes: list[BaseProcess]
) -> None:
    place = (f"test-{uuid.uuid4().hex}", None)
    open_map(place, create=True).close()
    holder = Child(processes, failures, children.write_after_removal, place)
    holder.reaches(1)
    for view in _folder(place).glob("*/view-*"):
        view.chmod(0o600)
        view.write_bytes(b"damaged")
    with pytest.raises(pheon.CorruptError):
        open_map(place, create=False)
    assert pheon.LiveMap.unlink_by_name(place[0])
    assert not _folder(place).exists()
    holder.state.value = 2
    holder.ends()
    assert holder.state.value == 3


@pytest.mark.timeout(200 * TIMES, method="thread")
def test_handles_of_an_unlinked_map_do_no_harm_to_the_next_one(
    place: tuple[str, str | None], failures: Path, rng: random.Random, processes: list[BaseProcess]
) -> None:
    writers = [
        Child(processes, failures, children.write_to_whatever_has_the_name, place, number) for number in range(3)
    ]
    for _ in range(40 * TIMES):
        live = open_map(place, create=True)
        value = children.value_in(live)
        live["parent"] = "parent's " + value
        wait_for(lambda live=live: "children" in live or any(failures.iterdir()), "nobody writes to the new map")
        time.sleep(rng.random() * 0.02)
        assert live["parent"] == "parent's " + value
        with live.lock:
            assert len(live) == len(list(live))
            assert set(live.values()) <= {value, 1, "parent's " + value}, "another map's values"
        check_failures(failures)
        live.unlink()
        assert not _folder(place).exists()
    for writer in writers:
        writer.state.value = 2
        writer.ends()


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("create", [True, None])
def test_what_a_killed_unlinker_left_is_finished(place: tuple[str, str | None], create: bool | None) -> None:
    """It was killed after it had told everybody and before it took the name away."""
    old = open_map(place, create=True)
    old["a"] = 1
    state = os.open(_folder(place) / "CTRL", os.O_RDWR)
    os.pwrite(state, b"UNLK", STATE_OFFSET)
    os.close(state)
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        old["a"] = 2
    with pytest.raises(pheon.NotFoundError):
        open_map(place, create=False)
    new = open_map(place, create=create)
    assert len(new) == 0
    new["b"] = 2
    with pytest.raises(pheon.NotFoundError):
        old.unlink()
    assert open_map(place, create=False) == {"b": 2}
    assert old == {"a": 1}
    assert list(_folder(place).parent.glob(".tmp-*")) == []


@pytest.mark.timeout(120, method="thread")
@pytest.mark.parametrize("end", ["continued", "killed"])
def test_a_stopped_holder_of_the_lock_does_not_keep_a_map(
    place: tuple[str, str | None], failures: Path, processes: list[BaseProcess], end: str
) -> None:
    live = open_map(place, create=True)
    live["a"] = 1
    holder = Child(processes, failures, children.write_until_closed, place)
    holder.reaches(1)
    pid = holder.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    # It waits for nobody: else the test would end here.
    live.unlink()
    new = open_map(place, create=True)
    new["b"] = 2
    if end == "killed":
        holder.kill()
    else:
        os.kill(pid, signal.SIGCONT)
        holder.state.value = 2
        holder.ends()
        assert holder.state.value == 3, "it wrote to an unlinked map"
    new.update(dict.fromkeys(range(100), "y" * 5000))
    assert len(new) == 101
    assert live == {"a": 1}
    assert open_map(place, create=False) == new


@pytest.mark.timeout(60, method="thread")
def test_a_holder_of_the_lock_unlinks_at_once(
    place: tuple[str, str | None], failures: Path, processes: list[BaseProcess]
) -> None:
    live = open_map(place, create=True)
    with live.lock:
        live["a"] = 1
        live.unlink()
        assert live == {"a": 1}
        new = open_map(place, create=True)
        with new.lock(timeout=HANG_SECONDS):
            new["b"] = 2
    # By name, while another handle has the lock.
    holder = Child(processes, failures, hold, place, "map")
    holder.reaches(1)
    holder.kill()
    name, store = place
    if store is None:
        assert pheon.LiveMap.unlink_by_name(name)
    else:
        pheon.open(store).drop_live(name)
    assert not _folder(place).exists()
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        new["c"] = 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.timeout(60, method="thread")
def test_a_map_that_could_not_be_removed_goes_on(
    place: tuple[str, str | None], tmp_path: Path, processes: list[BaseProcess]
) -> None:
    name, store = place
    if store is not None:
        pytest.skip("groups are for maps in memory; those in a store are whose folder it is")
    # pytest's own folders are closed to others.
    failures = Path("/dev/shm", f"{name}-failures")
    failures.mkdir(mode=0o777)
    live = pheon.LiveMap({"a": 1}, name=name, group=54_321)
    try:
        member = Child(processes, failures, children.unlink_as_member, name, 54_321)
        member.ends()
        assert member.state.value == 2
        assert live == {"a": 1, "b": 2, "c": 3}
        assert not live.info()["unlinked"]
    finally:
        live.unlink()
        failures.rmdir()


@pytest.mark.timeout(60, method="thread")
def test_a_folder_that_is_no_map_is_said_to_be_none(place: tuple[str, str | None]) -> None:
    name, store = place
    opened = None if store is None else pheon.open(store)
    _folder(place).mkdir(mode=0o700, parents=True)
    for create in (None, True):
        with pytest.raises(pheon.CorruptError, match="no live map"):
            open_map(place, create=create)
    with pytest.raises(pheon.NotFoundError):
        open_map(place, create=False)
    if opened is None:
        pheon.LiveMap.unlink_by_name(name)
    else:
        opened.drop_live(name)
    open_map(place, create=True)["a"] = 1
