"""Keys that are asked for again and again: their values' objects are kept for a while, which nobody must notice."""

import gc
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pheon

# More than are kept, so that some are pushed out.
MANY = 6_000
# Asked for so often a map begins to keep values.
WARM = 400

KEYS: dict[str, Callable[[int], Any]] = {
    "str": lambda i: f"key {i}",
    "bytes": lambda i: b"key %d" % i,
    "int": lambda i: (i - MANY // 2) * 2048,
}
VALUES: dict[str, Callable[[int], Any]] = {
    "str": lambda i: f"value {i}",
    "bytes": lambda i: b"value %d" % i,
    "int": lambda i: i << 40,
    "float": lambda i: i / 7,
    "bool": lambda i: i % 3 == 0,
    "str or None": lambda i: None if i % 5 == 0 else f"value {i}",
}


@pytest.fixture
def store(tmp_path: Path) -> pheon.Store:
    return pheon.open(tmp_path)


def warm(m: pheon.Map, key: Any) -> None:
    for _ in range(WARM):
        assert m[key] is not None


@pytest.mark.parametrize("value_of", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("key_of", KEYS.values(), ids=KEYS)
def test_hot_and_cold_keys_have_their_own_values(store: pheon.Store, key_of: Any, value_of: Any) -> None:
    d = {key_of(i): value_of(i) for i in range(MANY)}
    m = store.put_map("m", d)
    rng = random.Random(1)
    missing = object()
    for round_number in range(6):
        # Objects of their own, as programs have that read keys from somewhere.
        hot = [key_of(i) for i in range(200)]
        some = [key_of(rng.randrange(2 * MANY)) for _ in range(1_000)] if round_number % 2 else []
        asked = [*hot * 3, *some]
        rng.shuffle(asked)
        for key in asked:
            assert m.get(key, missing) is missing if key not in d else m[key] == d[key]
            assert (key in m) == (key in d)
        assert m.get_many(asked) == [d.get(key) for key in asked]
        assert m.get_many(asked, default=7) == [d.get(key, 7) for key in asked]
        assert m.get_many(hot) == [d[key] for key in hot]


def test_a_refreshed_map_has_the_new_values(store: pheon.Store) -> None:
    keys = [f"key {i}" for i in range(WARM)]
    m = store.put_map("m", dict.fromkeys(keys, "old"))
    for _ in range(3):
        assert {m[key] for key in keys} == {"old"}
    store.put_map("m", dict.fromkeys(keys[1:], "new"))
    assert m.get_many(keys) == ["old"] * WARM
    assert m.refresh()
    assert {m[key] for key in keys[1:]} == {"new"}
    assert m.get_many(keys) == [None, *["new"] * (WARM - 1)]
    with pytest.raises(KeyError):
        m[keys[0]]


def test_equal_keys_of_other_types_are_refused_however_hot_the_key_is(store: pheon.Store) -> None:
    m = store.put_map("m", {i: i for i in range(WARM)})
    warm(m, 1)
    for other in (1.0, "1"):
        with pytest.raises(TypeError):
            m[other]
        with pytest.raises(TypeError):
            m.get_many([1, other, 1])

    class Text(str):
        def __hash__(self) -> int:
            return hash("a")

        def __eq__(self, other: object) -> bool:
            return True

    texts = store.put_map("texts", {"a": 1, "b": 2})
    warm(texts, "a")
    assert texts[Text("b")] == 2
    assert texts.get_many(["a", Text("b"), "a"]) == [1, 2, 1]


@pytest.mark.parametrize("make", [str, str.encode], ids=["str", "bytes"])
def test_short_values_are_kept_and_long_ones_are_not(store: pheon.Store, make: Any) -> None:
    short, long = make("short"), make("x" * 1_000)
    m = store.put_map("m", {"short": short, "long": long, "key " * 100: short})
    for key in m:
        warm(m, key)
    assert m["short"] is m["short"]
    assert m.get_many(["short"])[0] is m["short"]
    assert m["long"] is not m["long"]
    assert m["key " * 100] is not m["key " * 100]
    other = store.map("m")
    assert other["short"] is not other["short"], "a map that is hardly asked keeps nothing"


def test_no_key_is_kept_where_few_are_asked_for_again(store: pheon.Store) -> None:
    m = store.put_map("m", {f"key {i}": i for i in range(30_000)})
    key = "".join(["key ", "7"])
    before = sys.getrefcount(key)
    warm(m, key)
    assert sys.getrefcount(key) == before + 1
    assert all(m[f"key {i}"] == i for i in range(30_000))
    assert sys.getrefcount(key) == before


def test_a_list_that_another_thread_changes_meanwhile_leaves_no_wrong_value(store: pheon.Store) -> None:
    d = {f"key {i}": i for i in range(100_000)}
    m = store.put_map("m", d)
    keys = list(d)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            keys.reverse()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3):
            m.get_many(keys)
    finally:
        done.set()
        thread.join()
    assert [key for key in keys if m[key] != d[key]] == []


@pytest.mark.timeout(60)
def test_finalizers_may_look_keys_up(store: pheon.Store) -> None:
    texts, numbers = store.put_map("texts", {"a": 1, "b": 2}), store.put_map("numbers", {2**64 - 1: 1, 2**64 - 2: 2})
    found = []

    class Finalized:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            found.append((texts["a"], numbers[2**64 - 1]))

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            Finalized()
            assert texts.get("\ud800") is None
            Finalized()
            assert numbers.get(2**64 - 2) == 2
            Finalized()
            assert numbers.get(2**70) is None
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert found == [(1, 1)] * 600
