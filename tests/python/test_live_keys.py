"""Keys of live maps as a dict has them: which are one, which form stays; and values at the edges."""

from __future__ import annotations

import datetime as dt
import math
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import pheon

ONE: list[Any] = [1, 1.0, True, Decimal(1), 1 + 0j]


def forms(mapping: Any) -> list[tuple[type, Any]]:
    return [(type(key), key) for key in mapping]


WRITES: dict[str, Callable[[Any, Any, int], Any]] = {
    "set": lambda m, key, value: m.__setitem__(key, value),
    "update with a dict": lambda m, key, value: m.update({key: value}),
    "update with pairs": lambda m, key, value: m.update([(key, value)]),
    "|=": lambda m, key, value: m.__ior__({key: value}),
    "setdefault": lambda m, key, value: m.setdefault(key, value),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("second", ONE, ids=repr)
@pytest.mark.parametrize("first", ONE, ids=repr)
def test_an_update_keeps_the_key_as_it_was_given_first(
    live: pheon.LiveMap, first: Any, second: Any, write: Callable[[Any, Any, int], Any]
) -> None:
    model: dict[Any, Any] = {}
    for each in (live, model):
        each[(first,)] = {"n": 0}
        write(each, (second,), 1)
        each[first] = 0
        write(each, second, 1)
    assert forms(live) == forms(model)
    assert repr(live) == repr(model)
    for each in (live, model):
        del each[second]
        write(each, second, 2)
    assert forms(live) == forms(model), "a key that was deleted is a new one"


def test_other_changes_keep_the_key_too(live: pheon.LiveMap) -> None:
    live.update({True: 1, 0.0: 1, "n": 1, (2.0,): {"x": 1}})
    live.increment(1)
    assert live.compare_and_set(0, 1, 5)
    live.increment(0, 1)
    live[(2,)]["x"] = 2
    with live.batch() as b:
        b[1] = 9
        b.increment(0)
    assert repr(live) == "{True: 9, 0.0: 7, 'n': 1, (2.0,): {'x': 2}}"


@pytest.mark.parametrize("there", [False, True])
def test_forms_within_one_update(live: pheon.LiveMap, there: bool) -> None:
    model: dict[Any, Any] = {}
    pairs = [(1, "a"), (True, "b"), (0.0, "c"), (False, "d"), ("s", "e"), (1.0, "f"), (2, "g"), (2.0, "h")]
    for each in (live, model):
        if there:
            each.update({False: 0, 2.0: 0})
        each.update(pairs)
    assert repr(live) == repr(model)


def test_a_str_and_a_class_derived_from_it_with_pickle(live: pheon.LiveMap) -> None:
    pickling = pheon.LiveMap(name=live.name, codec="pickle", allow_pickle=True)
    pickling[Text("a")] = 1
    pickling["b"] = 1
    pickling["a"] = 2
    pickling[Text("b")] = 2
    assert forms(pickling) == [(Text, "a"), (str, "b")]
    assert dict(pickling.items()) == {"a": 2, "b": 2}


class Text(str):
    __slots__ = ()


def test_nan(live: pheon.LiveMap) -> None:
    live["value"] = math.nan
    assert math.isnan(live["value"])
    live[math.nan] = 1
    live[math.nan] = 2
    assert len(live) == 2
    assert live[float("nan")] == 2
    assert live != {"value": math.nan, math.nan: 2}
    assert live.compare_and_set("value", math.nan, 1)
    del live[math.nan]
    assert list(live) == ["value"]


@pytest.mark.parametrize(
    "value", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -(10**5000)], ids=str.__class__
)
def test_huge_ints(live: pheon.LiveMap, value: int) -> None:
    live[value] = value
    live["n"] = value
    assert live[value] == value
    assert list(live) == [value, "n"]
    assert live.increment("n") == value + 1
    assert live["n"] == value + 1
    assert value + 1 not in live


def test_large_values(live: pheon.LiveMap) -> None:
    text, data, many = "ü" * 2_500_000, bytes(range(256)) * 20_000, list(range(1_000_000))
    live.update(text=text, data=data, many=many)
    for _ in range(3):
        live["data"] = data
    assert live["text"] == text
    assert live["data"] == data
    assert live["many"] == many
    live["many"].append(-1)
    assert live["many"][-1] == -1
    live[text] = 1
    assert live[text] == 1


@pytest.mark.parametrize("key", ["", b"", (), frozenset()], ids=repr)
def test_empty_keys(live: pheon.LiveMap, key: Any) -> None:
    live[key] = key
    assert live[key] == key
    assert type(live[key]) is type(key)
    assert live.pop(key) == key
    assert key not in live


def test_empty_keys_are_not_one(live: pheon.LiveMap) -> None:
    model = {"": 1, b"": 2, (): 3, frozenset(): 4, None: 5, 0: 6, ((),): 7}
    live.update(model)
    assert live == model


SURROGATE = "file-\udcff"


def test_strings_that_are_no_unicode(live: pheon.LiveMap) -> None:
    for refused in (
        lambda: live.__setitem__(SURROGATE, 1),
        lambda: live.__setitem__("a", SURROGATE),
        lambda: live.get(SURROGATE),
        lambda: live.update({"fine": 1, "a": [SURROGATE]}),
    ):
        with pytest.raises(pheon.SchemaError, match="not valid Unicode"):
            refused()
    assert live == {}
    pickling = pheon.LiveMap(name=live.name, codec="pickle", allow_pickle=True)
    pickling[SURROGATE] = SURROGATE
    pickling["n"] = {"x": [SURROGATE]}
    assert pickling == {SURROGATE: SURROGATE, "n": {"x": [SURROGATE]}}


def test_times_are_one_key_if_they_are_equal(live: pheon.LiveMap) -> None:
    berlin = dt.timezone(dt.timedelta(hours=1))
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    live[noon] = 1
    live[noon.astimezone(berlin)] = 2
    live[noon.replace(tzinfo=None)] = 3
    live[noon.date()] = 4
    assert live == {noon: 2, noon.replace(tzinfo=None): 3, noon.date(): 4}
    assert next(iter(live)).tzinfo is dt.UTC


UNHASHABLE: list[Any] = [[], {}, set(), bytearray(b"x"), ([1],), (1, {2: 3})]
USES: list[Callable[[Any, Any], Any]] = [
    lambda m, key: m[key],
    lambda m, key: m.get(key),
    lambda m, key: key in m,
    lambda m, key: key in m.keys(),  # noqa: SIM118
    lambda m, key: (key, 1) in m.items(),
    lambda m, key: m.__setitem__(key, 1),
    lambda m, key: m.__delitem__(key),
    lambda m, key: m.pop(key, None),
    lambda m, key: m.setdefault(key, 1),
    lambda m, key: m.update([(key, 1)]),
]


@pytest.mark.parametrize("key", UNHASHABLE, ids=repr)
@pytest.mark.parametrize("use", USES)
def test_what_has_no_hash_is_no_key(live: pheon.LiveMap, use: Callable[[Any, Any], Any], key: Any) -> None:
    live["a"] = 1
    with pytest.raises(TypeError) as theirs:
        use({"a": 1}, key)
    with pytest.raises(TypeError) as ours:
        use(live, key)
    assert str(ours.value) == str(theirs.value)
    assert live == {"a": 1}


def test_what_has_a_hash_and_no_encoding(live: pheon.LiveMap) -> None:
    for use in [*USES[:3], *USES[5:]]:
        with pytest.raises(pheon.SchemaError, match=r"a key of type PosixPath .*codec=\"pickle\""):
            use(live, Path("/x"))
    assert Path("/x") not in live.keys()  # noqa: SIM118 - what set operations ask
    assert (Path("/x"), 1) not in live.items()
    assert live.keys() & {Path("/x")} == set()
    assert live.keys() | {Path("/x")} == {Path("/x")}
    assert live != {Path("/x"): 1}
    assert live == {}


def test_a_dict_that_changes_while_it_is_read(live: pheon.LiveMap) -> None:
    class Grows(OrderedDict[str, int]):
        def items(self) -> Any:
            source["more"] = 1
            return super().items()

    source: dict[str, Any] = {"a": Grows(), "b": 1}
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        live.update(source)
    assert live == {}
