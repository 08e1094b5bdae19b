"""`pheon.ultradict.UltraDict`: what programs written for the package of that name rely on, and where it did wrong."""

from __future__ import annotations

import copy
import json
import logging
import marshal
import pickle
import random
import subprocess
import sys
import uuid
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest

import pheon
from pheon.ultradict import Exceptions, UltraDict


@pytest.fixture
def name() -> Iterator[str]:
    made_up = f"ultra-{uuid.uuid4().hex}"
    yield made_up
    UltraDict.unlink_by_name(made_up, ignore_errors=True)


# Opening ------------------------------------------------------------------------------------------------------------


def test_the_first_steps_of_its_readme() -> None:
    ultra = UltraDict({1: 1}, some_key="some_value")
    assert repr(ultra) == "{1: 1, 'some_key': 'some_value'}"
    other = UltraDict(name=ultra.name)
    assert other == {1: 1, "some_key": "some_value"}
    other[2] = 2
    assert ultra[2] == 2


def test_it_is_a_dict_and_a_user_dict() -> None:
    ultra = UltraDict()
    assert isinstance(ultra, dict)
    assert isinstance(ultra, UserDict)
    with pytest.raises(TypeError):
        hash(ultra)


def test_it_is_made_of_a_mapping_pairs_or_nothing_and_keywords() -> None:
    assert UltraDict([(1, 2), (3, 4)], a=5) == {1: 2, 3: 4, "a": 5}
    assert UltraDict(None) == {}
    assert UltraDict(UltraDict(a=1), b=2) == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        UltraDict({}, {})


def test_create(name: str) -> None:
    with pytest.raises(Exceptions.CannotAttachSharedMemory, match=name):
        UltraDict(name=name, create=False)
    first = UltraDict({"a": 1}, name=name, create=True)
    assert first.name == name
    with pytest.raises(UltraDict.Exceptions.AlreadyExists, match=name):
        UltraDict(name=name, create=True)
    assert UltraDict(name=name, create=False) == {"a": 1}
    assert UltraDict(name=name) == {"a": 1}


def test_data_is_also_written_when_attaching(name: str) -> None:
    first = UltraDict({"a": 1, "b": 1}, name=name)
    UltraDict({"b": 2}, name=name, c=3)
    assert first == {"a": 1, "b": 2, "c": 3}


def test_its_exceptions_are_the_errors_of_pheon_too() -> None:
    for exception, kind in [
        (Exceptions.CannotAttachSharedMemory, pheon.NotFoundError),
        (Exceptions.AlreadyExists, FileExistsError),
        (Exceptions.AlreadyClosed, pheon.ClosedError),
        (Exceptions.ParameterMismatch, ValueError),
        (Exceptions.CannotAcquireLockTimeout, Exceptions.CannotAcquireLock),
        (Exceptions.CannotAcquireLockTimeout, pheon.LockTimeout),
        (Exceptions.FullDumpMemoryFull, pheon.StoreFullError),
        (Exceptions.MissingDependency, ImportError),
    ]:
        assert issubclass(exception, kind)
        assert issubclass(exception, pheon.Error)


def test_attaching_takes_the_creators_parameters() -> None:
    ultra = UltraDict(shared_lock=True, recurse=True, buffer_size=4096, full_dump_size=8192)
    other = UltraDict(name=ultra.name, buffer_size=100)
    assert other.shared_lock is True
    assert other.recurse is True
    assert other.buffer_size == ultra.buffer_size == 4096
    assert other.full_dump_size == ultra.full_dump_size == 8192


def test_attaching_with_other_parameters_than_the_creators() -> None:
    ultra = UltraDict(shared_lock=True)
    with pytest.raises(Exceptions.ParameterMismatch, match="shared_lock=False.*shared_lock=True"):
        UltraDict(name=ultra.name, shared_lock=False)
    with pytest.raises(Exceptions.ParameterMismatch, match="recurse"):
        UltraDict(name=ultra.name, recurse=True)
    with pytest.raises(Exceptions.ParameterMismatch, match="serializer"):
        UltraDict(name=ultra.name, serializer=marshal)
    assert UltraDict(name=ultra.name, shared_lock=True, recurse=False) == {}


@pytest.mark.parametrize("buffer_size", [0, -1, 1 << 32])
def test_impossible_parameters(buffer_size: int) -> None:
    with pytest.raises(ValueError, match="buffer_size"):
        UltraDict(buffer_size=buffer_size)
    with pytest.raises(ValueError, match="serializer"):
        UltraDict(recurse=True, serializer=marshal)
    with pytest.raises(TypeError, match="recurse_register"):
        UltraDict(recurse=True, recurse_register=7)  # type: ignore[arg-type]


def test_a_register_of_nested_dicts_is_accepted() -> None:
    register = UltraDict()
    assert UltraDict(recurse=True, recurse_register=register).recurse_register is register
    assert UltraDict(recurse=True, recurse_register=register.name).recurse_register == register.name


# A dict -------------------------------------------------------------------------------------------------------------


def random_value(rng: random.Random) -> Any:
    return rng.choice([rng.randrange(10), str(rng.random()), (1, "a"), {1, 2}, None, b"x", {"n": [1, {}]}, [1, (2,)]])


@pytest.mark.parametrize("recurse", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_it_does_what_a_dict_does(seed: int, recurse: bool) -> None:
    rng = random.Random(seed)
    keys: list[Any] = [0, 1, "a", "b", (1, "c"), None, 2.5, b"k", frozenset({1})]
    plain: dict[Any, Any] = {}
    ultra = UltraDict(recurse=recurse)
    other = UltraDict(name=ultra.name)
    for _ in range(300):
        one = rng.choice([ultra, other])
        key, value = rng.choice(keys), random_value(rng)
        action = rng.randrange(9)
        if action < 4:
            plain[key] = one[key] = value
        elif action == 4:
            assert one.pop(key, "none") == plain.pop(key, "none")
        elif action == 5:
            assert one.setdefault(key, value) == plain.setdefault(key, value)
        elif action == 6 and plain:
            assert one.popitem() == plain.popitem()
        elif action == 7:
            more = {rng.choice(keys): random_value(rng) for _ in range(3)}
            one.update(more)
            plain.update(more)
        elif rng.random() < 0.1:
            one.clear()
            plain.clear()
        for each in (ultra, other):
            assert each == plain
            assert plain == each
            assert repr(each) == repr(plain)
            assert list(each) == list(plain)
            assert list(reversed(each)) == list(reversed(plain))
            assert list(each.items()) == list(plain.items())
            assert list(each.values()) == list(plain.values())
            assert len(each) == len(plain)
            assert bool(each) == bool(plain)
            assert each.get(key) == plain.get(key)
            assert (key in each) == (key in plain) == each.has_key(key)


def test_missing_keys() -> None:
    ultra = UltraDict(a=1)
    for ask in (lambda: ultra["x"], lambda: ultra.pop("x"), lambda: ultra.__delitem__("x")):
        with pytest.raises(KeyError, match="x"):
            ask()
    assert ultra.get("x") is None
    assert ultra.get("x", 7) == ultra.pop("x", 7) == 7
    with pytest.raises(KeyError):
        UltraDict().popitem()


def test_equality_compares() -> None:
    ultra, same, different = UltraDict(a=1), UltraDict(a=1), UltraDict(a=2)
    assert ultra == same == {"a": 1}
    plain = {"a": 1}
    assert plain == ultra
    assert ultra != different
    assert ultra != {"a": 2}
    assert ultra != 1
    assert (ultra == None) is False  # noqa: E711 - it once raised
    with pheon.LiveMap({"a": 1}, auto_unlink=True) as live:
        assert live == ultra
        assert ultra == live


def keywords(**given: Any) -> dict[str, Any]:
    return given


def test_c_code_sees_its_entries() -> None:
    ultra = UltraDict({"a": 1}, b={"c": [2]})
    assert json.loads(json.dumps(ultra)) == {"a": 1, "b": {"c": [2]}}
    assert json.loads(json.dumps(UltraDict(ultra, recurse=True))) == {"a": 1, "b": {"c": [2]}}
    assert json.dumps(UltraDict()) == "{}"
    assert {**ultra} == dict(ultra) == {"a": 1, "b": {"c": [2]}}
    assert keywords(**ultra) == {"a": 1, "b": {"c": [2]}}


def test_views_are_live_and_like_sets() -> None:
    ultra = UltraDict(a=1, b=2)
    keys, values, items = ultra.keys(), ultra.values(), ultra.items()
    UltraDict(name=ultra.name)["c"] = 3
    assert list(keys) == ["a", "b", "c"]
    assert list(reversed(keys)) == ["c", "b", "a"]
    assert list(values) == [1, 2, 3]
    assert list(reversed(values)) == [3, 2, 1]
    assert list(reversed(items)) == [("c", 3), ("b", 2), ("a", 1)]
    assert keys & {"a", "x"} == {"a"}
    assert items == UltraDict(name=ultra.name).items() == {("a", 1), ("b", 2), ("c", 3)}
    assert 3 in values
    assert ("c", 3) in items
    assert [len(view) for view in (keys, values, items)] == [3, 3, 3]
    assert repr(keys) == "dict_keys(['a', 'b', 'c'])"


def test_iteration_is_not_disturbed_by_writes() -> None:
    ultra = UltraDict({i: i for i in range(10)})
    for key in ultra:
        del ultra[key]
        ultra[key + 100] = key
    assert ultra == {i + 100: i for i in range(10)}


def test_merging() -> None:
    ultra = UltraDict(a=1, b=1)
    merged = ultra | {"b": 2}
    assert type(merged) is UltraDict
    assert merged == {"a": 1, "b": 2}
    assert merged.name != ultra.name
    assert {"b": 2, "c": 3} | ultra == {"b": 1, "c": 3, "a": 1}
    ultra |= {"c": 3}
    assert UltraDict(name=ultra.name) == {"a": 1, "b": 1, "c": 3}
    ultra |= UltraDict(d=4)
    ultra.update([("e", 5)], other=6)
    assert UltraDict(name=ultra.name) == {"a": 1, "b": 1, "c": 3, "d": 4, "e": 5, "other": 6}
    with pytest.raises(TypeError):
        ultra | 7


def test_copies() -> None:
    ultra = UltraDict({"n": {"x": [1]}}, recurse=True)
    own = ultra.copy()
    assert type(own) is dict
    own["n"]["x"].append(2)
    assert ultra == {"n": {"x": [1]}}
    for handle in (copy.copy(ultra), copy.deepcopy(ultra), pickle.loads(pickle.dumps(ultra))):
        assert handle.name == ultra.name
        handle["n"]["x"] = [1, len(handle["n"]["x"])]
    assert ultra == {"n": {"x": [1, 2]}}
    assert UltraDict.fromkeys(["a", "b"], 1) == {"a": 1, "b": 1}


def test_it_can_be_the_dict_of_an_object(name: str) -> None:
    class Shared:
        def __init__(self) -> None:
            object.__setattr__(self, "__dict__", UltraDict(name=name))

        def __getattr__(self, attribute: str) -> Any:
            return self.__dict__[attribute]

        def __setattr__(self, attribute: str, value: Any) -> None:
            self.__dict__[attribute] = value

    first, second = Shared(), Shared()
    first.something = "a value"
    assert second.something == "a value"
    first.something = "another"
    assert second.something == "another"
    assert vars(second) == {"something": "another"}


# Nested dicts -------------------------------------------------------------------------------------------------------


def test_nested_dicts_are_ultra_dicts_with_recurse() -> None:
    ultra = UltraDict(recurse=True)
    ultra["nested"] = {"counter": 0, "deeper": {0: 1}}
    assert type(ultra["nested"]) is UltraDict
    assert type(ultra["nested"]["deeper"]) is UltraDict
    other = UltraDict(name=ultra.name)
    other["nested"]["counter"] += 1
    other["nested"]["deeper"][0] += 1
    other["nested"]["deeper"].update(x=[7])
    assert ultra == other == {"nested": {"counter": 1, "deeper": {0: 2, "x": [7]}}}
    assert repr(ultra["nested"]) == "{'counter': 1, 'deeper': {0: 2, 'x': [7]}}"
    assert ultra["nested"].pop("deeper") == {0: 2, "x": [7]}
    assert other["nested"] == {"counter": 1}
    del ultra["nested"]["counter"]
    assert other == {"nested": {}}
    assert len(other["nested"]) == 0


def test_a_handle_of_a_nested_dict_follows_its_map() -> None:
    ultra = UltraDict({"n": {"a": 1}}, recurse=True)
    nested = ultra["n"]
    UltraDict(name=ultra.name)["n"] = {"b": 2}
    assert nested == {"b": 2}
    nested.clear()
    assert ultra == {"n": {}}


def test_nested_dicts_have_names() -> None:
    ultra = UltraDict({"n": {7: {"x": 1}}}, recurse=True, shared_lock=True)
    nested = ultra["n"][7]
    for handle in (UltraDict(name=nested.name), pickle.loads(pickle.dumps(nested))):
        handle["x"] += 1
        assert handle.name == nested.name
        assert handle.shared_lock
    assert ultra == {"n": {7: {"x": 3}}}
    with pytest.raises(Exceptions.CannotAttachSharedMemory, match="no dict is there"):
        UltraDict(name=ultra["n"].name + "['y']")
    with pytest.raises(Exceptions.CannotAttachSharedMemory, match="no dict is there"):
        UltraDict(name=nested.name + "['x']")
    with pytest.raises(ValueError, match="literals"):
        UltraDict(name=ultra.name + "[open]")


def test_assigning_a_nested_dict_copies_it() -> None:
    ultra = UltraDict({"n": {"a": 1}}, recurse=True)
    ultra["n"] |= {"b": 2}
    assert ultra == {"n": {"a": 1, "b": 2}}
    ultra["m"] = ultra["n"]
    ultra["m"]["a"] = 9
    ultra["n"]["up"] = ultra["m"]
    assert ultra == {"n": {"a": 1, "b": 2, "up": {"a": 9, "b": 2}}, "m": {"a": 9, "b": 2}}
    ultra["n"] = ultra["n"]["up"]
    assert ultra == {"n": {"a": 9, "b": 2}, "m": {"a": 9, "b": 2}}


def test_nested_values_write_through_without_recurse_too() -> None:
    ultra = UltraDict(n={"x": 0}, items=[1])
    other = UltraDict(name=ultra.name)
    other["n"]["x"] += 1
    other["items"].append(2)
    assert isinstance(ultra["n"], dict)
    assert not isinstance(ultra["n"], UltraDict)
    assert ultra == {"n": {"x": 1}, "items": [1, 2]}


def test_nested_values_can_be_assigned_without_recurse_too() -> None:
    ultra = UltraDict(n={"x": 0}, items=[1])
    ultra["items"] += [2]
    ultra["n"] |= {"y": 1}
    ultra["m"] = ultra["n"]
    ultra["m"]["x"] = 9
    assert UltraDict(name=ultra.name) == {"n": {"x": 0, "y": 1}, "items": [1, 2], "m": {"x": 9, "y": 1}}


def test_a_nested_handle_keeps_its_map_open() -> None:
    nested = UltraDict({"n": {"a": 1}}, recurse=True)["n"]
    nested["b"] = 2
    assert nested == {"a": 1, "b": 2}


@pytest.mark.parametrize("recurse", [False, True])
def test_an_ultra_dict_as_a_value_is_the_same_one_for_all(recurse: bool) -> None:
    inner = UltraDict(count=0)
    ultra = UltraDict(recurse=recurse)
    ultra["inner"] = inner
    other = UltraDict(name=ultra.name)
    other["inner"]["count"] += 1
    assert type(other["inner"]) is UltraDict
    assert inner == {"count": 1}
    assert ultra == {"inner": {"count": 1}}
    ultra["self"] = ultra
    assert repr(ultra) == "{'inner': {'count': 1}, 'self': {...}}"


# Serializers --------------------------------------------------------------------------------------------------------


class Text:
    """Makes text, as json does."""

    @staticmethod
    def dumps(value: Any) -> str:
        return json.dumps(value)

    @staticmethod
    def loads(text: str) -> Any:
        assert type(text) is str
        return json.loads(text)


@pytest.mark.parametrize("serializer", [marshal, json, Text, Text()])
def test_other_serializers(serializer: Any) -> None:
    ultra = UltraDict({"a": [1, {"b": 2}]}, serializer=serializer)
    other = UltraDict(name=ultra.name, serializer=serializer)
    assert type(other["a"]) is list
    other["n"] = 7
    assert ultra == other == ultra.data == {"a": [1, {"b": 2}], "n": 7}
    assert ultra.pop("n") == 7
    assert ultra.setdefault("n", "x") == other.get("n") == "x"
    assert ultra.serializer is serializer
    assert pickle.loads(pickle.dumps(ultra))["n"] == "x"


def test_any_python_object_is_a_value_or_key_with_pickle() -> None:
    ultra = UltraDict()
    value = {"set": {1}, "class": UltraDict, "complex": 1j, "exception": ValueError}
    ultra[("a", 1)] = value
    ultra[Text] = range(3)
    other = UltraDict(name=ultra.name)
    assert other[("a", 1)] == value
    assert other[Text] == range(3)


# Its own methods ----------------------------------------------------------------------------------------------------


def test_data_is_a_plain_dict_of_this_process() -> None:
    ultra = UltraDict(a=1)
    other = UltraDict(name=ultra.name)
    data = other.data
    assert type(data) is dict
    assert data == {"a": 1}
    ultra["b"] = 2
    del ultra["a"]
    other.apply_update()
    assert data == {"b": 2}
    assert other.data is data
    data["mine"] = 3
    assert "mine" not in ultra


def test_dumps_are_counted_and_do_nothing_else() -> None:
    ultra = UltraDict()
    assert ultra.full_dump_counter == 0
    ultra["huge"] = " " * 1_000_000
    assert ultra.full_dump_counter == 1
    ultra.dump()
    assert ultra.full_dump_counter == 2
    ultra.load()
    ultra.load(force=True)
    assert len(UltraDict(name=ultra.name).data["huge"]) == 1_000_000


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    ultra = UltraDict(shared_lock=True, buffer_size=5000)
    status = ultra.status()
    assert status["name"] == ultra.name
    assert status["buffer_size"] == 5000
    assert status["serializer"] is pickle
    assert status["lock_remote"] == 0
    ultra.print_status()
    ultra.lock.print_status()
    printed = capsys.readouterr()
    assert ultra.name in printed.out
    assert "has_lock" in printed.out
    ultra.print_status(status={"x": 1}, stderr=True)
    assert capsys.readouterr().err == "{'x': 1}\n"
    ultra.close()
    assert ultra.status()["closed"] is True


def test_close_returns_the_data_and_keeps_it() -> None:
    ultra = UltraDict({"a": 1, "n": {"b": [2]}}, recurse=True)
    nested = ultra["n"]
    assert not ultra.closed
    data = ultra.close()
    assert data == {"a": 1, "n": {"b": [2]}}
    assert type(data) is dict
    assert ultra.closed
    assert ultra.close() is None
    assert ultra.data == data
    assert repr(ultra) == repr(data)
    for use in (
        lambda: ultra["a"],
        lambda: ultra.update(a=1),
        lambda: ultra.__setitem__("a", 1),
        lambda: ultra.pop("a"),
        lambda: ultra.get("a"),
        lambda: "a" in ultra,
        lambda: len(ultra),
        lambda: list(ultra),
        lambda: list(ultra.items()),
        lambda: ultra.lock,
        lambda: ultra.dump(),
        lambda: ultra.load(),
        lambda: ultra.apply_update(),
    ):
        with pytest.raises(Exceptions.AlreadyClosed, match="closed"):
            use()
    with pytest.raises(pheon.ClosedError):
        nested["b"]


def test_closing_a_nested_handle_leaves_the_map_open() -> None:
    ultra = UltraDict({"n": {"b": 2}}, recurse=True)
    nested = ultra["n"]
    assert nested.close() == {"b": 2}
    assert nested.closed
    assert not ultra.closed
    assert ultra == {"n": {"b": 2}}


def exists(name: str) -> bool:
    try:
        UltraDict(name=name, create=False)
    except Exceptions.CannotAttachSharedMemory:
        return False
    return True


def test_the_creator_removes_the_name(name: str) -> None:
    for end in (lambda ultra: ultra.close(), lambda ultra: ultra.unlink(), lambda ultra: None):
        ultra = UltraDict(name=name, create=True)
        assert ultra.auto_unlink is True
        other = UltraDict(name=name)
        assert other.auto_unlink is None
        other.close()
        assert exists(name)
        end(ultra)
        del ultra
        assert not exists(name)


def test_a_map_without_auto_unlink_stays_until_it_is_unlinked(name: str) -> None:
    UltraDict({"a": 1}, name=name, auto_unlink=False).close()
    other = UltraDict(name=name, auto_unlink=True)
    other.close()
    other = UltraDict(name=name)
    assert other == {"a": 1}
    other.unlink()
    assert other.data == {"a": 1}
    assert not exists(name)


def test_unlink_by_name(name: str) -> None:
    UltraDict(name=name, auto_unlink=False).close()
    assert UltraDict.unlink_by_name(name) is True
    assert UltraDict.unlink_by_name(f"{name}_memory") is False
    assert UltraDict.unlink_by_name(name, ignore_errors=True) is False
    with pytest.raises(Exceptions.CannotAttachSharedMemory, match=name):
        UltraDict.unlink_by_name(name)


def test_names_that_no_map_has() -> None:
    for name in ("a b", "/a", ".a", "a" * 200):
        with pytest.raises(ValueError, match="not allowed"):
            UltraDict(name=name)
        with pytest.raises(ValueError, match="not allowed"):
            UltraDict.unlink_by_name(name)
        assert UltraDict.unlink_by_name(name, ignore_errors=True) is False
    first, second = UltraDict(name=""), UltraDict(name="")
    assert first.name != second.name


def test_handles_that_are_open_read_on_after_unlinking() -> None:
    ultra = UltraDict(a=1)
    other = UltraDict(name=ultra.name)
    ultra.unlink()
    assert other == {"a": 1}


def test_what_an_ended_process_made_is_gone_unless_it_was_to_stay(name: str) -> None:
    program = "import sys; from pheon.ultradict import UltraDict; u = UltraDict(a=1, name=sys.argv[1], auto_unlink={})"
    for auto_unlink in (None, False):
        subprocess.run([sys.executable, "-c", program.format(auto_unlink), name], check=True, timeout=60)
        assert exists(name) is (auto_unlink is False)


def test_its_map_is_a_live_map() -> None:
    ultra = UltraDict(hits=1)
    assert isinstance(ultra.live, pheon.LiveMap)
    ultra.live.increment("hits", 2)
    assert ultra["hits"] == 3


def test_a_live_map_that_it_did_not_make(name: str) -> None:
    live = pheon.LiveMap({"a": 1}, name=name, codec="pickle", allow_pickle=True)
    ultra = UltraDict(name=name, create=False)
    assert ultra == {"a": 1}
    assert len(ultra) == 1
    ultra["b"] = 2
    assert live["b"] == 2
    assert ultra.popitem() == ("b", 2)
    assert ultra.popitem() == ("a", 1)
    with pytest.raises(KeyError):
        ultra.popitem()
    live.unlink()


def test_its_log_is_a_module_of_logging() -> None:
    assert UltraDict.log is logging
