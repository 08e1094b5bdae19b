"""Handles of live maps from their making to their end: closing, unlinking, pickling, waiting, Ctrl-C, stores."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pheon

SECONDS_MAX = 60


def python(code: str) -> str:
    """What a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, timeout=SECONDS_MAX, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def in_thread(body: Callable[[], Any]) -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join(SECONDS_MAX)
    assert not thread.is_alive()


# Making


def test_create(live: pheon.LiveMap) -> None:
    assert pheon.LiveMap({"a": 1}, name=live.name, create=False) == {"a": 1} == live
    with pytest.raises(FileExistsError, match="create=None attaches") as caught:
        pheon.LiveMap({"a": 2}, name=live.name, create=True)
    assert caught.value.errno == 17
    assert caught.value.filename == live.path
    assert live == {"a": 1}
    for options in ({"name": f"{live.name}-not", "create": False}, {"create": False}):
        with pytest.raises(pheon.NotFoundError, match="there is no live map"):
            pheon.LiveMap(**options)
    with pytest.raises(pheon.NotFoundError, match="there is no live map"):
        pheon.LiveMap(name=f"{live.name}-not", read_only=True)


def test_data_that_cannot_be_stored_leaves_no_map(live: pheon.LiveMap) -> None:
    before = pheon.LiveMap.list_names()
    for options in ({}, {"name": f"{live.name}-new", "create": True}):
        with pytest.raises(pheon.SchemaError):
            pheon.LiveMap({"fine": 1, "not": object()}, **options)
    assert pheon.LiveMap.list_names() == before
    with pytest.raises(pheon.SchemaError):
        pheon.LiveMap({"fine": 1, "not": object()}, name=live.name)
    assert live == {}


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"max_entries": 2**63}),
        (ValueError, {"max_bytes": 0}),
        (ValueError, {"max_age": -1}),
        (ValueError, {"max_age": float("inf")}),
        (TypeError, {"max_age": "1"}),
        (TypeError, {"max_entries": "1"}),
        (TypeError, {"max_entries": 1.5}),
        (TypeError, {"name": 5}),
        (ValueError, {"group": -1}),
        (ValueError, {"group": 2**32 - 1}),
    ],
    ids=repr,
)
def test_options_out_of_range(error: type[Exception], options: dict[str, Any]) -> None:
    before = pheon.LiveMap.list_names()
    with pytest.raises(error):
        pheon.LiveMap(**options)
    assert pheon.LiveMap.list_names() == before


@pytest.mark.parametrize("options", [{"create": True}, {"auto_unlink": True}], ids=repr)
def test_read_only_makes_no_map(live: pheon.LiveMap, options: dict[str, Any]) -> None:
    for name in (live.name, f"{live.name}-new"):
        with pytest.raises(ValueError, match="read_only attaches"):
            pheon.LiveMap(name=name, read_only=True, **options)
    assert f"{live.name}-new" not in pheon.LiveMap.list_names()


def test_limits_are_those_of_the_maker(live: pheon.LiveMap) -> None:
    again = pheon.LiveMap(name=live.name, max_entries=1)
    again.update(a=1, b=2)
    assert again == {"a": 1, "b": 2}
    assert again.info()["max_entries"] is None


# Ending

USES: dict[str, Callable[[pheon.LiveMap], Any]] = {
    "get item": lambda d: d["a"],
    "set item": lambda d: d.__setitem__("a", 1),
    "del item": lambda d: d.__delitem__("a"),
    "in": lambda d: "a" in d,
    "len": len,
    "bool": bool,
    "iter": iter,
    "reversed": reversed,
    "get": lambda d: d.get("a"),
    "get_many": lambda d: d.get_many(["a"]),
    "pop": lambda d: d.pop("a", None),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("new", 1),
    "update": lambda d: d.update(a=1),
    "|=": lambda d: d.__ior__({"a": 1}),
    "|": lambda d: d | {},
    "clear": lambda d: d.clear(),
    "keys": lambda d: list(d.keys()),
    "values": lambda d: list(d.values()),
    "items": lambda d: list(d.items()),
    "==": lambda d: d == {},
    "copy": lambda d: d.copy(),
    "increment": lambda d: d.increment("hits"),
    "compare_and_set": lambda d: d.compare_and_set("a", 1, 2),
    "batch": lambda d: d.batch().__enter__(),
    "lock": lambda d: d.lock.acquire(),
    "with lock": lambda d: d.lock.__enter__(),
    "timed lock": lambda d: d.lock(timeout=1).__enter__(),
    "key lock": lambda d: d.lock_key("a").__enter__(),
    "wait": lambda d: d.wait(0),
    "snapshot": lambda d: d.snapshot(),
    "freeze": lambda d: d.freeze("x", store="/nowhere"),
    "sync": lambda d: d.sync(),
    "info": lambda d: d.info(),
    "sequence": lambda d: d.sequence,
    "pickle": pickle.dumps,
}
WRITES = [
    "set item",
    "del item",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "|=",
    "clear",
    "increment",
    "compare_and_set",
]


@pytest.mark.parametrize("use", USES)
def test_a_closed_handle_says_so(live: pheon.LiveMap, use: str) -> None:
    live["a"] = 1
    with pheon.LiveMap(name=live.name) as other:
        nested = other.setdefault("nested", {})
        iterator = iter(other.items())
    assert other.closed
    with pytest.raises(pheon.ClosedError, match="was closed"):
        USES[use](other)
    with pytest.raises(pheon.ClosedError, match="was closed"):
        nested["x"] = 1
    assert next(iterator) == ("a", 1), "what was begun may end"
    other.close()
    assert live == {"a": 1, "nested": {}}


def test_what_a_closed_handle_still_does(live: pheon.LiveMap) -> None:
    live.close()
    assert repr(live) == f"<pheon.LiveMap {live.name!r}, closed>"
    assert live.path == f"/dev/shm/pheon-live-{os.geteuid()}-{live.name}"
    live.unlink()
    assert live.name not in pheon.LiveMap.list_names()


def test_a_lock_held_when_its_handle_closes_can_be_given_back(live: pheon.LiveMap) -> None:
    other = pheon.LiveMap(name=live.name)
    with other.lock:
        other.close()
    with live.lock(timeout=SECONDS_MAX):
        pass


@pytest.mark.parametrize("use", WRITES)
def test_an_unlinked_map_can_be_read_only(live: pheon.LiveMap, use: str) -> None:
    live.update(a=1, n=[1])
    other, nested = pheon.LiveMap(name=live.name), live["n"]
    other.unlink()
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        USES[use](live)
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        nested.append(2)
    with pytest.raises(pheon.ClosedError, match="unlinked"), live.batch() as b:
        b["a"] = 2
    assert live == {"a": 1, "n": [1]} == live.snapshot()
    assert live.get_many(["a", "z"]) == [1, None]
    assert live.info()["unlinked"] is True
    with pytest.raises(pheon.NotFoundError):
        pickle.loads(pickle.dumps(live))


def test_a_new_map_of_the_name_is_another(live: pheon.LiveMap) -> None:
    live["a"] = 1
    live.unlink()
    new = pheon.LiveMap({"b": 2}, name=live.name, create=True)
    assert (live, new) == ({"a": 1}, {"b": 2})
    with pytest.raises(pheon.NotFoundError):
        live.unlink()
    assert pheon.LiveMap(name=live.name, create=False) == {"b": 2}


def test_nobody_waits_for_changes_of_an_unlinked_map(live: pheon.LiveMap) -> None:
    other = pheon.LiveMap(name=live.name)
    in_thread(lambda: live.update(a=1))
    threading.Timer(0.2, live.unlink).start()
    assert other.wait() == {"a"}, "changes before are told"
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        other.wait()


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", "d.close()", "del d"])
def test_auto_unlink(live: pheon.LiveMap, ending: str) -> None:
    name = f"{live.name}-auto"
    for attach in (f"name={live.name!r}", f"name={live.name!r}, create=False"):
        python(f"import pheon\nd = pheon.LiveMap({attach}, auto_unlink=True)\n{ending}")
    assert live.name in pheon.LiveMap.list_names(), "another made it"
    python(f"import pheon\nd = pheon.LiveMap(name={name!r}, auto_unlink=True)\n{ending}")
    assert name not in pheon.LiveMap.list_names()


def test_auto_unlink_is_not_for_a_forked_child(live: pheon.LiveMap) -> None:
    name = f"{live.name}-auto"
    python(f"""
import multiprocessing, os, sys, pheon
d = pheon.LiveMap(name={name!r}, auto_unlink=True)
for close in (False, True):
    pid = os.fork()
    if pid == 0:
        if close:
            d.close()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
child = multiprocessing.get_context("fork").Process(target=d.update, args=({{"a": 1}},))
child.start()
child.join()
assert {name!r} in pheon.LiveMap.list_names() and d == {{"a": 1}}
""")
    assert name not in pheon.LiveMap.list_names()


# Pickling


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_handle_is_the_same_map(live: pheon.LiveMap, protocol: int) -> None:
    other = pickle.loads(pickle.dumps(live, protocol))
    other["a"] = 1
    assert live == {"a": 1}
    assert type(other) is pheon.LiveMap
    assert other.writable
    assert not pickle.loads(pickle.dumps(pheon.LiveMap(name=live.name, read_only=True))).writable


def test_a_pickled_handle_keeps_codec_group_and_store(live: pheon.LiveMap, tmp_path: Path) -> None:
    pickling = pheon.LiveMap(name=live.name, codec="pickle", allow_pickle=True)
    pickling["p"] = Path("/x")
    assert pickle.loads(pickle.dumps(pickling))["p"] == Path("/x")
    shared = pheon.LiveMap({"a": 1}, name=live.name, group=os.getgid())
    try:
        assert shared != pickling
        assert live.name in pheon.LiveMap.list_names(group=os.getgid())
        again = pickle.loads(pickle.dumps(shared))
        assert again == {"a": 1}
        assert again.path == shared.path
    finally:
        pheon.LiveMap.unlink_by_name(live.name, group=os.getgid())
    with pytest.raises(pheon.NotFoundError):
        pickle.loads(pickle.dumps(shared))
    with pheon.open(tmp_path / "store") as store:
        kept = store.live("kept")
        kept["a"] = 1
        pickled = pickle.dumps(kept).hex()
    python(f"import pickle; pickle.loads(bytes.fromhex({pickled!r})).increment('a')")
    assert kept["a"] == 2


# Waiting


def test_wait_tells_every_kind_of_change(live: pheon.LiveMap) -> None:
    live.update(old=1, gone=1, n={"x": [1]})
    waiter = pickle.loads(pickle.dumps(live))
    assert waiter.wait(0) == set(), "what was before it"

    def change() -> None:
        live["old"] = 2
        del live["gone"]
        live["n"]["x"].append(2)
        live.increment("hits")
        with live.batch() as b:
            b["batch"] = 1
            b["never"] = 1
            del b["never"]
        live.setdefault("old", 3)
        live.compare_and_set("old", 7, 8)
        live[True] = 1
        live.get("gone")

    in_thread(change)
    assert waiter.wait(SECONDS_MAX) == {"old", "gone", "n", "hits", "batch", 1}
    assert waiter.wait(0) == set()
    live["mine"] = 1
    waiter["mine too"] = 1
    assert waiter.wait(0) == set(), "the same thread's, through any handle"
    in_thread(live.clear)
    assert waiter.wait() == {"old", "n", "hits", "batch", 1, "mine", "mine too"}


def test_wait_when_the_history_is_too_long(live: pheon.LiveMap) -> None:
    live["gone"] = 1

    def change() -> None:
        del live["gone"]
        live["a"] = 1
        for i in range(3000):
            live["b"] = bytes(50_000 + i)

    in_thread(change)
    told = live.wait(0)
    assert {"a", "b"} <= told <= {"a", "b", "gone"}
    assert live.wait(0) == set()


def test_a_read_only_handle_waits_too(live: pheon.LiveMap) -> None:
    reader = pheon.LiveMap(name=live.name, read_only=True)
    assert reader.wait(0.01) == set()
    timer = threading.Timer(0.1, lambda: live.update(a=1))
    timer.start()
    assert reader.wait(SECONDS_MAX) == {"a"}
    timer.join(SECONDS_MAX)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"], ids=repr)
def test_timeouts_that_cannot_be(live: pheon.LiveMap, timeout: Any) -> None:
    for use in (live.wait, lambda t: live.lock(timeout=t), lambda t: live.lock_key("a", timeout=t)):
        with pytest.raises((TypeError, ValueError), match="timeout"):
            use(timeout)


@pytest.mark.parametrize(
    "blocked",
    ["d.lock.acquire()", "d.lock(timeout=1000).__enter__()", "d['a'] = 1", "d.wait()", "d.batch().__enter__()"],
)
def test_ctrl_c_ends_waiting(live: pheon.LiveMap, blocked: str) -> None:
    code = f"""
import signal, sys, pheon
# Whoever runs the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
d = pheon.LiveMap(name={live.name!r}, create=False)
try:
    print("waiting", flush=True)
    {blocked}
except KeyboardInterrupt:
    sys.exit(42)
"""
    with live.lock:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout
            assert child.stdout.readline() == "waiting\n"
            child.send_signal(signal.SIGINT)
            assert child.wait(SECONDS_MAX) == 42
        finally:
            child.kill()
            child.communicate(timeout=SECONDS_MAX)
    live["b"] = 1
    assert live == {"b": 1}


# Stores


def test_live_maps_of_a_store_in_memory(shm_store: pheon.Store) -> None:
    shm_store.put_map("frozen", {"a": 1})
    d = shm_store.live("counters", max_entries=2)
    d.update(a=1, b=2, c=3)
    assert shm_store.live("counters") == {"b": 2, "c": 3}
    assert shm_store.live_names() == ["counters"]
    assert list(shm_store) == ["frozen"]
    assert "counters" not in shm_store
    again = pheon.open(shm_store.path)
    assert again.live("counters", create=False) == d
    with pytest.raises(FileExistsError):
        again.live("counters", create=True)
    assert dict(d.freeze("now")) == {"b": 2, "c": 3}
    again.drop_live("counters")
    assert shm_store.live_names() == []
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        d["x"] = 1
    with pytest.raises(pheon.NotFoundError):
        shm_store.drop_live("counters")
    with pytest.raises(ValueError, match="not allowed"):
        shm_store.live("../counters")


def test_a_store_that_is_closed_or_read_only(store_path: Path) -> None:
    with pheon.open(store_path) as store:
        store.live("m")["a"] = 1
    for use in (lambda: store.live("m"), store.live_names, lambda: store.drop_live("m")):
        with pytest.raises(pheon.ClosedError):
            use()
    with pheon.open(store_path, read_only=True) as reader:
        assert reader.live_names() == ["m"]
        d = reader.live("m")
        assert d == {"a": 1}
        for write in (lambda: d.update(b=1), lambda: d.lock.acquire(), lambda: reader.drop_live("m")):
            with pytest.raises(ValueError, match="read-only"):
                write()
        with pytest.raises(pheon.NotFoundError):
            reader.live("another")


@pytest.mark.parametrize("durable", [False, True])
def test_a_map_of_a_store_outlives_every_process(store_path: Path, durable: bool) -> None:
    python(f"""
import pheon
d = pheon.open({str(store_path)!r}).live("m", durable={durable})
d.update({{"a": 1, "n": {{"x": [1]}}, (1, "t"): None}})
d.sync()
del d["a"]
d["n"]["x"].append(2)
""")
    with pheon.open(store_path) as store:
        d = store.live("m", create=False)
        assert list(d.items()) == [("n", {"x": [1, 2]}), ((1, "t"), None)]
        assert d.info()["durable"] is durable


def test_freezing_and_back(store_path: Path, live: pheon.LiveMap) -> None:
    live.update({f"key {i:03}": {"n": i, "list": [i, None, 1.5]} for i in range(200)})
    with pheon.open(store_path) as store:
        frozen = live.freeze("v1", store=store)
        live["key 000"]["n"] = -1
        assert type(frozen) is pheon.Map
        assert len(frozen) == 200
        assert frozen["key 000"] == {"n": 0, "list": [0, None, 1.5]}
        back = store.live("back")
        back.update(frozen)
        assert back == frozen
        pickling = pheon.LiveMap({"p": Path("/x")}, codec="pickle", allow_pickle=True, auto_unlink=True)
        with pickling:
            pickling.freeze("v2", store=store)
        assert store.map("v2", allow_pickle=True)["p"] == Path("/x")


def test_locks_outlive_handles(tmp_path: Path) -> None:
    """In a process of its own: with the memory gone, the next lock of any map would crash it."""
    script = tmp_path / "locks.py"
    script.write_text(
        textwrap.dedent("""
        import threading
        import pheon

        def take():
            d = pheon.LiveMap(name=NAME)
            d.lock.acquire()
            d.lock_key("k").acquire()

        def elsewhere():
            d = pheon.LiveMap(name=NAME)
            return d.lock.acquire(timeout=0.01), d.lock_key("k").acquire(timeout=0.01)

        import sys
        NAME = sys.argv[1]
        take()
        with pheon.LiveMap(auto_unlink=True) as other:
            for i in range(100):
                other[i] = i
                with other.lock, other.lock_key(i):
                    pass
        found = []
        thread = threading.Thread(target=lambda: found.append(elsewhere()))
        thread.start()
        thread.join()
        assert found == [(False, False)], found
        d = pheon.LiveMap(name=NAME)
        d["x"] = 1
        d.lock.release()
        d.lock_key("k").release()
        thread = threading.Thread(target=lambda: found.append(elsewhere()))
        thread.start()
        thread.join()
        assert found[1] == (True, True), found
        print("done")
        """)
    )
    name = f"test-{uuid.uuid4().hex}"
    try:
        done = subprocess.run(
            [sys.executable, str(script), name], check=False, capture_output=True, text=True, timeout=SECONDS_MAX
        )
    finally:
        pheon.LiveMap.unlink_by_name(name, ignore_missing=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
