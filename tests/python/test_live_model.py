"""A live map against a dict: any operations in any order, through several handles, with moments that stay."""

from __future__ import annotations

import copy
import datetime as dt
import os
import pickle
import uuid
from decimal import Decimal
from typing import Any

import model_children as children
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

import pheon

LONG = bool(os.environ.get("PHEON_LONG"))
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NUMBERS = st.sampled_from([0, 0.0, False, 1, 1.0, True, Decimal(1), 1 + 0j, 2, 2.5, Decimal("2.5"), -1, 2**70, 2.0**70])
TIMES = st.sampled_from([dt.date(2026, 1, 1), dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)])
SIMPLE = st.text(max_size=2) | NUMBERS | TIMES | st.binary(max_size=1) | st.none()
KEYS = SIMPLE | st.tuples(SIMPLE) | st.tuples(NUMBERS, NUMBERS) | st.frozensets(NUMBERS, max_size=2)
VALUES = st.recursive(
    SIMPLE | st.integers() | st.builds(bytes, st.integers(20_000, 20_100)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.tuples(inner)
        | st.sets(SIMPLE, max_size=2)
    ),
    max_leaves=5,
)
ENTRIES = st.lists(st.tuples(KEYS, VALUES), max_size=5)


def shown(mapping: Any) -> list[tuple[type, Any, Any]]:
    return [(type(key), key, value) for key, value in mapping.items()]


class LiveMapIsADict(RuleBasedStateMachine):
    moments = Bundle("moments")

    def __init__(self) -> None:
        super().__init__()
        first = pheon.LiveMap(name=f"test-{uuid.uuid4().hex}", create=True)
        self.handles = [first, pheon.LiveMap(name=first.name, create=False)]
        self.turn = 0
        self.model: dict[Any, Any] = {}

    def teardown(self) -> None:
        self.handles[0].unlink()

    @property
    def live(self) -> pheon.LiveMap:
        """Another handle each time."""
        self.turn += 1
        return self.handles[self.turn % 2]

    def present(self, key: Any, at: int) -> Any:
        """A key that is there, more often than not."""
        keys = [*self.model, key]
        return keys[at % len(keys)]

    @rule(key=KEYS, at=st.integers(0, 100), value=VALUES)
    def put(self, key: Any, at: int, value: Any) -> None:
        key = self.present(key, at)
        self.live[key] = value
        self.model[key] = copy.deepcopy(value)

    @rule(key=KEYS, at=st.integers(0, 100))
    def take(self, key: Any, at: int) -> None:
        key = self.present(key, at)
        assert self.live.get(key, "none") == self.model.get(key, "none")
        assert (key in self.live) == (key in self.model)
        assert self.live.pop(key, "none") == self.model.pop(key, "none")

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        assert self.live.setdefault(key, value) == self.model.setdefault(key, copy.deepcopy(value))

    @rule(entries=ENTRIES, as_dict=st.booleans())
    def update(self, entries: list[tuple[Any, Any]], as_dict: bool) -> None:
        self.live.update(dict(entries) if as_dict else iter(entries))
        self.model.update(copy.deepcopy(entries))

    @precondition(lambda self: self.model)
    @rule()
    def popitem(self) -> None:
        assert self.live.popitem() == self.model.popitem()

    @rule()
    def clear(self) -> None:
        self.live.clear()
        self.model.clear()

    @rule(key=KEYS, by=st.integers(-3, 3))
    def increment(self, key: Any, by: int) -> None:
        try:
            expected = self.model.get(key, 0) + by
        except TypeError:
            with pytest.raises(TypeError):
                self.live.increment(key, by)
        else:
            assert self.live.increment(key, by) == expected
            self.model[key] = expected

    @rule(key=KEYS, at=st.integers(0, 100), new=VALUES, matches=st.booleans())
    def compare_and_set(self, key: Any, at: int, new: Any, matches: bool) -> None:
        key = self.present(key, at)
        old = self.model.get(key, pheon.MISSING)
        if matches:
            assert self.live.compare_and_set(key, old, new)
            self.model[key] = copy.deepcopy(new)
        else:
            assert not self.live.compare_and_set(key, "another value", new)

    @rule(entries=ENTRIES, at=st.integers(0, 100), keys=st.lists(KEYS, max_size=3), fails=st.booleans())
    def batch(self, entries: list[tuple[Any, Any]], at: int, keys: list[Any], fails: bool) -> None:
        model = copy.deepcopy(self.model)
        steps: list[tuple[Any, Any]] = [*((self.present(key, at), pheon.MISSING) for key in keys), *entries]
        # Some are set again after they were taken out, some taken out again.
        steps += [(key, value) for key, value in steps[::2]]
        try:
            with self.live.batch() as b:
                for key, value in steps:
                    if value is pheon.MISSING:
                        assert b.pop(key, "none") == model.pop(key, "none")
                    else:
                        b[key] = value
                        model[key] = copy.deepcopy(value)
                assert shown(b) == shown(model)
                assert list(reversed(b)) == list(reversed(model))
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.model = model

    @rule(key=KEYS, at=st.integers(0, 100), value=VALUES)
    def change_nested(self, key: Any, at: int, value: Any) -> None:
        key = self.present(key, at)
        nested, plain = self.live.get(key), self.model.get(key)
        for _ in range(2):
            if isinstance(plain, list):
                nested.insert(0, value)
                plain.insert(0, copy.deepcopy(value))
                assert nested == plain
            elif isinstance(plain, dict):
                nested["new"] = value
                plain["new"] = copy.deepcopy(value)
                assert nested == plain
            else:
                break
            # The first one inside, if it is a container.
            step = 0 if isinstance(plain, list) else next(iter(plain))
            nested, plain = nested[step], plain[step]

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.handles[which] = pickle.loads(pickle.dumps(self.handles[which]))

    @rule(key=KEYS, at=st.integers(0, 100), value=VALUES, gone=st.booleans())
    def change_elsewhere(self, key: Any, at: int, value: Any, gone: bool) -> None:
        key = self.present(key, at)
        if gone:
            taken = children.elsewhere(children.pop, self.live, key)
            assert taken == self.model.pop(key, "none")
        else:
            children.elsewhere(children.put, self.live, key, value)
            self.model[key] = copy.deepcopy(value)

    @rule(forked=st.booleans())
    def read_elsewhere(self, forked: bool) -> None:
        do = children.in_a_fork if forked else children.elsewhere
        assert do(children.equals, self.live, self.model)

    @rule(target=moments)
    def remember(self) -> Any:
        return self.live.snapshot(), [iter(self.live)], shown(copy.deepcopy(self.model))

    @rule(moment=moments)
    def recall(self, moment: Any) -> None:
        snapshot, iterators, expected = moment
        assert shown(snapshot) == expected
        assert [type(key) for key in reversed(snapshot)] == [kind for kind, _, _ in reversed(expected)]
        assert len(snapshot) == len(expected)
        for _, key, value in expected:
            assert snapshot[key] == value
        for iterator in iterators:
            assert list(iterator) == [key for _, key, _ in expected]
            assert list(iterator) == []
        iterators.clear()

    @invariant()
    def same(self) -> None:
        for live in self.handles:
            assert len(live) == len(self.model)
            assert shown(live) == shown(self.model)
            assert list(reversed(live)) == list(reversed(self.model))
            assert live == self.model


TestLiveMapIsADict = LiveMapIsADict.TestCase
TestLiveMapIsADict.settings = settings(
    max_examples=600 if LONG else 60, stateful_step_count=30, deadline=None, derandomize=not LONG
)
