"""A store against plain dicts and lists: any publications, changes, cleanings and openings in any order.

Handles stay on what they were opened on, here, in a forked child and in another process that gets them as pickles.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import model_children as children
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pheon

LONG = bool(os.environ.get("PHEON_LONG"))
PROFILE = settings(
    max_examples=400 if LONG else 5,
    stateful_step_count=50 if LONG else 25,
    deadline=None,
    derandomize=not LONG,
    print_blob=True,
)
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TEXTS = st.sampled_from(["", "a", "a\0", "ab", "b", "ü", "zz", "\U0001f426", "long " * 20])
NUMBERS = st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1, 1 << 40])
PAIRS = st.tuples(st.sampled_from(["x", "y\0", "y"]), st.integers(-2, 2))
VALUES = st.none() | st.sampled_from(["", "v", "ü", "w" * 100])
HANDLES_MAX = 4


class Machine(RuleBasedStateMachine):
    """A store in memory, another process, and versions as a model has them."""

    name = "d"

    def __init__(self) -> None:
        super().__init__()
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path = Path(tempfile.mkdtemp(prefix="pheon-test-", dir=base))
        self.store = pheon.open(self.path / "store")
        self.versions: dict[int, Any] = {}
        #: Handles and what they show.
        self.handles: list[list[Any]] = []

    def teardown(self) -> None:
        if self.versions:
            assert self.store.verify(self.name).ok
        for version, model in self.versions.items():
            self.check(self.open(version), model)
        shutil.rmtree(self.path)

    @property
    def newest(self) -> int:
        return max(self.versions)

    def copy(self) -> Any:
        return self.versions[self.newest].copy()

    def published(self, version: int, model: Any) -> None:
        assert version == self.newest + 1
        self.versions[version] = model

    def open(self, version: int | None = None) -> Any:
        raise NotImplementedError

    def check(self, handle: Any, model: Any) -> None:
        raise NotImplementedError

    @contextmanager
    def collected(self, version: int) -> Iterator[None]:
        """What is raised, if anything, when a version is opened that may have been removed."""
        if version in self.versions:
            yield
        else:
            with pytest.raises(pheon.NotFoundError):
                yield

    @rule(at=st.integers(0, 20))
    def roll_back(self, at: int) -> None:
        version = sorted(self.versions)[at % len(self.versions)]
        model = self.versions[version].copy()
        self.published(self.store.rollback(self.name, version), model)

    @rule(keep=st.integers(1, 3))
    def collect(self, keep: int) -> None:
        kept = sorted(self.versions)[-keep:]
        removed = self.store.gc(self.name, keep=keep).versions_removed
        assert removed == [version for version in sorted(self.versions) if version not in kept]
        self.versions = {version: self.versions[version] for version in kept}

    @rule()
    def compact(self) -> None:
        before = self.copy()
        version = self.store.compact(self.name)
        assert version in (self.newest, self.newest + 1)
        self.versions[version] = before

    @rule()
    def reopen_store(self) -> None:
        self.store = pickle.loads(pickle.dumps(self.store))

    @precondition(lambda self: len(self.handles) < HANDLES_MAX)
    @rule(at=st.integers(0, 20), newest=st.booleans())
    def open_version(self, at: int, newest: bool) -> None:
        version = self.newest if newest else sorted(self.versions)[at % len(self.versions)]
        handle = self.open(None if newest else version)
        assert handle.version == version
        self.handles.append([handle, self.versions[version].copy()])

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 20))
    def drop_handle(self, at: int) -> None:
        del self.handles[at % len(self.handles)]

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 20))
    def refresh(self, at: int) -> None:
        entry = self.handles[at % len(self.handles)]
        is_newer = entry[0].version != self.newest
        assert entry[0].refresh() == is_newer
        assert entry[0].version == self.newest
        entry[1] = self.copy()

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 20))
    def pickled(self, at: int) -> None:
        entry = self.handles[at % len(self.handles)]
        with self.collected(entry[0].version):
            entry[0] = pickle.loads(pickle.dumps(entry[0]))

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 20))
    def read_in_a_fork(self, at: int) -> None:
        handle, model = self.handles[at % len(self.handles)]
        assert children.in_a_fork(self.everything, handle) == self.shown(model)

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 20))
    def read_elsewhere(self, at: int) -> None:
        handle, model = self.handles[at % len(self.handles)]
        with self.collected(handle.version):
            assert children.elsewhere(self.everything, handle) == self.shown(model)

    @invariant()
    def versions_are_listed(self) -> None:
        if self.versions:
            listed = self.store.versions(self.name)
            assert [(v.version, v.rows) for v in listed] == [(n, len(m)) for n, m in sorted(self.versions.items())]

    @invariant()
    def the_newest_is_what_was_published_last(self) -> None:
        if self.versions:
            self.check(self.open(), self.copy())

    @invariant()
    def handles_show_what_they_did(self) -> None:
        for handle, model in self.handles:
            self.check(handle, model)


class MapMachine(Machine):
    """Of unique keys: a dict."""

    everything = staticmethod(children.contents)
    keys: st.SearchStrategy[Any] = TEXTS
    key_names: tuple[str, ...] = ("key",)
    absent: tuple[Any, ...] = ("nobody", "a\0\0")

    @staticmethod
    def shown(model: dict[Any, Any]) -> list[tuple[Any, Any]]:
        return sorted(model.items(), key=lambda entry: MapMachine.order(entry[0]))

    @staticmethod
    def order(key: Any) -> Any:
        return key.encode() if isinstance(key, str) else key

    def data(self, entries: dict[Any, Any]) -> pa.Table:
        return pa.table({"key": pa.array(list(entries), pa.string()), "value": pa.array(entries.values(), pa.string())})

    def asked(self, keys: list[Any]) -> Any:
        return pa.array(keys, pa.string())

    def open(self, version: int | None = None) -> pheon.Map:
        return self.store.map(self.name, version=version)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.versions[0] = {}
        self.publish(data)
        del self.versions[0]

    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        entries = data.draw(st.dictionaries(self.keys, VALUES, max_size=8))
        made = self.store.put(self.name, self.data(entries), key=list(self.key_names), unique=True)
        self.published(made.version, entries)

    @rule(data=st.data(), compact=st.booleans(), elsewhere=st.booleans())
    def upsert(self, data: st.DataObject, compact: bool, elsewhere: bool) -> None:
        entries = data.draw(st.dictionaries(self.keys, VALUES, min_size=1, max_size=4))
        if elsewhere:
            version = children.elsewhere(children.change, self.store, "upsert", self.name, self.data(entries))
        else:
            version = self.store.upsert(self.name, self.data(entries), compact=compact).version
        self.published_some(version, self.copy() | entries)

    def published_some(self, version: int, model: Any) -> None:
        """One version, or two: after a change small segments may be merged."""
        assert version > self.newest
        # What was published before the merge shows the same.
        for made in range(self.newest + 1, version + 1):
            self.versions[made] = model.copy()

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        entries = data.draw(st.dictionaries(self.keys, VALUES, min_size=1, max_size=4))
        if entries.keys() & self.versions[self.newest].keys():
            with pytest.raises(pheon.DuplicateKeyError):
                self.store.append(self.name, self.data(entries))
        else:
            version = self.store.append(self.name, self.data(entries)).version
            self.published_some(version, self.copy() | entries)

    @rule(data=st.data(), compact=st.booleans())
    def delete(self, data: st.DataObject, compact: bool) -> None:
        keys = data.draw(st.lists(self.keys, min_size=1, max_size=4))
        model = self.copy()
        gone = [model.pop(key) for key in set(keys) if key in model]
        assert self.store.delete(self.name, self.asked(keys), compact=compact) == len(gone)
        version = self.store.versions(self.name)[-1].version
        assert version > self.newest or not gone
        if version > self.newest:
            self.published_some(version, model)

    def check(self, handle: pheon.Map, model: dict[Any, Any]) -> None:
        assert len(handle) == len(model)
        assert list(handle.items()) == self.shown(model)
        keys = [*model, *self.absent]
        assert [handle.get(key, "none") for key in keys] == [model.get(key, "none") for key in keys]
        assert handle.get_many(keys, "none") == [model.get(key, "none") for key in keys]
        assert list(handle.contains_many(keys)) == [key in model for key in keys]


class PairMapMachine(MapMachine):
    """Of keys of two columns."""

    keys = PAIRS
    key_names = ("text", "number")
    absent = (("x", 9), ("", 0))

    def data(self, entries: dict[Any, Any]) -> pa.Table:
        columns = {"text": pa.array([k[0] for k in entries], pa.string()), "number": [k[1] for k in entries]}
        return pa.table({**columns, "value": pa.array(entries.values(), pa.string())}).cast(
            pa.schema([("text", pa.string()), ("number", pa.int64()), ("value", pa.string())])
        )

    def asked(self, keys: list[Any]) -> Any:
        return pa.table({"text": pa.array([k[0] for k in keys], pa.string()), "number": [k[1] for k in keys]})


ROWS = st.lists(st.tuples(NUMBERS, VALUES), max_size=6)


class TableMachine(Machine):
    """Of keys that repeat: rows of equal keys stay in the order in which they came."""

    everything = staticmethod(children.rows)

    @staticmethod
    def shown(model: list[Any]) -> list[Any]:
        return model

    @staticmethod
    def data(rows: list[tuple[int, str | None]]) -> pa.Table:
        keys, values = [row[0] for row in rows], [row[1] for row in rows]
        return pa.table({"k": pa.array(keys, pa.int64()), "v": pa.array(values, pa.string())})

    def open(self, version: int | None = None) -> pheon.Table:
        return self.store.table(self.name, version=version)

    def newer(self, model: list[Any]) -> None:
        for version in self.store.versions(self.name):
            if version.version not in self.versions:
                assert version.version > self.newest
                self.versions[version.version] = sorted(model, key=lambda row: row[0])

    @initialize(rows=ROWS)
    def begin(self, rows: list[Any]) -> None:
        made = self.store.put(self.name, self.data(rows), key="k")
        self.versions[made.version] = sorted(rows, key=lambda row: row[0])

    @rule(rows=ROWS)
    def publish(self, rows: list[Any]) -> None:
        self.store.put(self.name, self.data(rows), key="k")
        self.newer(rows)

    @rule(rows=ROWS, compact=st.booleans(), elsewhere=st.booleans())
    def append(self, rows: list[Any], compact: bool, elsewhere: bool) -> None:
        if elsewhere:
            children.elsewhere(children.change, self.store, "append", self.name, self.data(rows))
        else:
            self.store.append(self.name, self.data(rows), compact=compact)
        self.newer(self.copy() + rows)

    @rule(rows=ROWS, compact=st.booleans())
    def upsert(self, rows: list[Any], compact: bool) -> None:
        self.store.upsert(self.name, self.data(rows), compact=compact)
        replaced = {row[0] for row in rows}
        self.newer([row for row in self.copy() if row[0] not in replaced] + rows)

    @rule(keys=st.lists(NUMBERS, min_size=1, max_size=3))
    def delete(self, keys: list[int]) -> None:
        kept = [row for row in self.copy() if row[0] not in keys]
        assert self.store.delete(self.name, pa.array(keys, pa.int64())) == len(self.copy()) - len(kept)
        self.newer(kept)

    def check(self, handle: pheon.Table, model: list[Any]) -> None:
        assert handle.num_rows == len(model)
        rows = handle.to_pyarrow()
        rows.validate(full=True)
        assert list(zip(rows["k"].to_pylist(), rows["v"].to_pylist(), strict=True)) == model
        assert handle.to_polars().equals(pl.from_arrow(rows))
        frame = handle.to_pandas().reset_index()
        values = [None if pd.isna(value) else value for value in frame["v"]]
        assert [*zip(frame["k"].tolist(), values, strict=True)] == model
        for key in {row[0] for row in model} | {0, 77}:
            assert [row["v"] for row in handle.rows(key)] == [row[1] for row in model if row[0] == key]
        between = handle.range(-1, 3).to_pyarrow()
        assert between["k"].to_pylist() == [row[0] for row in model if -1 <= row[0] < 3]


def _test_case(machine: type[Machine]) -> Any:
    case = machine.TestCase
    case.settings = PROFILE
    return case


TestMap = _test_case(MapMachine)
TestMapOfPairs = _test_case(PairMapMachine)
TestTable = _test_case(TableMachine)
