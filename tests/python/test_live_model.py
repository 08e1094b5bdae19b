"""A live map against a dict: any operations in any order, through several handles, with moments that stay.

The map lies in memory or in a store, durable or not; what it is frozen to is compared too.
"""

from __future__ import annotations

import copy
import datetime as dt
import os
import pickle
import shutil
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import model_children as children
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

import pheon

LONG = bool(os.environ.get("PHEON_LONG"))
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.timeout(1800 if LONG else 300),
]

NUMBERS = st.sampled_from([0, 0.0, False, 1, 1.0, True, Decimal(1), 1 + 0j, 2, 2.5, Decimal("2.5"), -1, 2**70, 2.0**70])
TIMES = st.sampled_from([dt.date(2026, 1, 1), dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)])
SIMPLE = st.text(max_size=2) | NUMBERS | TIMES | st.binary(max_size=1) | st.none()
ANY_KEY = SIMPLE | st.tuples(SIMPLE) | st.tuples(NUMBERS, NUMBERS) | st.frozensets(NUMBERS, max_size=2)
ANY_VALUE = st.recursive(
    SIMPLE | st.integers() | st.builds(bytes, st.integers(20_000, 20_100)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.tuples(inner)
        | st.sets(SIMPLE, max_size=2)
    ),
    max_leaves=5,
)
#: Maps with keys of one of these types, and such values, can be frozen; of those with any keys only few.
KEYS_OF_A_RUN: dict[str, st.SearchStrategy[Any]] = {
    "any": ANY_KEY,
    "text": st.text(max_size=2),
    "bytes": st.binary(max_size=2),
    "int": st.integers(-5, 5) | st.sampled_from([-(2**63), 2**63 - 1]),
    "date": st.dates(dt.date(2026, 1, 1), dt.date(2026, 1, 9)),
    "time": st.datetimes(dt.datetime(1, 1, 1), dt.datetime(1, 1, 1, 0, 0, 0, 9)),
}
PLAIN = st.text(max_size=2) | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.none() | st.booleans()
VALUES_OF_A_RUN: dict[str, st.SearchStrategy[Any]] = {
    "any": ANY_VALUE,
    "text": st.text(max_size=2) | st.none(),
    "plain": PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=2), st.tuples(PLAIN), max_size=3),
}
KEYS: st.SearchStrategy[Any] = st.runner().flatmap(lambda run: KEYS_OF_A_RUN[run.keys])
VALUES: st.SearchStrategy[Any] = st.runner().flatmap(lambda run: VALUES_OF_A_RUN[run.values])
ENTRIES = st.lists(st.tuples(KEYS, VALUES), max_size=5)
#: Which of the present keys.
AT = st.integers(0, 100)
#: In one run; publishing takes longer than all other steps.
FREEZES_MAX = 8 if LONG else 2
#: Of CTRL, the boot that a map is of (docs/live.md).
BOOT = slice(32, 48)


def shown(mapping: Any) -> list[tuple[type, Any, Any]]:
    return [(type(key), key, value) for key, value in mapping.items()]


def kind(value: Any) -> Any:
    """What a column of a stored map is of; None: nothing but msgpack holds it, if that does."""
    if isinstance(value, dt.datetime):
        return dt.datetime, value.tzinfo
    if isinstance(value, int) and not isinstance(value, bool):
        return int if -(2**63) <= value < 2**64 else None
    return type(value) if isinstance(value, (str, bytes, bool, float, dt.date, Decimal)) else None


def has_msgpack(value: Any) -> bool:
    if isinstance(value, dict):
        return all(has_msgpack(inner) for inner in [*value, *value.values()])
    if isinstance(value, (list, tuple)):
        return all(has_msgpack(inner) for inner in value)
    return value is None or kind(value) in (str, bytes, bool, int, float)


def freezes(model: dict[Any, Any]) -> bool:
    """Whether a stored map takes these entries."""
    key_kinds, value_kinds = {kind(key) for key in model}, {kind(v) for v in model.values() if v is not None}
    if len(key_kinds) > 1 or key_kinds & {None, float}:
        return False
    if len([each for each in value_kinds if isinstance(each, tuple)]) > 1:
        return False  # of two time zones
    return (len(value_kinds) == 1 and None not in value_kinds) or all(has_msgpack(v) for v in model.values())


def check_frozen(frozen: pheon.Map, model: dict[Any, Any]) -> None:
    assert shown(frozen) == sorted(shown(model), key=lambda entry: entry[1])
    assert [type(value) for value in frozen.values()] == [type(model[key]) for key in frozen]
    assert len(frozen) == len(model)
    assert frozen == model
    assert frozen.get_many(list(model)) == list(model.values())


def check_moment(moment: Any) -> None:
    snapshot, iterators, expected = moment
    assert shown(snapshot) == expected
    assert [type(key) for key in reversed(snapshot)] == [each for each, _, _ in reversed(expected)]
    assert len(snapshot) == len(expected)
    for _, key, value in expected:
        assert snapshot[key] == value
    for iterator in iterators:
        assert list(iterator) == [key for _, key, _ in expected]
        assert list(iterator) == []
    iterators.clear()


class LiveMapIsADict(RuleBasedStateMachine):
    moments = Bundle("moments")

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self.handles: list[pheon.LiveMap] = []
        self.model: dict[Any, Any] = {}
        self.all_moments: list[Any] = []
        #: Maps that it was frozen to, and what they show.
        self.frozen: list[tuple[pheon.Map, dict[Any, Any]]] = []

    @initialize(
        place=st.sampled_from(["memory", "store", "durable"]),
        keys=st.sampled_from(["any", *KEYS_OF_A_RUN]),
        values=st.sampled_from(["any", *VALUES_OF_A_RUN]),
        on_disk=st.booleans() if LONG else st.just(False),
    )
    def begin(self, place: str, keys: str, values: str, on_disk: bool) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) and not on_disk else None
        self.path = Path(tempfile.mkdtemp(prefix="pheon-test-", dir=base))
        self.place, self.keys, self.values = place, keys, values
        self.store = pheon.open(self.path / "store")
        self.name = f"test-{uuid.uuid4().hex}"
        if place == "memory":
            first = pheon.LiveMap(name=self.name, create=True)
        else:
            first = self.store.live(self.name, create=True, durable=place == "durable")
        assert first.info()["durable"] == (place == "durable")
        self.handles = [first, self.attach()]

    def attach(self, read_only: bool = False) -> pheon.LiveMap:
        """The map opened once more, by its name."""
        if self.place == "memory":
            return pheon.LiveMap(name=self.name, create=False, read_only=read_only)
        return pheon.open(self.store.path, read_only=read_only).live(self.name, create=False)

    def teardown(self) -> None:
        if not self.handles:
            return
        try:
            if self.place == "memory":
                self.handles[0].unlink()
            else:
                assert self.store.live_names() == [self.name]
                self.store.drop_live(self.name)
                assert self.store.live_names() == []
            for handle in self.handles:
                assert handle == self.model
                handle.close()
            for moment in self.all_moments:
                check_moment(moment)
            for frozen, model in self.frozen:
                check_frozen(frozen, model)
        finally:
            shutil.rmtree(self.path)

    @property
    def live(self) -> pheon.LiveMap:
        """Another handle each time."""
        self.turn += 1
        return self.handles[self.turn % 2]

    def present(self, key: Any, at: int) -> Any:
        """A key that is there, more often than not."""
        keys = [*self.model, key]
        return keys[at % len(keys)]

    @rule(key=KEYS, at=AT, value=VALUES)
    def put(self, key: Any, at: int, value: Any) -> None:
        key = self.present(key, at)
        self.live[key] = value
        self.model[key] = copy.deepcopy(value)

    @rule(key=KEYS, at=AT)
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

    @rule(key=KEYS, at=AT, new=VALUES, matches=st.booleans())
    def compare_and_set(self, key: Any, at: int, new: Any, matches: bool) -> None:
        key = self.present(key, at)
        old = self.model.get(key, pheon.MISSING)
        if matches:
            assert self.live.compare_and_set(key, old, new)
            self.model[key] = copy.deepcopy(new)
        else:
            assert not self.live.compare_and_set(key, "another value", new)

    @rule(entries=ENTRIES, at=AT, keys=st.lists(KEYS, max_size=3), fails=st.booleans())
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

    @rule(ats=st.lists(AT, max_size=4), absent=KEYS, fails=st.booleans())
    def delete_in_a_batch(self, ats: list[int], absent: Any, fails: bool) -> None:
        model = copy.deepcopy(self.model)
        live, other = self.live, self.live
        try:
            with live.batch() as b:
                for at in ats[: len(model)]:
                    key = list(model)[at % len(model)]
                    del b[key], model[key]
                if absent not in model:
                    with pytest.raises(KeyError):
                        del b[absent]
                assert shown(b) == shown(model)
                # Nobody sees it yet.
                assert shown(other) == shown(self.model)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.model = model

    @rule(key=KEYS, at=AT, value=VALUES)
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

    @rule(which=st.integers(0, 1), pickled=st.booleans())
    def reopen(self, which: int, pickled: bool) -> None:
        old = self.handles[which]
        self.handles[which] = pickle.loads(pickle.dumps(old)) if pickled else self.attach()
        if not pickled:
            old.close()
            for use in (old.items, old.snapshot, old.clear, lambda: pickle.dumps(old)):
                with pytest.raises(pheon.ClosedError):
                    list(use())

    @rule(key=KEYS)
    def open_to_read(self, key: Any) -> None:
        with self.attach(read_only=True) as reader:
            assert shown(reader) == shown(self.model)
            with pytest.raises(ValueError, match="read-only"):
                reader[key] = 1

    @rule(elsewhere=st.booleans())
    def sync(self, elsewhere: bool) -> None:
        if elsewhere:
            children.elsewhere(children.sync, self.live)
        else:
            self.live.sync()

    @precondition(lambda self: self.place != "memory")
    @rule()
    def boot(self) -> None:
        """As after a boot: the files are there, the mutexes and the index are worth nothing."""
        old, again = Path(self.store.path), self.path / f"store-{self.turn}-{uuid.uuid4().hex}"
        shutil.copytree(old, again)
        control = again / ".live" / self.name / "CTRL"
        page = bytearray(control.read_bytes())
        page[BOOT] = bytes(byte ^ 1 for byte in page[BOOT])
        control.write_bytes(page)
        self.store = pheon.open(again)
        for which, handle in enumerate(self.handles):
            handle.close()
            self.handles[which] = self.attach()

    @precondition(lambda self: len(self.frozen) < FREEZES_MAX)
    @rule(elsewhere=st.booleans())
    def freeze(self, elsewhere: bool) -> None:
        # A map of a store goes there by itself.
        store = self.store if self.place == "memory" else None
        before = [version.version for version in self.store.versions("frozen")] if "frozen" in self.store else []
        model = copy.deepcopy(self.model)
        do = children.elsewhere if elsewhere else children.here
        if freezes(model):
            frozen = do(children.freeze, self.live, "frozen", store)
            assert frozen.version == len(before) + 1
            self.frozen.append((frozen, model))
            check_frozen(frozen, model)
            check_frozen(self.store.map("frozen"), model)
        else:
            with pytest.raises(pheon.SchemaError):
                do(children.freeze, self.live, "frozen", store)
            assert list(self.store) == (["frozen"] if before else [])
            if before:
                assert [version.version for version in self.store.versions("frozen")] == before

    @rule(key=KEYS, at=AT, value=VALUES, gone=st.booleans(), forked=st.booleans())
    def change_elsewhere(self, key: Any, at: int, value: Any, gone: bool, forked: bool) -> None:
        key = self.present(key, at)
        do = children.in_a_fork if forked else children.elsewhere
        if gone:
            taken = do(children.pop, self.live, key)
            assert taken == self.model.pop(key, "none")
        else:
            do(children.put, self.live, key, value)
            self.model[key] = copy.deepcopy(value)

    @rule(ats=st.lists(AT, max_size=4), entries=ENTRIES, forked=st.booleans())
    def change_many_elsewhere(self, ats: list[int], entries: list[tuple[Any, Any]], forked: bool) -> None:
        do = children.in_a_fork if forked else children.elsewhere
        keys = list(self.model)
        gone = dict.fromkeys(keys[at % len(keys)] for at in ats if keys)
        do(children.change_in_a_batch, self.live, list(gone), entries)
        for key in gone:
            del self.model[key]
        self.model.update(copy.deepcopy(entries))

    @rule(forked=st.booleans())
    def read_elsewhere(self, forked: bool) -> None:
        do = children.in_a_fork if forked else children.elsewhere
        assert do(children.equals, self.live, self.model)
        assert do(children.kinds, self.live) == shown(self.model)

    @rule(target=moments)
    def remember(self) -> Any:
        moment = self.live.snapshot(), [iter(self.live)], shown(copy.deepcopy(self.model))
        self.all_moments.append(moment)
        return moment

    @rule(moment=moments)
    def recall(self, moment: Any) -> None:
        check_moment(moment)

    @rule(moment=moments)
    def recall_in_a_fork(self, moment: Any) -> None:
        assert children.in_a_fork(children.contents, moment[0]) == [(key, value) for _, key, value in moment[2]]

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
