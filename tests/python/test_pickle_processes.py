"""Handles in other processes and threads: pickled, forked, spawned; writers that are killed under readers."""

from __future__ import annotations

import concurrent.futures
import copy
import datetime as dt
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import joblib
import pyarrow as pa
import pytest

import pheon

N = 5_000
DATA = {f"key {i}": f"value {i}" for i in range(N)}
METHODS = ["fork", "spawn", "forkserver"]

# A forked child of a process with threads is what users have; Python warns about it in general.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def data(store: pheon.Store) -> pheon.Map:
    return store.put_map("m", DATA)


def look_up(m: pheon.Map, seed: int) -> tuple[int, bool]:
    """Runs in a worker: 1,000 lookups, single and batch, answers checked."""
    rng = random.Random(seed)
    keys = [f"key {rng.randrange(N * 2)}" for _ in range(1000)]
    expected = [DATA.get(k) for k in keys]
    ok = [m.get(k) for k in keys] == expected and m.get_many(keys) == expected
    return os.getpid(), ok and m.get_many(pa.array(keys)).to_pylist() == expected


def open_and_look_up(path: str, seed: int) -> tuple[int, bool]:
    return look_up(pheon.open(path, read_only=True).map("m"), seed)


@pytest.mark.parametrize("method", METHODS)
def test_pools(data: pheon.Map, store: pheon.Store, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        answers = pool.starmap(look_up, [(data, i) for i in range(4)])
        answers += pool.starmap(open_and_look_up, [(store.path, i) for i in range(4)])
    assert all(ok for _, ok in answers)
    assert os.getpid() not in {pid for pid, _ in answers}


@pytest.mark.parametrize("method", METHODS)
def test_executors(data: pheon.Map, method: str) -> None:
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert all(ok for _, ok in pool.map(look_up, [data] * 4, range(4)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_loky(data: pheon.Map) -> None:
    answers = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(look_up)(data, i) for i in range(4))
    assert all(ok for _, ok in answers)
    assert os.getpid() not in {pid for pid, _ in answers}


def test_threads(data: pheon.Map) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(ok for _, ok in pool.map(look_up, [data] * 16, range(16)))


def test_a_map_in_a_global_survives_a_bare_fork(data: pheon.Map) -> None:
    data.get_many(list(DATA), threads=4)
    iterator = iter(data)
    first = next(iterator)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            rest = list(iterator)
            ok = (
                look_up(data, 1)[1]
                and len(rest) == N - 1
                and data.get_many(list(DATA), threads=4) == list(DATA.values())
            )
            code = 0 if ok else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert first == next(iter(data))


def test_a_forked_child_can_write(store: pheon.Store, data: pheon.Map) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.put_map("from_child", {"a": 1}, lock_timeout=10)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.map("from_child") == {"a": 1}


# Pickle ---------------------------------------------------------------------------------------------------------------


def through_pickle(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_handles_pickle_as_how_to_reopen(store: pheon.Store, data: pheon.Map, protocol: int) -> None:
    assert len(pickle.dumps(data, protocol)) < 1000
    again = through_pickle(data, protocol)
    assert type(again) is pheon.Map
    assert again == DATA
    assert (again.name, again.version) == ("m", 1)
    table = through_pickle(data.table(), protocol)
    assert table.num_rows == N
    part = data.prefix("key 12")[3:10]
    assert through_pickle(part, protocol).to_pyarrow() == part.to_pyarrow()
    reopened = through_pickle(store, protocol)
    assert list(reopened) == ["m"]
    assert (reopened.path, reopened.read_only) == (store.path, False)
    assert through_pickle(pheon.open(store.path, read_only=True), protocol).read_only
    assert copy.copy(data) == DATA
    assert copy.deepcopy(data) == DATA


def test_pickled_handles_keep_their_version(store: pheon.Store, data: pheon.Map) -> None:
    frozen = pickle.dumps((data, data.range("key 1", "key 2")))
    store.put_map("m", {"new": "x"})
    old, part = pickle.loads(frozen)
    assert old == DATA
    assert part.num_rows == data.range("key 1", "key 2").num_rows
    assert old.refresh()
    assert old == {"new": "x"}
    store.gc("m", keep=1)
    with pytest.raises(pheon.NotFoundError, match="version 1"):
        pickle.loads(frozen)


def test_pickle_keeps_the_permission_to_unpickle(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": {1, 2}}, codec="pickle")
    assert m.allow_pickle
    assert through_pickle(m)["a"] == {1, 2}
    with pytest.raises(pheon.Error, match="allow_pickle"):
        through_pickle(store.map("m"))["a"]


def test_pickle_of_relative_paths_and_other_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    m = pheon.open("relative").put_map("m", {"a": 1})
    frozen = pickle.dumps(m)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(frozen) == {"a": 1}


def test_pickle_of_shared_memory(shm_store: pheon.Store) -> None:
    m = shm_store.put_map("m", {"a": dt.date(2020, 1, 1)})
    assert through_pickle(m) == {"a": dt.date(2020, 1, 1)}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(dict, (m,)) == {"a": dt.date(2020, 1, 1)}


def test_exceptions_cross_processes(store: pheon.Store) -> None:
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(pheon.NotFoundError, match="nope"),
    ):
        pool.submit(open_missing, store.path).result()


def open_missing(path: str) -> None:
    pheon.open(path).map("nope")


# Writers and readers against each other -------------------------------------------------------------------------------


def read_versions(path: str, stop: Any, most: Any, results: Any) -> None:
    """Every version has 100 entries that all hold the same number; a reader must never see a mixture."""
    store = pheon.open(path, read_only=True)
    m = store.map("v")
    seen = set()
    while not stop.is_set():
        values = set(m.values()) | set(m.get_many(list(m)))
        if len(values) != 1 or len(m) != 100:
            results.put(("mixed", values))
            return
        seen |= values
        most.value = max(most.value, len(seen))
        m.refresh()
        fresh = store.map("v")
        if len(set(fresh.values())) != 1:
            results.put(("mixed", set(fresh.values())))
            return
    results.put(("ok", len(seen)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_publish_and_gc_under_running_readers(store: pheon.Store, method: str) -> None:
    store.put_map("v", dict.fromkeys(range(100), 0))
    context = multiprocessing.get_context(method)
    results, stop, most = context.Queue(), context.Event(), context.RawValue("q")
    readers = [context.Process(target=read_versions, args=(store.path, stop, most, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    published = 0
    least, watchdog = time.monotonic() + 3, time.monotonic() + 120
    while results.empty() and (time.monotonic() < least or published <= 3 or most.value <= 1):
        assert time.monotonic() < watchdog, (published, most.value)
        published += 1
        store.put_map("v", dict.fromkeys(range(100), published))
        store.gc("v", keep=1)
    stop.set()
    outcomes = [results.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(60)
        assert reader.exitcode == 0
    assert [kind for kind, _ in outcomes] == ["ok", "ok"], outcomes


KILLED_WRITER = """
    import sys, pheon
    store = pheon.open(sys.argv[1])
    print("ready", flush=True)
    n = int(sys.argv[2])
    while True:
        n += 1
        store.put_map("m", {i: n for i in range(3000)})
        store.gc("m", keep=2)
"""


def test_kill_9_of_the_writer_at_random_points(store: pheon.Store, store_path: Path) -> None:
    rounds = int(os.environ.get("PHEON_KILL_ROUNDS", "15"))
    rng = random.Random(9)
    store.put_map("m", dict.fromkeys(range(3000), 0))
    last = 0
    for _ in range(rounds):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED_WRITER), str(store_path), str(last)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.15)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        m = store.map("m")
        values = set(m.values())
        assert len(m) == 3000
        assert len(values) == 1
        (value,) = values
        assert value >= last
        assert store.verify("m"), store.verify("m").problems
        last = value
    # The next writer gets the lock at once and cleans up.
    store.put_map("m", {1: -1}, lock_timeout=5)
    assert store.map("m") == {1: -1}
    assert [p for p in store_path.rglob("*") if p.name.startswith(".tmp")] == []


def test_kill_9_of_a_reader_disturbs_nobody(store: pheon.Store, data: pheon.Map) -> None:
    code = f"""
        import pheon
        m = pheon.open({store.path!r}, read_only=True).map("m")
        print(len(m), flush=True)
        while True:
            m.get_many(list(m))
    """
    reader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == f"{N}\n"
    reader.kill()
    reader.wait()
    reader.stdout.close()
    assert store.put_map("m", {"a": "b"}, lock_timeout=1) == {"a": "b"}
    assert data == DATA


def test_lookups_of_many_keys_let_other_threads_run(store: pheon.Store) -> None:
    m = store.put_map("big", {i: i for i in range(300_000)})
    keys = pa.array(range(3_000_000))

    def ticks_in_one() -> int:
        ticks = 0
        done = threading.Event()

        def look() -> None:
            m.get_many(keys)
            done.set()

        worker = threading.Thread(target=look)
        worker.start()
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)
        worker.join()
        return ticks

    # While a lookup keeps the interpreter, this thread runs before it and after it at most. A busy machine may not let
    # it run for other reasons: then it looks again.
    watchdog = time.monotonic() + 120
    while ticks_in_one() < 3:
        assert time.monotonic() < watchdog, "no other thread ran during a lookup"
