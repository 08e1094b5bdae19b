"""What live maps say to arguments that make no sense, and small agreements with Python's own types."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest

import pheon
from pheon.ultradict import UltraDict


@pytest.fixture
def live() -> Iterator[pheon.LiveMap]:
    with pheon.LiveMap(auto_unlink=True) as live:
        yield live


@pytest.mark.parametrize(
    ("options", "named"),
    [({"name": 5}, "name"), ({"max_entries": "5"}, "max_entries"), ({"max_bytes": 1.5}, "max_bytes"),
     ({"max_entries": True}, "max_entries"), ({"create": "x"}, "create")],
)  # fmt: skip
def test_types_of_options(options: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError, match=f"^{named} is "):
        pheon.LiveMap(**options)


def test_type_of_an_ultradicts_name() -> None:
    with pytest.raises(TypeError, match="^name is "):
        UltraDict(name=5)  # type: ignore[arg-type]


def test_subscript() -> None:
    assert pheon.LiveMap[str, int].__origin__ is pheon.LiveMap


def test_timeouts_of_locks(live: pheon.LiveMap) -> None:
    for lock in (live.lock, live.lock_key("a")):
        with pytest.raises(ValueError, match="non-blocking"):
            lock.acquire(False, 5)
        with pytest.raises(ValueError, match="non-negative"):
            lock.acquire(timeout=-2)
        assert lock.acquire(timeout=-1)
        lock.release()


def test_nan_equals_itself_as_it_is_stored(live: pheon.LiveMap) -> None:
    live["f"] = [1, math.nan]
    assert live == {"f": [1, math.nan]}
    assert live != {"f": [2, math.nan]}
    assert live != {"g": [1, math.nan]}
    assert live.compare_and_set("f", [1, math.nan], math.nan)
    assert not live.compare_and_set("f", 1.0, 2)
    assert live.compare_and_set("f", live["f"], 1)
    assert live["f"] == 1


def test_a_copied_snapshot_is_itself(live: pheon.LiveMap) -> None:
    snapshot = live.snapshot()
    assert copy.copy(snapshot) is snapshot
    assert copy.deepcopy(snapshot) is snapshot


@pytest.mark.parametrize("option", ["codec", "allow_pickle"])
def test_freeze_takes_no_codec(live: pheon.LiveMap, tmp_path: Any, option: str) -> None:
    live["a"] = 1
    with pytest.raises(TypeError, match=f"freeze takes no {option}"):
        live.freeze("x", store=pheon.open(tmp_path / "s"), **{option: "pickle"})


def test_containers_in_tuples_write_through(live: pheon.LiveMap) -> None:
    live["t"] = ({"n": 0}, [1], ("a", [2]))
    live["t"][0]["n"] += 1
    live["t"][1].append(2)
    live["t"][2][1].append(3)
    assert live["t"] == ({"n": 1}, [1, 2], ("a", [2, 3]))
    live["d"] = {"t": ([],)}
    live["d"]["t"][0].append(1)
    assert live["d"] == {"t": ([1],)}
    live["again"] = live["t"]
    assert live.pop("again") == live["t"]
    for value in live.values():
        assert type(value) is not list
    live["plain"] = (1, (2, "x"))
    assert live["plain"] == (1, (2, "x"))


def test_ultradict_clears_in_one_commit() -> None:
    ultra = UltraDict({i: i for i in range(50)})
    before = ultra.live.sequence
    ultra.clear()
    assert (len(ultra), ultra.live.sequence) == (0, before + 1)
    with pytest.raises(KeyError, match="empty"):
        ultra.popitem()
    assert ultra.live.sequence == before + 1
    ultra.update(a=1, b=2)
    assert ultra.popitem() == ("b", 2)
    ultra["t"] = ({"n": 1},)
    assert type(ultra.copy()["t"][0]) is dict
    ultra.close()


def test_ultradict_popitem_of_what_a_live_map_made() -> None:
    with pheon.LiveMap({"a": 1}, codec="pickle", allow_pickle=True, auto_unlink=True) as live:
        ultra = UltraDict(name=live.name)
        before = live.sequence
        assert ultra.popitem() == ("a", 1)
        assert live.sequence == before + 1
        with pytest.raises(KeyError):
            ultra.popitem()
