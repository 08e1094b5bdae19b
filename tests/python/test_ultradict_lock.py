"""The locks of `UltraDict`: in a thread, between threads, between processes, and when their holder is killed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import pheon
from pheon.ultradict import Exceptions, UltraDict

JOIN_SECONDS = 60
METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@contextmanager
def held_elsewhere(ultra: UltraDict) -> Iterator[None]:
    """Another thread has the lock."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with UltraDict(name=ultra.name).lock:
            taken.set()
            assert done.wait(JOIN_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(JOIN_SECONDS)
    try:
        yield
    finally:
        done.set()
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive()


def test_shared_lock_chooses_the_kind() -> None:
    shared, plain = UltraDict(shared_lock=True), UltraDict()
    assert isinstance(shared.lock, UltraDict.SharedLock)
    assert isinstance(plain.lock, plain.RLock)
    assert isinstance(UltraDict(name=shared.name).lock, shared.SharedLock)


@pytest.mark.parametrize("shared_lock", [False, True])
def test_it_is_reentrant(shared_lock: bool) -> None:
    ultra = UltraDict(counter=0, shared_lock=shared_lock)
    other = UltraDict(name=ultra.name)
    with ultra.lock as lock:
        assert lock is ultra.lock
        assert lock.has_lock == 1
        with lock, other.lock, other.lock:
            other["counter"] += 1
            assert lock.has_lock == other.lock.has_lock == 4
        assert lock.acquire()
        lock.release()
        assert lock.has_lock == 1
    assert lock.has_lock == 0
    assert ultra["counter"] == 1


def test_ways_to_call_it() -> None:
    ultra = UltraDict(shared_lock=True, counter=0)
    for lock in (
        ultra.lock(),
        ultra.lock(timeout=None, block=True, steal=False, sleep_time=0.000001),
        ultra.lock(sleep_time=0),
        ultra.lock(timeout=1.5),
        ultra.lock(timeout=1.5, steal_after_timeout=True),
        ultra.lock(False),
        ultra.lock(True, 1.5),
    ):
        with lock:
            ultra["counter"] += 1
    assert ultra["counter"] == 7
    assert ultra.lock.acquire(block=False) is True
    assert ultra.lock.release() is True
    assert ultra.lock.release() is False
    assert ultra.lock.acquire_with_timeout(timeout=0.5) is True
    ultra.lock.reset()
    assert ultra.lock.has_lock == 0


def test_a_shared_lock_that_is_taken_raises() -> None:
    ultra = UltraDict(shared_lock=True)
    with held_elsewhere(ultra):
        before = time.monotonic()
        with pytest.raises(Exceptions.CannotAcquireLock) as refused:
            ultra.lock.acquire(block=False)
        assert not isinstance(refused.value, Exceptions.CannotAcquireLockTimeout)
        assert refused.value.blocking_pid == os.getpid()
        assert refused.value.timestamp >= before
        with pytest.raises(Exceptions.CannotAcquireLock), ultra.lock(block=False):
            pass
        with pytest.raises(Exceptions.CannotAcquireLockTimeout) as late:
            ultra.lock.acquire(timeout=0.01)
        assert late.value.time_passed is not None
        with pytest.raises(Exceptions.CannotAcquireLockTimeout):
            ultra.lock.acquire(timeout=0)
        with pytest.raises(pheon.LockTimeout), ultra.lock(timeout=0.01):
            pass
        with pytest.raises(Exceptions.CannotAcquireLockTimeout), ultra.lock(timeout=0.01, steal_after_timeout=True):
            pass
        assert ultra.lock.has_lock == 0
        assert ultra.lock.release() is False
    with ultra.lock:
        assert ultra.lock.has_lock == 1


def test_an_r_lock_that_is_taken_answers_false() -> None:
    ultra = UltraDict()
    with held_elsewhere(ultra):
        assert ultra.lock.acquire(block=False) is False
        assert ultra.lock.acquire(False) is False
        assert ultra.lock.acquire(True, 0.01) is False
        assert ultra.lock.acquire(timeout=0.01) is False
    assert ultra.lock.acquire(timeout=JOIN_SECONDS) is True
    ultra.lock.release()
    with pytest.raises(AssertionError, match="does not hold"):
        ultra.lock.release()


def test_arguments_are_for_one_with_statement_only() -> None:
    ultra = UltraDict(shared_lock=True)
    attempt = ultra.lock(block=False)
    with held_elsewhere(ultra):
        waiter = threading.Thread(target=lambda: ultra.lock.__enter__().release())
        waiter.start()
        with pytest.raises(Exceptions.CannotAcquireLock), attempt:
            pass
    waiter.join(JOIN_SECONDS)
    assert not waiter.is_alive()


def test_status_of_the_lock() -> None:
    ultra = UltraDict(shared_lock=True)
    assert ultra.lock.status() == {"has_lock": 0, "lock_remote": 0, "pid": os.getpid(), "pid_remote": 0}
    with ultra.lock:
        assert ultra.lock.status() == {
            "has_lock": 1,
            "lock_remote": 1,
            "pid": os.getpid(),
            "pid_remote": os.getpid(),
        }
    with held_elsewhere(ultra):
        assert ultra.lock.has_lock == 0
        assert ultra.lock.get_remote_lock() == 1
        assert ultra.lock.get_remote_pid() == os.getpid()
        assert "'lock_remote': 1" in repr(ultra.lock)


def test_nothing_is_stolen_from_the_living() -> None:
    ultra = UltraDict(shared_lock=True)
    with held_elsewhere(ultra):
        assert ultra.lock.steal_from_dead(from_pid=os.getpid()) is False
        assert ultra.lock.steal(from_pid=os.getpid(), release=True) is False
        assert ultra.lock.steal() is False
        assert ultra.lock.get_remote_lock() == 1
    with ultra.lock, pytest.raises(RuntimeError, match="holds it already"):
        ultra.lock.steal()


# Processes ----------------------------------------------------------------------------------------------------------


def ended(process: Any) -> int | None:
    process.join(JOIN_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail("a child process did not end")
    return process.exitcode


def count(ultra: UltraDict, times: int) -> None:
    for _ in range(times):
        with ultra.lock:
            ultra["counter"] += 1


def attach_and_count(name: str, times: int) -> None:
    count(UltraDict(name=name), times)


@pytest.mark.parametrize("shared_lock", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attached", [False, True], ids=["pickled", "attached"])
def test_it_excludes_every_other_process(method: str, shared_lock: bool, attached: bool) -> None:
    times = 500
    ultra = UltraDict(counter=0, shared_lock=shared_lock)
    context = multiprocessing.get_context(method)
    work = (attach_and_count, (ultra.name, times)) if attached else (count, (ultra, times))
    processes = [context.Process(target=work[0], args=work[1]) for _ in range(3)]
    for process in processes:
        process.start()
    count(ultra, times)
    assert [ended(process) for process in processes] == [0, 0, 0]
    assert ultra["counter"] == 4 * times


def take_and_wait(ultra: UltraDict, taken: Any) -> None:
    ultra.lock.acquire()
    ultra["half"] = "done"
    taken.set()
    time.sleep(JOIN_SECONDS)


@pytest.mark.parametrize("shared_lock", [False, True])
def test_the_lock_of_a_killed_process_is_free(shared_lock: bool) -> None:
    context = multiprocessing.get_context("spawn")
    ultra = UltraDict(shared_lock=shared_lock)
    taken = context.Event()
    process = context.Process(target=take_and_wait, args=(ultra, taken))
    process.start()
    assert taken.wait(JOIN_SECONDS)
    assert ultra.lock.get_remote_pid() == process.pid
    assert ultra["half"] == "done"
    if shared_lock:
        with pytest.raises(Exceptions.CannotAcquireLock) as refused:
            ultra.lock.acquire(block=False)
        assert refused.value.blocking_pid == process.pid
        assert ultra.lock.steal_from_dead(from_pid=process.pid) is False
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    if shared_lock:
        assert ultra.lock.steal_from_dead(from_pid=process.pid, release=True) is True
        assert ultra.lock.has_lock == 0
        assert ultra.lock.steal_from_dead(from_pid=process.pid) is True
        ultra.lock.release()
    with ultra.lock(timeout=JOIN_SECONDS):
        assert ultra.lock.get_remote_pid() == os.getpid()
        ultra["half"] = "whole"


def check_that_nothing_is_held(ultra: UltraDict) -> None:
    assert ultra.lock.has_lock == 0
    assert ultra.lock.release() is False
    with pytest.raises(Exceptions.CannotAcquireLock):
        ultra.lock.acquire(block=False)


def test_a_forked_child_does_not_hold_its_parents_lock() -> None:
    ultra = UltraDict(shared_lock=True)
    with ultra.lock:
        process = multiprocessing.get_context("fork").Process(target=check_that_nothing_is_held, args=(ultra,))
        process.start()
        assert ended(process) == 0
        assert ultra.lock.has_lock == 1


def close(ultra: UltraDict) -> None:
    ultra.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_closes_its_handle_does_not_remove_the_map(method: str) -> None:
    ultra = UltraDict(a=1)
    process = multiprocessing.get_context(method).Process(target=close, args=(ultra,))
    process.start()
    assert ended(process) == 0
    assert UltraDict(name=ultra.name, create=False) == {"a": 1}


def boot(barrier: Any, done: Any, name: str) -> None:
    barrier.wait(JOIN_SECONDS)
    ultra = UltraDict({"first": 1}, name=name, shared_lock=True, auto_unlink=False)
    with ultra.lock:
        ultra["counter"] = ultra.get("counter", 0) + 1
    done.wait(JOIN_SECONDS)


def test_processes_that_open_one_name_at_once_share_one_map() -> None:
    name, workers = f"ultra-boot-{os.getpid()}", 6
    context = multiprocessing.get_context("spawn")
    barrier, done = context.Barrier(workers), context.Barrier(workers)
    processes = [context.Process(target=boot, args=(barrier, done, name)) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        assert [ended(process) for process in processes] == [0] * workers
        assert UltraDict(name=name, create=False) == {"first": 1, "counter": workers}
    finally:
        UltraDict.unlink_by_name(name, ignore_errors=True)


def test_a_pickled_handle_of_a_map_that_is_gone_does_not_make_another() -> None:
    ultra = UltraDict(a=1)
    pickled = pickle.dumps(ultra)
    ultra.unlink()
    with pytest.raises(Exceptions.CannotAttachSharedMemory):
        pickle.loads(pickled)
