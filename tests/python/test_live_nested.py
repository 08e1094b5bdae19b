"""`LiveDict` and `LiveList`: what is nested in a live map changes in the map."""

from __future__ import annotations

import copy
import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pheon


@pytest.fixture(params=["msgpack", "pickle"])
def live(request: pytest.FixtureRequest) -> Iterator[pheon.LiveMap]:
    name = f"test-{uuid.uuid4().hex}"
    d = pheon.LiveMap(name=name, create=True, codec=request.param, allow_pickle=True)
    yield d
    pheon.LiveMap.unlink_by_name(name, ignore_missing=True)


def elsewhere(live: pheon.LiveMap) -> pheon.LiveMap:
    """Another handle of the map."""
    return pickle.loads(pickle.dumps(live))


DICT = {"a": 1, "b": [1, 2], "c": {"d": None}}
DICT_CHANGES: list[Callable[[Any], Any]] = [
    lambda d: d.__setitem__("x", 1),
    lambda d: d.__delitem__("a"),
    lambda d: d.pop("b"),
    lambda d: d.pop("nothing", 3),
    lambda d: d.popitem(),
    lambda d: d.clear(),
    lambda d: d.update({"x": 1}, y=2),
    lambda d: d.update([("x", [1])]),
    lambda d: d.setdefault("a", 5),
    lambda d: d.setdefault("x", {"n": 1}),
    lambda d: d.__ior__({"x": 1}),
    lambda d: d["b"].append(3),
    lambda d: d["c"].update(e={"f": 1}),
    lambda d: d["c"].__setitem__("d", {"deeper": [{}]}),
]
LIST = [3, 1, [2], {"a": 1}, 3]
LIST_CHANGES: list[Callable[[Any], Any]] = [
    lambda v: v.append({"x": 1}),
    lambda v: v.extend([1, 2]),
    lambda v: v.insert(1, "x"),
    lambda v: v.pop(),
    lambda v: v.pop(0),
    lambda v: v.remove(3),
    lambda v: v.clear(),
    lambda v: v.reverse(),
    lambda v: v.sort(key=str, reverse=True),
    lambda v: v.__setitem__(0, [9]),
    lambda v: v.__setitem__(slice(1, 3), [7, 8, 9]),
    lambda v: v.__delitem__(slice(None, None, 2)),
    lambda v: v.__iadd__([5]),
    lambda v: v.__imul__(2),
    lambda v: v[2].append(3),
    lambda v: v[3].update(b=2),
    lambda v: v[-2].__setitem__("c", []),
]


@pytest.mark.parametrize("value", [DICT, LIST, {"deep": [{"er": DICT}]}])
def test_nested_values_read_like_plain_ones(live: pheon.LiveMap, value: Any) -> None:
    live["v"] = value
    nested = live["v"]
    assert isinstance(nested, type(value))
    assert nested == value
    assert value == nested
    assert not nested != value  # noqa: SIM202 - the other operator
    assert len(nested) == len(value)
    assert list(nested) == list(value)
    assert list(reversed(nested)) == list(reversed(value))
    assert repr(nested) == repr(value)
    assert json.dumps(nested) == json.dumps(value)
    assert json.loads(json.dumps(dict(live))) == {"v": value}
    for plain in (copy.copy(nested), copy.deepcopy(nested), pickle.loads(pickle.dumps(nested)), nested.copy()):
        assert type(plain) is type(value)
        assert plain == value
    with pytest.raises(TypeError, match="unhashable"):
        hash(nested)
    if isinstance(value, dict):
        assert list(nested.items()) == list(value.items())
        assert nested.keys() == value.keys()
        assert {**nested} == value
        assert nested | {"z": 1} == value | {"z": 1}
    else:
        assert nested[1:] == value[1:]
        assert nested + [1] == [*value, 1]  # noqa: RUF005 - the operator
        assert nested.index(3) == 0
        assert nested.count(3) == 2
        assert 3 in nested


@pytest.mark.parametrize("change", DICT_CHANGES)
def test_dict_changes(live: pheon.LiveMap, change: Callable[[Any], Any]) -> None:
    check(live, DICT, change)


@pytest.mark.parametrize("change", LIST_CHANGES)
def test_list_changes(live: pheon.LiveMap, change: Callable[[Any], Any]) -> None:
    check(live, LIST, change)


def check(live: pheon.LiveMap, value: Any, change: Callable[[Any], Any]) -> None:
    """Makes a change at the top and deep inside, and compares with plain containers, also through another handle."""
    expected = {"top": copy.deepcopy(value), "deep": [{"in": copy.deepcopy(value)}]}
    live.update(expected)
    other = elsewhere(live)
    held = other["deep"][0]["in"]
    for get in (lambda m: m["top"], lambda m: m["deep"][0]["in"]):
        nested = get(live)
        answer, right = change(nested), change(get(expected))
        assert answer == right
        assert nested == get(expected)
        assert live == expected == other
    assert held == expected["deep"][0]["in"], "one read before sees it"


def test_augmented_assignment(live: pheon.LiveMap) -> None:
    live["n"] = {"count": 0, "list": [1]}
    live["n"]["count"] += 1
    live["n"]["list"] += [2]
    live["n"] |= {"x": 1}
    live["list"] = []
    live["list"] += [1]
    assert live == {"n": {"count": 1, "list": [1, 2], "x": 1}, "list": [1]}


def test_assigning_a_nested_one_copies_it(live: pheon.LiveMap) -> None:
    live["a"] = {"x": [1]}
    live["b"] = live["a"]
    live["c"] = [live["a"], (live["a"],)]
    live["a"]["y"] = live["a"]["x"]
    live["a"]["x"].append(2)
    assert live == {"a": {"x": [1, 2], "y": [1]}, "b": {"x": [1]}, "c": [{"x": [1]}, ({"x": [1]},)]}
    live["b"]["x"].append(3)
    assert live["b"] == {"x": [1, 3]}


def test_one_that_is_gone_says_so(live: pheon.LiveMap) -> None:
    live["a"] = {"b": {"c": [1]}}
    held = live["a"]["b"]["c"]
    live["a"]["b"] = 5
    with pytest.raises(KeyError, match=r"no list at \['a'\]\['b'\]\['c'\]"):
        held.append(2)
    with pytest.raises(KeyError, match="any more"):
        list(held)
    live["a"] = {"b": {"c": {}}}
    with pytest.raises(KeyError, match="no list"):
        held.append(2)
    live["a"] = {"b": {"c": [7]}}
    held.append(8)
    assert live == {"a": {"b": {"c": [7, 8]}}}
    del live["a"]
    with pytest.raises(KeyError, match="no list"):
        held.clear()


def test_a_change_that_fails_changes_nothing(live: pheon.LiveMap) -> None:
    live["a"] = {"list": [1, "x"]}
    nested = live["a"]["list"]
    with pytest.raises(TypeError):
        nested.sort()
    with pytest.raises(IndexError):
        nested[9] = 1
    with pytest.raises(KeyError):
        del live["a"]["nothing"]
    assert live == {"a": {"list": [1, "x"]}}
    assert nested == [1, "x"]
    assert live.lock.locked_by_me() == 0


def test_iteration_is_not_disturbed(live: pheon.LiveMap) -> None:
    live["a"] = {str(i): i for i in range(5)}
    other = elsewhere(live)
    seen = []
    for key in live["a"]:
        other["a"].pop("4", None)
        other["a"][f"new {key}"] = 1
        seen.append(key)
    assert seen == ["0", "1", "2", "3", "4"]
