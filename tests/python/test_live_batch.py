"""`LiveBatch`: a dict of changes that others see all at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import pheon

START = {"a": 1, "b": [2], "c": {"x": 3}, 1: "one"}


def set_again(m: Any) -> None:
    del m["a"]
    m["a"] = 5


def set_again_and_once_more(m: Any) -> None:
    set_again(m)
    m["z"] = 1
    set_again(m)


def new_and_gone(m: Any) -> None:
    m["x"] = 1
    m["y"] = 2
    del m["x"]


def new_ones_in_another_order(m: Any) -> None:
    new_and_gone(m)
    m["x"] = 3


def all_out_and_in(m: Any) -> None:
    m.clear()
    m.update(c=1, a=2)


def last_ones(m: Any) -> None:
    m["new"] = 1
    assert m.popitem() == ("new", 1)
    assert m.popitem() == (1, "one")
    set_again(m)
    assert m.popitem() == ("a", 5)
    m["d"] = 1


def sequence(live: Any) -> int | None:
    """How many writes there were, where a map tells."""
    return live.sequence if isinstance(live, pheon.LiveMap) else None


def locked(live: Any) -> int:
    """How often this thread has the map's lock; over the network there is none."""
    return live.lock.locked_by_me() if isinstance(live, pheon.LiveMap) else 0


CHANGES: list[Callable[[Any], Any]] = [
    lambda m: m.update(a=9, b=8, z=7),
    lambda m: m.setdefault("a", 4),
    lambda m: m.setdefault("new", 4),
    lambda m: m.__ior__({"a": 0, "q": 1}),
    lambda m: m.pop("b"),
    lambda m: m.pop("nothing", None),
    lambda m: m.__setitem__(True, "uno"),
    lambda m: m.__setitem__("b", {"deep": [{1, 2}, Decimal("1.50")]}),
    set_again,
    set_again_and_once_more,
    new_and_gone,
    new_ones_in_another_order,
    all_out_and_in,
    last_ones,
    lambda m: m.clear(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_batch_is_a_dict_and_so_is_what_it_leaves(live: pheon.LiveMap, change: Callable[[Any], Any]) -> None:
    model: dict[Any, Any] = dict(START)
    live.update(START)
    change(model)
    with live.batch() as b:
        change(b)
        assert list(b.items()) == list(model.items())
        assert list(reversed(b)) == list(reversed(model))
        assert len(b) == len(model)
        assert b == model
        assert repr(dict(live.items())) == repr(START), "not before its end"
    assert repr(dict(live.items())) == repr(model)


def test_an_exception_discards_everything(live: pheon.LiveMap) -> None:
    live.update(START)
    before = sequence(live)
    for error in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), live.batch() as b:
            b["a"] = 2
            del b["b"]
            raise error
    assert live == START
    assert sequence(live) == before
    assert locked(live) == 0


def test_an_empty_batch_writes_nothing(live: pheon.LiveMap) -> None:
    before = sequence(live)
    with live.batch() as b:
        b["a"] = 1
        del b["a"]
    assert sequence(live) == before


def test_what_cannot_be_stored_is_an_error_where_it_is_given(live: pheon.LiveMap) -> None:
    with live.batch() as b:
        b["fine"] = 1
        with pytest.raises(pheon.SchemaError, match="a value of type PosixPath"):
            b["a"] = [Path("/x")]
        with pytest.raises(pheon.SchemaError, match="a key of type PosixPath"):
            b[Path("/x")] = 1
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            b[[1]] = 1
        with pytest.raises(KeyError, match="missing"):
            del b["missing"]
        with pytest.raises(KeyError, match="missing"):
            b["missing"]
    assert live == {"fine": 1}


def test_values_in_a_batch_are_copies(live: pheon.LiveMap) -> None:
    mine = [1]
    live["nested"] = {"x": [0]}
    with live.batch() as b:
        b["mine"] = mine
        mine.append(2)
        assert b["mine"] == [1]
        b["mine"].append(3)
        b["nested"]["x"].append(3)
        assert type(b["nested"]) is dict
        b["copy"] = live["nested"]
        assert type(b["copy"]) is dict
    assert live == {"nested": {"x": [0]}, "mine": [1], "copy": {"x": [0]}}


def test_a_batch_works_once_at_a_time_and_inside_its_block(live: pheon.LiveMap) -> None:
    b = live.batch()
    for use in (lambda: b["a"], lambda: b.update(a=1), lambda: len(b), lambda: list(b), lambda: "a" in b, b.popitem):
        with pytest.raises(RuntimeError, match="inside its with block"):
            use()
    with b:
        b["a"] = 1
        with pytest.raises(RuntimeError, match="open already"), b:
            pass
        assert b["a"] == 1
    assert locked(live) == 0
    with b:
        assert dict(b) == {"a": 1}
        b["a"] = 2
    assert live == {"a": 2}


def test_a_batch_forgets_what_an_earlier_block_did(live: pheon.LiveMap) -> None:
    live.update(a=1, b=2)
    b = live.batch()
    with pytest.raises(ZeroDivisionError), b:
        set_again(b)
        raise ZeroDivisionError
    with b:
        b["a"] = 2
        assert list(b) == ["a", "b"]
    assert list(live.items()) == [("a", 2), ("b", 2)]


def test_increment_in_a_batch(live: pheon.LiveMap) -> None:
    live["text"] = "x"
    with live.batch() as b:
        assert b.increment("n") == 1
        assert b.increment("n", 0.5) == 1.5
        assert b.increment("m", 2, default=40) == 42
        with pytest.raises(TypeError):
            b.increment("text")
    assert live == {"text": "x", "n": 1.5, "m": 42}


def test_a_full_map_takes_nothing_of_a_batch(make_live: Callable[..., Any]) -> None:
    small = make_live(max_bytes=2000)
    small["a"] = "x" * 1000
    with pytest.raises(pheon.StoreFullError), small.batch() as b:
        b["b"] = 1
        b["c"] = "x" * 2000
    assert small == {"a": "x" * 1000}
    assert locked(small) == 0
    with small.batch() as b:
        b["c"] = "x" * 1500
        del b["a"]
    assert small == {"c": "x" * 1500}, "what is taken out makes room"
    with small.batch() as b:
        b["d"] = "x" * 1500
        b.popitem()
        b["e"] = "x" * 1500
        del b["c"]
    assert small == {"e": "x" * 1500}


def test_a_batch_of_a_killed_process_never_was(live: pheon.LiveMap) -> None:
    live.update(a=1, b=1)
    code = f"""
import os, signal, pheon
d = pheon.LiveMap(name={live.name!r}, create=False)
with d.batch() as b:
    b["a"] = 2
    b["b"] = 2
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -9
    assert live == {"a": 1, "b": 1}
    with live.lock(timeout=60):
        live["a"] = 3
    assert live == {"a": 3, "b": 1}


def test_others_see_all_or_nothing(live: pheon.LiveMap) -> None:
    live.update(a=0, b=0)
    code = f"""
import pheon
d = pheon.LiveMap(name={live.name!r}, create=False)
for i in range(1, 2001):
    with d.batch() as b:
        b["a"] = i
        b["b"] = -i
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        while child.poll() is None:
            moment = live.snapshot()
            assert moment["a"] == -moment["b"]
    finally:
        child.kill()
        child.wait(60)
    assert child.returncode == 0
    assert live == {"a": 2000, "b": -2000}
