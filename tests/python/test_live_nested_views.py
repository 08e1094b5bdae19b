"""Nested containers that are kept: what they show and do when the map has changed since."""

from __future__ import annotations

import copy
import enum
import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import pheon

SECONDS_MAX = 60


def fails(error: type[Exception], body: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(error):
        body(*args, **options)


def error_of(body: Callable[[Any], Any], value: Any) -> type[Exception]:
    try:
        done = body(value)
    except Exception as error:  # noqa: BLE001 - compared
        return type(error)
    raise AssertionError(f"no error, but {done!r}")


def elsewhere(live: pheon.LiveMap) -> pheon.LiveMap:
    return pickle.loads(pickle.dumps(live))


# Everything looks whether it is still so


@pytest.mark.parametrize(
    "between",
    [
        lambda n: None,
        lambda n: n.plain(),
        lambda n: n.copy(),
        lambda n: repr(n),
        lambda n: fails(KeyError, n.pop, "missing"),
        lambda n: fails(KeyError, n.__delitem__, "missing"),
        lambda n: fails(pheon.SchemaError, n.__setitem__, "a", object()),
        lambda n: n.setdefault("a", 5),
        lambda n: n.pop("missing", None),
        lambda n: n.update(),
    ],
)
def test_a_dict_shows_what_another_wrote(live: pheon.LiveMap, between: Callable[[Any], Any]) -> None:
    live["n"] = {"a": 1, "deep": [1]}
    nested, other = live["n"], elsewhere(live)
    deep = nested["deep"]
    for i in range(3):
        other["n"] = {"a": i, "i": i, "deep": [i, i]}
        between(nested)
        assert nested["i"] == i
        assert list(nested) == ["a", "i", "deep"]
        assert nested == {"a": i, "i": i, "deep": [i, i]}
        assert deep == [i, i]
        assert json.loads(json.dumps(nested)) == {"a": i, "i": i, "deep": [i, i]}


@pytest.mark.parametrize(
    "between",
    [
        lambda n: None,
        lambda n: n.plain(),
        lambda n: fails(IndexError, n.pop, 9),
        lambda n: fails(ValueError, n.remove, "missing"),
        lambda n: fails(pheon.SchemaError, n.append, object()),
        lambda n: fails(ZeroDivisionError, n.sort, key=lambda _: 1 / 0),
        lambda n: n.extend([]),
    ],
)
def test_a_list_shows_what_another_wrote(live: pheon.LiveMap, between: Callable[[Any], Any]) -> None:
    live["n"] = [0, {"deep": 0}]
    nested, other = live["n"], elsewhere(live)
    deep = nested[1]
    for i in range(3):
        other["n"] = [i, {"deep": i}]
        between(nested)
        assert nested[0] == i
        assert nested == [i, {"deep": i}]
        assert [*nested] == [i, {"deep": i}]
        assert [7] + nested == [7, i, {"deep": i}]  # noqa: RUF005 - the operator
        assert nested + [7] == [i, {"deep": i}, 7]  # noqa: RUF005
        assert 2 * nested == [i, {"deep": i}] * 2
        assert deep == {"deep": i}
        assert live["n"] == nested == other["n"]


DICT_READS: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "bool": bool,
    "list": list,
    "reversed": lambda n: list(reversed(n)),
    "in": lambda n: "new" in n,
    "get": lambda n: n.get("new"),
    "keys": lambda n: list(n.keys()),
    "values": lambda n: list(n.values()),
    "items": lambda n: list(n.items()),
    "dict": dict,
    "**": lambda n: {**n},
    "==": lambda n: n == {"new": 1},
    "!=": lambda n: n != {"new": 1},
    "repr": repr,
    "|": lambda n: n | {"x": 1},
    "r|": lambda n: {"x": 1, "new": 2} | n,
    "copy": lambda n: n.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda n: pickle.loads(pickle.dumps(n)),
    "json": json.dumps,
    "fromkeys": lambda n: n.fromkeys("ab", 1),
}
LIST_READS: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "bool": bool,
    "list": list,
    "tuple": tuple,
    "reversed": lambda n: list(reversed(n)),
    "in": lambda n: 8 in n,
    "get": lambda n: n[-1],
    "slice": lambda n: n[::-2],
    "index": lambda n: n.index(8),
    "index from": lambda n: n.index(8, 1, 3),
    "count": lambda n: n.count(8),
    "sorted": sorted,
    "*": lambda n: [*n],
    "==": lambda n: n == [9, 8, 7],
    "!=": lambda n: n != [9, 8, 7],
    "<": lambda n: n < [9, 9],
    "<=": lambda n: n <= [9, 8, 7],
    ">": lambda n: n > [9, 8],
    ">=": lambda n: n >= [9, 8, 8],
    "r<": lambda n: [9, 7] < n,  # noqa: SIM300 - the list's operator
    "repr": repr,
    "+": lambda n: n + [1],  # noqa: RUF005
    "r+": lambda n: [1] + n,  # noqa: RUF005
    "n*": lambda n: n * 2,
    "copy": lambda n: n.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda n: pickle.loads(pickle.dumps(n)),
    "sum": sum,
    "max": max,
    "join": lambda n: ",".join(map(str, n)),
}


@pytest.mark.parametrize("read", DICT_READS)
def test_each_read_of_a_dict_is_of_now(live: pheon.LiveMap, read: str) -> None:
    live["n"] = {"old": 0, "older": 0}
    nested = live["n"]
    elsewhere(live)["n"] = {"new": 1}
    found, expected = DICT_READS[read](nested), DICT_READS[read]({"new": 1})
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("read", LIST_READS)
def test_each_read_of_a_list_is_of_now(live: pheon.LiveMap, read: str) -> None:
    live["n"] = [0]
    nested = live["n"]
    elsewhere(live)["n"] = [9, 8, 7]
    found, expected = LIST_READS[read](nested), LIST_READS[read]([9, 8, 7])
    assert (type(found), found) == (type(expected), expected)


def test_what_was_read_while_another_wrote_is_not_taken_for_new(live: pheon.LiveMap) -> None:
    live["n"] = {"i": 0}
    iterator = iter(live.values())
    live["n"] = {"i": 1}
    assert next(iterator)["i"] == 1, "one moment's entries, but what is nested is alive"
    values = list(live.items())
    live["n"]["i"] = 2
    assert values == [("n", {"i": 2})]


def test_an_iteration_goes_on_when_its_own_view_looks_again(live: pheon.LiveMap) -> None:
    live["n"] = {"d": {"a": 1, "b": 2}, "l": [1, 2]}
    other, d, values = elsewhere(live), live["n"]["d"], live["n"]["l"]
    seen: list[Any] = []
    for key in d:
        other["n"]["d"][f"new {key}"] = 1
        seen.append((key, d[key], len(d)))
    for value in values:
        other["n"]["l"].insert(0, 0)
        seen.append((value, len(values)))
    assert seen == [("a", 1, 3), ("b", 2, 4), (1, 3), (2, 4)]
    assert [len(d) for _ in d.items() if other["n"]["d"].popitem()] == [3, 2, 1, 0]


def test_a_slice_is_plain_and_what_is_in_it_alive(live: pheon.LiveMap) -> None:
    live["n"] = [[1], {"x": 1}, 3]
    part = live["n"][:2]
    assert type(part) is list
    part.append(4)
    part[1]["x"] = 2
    assert live["n"] == [[1], {"x": 2}, 3]


# What is written


class Colour(enum.IntEnum):
    RED = 1


def test_what_is_put_in_comes_back_as_it_is_stored(live: pheon.LiveMap) -> None:
    live["n"] = {}
    nested = live["n"]
    nested["ordered"] = OrderedDict(x=OrderedDict(y=1))
    nested["ordered"]["x"]["y"] = 2
    nested[Colour.RED] = Colour.RED
    nested["list"] = mine = [1]
    mine.append(2)
    nested["set"] = {1}
    nested["set"].add(2)
    nested.update(tuple=({"a": 1},), decimal=Decimal("1.50"))
    expected = {
        "ordered": {"x": {"y": 2}},
        1: 1,
        "list": [1],
        "set": {1},
        "tuple": ({"a": 1},),
        "decimal": Decimal("1.50"),
    }
    assert repr(nested) == repr(expected) == repr(elsewhere(live)["n"])
    assert type(next(key for key in nested if key == 1)) is int
    assert type(nested["tuple"][0]) is pheon.LiveDict


def test_objects_of_other_classes_with_pickle(live: pheon.LiveMap) -> None:
    pickling = pheon.LiveMap(name=live.name, codec="pickle", allow_pickle=True)
    pickling["n"] = {"a": [Path("/x")]}
    pickling["n"]["ordered"] = OrderedDict(x=1)
    pickling["copy"] = pickling["n"]
    pickling["inside"] = OrderedDict(n=pickling["n"]["a"])
    assert type(pickling["n"]) is type(pickling["copy"]) is pheon.LiveDict
    assert type(pickling["n"]["ordered"]) is OrderedDict
    assert type(pickling["inside"]) is OrderedDict
    assert type(pickling["inside"]["n"]) is list
    pickling["n"]["a"].append(Path("/y"))
    assert pickling["n"]["a"] == [Path("/x"), Path("/y")]
    assert pickling["copy"]["a"] == pickling["inside"]["n"] == [Path("/x")]
    writing = pheon.LiveMap(name=live.name, codec="pickle")
    with writing.batch() as b:
        b["object"] = Path("/z")
    assert pickling["object"] == Path("/z")


@pytest.mark.parametrize("codec", ["msgpack", "pickle"])
def test_one_that_is_kept_is_stored_as_it_is_now(live: pheon.LiveMap, codec: Any) -> None:
    d = pheon.LiveMap(name=live.name, codec=codec, allow_pickle=True)
    d["l"], d["d"] = [1], {"x": [1]}
    kept_list, kept_dict, inner = d["l"], d["d"], d["d"]["x"]
    other = elsewhere(d)
    other["l"].append(2)
    other["d"]["x"].append(2)
    d["copies"] = [kept_list, kept_dict, {"inner": inner}, (inner,)]
    d.update(updated=kept_list)
    assert d.setdefault("default", kept_dict) == {"x": [1, 2]}
    assert d.compare_and_set("l", kept_list, kept_dict)
    with d.batch() as b:
        b["batch"] = inner
    assert d["copies"] == [[1, 2], {"x": [1, 2]}, {"inner": [1, 2]}, ([1, 2],)]
    assert d["updated"] == d["batch"] == [1, 2]
    assert d["l"] == {"x": [1, 2]}
    other["d"] = {"x": [9]}
    d["n"] = {}
    d["n"]["x"] = inner
    d["n"]["y"] = kept_dict
    assert d["n"] == {"x": [9], "y": {"x": [9]}}


def test_putting_one_where_it_is_writes_nothing(live: pheon.LiveMap) -> None:
    live.update(l=[1], d={"x": {"y": [1]}}, other={"x": 1})
    live["l"] += [2]
    live["d"]["x"]["y"] += [2]
    live["d"]["x"] |= {"z": 1}
    before = live.sequence
    for same in ("l", "d"):
        live[same] = live[same]
    live["d"]["x"] = live["d"]["x"]
    assert live.sequence == before
    live["other"]["x"] = live["d"]["x"]
    live["d"]["z"] = live["d"]["x"]
    live["l"] = live["d"]
    expected = {"y": [1, 2], "z": 1}
    assert live == {"l": {"x": expected, "z": expected}, "d": {"x": expected, "z": expected}, "other": {"x": expected}}


def test_one_that_is_gone_cannot_be_put_anywhere(live: pheon.LiveMap) -> None:
    live["a"] = [1]
    kept = live["a"]
    del live["a"]
    for put in (lambda: live.update(b=kept), lambda: live.__setitem__("a", kept), lambda: live.__setitem__("b", kept)):
        with pytest.raises(KeyError, match="any more"):
            put()
    assert live == {}


def test_what_changes_nothing_writes_nothing(live: pheon.LiveMap) -> None:
    live["n"] = {"a": {"x": 1}}
    before = live.sequence
    reader = pheon.LiveMap(name=live.name, read_only=True)
    for d in (live, reader):
        assert d["n"].setdefault("a", 2) == {"x": 1}
        assert d["n"].pop("missing", 3) == 3
        d["n"].update({})
        assert d.setdefault("n", 1) == {"a": {"x": 1}}
    assert live.sequence == before
    with pytest.raises(ValueError, match="read-only"):
        reader["n"]["a"]["x"] = 2


def test_they_are_made_by_maps_only(live: pheon.LiveMap) -> None:
    live["n"] = {"l": []}
    for cls in (pheon.LiveDict, pheon.LiveList, type(live["n"])):
        with pytest.raises(TypeError, match="comes out of a LiveMap"):
            cls()
    assert isinstance(live["n"], dict)
    assert isinstance(live["n"]["l"], list)


def test_no_other_errors_than_those_of_dicts_and_lists(live: pheon.LiveMap) -> None:
    plain: dict[str, Any] = {"d": {}, "l": [1]}
    live.update(plain)
    for use in (
        lambda m: m["d"].popitem(),
        lambda m: m["d"].pop("x"),
        lambda m: m["d"]["x"],
        lambda m: m["d"].__delitem__("x"),
        lambda m: m["d"].update(3),
        lambda m: m["d"].update([(1,)]),
        lambda m: m["d"].__setitem__([], 1),
        lambda m: m["d"] | 3,
        lambda m: m["l"][5],
        lambda m: m["l"].pop(5),
        lambda m: m["l"].remove(5),
        lambda m: m["l"].index(5),
        lambda m: m["l"].__setitem__(5, 1),
        lambda m: m["l"].__setitem__("a", 1),
        lambda m: m["l"].__setitem__(slice(0, 1, 1), 3),
        lambda m: m["l"].__delitem__(5),
        lambda m: m["l"].extend(3),
        lambda m: m["l"].insert("a", 1),
        lambda m: m["l"] + 3,
        lambda m: m["l"] * "a",
        lambda m: m["l"] < 3,
        lambda m: hash(m["l"]),
        lambda m: hash(m["d"]),
    ):
        assert error_of(use, live) is error_of(use, plain)
    assert live == plain


# Others


def add(d: pheon.LiveMap, rounds: int) -> None:
    for i in range(rounds):
        with d.lock:
            d["n"]["deep"][0]["x"] += 1
        d["n"]["list"] += [i]
        d["l"].append(i)
        d["n"]["deep"].append(i)


def test_processes_add_up(live: pheon.LiveMap) -> None:
    live.update(n={"deep": [{"x": 0}], "list": []}, l=[])
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=add, args=(live, 50)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(SECONDS_MAX)
        if child.is_alive():
            child.kill()
            child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert live["n"]["deep"][0] == {"x": 200}
    expected = sorted([*range(50)] * 4)
    assert sorted(live["l"]) == sorted(live["n"]["list"]) == sorted(live["n"]["deep"][1:]) == expected


def test_one_that_threads_share(live: pheon.LiveMap) -> None:
    live["n"] = {"a": 0, "l": [0]}
    shared, other = live["n"], elsewhere(live)
    problems: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                if sorted(shared) != ["a", "l"] or len(shared["l"]) != 1 or shared["a"] < 0:
                    problems.append(dict(shared))
            except BaseException as error:  # noqa: BLE001 - told below
                problems.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for i in range(2000):
            other["n"] = {"a": i, "l": [i]}
    finally:
        done.set()
        for thread in threads:
            thread.join(SECONDS_MAX)
        sys.setswitchinterval(interval)
    assert not problems


def test_iteration_while_another_process_changes_it(live: pheon.LiveMap) -> None:
    live["n"] = {"d": {str(i): i for i in range(20)}, "l": list(range(20))}
    code = f"""
import pheon
d = pheon.LiveMap(name={live.name!r}, create=False)
for i in range(500):
    n = d["n"]
    n["d"].pop(str(i % 20), None)
    n["d"][f"new {{i}}"] = i
    n["l"].append(i)
    n["l"].pop(0)
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        while child.poll() is None:
            kept = live["n"]
            for key, value in kept["d"].items():
                assert key == f"new {value}" or key == str(value)
            assert len(list(kept["l"])) in {20, 21}
    finally:
        child.kill()
        child.wait(SECONDS_MAX)
    assert child.returncode == 0
    assert list(live["n"]["l"]) == list(range(480, 500))
    assert live["n"]["d"] == {f"new {i}": i for i in range(500)}
