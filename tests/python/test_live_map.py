"""`LiveMap` as its users type it, in one process."""

from __future__ import annotations

import copy
import datetime as dt
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import pheon


@pytest.fixture
def live() -> Iterator[pheon.LiveMap]:
    d = pheon.LiveMap(name=f"test-{uuid.uuid4().hex}", create=True)
    yield d
    pheon.LiveMap.unlink_by_name(d.name, ignore_missing=True)


def in_thread(body: Any) -> Any:
    """What `body` returns, or the exception that it raises, in another thread."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(body())
        except BaseException as error:  # noqa: BLE001 - handed over
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert done, "the other thread hangs"
    return done[0]


# Names and handles


def test_a_name_means_one_map(live: pheon.LiveMap) -> None:
    live["a"] = 1
    other = pheon.LiveMap(name=live.name)
    assert other == {"a": 1}
    assert pheon.LiveMap({"b": 2}, name=live.name) == {"a": 1, "b": 2} == live
    with pytest.raises(FileExistsError, match="already"):
        pheon.LiveMap(name=live.name, create=True)
    with pytest.raises(pheon.NotFoundError, match="no live map"):
        pheon.LiveMap(name=f"{live.name}-not", create=False)
    assert live.name in pheon.LiveMap.list_names()
    assert isinstance(live, MutableMapping)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".x", "-x", "a b", "x" * 200])
def test_names_that_are_not_allowed(name: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        pheon.LiveMap(name=name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"codec": "json"},
        {"max_entries": 0},
        {"max_bytes": -1},
        {"max_age": 0},
        {"max_age": float("nan")},
        {"group": "no such group"},
        {"read_only": True},
    ],
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        pheon.LiveMap(**wrong)


def test_unlinking(live: pheon.LiveMap) -> None:
    live["a"] = 1
    live.unlink()
    assert live["a"] == 1
    with pytest.raises(pheon.ClosedError, match="unlinked"):
        live["b"] = 2
    with pytest.raises(pheon.NotFoundError):
        live.unlink()
    again = pheon.LiveMap(name=live.name)
    assert again == {}
    assert again.info()["uuid"] != live.info()["uuid"]
    assert pheon.LiveMap.unlink_by_name(live.name)
    assert not pheon.LiveMap.unlink_by_name(live.name, ignore_missing=True)


def test_a_closed_handle(live: pheon.LiveMap) -> None:
    other = pheon.LiveMap(name=live.name)
    other.close()
    assert other.closed
    for use in (lambda: other["a"], lambda: len(other), lambda: other.update(a=1), lambda: list(other), other.snapshot):
        with pytest.raises(pheon.ClosedError, match="closed"):
            use()
    live["a"] = 1
    assert "closed" in repr(other)


def test_a_read_only_handle(live: pheon.LiveMap) -> None:
    live["a"] = {"n": 1}
    reader = pheon.LiveMap(name=live.name, read_only=True)
    assert reader == {"a": {"n": 1}}
    for write in (lambda: reader.update(b=1), lambda: reader.pop("a"), reader.clear, lambda: reader["a"].update(n=2)):
        with pytest.raises(ValueError, match="read-only"):
            write()
    with pytest.raises(ValueError, match="read-only"), reader.lock:
        pass
    live["b"] = 2
    assert reader["b"] == 2
    assert not pickle.loads(pickle.dumps(reader)).writable


def test_auto_unlink_is_its_makers_alone(live: pheon.LiveMap) -> None:
    pheon.LiveMap(name=live.name, auto_unlink=True).close()
    assert live.name in pheon.LiveMap.list_names()
    name = f"{live.name}-auto"
    code = f"""
import os, pheon
d = pheon.LiveMap(name={name!r}, auto_unlink=True)
pid = os.fork()
if pid == 0:
    d["child"] = 1
    raise SystemExit
os.waitpid(pid, 0)
assert d["child"] == 1 and {name!r} in pheon.LiveMap.list_names()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert name not in pheon.LiveMap.list_names()


# dict ---------------------------------------------------------------------------------------------

NOW = dt.datetime(2026, 11, 25, 12, 30, tzinfo=dt.UTC)
KEYS: list[Any] = ["", "text", "ü", b"bytes", 0, -1, 2**200, 1.5, None, (), (1, ("a", None)), NOW, NOW.date(), b""]
VALUES: list[Any] = [
    *KEYS,
    True,
    float("inf"),
    [1, [2, {"x": (3,)}]],
    {"a": {"b": [None, {1: 2}]}},
    {1, 2},
    "long" * 300_000,
    dt.timedelta(days=-1, microseconds=3),
]


def test_keys_and_values_of_every_kind(live: pheon.LiveMap) -> None:
    expected = dict(zip(KEYS, VALUES, strict=False))
    live.update(expected)
    for value in VALUES:
        live["value"] = value
        assert live["value"] == value
        if not isinstance(value, (dict, list)):
            assert type(live["value"]) is type(value)
    del live["value"]
    assert live == expected
    assert list(live) == KEYS
    assert [type(key) for key in live] == [type(key) for key in KEYS]


def test_equal_keys_are_one(live: pheon.LiveMap) -> None:
    live[1] = "int"
    live[True] = "bool"
    live[1.0] = "float"
    assert live == {1: "float"}
    assert live[True] == "float"
    assert [type(key) for key in live] == [int], "the first form stays, as in a dict"


def test_what_is_no_key_or_value(live: pheon.LiveMap) -> None:
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        live[[1]] = 2
    with pytest.raises(TypeError, match="unhashable type: 'dict'"):
        live.get({})
    with pytest.raises(pheon.SchemaError, match='codec="pickle"'):
        live["a"] = object()
    with pytest.raises(pheon.SchemaError):
        live.update({"fine": 1, "not": object()})
    with pytest.raises((ValueError, TypeError)):
        live["\ud800"] = 1
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(pheon.SchemaError):
        live["loop"] = loop
    assert live == {}


def test_order_is_that_of_first_insertion(live: pheon.LiveMap) -> None:
    live.update(a=1, b=2, c=3)
    live["a"] = 4
    del live["b"]
    live["b"] = 5
    assert list(live.items()) == [("a", 4), ("c", 3), ("b", 5)]
    assert list(reversed(live)) == ["b", "c", "a"]
    assert live.popitem() == ("b", 5)
    assert live.popitem() == ("c", 3)
    assert live.popitem() == ("a", 4)
    with pytest.raises(KeyError, match="empty"):
        live.popitem()


def test_iteration_sees_one_moment(live: pheon.LiveMap) -> None:
    live.update((i, i) for i in range(1000))
    seen = []
    for key, value in live.items():
        seen.append((key, value))
        live[key] = -1
        live[f"new {key}"] = 1
        live.pop((key + 500) % 1000, None)
    assert seen == [(i, i) for i in range(1000)]


def test_views_and_operators(live: pheon.LiveMap) -> None:
    live.update(a=1, b=2)
    assert live.keys() & {"a", "z"} == {"a"}
    assert live.keys() | {"z"} == {"a", "b", "z"}
    assert ("a", 1) in live.items()
    assert 2 in live.values()
    assert live.items() == {"a": 1, "b": 2}.items()
    assert live | {"c": 3} == {"a": 1, "b": 2, "c": 3}
    assert {"c": 3, "a": 0} | live == {"c": 3, "a": 1, "b": 2}
    same = live
    live |= {"c": 3}
    assert live is same
    assert json.loads(json.dumps(dict(live))) == {"a": 1, "b": 2, "c": 3}
    assert live != {"a": 1}
    assert live != 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(live)
    assert str(live) == "{'a': 1, 'b': 2, 'c': 3}"


def test_copies(live: pheon.LiveMap) -> None:
    live["a"] = [1]
    for other in (live.copy(), copy.copy(live), copy.deepcopy(live)):
        assert other == live
        other["a"].append(2)
        assert live["a"] == [1]
        assert other.name in pheon.LiveMap.list_names()
    name = other.name
    del other
    assert name not in pheon.LiveMap.list_names()


def test_missing_keys(live: pheon.LiveMap) -> None:
    for use in (lambda: live["x"], lambda: live.pop("x"), lambda: live.__delitem__("x")):
        with pytest.raises(KeyError) as caught:
            use()
        assert caught.value.args == ("x",)
    assert live.get("x") is None
    assert live.get("x", 1) == 1
    assert live.pop("x", 2) == 2
    assert live.get_many(["x", "y"], 0) == [0, 0]


def test_many_keys_at_once(live: pheon.LiveMap) -> None:
    entries: dict[Any, Any] = {f"key {i}": i for i in range(0, 2000, 2)} | {(i, "t"): [i] for i in range(300)}
    entries |= {1: "one", 2.5: b"x" * 3000, None: {"a": [1]}}
    live.update(entries)
    keys = [*entries, *(f"key {i}" for i in range(1, 2000, 2)), True, 1.0, "", *reversed(entries)]
    missing = object()
    for kind in (list, tuple, iter):
        found = live.get_many(kind(keys), missing)
        assert len(found) == len(keys)
        for key, value in zip(keys, found, strict=True):
            assert value is missing if key not in entries else value == entries[key]
    assert live.get_many(iter([])) == []

    def broken() -> Iterator[str]:
        yield from (f"key {i}" for i in range(300))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        live.get_many(broken())
    with pytest.raises(pheon.SchemaError):
        live.get_many([*["key 0"] * 300, object()])
    live.close()
    with pytest.raises(pheon.ClosedError):
        live.get_many(["key 0"])


# Atomic changes


def test_batches_are_all_or_nothing(live: pheon.LiveMap) -> None:
    live.update(a=1, b=2)
    with live.batch() as b:
        b["a"] = 10
        del b["b"]
        b["c"] = b["a"] + 1
        assert b.increment("a") == 11
        assert dict(b) == {"a": 11, "c": 11}
        assert len(b) == 2
        assert "b" not in b
        assert live == {"a": 1, "b": 2}, "nobody sees it before"
        assert in_thread(lambda: dict(live)) == {"a": 1, "b": 2}
        assert isinstance(in_thread(lambda: live.lock(timeout=0.01).__enter__()), pheon.LockTimeout)
    assert live == {"a": 11, "c": 11}
    before = live.sequence
    with pytest.raises(ZeroDivisionError), live.batch() as b:
        b["a"] = 1 / 0
    with pytest.raises(pheon.SchemaError), live.batch() as b:
        b["fine"] = 1
        b["not"] = object()
    assert live == {"a": 11, "c": 11}
    assert live.sequence == before
    with pytest.raises(RuntimeError, match="with block"):
        b["late"] = 1
    live["lock is free"] = in_thread(lambda: live.lock.acquire(blocking=False))


def test_increment_and_compare_and_set(live: pheon.LiveMap) -> None:
    assert live.increment("n") == 1
    assert live.increment("n", 2.5) == 3.5
    assert live.increment("m", -1, default=10) == 9
    live["text"] = "x"
    with pytest.raises(TypeError):
        live.increment("text")
    assert live["text"] == "x"
    assert live.compare_and_set("n", 3.5, 4)
    assert not live.compare_and_set("n", 3.5, 5)
    assert live.compare_and_set("new", pheon.MISSING, 1)
    assert not live.compare_and_set("new", pheon.MISSING, 2)
    assert not live.compare_and_set("nothing", None, 2)
    assert live.compare_and_set("new", 1, pheon.MISSING)
    assert "new" not in live


def test_locks(live: pheon.LiveMap) -> None:
    with live.lock, live.lock, live.lock(timeout=1):
        assert live.lock.locked_by_me() == 3
        live["a"] = 1
        assert in_thread(lambda: live.lock.acquire(timeout=0.01)) is False
        assert in_thread(lambda: live["a"]) == 1
    with pytest.raises(RuntimeError, match="does not hold"):
        live.lock.release()
    with live.lock_key("a"), live.lock_key("a", timeout=1):
        assert isinstance(in_thread(lambda: live.lock_key("a", timeout=0.01).__enter__()), pheon.LockTimeout)
    with pytest.raises(RuntimeError):
        live.lock_key("a").release()


# Others' changes, and moments


def test_wait_tells_of_others_changes(live: pheon.LiveMap) -> None:
    live["mine"] = 1
    assert live.wait(0.01) == set()
    in_thread(lambda: live.update({"a": 1, 1.0: 2}))
    in_thread(lambda: live.pop("mine"))
    assert live.wait(5) == {"a", 1, "mine"}
    assert live.wait(0) == set()
    thread = threading.Timer(0.1, lambda: live.update(late=1))
    thread.start()
    assert live.wait() == {"late"}
    thread.join()


def test_snapshots_stay(live: pheon.LiveMap) -> None:
    live.update({i: [i] for i in range(100)})
    snapshot = live.snapshot()
    for i in range(100):
        live[i] = "x" * 20_000
    live.clear()
    assert snapshot == {i: [i] for i in range(100)}
    assert list(snapshot.items())[:2] == [(0, [0]), (1, [1])]
    assert len(snapshot) == 100
    assert 200 not in snapshot
    assert type(snapshot[0]) is list
    with pytest.raises(TypeError):
        snapshot[0] = 1  # type: ignore[index]
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(snapshot)


def test_freezing(live: pheon.LiveMap, tmp_path: Path) -> None:
    live.update(b=1, a=2)
    with pytest.raises(ValueError, match="store="):
        live.freeze("frozen")
    frozen = live.freeze("frozen", store=str(tmp_path / "store"))
    live["a"] = 3
    assert dict(frozen) == {"a": 2, "b": 1}
    with pheon.open(tmp_path / "store") as store:
        counters = store.live("counters")
        counters["n"] = {"x": [1]}
        assert dict(counters.freeze("v1")) == {"n": {"x": [1]}}
        assert sorted(store) == ["frozen", "v1"]


# Limits


def test_max_entries() -> None:
    with pheon.LiveMap(max_entries=3, auto_unlink=True) as cache:
        for key in "abcad":
            cache[key] = key
        assert list(cache) == ["c", "a", "d"], "least recently written first"
        assert cache.info()["max_entries"] == 3


def test_max_age() -> None:
    with pheon.LiveMap({"old": 1}, max_age=0.2, auto_unlink=True) as cache:
        while "old" in cache:
            pass
        assert list(cache.items()) == []
        with pytest.raises(KeyError):
            del cache["old"]
        cache["new"] = 1
        assert len(cache) == 1


def test_max_bytes() -> None:
    with pheon.LiveMap(max_bytes=100_000, auto_unlink=True) as small:
        with pytest.raises(pheon.StoreFullError) as caught:
            for i in range(100_000):
                small[i] = "x" * 100
        assert caught.value.errno == 28
        assert small[0] == "x" * 100
        full = len(small)
        with pytest.raises(pheon.StoreFullError):
            small.update({f"more {i}": "x" * 100 for i in range(10)})
        assert len(small) == full
        del small[0], small[1]
        small["fits"] = "x" * 100


# Stores


def test_maps_of_a_store(tmp_path: Path) -> None:
    with pheon.open(tmp_path / "store") as store:
        d = store.live("counters", durable=True)
        d["a"] = 1
        d.sync()
        assert store.live_names() == ["counters"]
        assert list(store) == []
        code = f"import pheon; d = pheon.open({str(tmp_path / 'store')!r}).live('counters'); d['b'] = d['a'] + 1"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        assert pickle.loads(pickle.dumps(d)) == {"a": 1, "b": 2}
        reader = pheon.open(tmp_path / "store", read_only=True)
        assert reader.live("counters")["b"] == 2
        with pytest.raises(ValueError, match="read-only"):
            reader.live("counters")["c"] = 1
        with pytest.raises(ValueError, match="read-only"):
            reader.drop_live("counters")
        store.drop_live("counters")
        assert store.live_names() == []
        with pytest.raises(pheon.NotFoundError):
            reader.live("counters")
    with pytest.raises(pheon.ClosedError):
        store.live("counters")


def test_pickled_objects(live: pheon.LiveMap) -> None:
    d = pheon.LiveMap(name=live.name, codec="pickle", allow_pickle=True)
    d["path"] = Path("/x")
    d[uuid.UUID(int=1)] = 3 + 4j
    d["nested"] = {"path": [Path("/y")]}
    d["nested"]["path"].append(1)
    assert d == {"path": Path("/x"), uuid.UUID(int=1): 3 + 4j, "nested": {"path": [Path("/y"), 1]}}
    with pytest.raises(pheon.Error, match="allow_pickle"):
        live["path"]
    assert live.get("nothing") is None
    assert pickle.loads(pickle.dumps(d))["path"] == Path("/x")


def test_a_forked_child_is_another_owner(live: pheon.LiveMap) -> None:
    with live.lock:
        pid = os.fork()
        if pid == 0:
            taken = live.lock.acquire(timeout=0.05)
            held = live.lock.locked_by_me()
            os._exit(10 + taken + held)
        assert os.waitpid(pid, 0)[1] >> 8 == 10
        assert live.lock.locked_by_me() == 1
    live["after"] = 1


# Anything

ANY_KEY = st.one_of(
    st.text(max_size=3), st.integers(-3, 3), st.booleans(), st.floats(-2, 2), st.tuples(st.integers(0, 2))
)
ANY_VALUE = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=30_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)


class LikeADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.live = pheon.LiveMap()
        self.model: dict[Any, Any] = {}

    def teardown(self) -> None:
        self.live.unlink()

    @rule(key=ANY_KEY, value=ANY_VALUE)
    def put(self, key: Any, value: Any) -> None:
        self.live[key] = value
        self.model[key] = value

    @rule(key=ANY_KEY)
    def pop(self, key: Any) -> None:
        assert self.live.pop(key, "none") == self.model.pop(key, "none")

    @rule(entries=st.dictionaries(ANY_KEY, ANY_VALUE, max_size=5))
    def update(self, entries: dict[Any, Any]) -> None:
        self.live.update(entries)
        self.model.update(entries)

    @rule(key=ANY_KEY, value=ANY_VALUE)
    def setdefault(self, key: Any, value: Any) -> None:
        assert self.live.setdefault(key, value) == self.model.setdefault(key, value)

    @rule()
    def popitem(self) -> None:
        if self.model:
            assert self.live.popitem() == self.model.popitem()

    @rule()
    def clear(self) -> None:
        self.live.clear()
        self.model.clear()

    @rule()
    def reopen(self) -> None:
        self.live = pickle.loads(pickle.dumps(self.live))

    @rule(entries=st.dictionaries(ANY_KEY, ANY_VALUE, max_size=5), key=ANY_KEY)
    def batch(self, entries: dict[Any, Any], key: Any) -> None:
        with self.live.batch() as b:
            for each, value in entries.items():
                b[each] = value
            b.pop(key, None)
        self.model.update(entries)
        self.model.pop(key, None)

    @rule(key=ANY_KEY, value=ANY_VALUE)
    def append(self, key: Any, value: Any) -> None:
        if isinstance(self.model.get(key), list):
            self.live[key].append(value)
            self.model[key].append(copy.deepcopy(value))

    @invariant()
    def same(self) -> None:
        assert len(self.live) == len(self.model)
        assert list(self.live.items()) == list(self.model.items())
        assert [type(key) for key in self.live] == [type(key) for key in self.model]


TestLikeADict = LikeADict.TestCase
TestLikeADict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
