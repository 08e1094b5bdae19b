"""Live maps in several processes, made and found in every way."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pheon

SECONDS_MAX = 100


@pytest.fixture
def name() -> Iterator[str]:
    made = f"test-{uuid.uuid4().hex}"
    yield made
    pheon.LiveMap.unlink_by_name(made, ignore_missing=True)


@pytest.fixture
def live(name: str) -> pheon.LiveMap:
    return pheon.LiveMap(name=name, create=True)


def run_all(context: Any, target: Any, arguments: list[tuple[Any, ...]]) -> list[int | None]:
    """Runs processes at once; their exit codes."""
    processes = [context.Process(target=target, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS_MAX)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def count(d: pheon.LiveMap | str, rounds: int) -> None:
    if isinstance(d, str):
        d = pheon.LiveMap(name=d)
    for _ in range(rounds):
        d.increment("n")
        with d.lock:
            d["under lock"] = d.get("under lock", 0) + 1
        with d.lock_key("k"):
            d["under key lock"] = d.get("under key lock", 0) + 1
        with d.lock:
            d["nested"]["deep"]["n"] += 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_start_method_excludes(live: pheon.LiveMap, method: str) -> None:
    live["nested"] = {"deep": {"n": 0}}
    codes = run_all(multiprocessing.get_context(method), count, [(live, 100), (live, 100), (live.name, 100)])
    assert codes == [0, 0, 0]
    assert live == {"nested": {"deep": {"n": 300}}, "n": 300, "under lock": 300, "under key lock": 300}


def test_pools_and_queues(live: pheon.LiveMap) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        assert pool.starmap(pheon.LiveMap.increment, [(live, "n")] * 10, chunksize=3).count(10) == 1
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        sums = list(executor.map(pheon.LiveMap.increment, [live] * 10, ["m"] * 10))
    assert sorted(sums) == list(range(1, 11))
    assert live == {"n": 10, "m": 10}


def create_and_count(name: str, start: Any) -> None:
    start.wait(SECONDS_MAX)
    pheon.LiveMap({f"process {os.getpid()}": 1}, name=name).increment("n")


def test_fifty_processes_make_one_map(name: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pheon"])
    start = context.Barrier(50)
    assert run_all(context, create_and_count, [(name, start)] * 50) == [0] * 50
    live = pheon.LiveMap(name=name, create=False)
    assert live["n"] == 50
    assert len(live) == 51
    uid = os.geteuid()
    assert [entry for entry in os.listdir("/dev/shm") if entry.startswith(f"pheon-live-{uid}-.tmp-")] == []


def python(code: str) -> None:
    """Runs a script in which every warning is an error, and nothing may be said."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, timeout=SECONDS_MAX, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_map_outlives_its_maker_without_a_word(name: str, tmp_path: Path) -> None:
    python(f"import pheon; pheon.LiveMap({{'a': 1}}, name={name!r})")
    python(f"import pheon; d = pheon.LiveMap(name={name!r}, create=False); d['b'] = d['a'] + 1")
    assert pheon.LiveMap(name=name) == {"a": 1, "b": 2}
    python(f"""
import multiprocessing, pheon
d = pheon.LiveMap(name={name!r})
worker = multiprocessing.get_context("fork").Process(target=d.increment, args=("a",))
worker.start(); worker.join()
assert d["a"] == 2
""")
    store = str(tmp_path / "store")
    python(f"import pheon; pheon.open({store!r}).live('m')['x'] = 1")
    assert pheon.open(store).live("m") == {"x": 1}


def hold_lock(live: pheon.LiveMap, held: Any, release: Any) -> None:
    with live.lock:
        held.set()
        release.wait(SECONDS_MAX)


def test_a_lock_is_its_holders_alone(live: pheon.LiveMap) -> None:
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold_lock, args=(live, held, release))
    holder.start()
    assert held.wait(SECONDS_MAX)
    try:
        with pytest.raises(pheon.LockTimeout), live.lock(timeout=0.05):
            pass
        assert not live.lock.acquire(blocking=False)
        assert len(live) == 0, "readers need no lock"
    finally:
        release.set()
        holder.join(SECONDS_MAX)
    with live.lock(timeout=SECONDS_MAX):
        # A child forked now does not hold it, and neither trying nor ending takes it from us.
        assert run_all(context, try_lock, [(live,), (live,)]) == [3, 3]
        assert live.lock.locked_by_me() == 1


def try_lock(live: pheon.LiveMap) -> None:
    sys.exit(3 if not live.lock.acquire(timeout=0.05) else 4)


def test_all_handles_of_a_process_have_one_lock_and_each_thread_its_own_turn(live: pheon.LiveMap) -> None:
    again = pickle.loads(pickle.dumps(live))
    other = pheon.LiveMap(auto_unlink=True)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        with live.lock, other.lock, again.lock(timeout=SECONDS_MAX), again.lock_key("k"), live.lock_key("k"):
            assert again.lock.locked_by_me() == live.lock.locked_by_me() == 2
            for handle in (live, again):
                assert pool.submit(handle.lock.locked_by_me).result(SECONDS_MAX) == 0
                assert not pool.submit(handle.lock.acquire, timeout=0.05).result(SECONDS_MAX)
                assert not pool.submit(handle.lock_key("k").acquire, timeout=0.05).result(SECONDS_MAX)
                with pytest.raises(RuntimeError, match="hold"):
                    pool.submit(handle.lock.release).result(SECONDS_MAX)
            again["nested"] = {"deep": {"n": 0}}
        for done in [pool.submit(count, handle, 50) for handle in (live, again) * 4]:
            done.result(SECONDS_MAX)
    other.close()
    assert live == {"nested": {"deep": {"n": 400}}, "n": 400, "under lock": 400, "under key lock": 400}


def change(live: pheon.LiveMap, waiting: Any) -> None:
    waiting.wait(SECONDS_MAX)
    live.update({"a": 1, "b": 2})
    del live["old"]


def test_wait_is_woken_by_another_process(live: pheon.LiveMap) -> None:
    live["old"] = 1
    context = multiprocessing.get_context("fork")
    waiting = context.Event()
    changer = context.Process(target=change, args=(live, waiting))
    changer.start()
    waiting.set()
    changed: set[Any] = set()
    while changed != {"a", "b", "old"}:
        more = live.wait(SECONDS_MAX)
        assert more, "nobody woke us"
        changed |= more
    changer.join(SECONDS_MAX)


def as_user(uid: int, groups: list[int], body: Any) -> int:
    """Runs `body` in a child of another user; what it returns."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups(groups)
            os.setgid(65534)
            os.setuid(uid)
            code = body()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] >> 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_users_share_by_group_and_not_otherwise(name: str, tmp_path: Path) -> None:
    group = 54_321
    shared = pheon.LiveMap({"a": 1}, name=name, group=group)
    private = pheon.LiveMap({"a": 1}, name=name)

    def member() -> int:
        d = pheon.LiveMap(name=name, group=group, create=False)
        # So much that new files are made by this user.
        d.update({f"by member {i}": "x" * 10_000 for i in range(100)})
        return d["a"]

    def stranger() -> int:
        with pytest.raises(PermissionError):
            pheon.LiveMap(name=name, group=group)
        with pytest.raises(pheon.NotFoundError):
            pheon.LiveMap(name=name, create=False)  # a name of its own
        with pytest.raises(PermissionError):
            os.listdir(private.path)
        return 7

    try:
        assert as_user(65_534, [group], member) == 1
        assert as_user(65_534, [], stranger) == 7
        assert len(shared) == 101
        shared.update({f"by root {i}": "x" * 10_000 for i in range(100)})
        assert as_user(65_534, [group], lambda: len(pheon.LiveMap(name=name, group=group))) == 201
    finally:
        shared.unlink()


def test_many_maps_leave_nothing_behind() -> None:
    def open_files() -> tuple[int, int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("pheon-live"), len(os.listdir("/proc/self/task"))

    before = open_files()
    for _ in range(3):
        maps = [pheon.LiveMap({"i": i}) for i in range(70)]
        for i, d in enumerate(maps):
            with d.lock, maps[i - 1].lock, d.lock_key("i"):
                assert d["i"] == i
            d.unlink()
        del d, maps
    assert open_files() == before
