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
from dataclasses import dataclass
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
    max_examples=150 if LONG else 5,
    stateful_step_count=50 if LONG else 25,
    deadline=None,
    derandomize=not LONG,
    print_blob=True,
)
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.timeout(1800 if LONG else 300),
]

TEXTS = st.sampled_from(["", "a", "a\0", "ab", "b", "ü", "zz", "\U0001f426", "long " * 20])
NUMBERS = st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1, 1 << 40])
PAIRS = st.tuples(st.sampled_from(["x", "y\0", "y"]), st.integers(-2, 2))
VALUES = st.none() | st.sampled_from(["", "v", "ü", "w" * 100])
#: Names of the datasets.
NAMES = st.sampled_from(["d", "e"])
#: Which one of several.
AT = st.integers(0, 20)
HANDLES_MAX = 4
#: Where something is done.
PLACES = st.sampled_from([children.here, children.in_a_fork, children.elsewhere])


class Dataset:
    """What a dataset is to be; without versions: it is not there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[int, Any] = {}
        #: How many times it was dropped.
        self.drops = 0

    @property
    def newest(self) -> int:
        return max(self.versions, default=0)

    def at(self, at: int) -> int:
        """One of the versions; 1, which is none, if there are none."""
        return sorted(self.versions)[at % len(self.versions)] if self.versions else 1

    def copy(self) -> Any:
        return self.versions[self.newest].copy()


@dataclass
class Handle:
    """An open map or table, and what it shows."""

    of: Dataset
    handle: Any
    model: Any
    drops: int

    @property
    def reopens(self) -> bool:
        """Whether a pickle of it opens the same again."""
        return self.drops == self.of.drops and self.handle.version in self.of.versions

    @property
    def is_mistaken(self) -> bool:
        """Whether a pickle of it opens a version of that number of the dataset made anew (docs/safety.md)."""
        return self.drops != self.of.drops and self.handle.version in self.of.versions


class Machine(RuleBasedStateMachine):
    """A store in memory with two datasets, another process, and versions as a model has them."""

    def __init__(self) -> None:
        super().__init__()
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path = Path(tempfile.mkdtemp(prefix="pheon-test-", dir=base))
        self.store = pheon.open(self.path / "store")
        #: Reads only the pages that it is asked for.
        self.random = pheon.open(self.path / "store", access="random", read_only=True)
        self.datasets = {name: Dataset(name) for name in ("d", "e")}
        self.handles: list[Handle] = []
        self.turn = 0

    def teardown(self) -> None:
        try:
            for name, dataset in self.datasets.items():
                if dataset.versions:
                    assert self.store.verify(name).ok
                for version, model in dataset.versions.items():
                    self.check(self.open(self.store, name, version), model)
        finally:
            shutil.rmtree(self.path)

    def published(self, dataset: Dataset, version: int, model: Any) -> None:
        assert version == dataset.newest + 1
        dataset.versions[version] = model

    # What maps and tables do in their own ways ------------------------------------------------------------------------

    #: Draws what a whole version has.
    whole: st.SearchStrategy[Any]

    def put(self, name: str, whole: Any) -> int:
        """Publish it; the version."""
        raise NotImplementedError

    def modelled(self, whole: Any) -> Any:
        """What it shows then."""
        return whole

    def open(self, store: pheon.Store, name: str, version: int | None = None) -> Any:
        raise NotImplementedError

    def check(self, handle: Any, model: Any) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------------------

    def opened(self, store: pheon.Store, dataset: Dataset, version: int | None = None) -> Handle:
        handle = self.open(store, dataset.name, version)
        assert handle.version == (version or dataset.newest)
        return Handle(dataset, handle, dataset.versions[handle.version].copy(), dataset.drops)

    def renew(self, entry: Handle) -> None:
        is_newer = entry.handle.version != entry.of.newest or entry.drops != entry.of.drops
        with self.there(entry.of.name) as dataset:
            assert entry.handle.refresh() == is_newer
            assert entry.handle.version == dataset.newest
            entry.model, entry.drops = dataset.copy(), dataset.drops
        self.check(entry.handle, entry.model)

    def reopen(self, entry: Handle) -> None:
        if entry.is_mistaken:
            return
        access = entry.handle.info().access
        with self.reopened(entry):
            entry.handle = pickle.loads(pickle.dumps(entry.handle))
            assert entry.handle.info().access == access
        self.check(entry.handle, entry.model)

    @contextmanager
    def there(self, name: str) -> Iterator[Dataset]:
        """The dataset; what is done is refused if it is not there."""
        dataset = self.datasets[name]
        if dataset.versions:
            yield dataset
        else:
            with pytest.raises(pheon.NotFoundError):
                yield dataset

    @contextmanager
    def reopened(self, entry: Handle) -> Iterator[None]:
        """What is raised, if anything, when a version is opened that may have been removed."""
        if entry.reopens:
            yield
        else:
            with pytest.raises(pheon.NotFoundError):
                yield

    @initialize(data=st.data(), both=st.booleans())
    def begin(self, data: st.DataObject, both: bool) -> None:
        for name in ["d", "e"] if both else ["d"]:
            self.publish(name, data)

    @rule(name=NAMES, data=st.data())
    def publish(self, name: str, data: st.DataObject) -> None:
        whole = data.draw(self.whole)
        self.published(self.datasets[name], self.put(name, whole), self.modelled(whole))

    @rule(
        name=NAMES, data=st.data(), again=st.sampled_from(["no", "once", "as often", "as often"]), pickled=st.booleans()
    )
    def drop(self, name: str, data: st.DataObject, again: str, pickled: bool) -> None:
        old = None
        with self.there(name) as dataset:
            old = self.opened(self.store, dataset)
            self.store.drop(name)
            dataset.versions = {}
            dataset.drops += 1
            if len(self.handles) < HANDLES_MAX:
                self.handles.append(old)
        with pytest.raises(pheon.NotFoundError):
            self.open(self.random, name)
        if again != "no":
            self.publish(name, data)
        if again == "as often" and old is not None and dataset.versions:
            # Versions count from 1 again: here the handle's number is another version's.
            while dataset.newest < old.handle.version:
                self.published(dataset, self.store.rollback(name, 1), dataset.copy())
            self.check(old.handle, old.model)
            self.reopen(old) if pickled else self.renew(old)

    @rule(name=NAMES, at=AT)
    def roll_back(self, name: str, at: int) -> None:
        with self.there(name) as dataset:
            version = dataset.at(at)
            self.published(dataset, self.store.rollback(name, version), dataset.versions[version].copy())

    @rule(name=st.none() | NAMES, keep=st.integers(1, 3))
    def collect(self, name: str | None, keep: int) -> None:
        def collected(dataset: Dataset, removed: list[int]) -> None:
            kept = sorted(dataset.versions)[-keep:]
            assert removed == [version for version in sorted(dataset.versions) if version not in kept]
            dataset.versions = {version: dataset.versions[version] for version in kept}

        if name is not None:
            with self.there(name) as dataset:
                collected(dataset, self.store.gc(name, keep=keep).versions_removed)
        else:
            for each, report in self.store.gc(keep=keep).items():
                collected(self.datasets[each], report.versions_removed)

    @rule(name=NAMES)
    def compact(self, name: str) -> None:
        with self.there(name) as dataset:
            version = self.store.compact(name)
            assert version in (dataset.newest, dataset.newest + 1)
            dataset.versions[version] = dataset.copy()

    @rule()
    def reopen_store(self) -> None:
        self.store = pickle.loads(pickle.dumps(self.store))
        self.random = pickle.loads(pickle.dumps(self.random))
        assert (self.store.access, self.random.access) == ("auto", "random")

    @precondition(lambda self: len(self.handles) < HANDLES_MAX)
    @rule(name=NAMES, at=AT, newest=st.booleans(), random=st.booleans())
    def open_version(self, name: str, at: int, newest: bool, random: bool) -> None:
        with self.there(name) as dataset:
            entry = self.opened(self.random if random else self.store, dataset, None if newest else dataset.at(at))
            assert (entry.handle.info().access == "random") == random
            self.handles.append(entry)

    @precondition(lambda self: self.handles)
    @rule(at=AT)
    def drop_handle(self, at: int) -> None:
        del self.handles[at % len(self.handles)]

    @precondition(lambda self: self.handles)
    @rule(at=AT)
    def refresh(self, at: int) -> None:
        self.renew(self.handles[at % len(self.handles)])

    @precondition(lambda self: self.handles)
    @rule(at=AT)
    def pickled(self, at: int) -> None:
        self.reopen(self.handles[at % len(self.handles)])

    @precondition(lambda self: self.handles)
    @rule(at=AT)
    def read_in_a_fork(self, at: int) -> None:
        entry = self.handles[at % len(self.handles)]
        assert children.in_a_fork(self.everything, entry.handle) == self.shown(entry.model)

    @precondition(lambda self: self.handles)
    @rule(at=AT)
    def read_elsewhere(self, at: int) -> None:
        entry = self.handles[at % len(self.handles)]
        if entry.is_mistaken:
            return
        with self.reopened(entry):
            assert children.elsewhere(self.everything, entry.handle) == self.shown(entry.model)

    @invariant()
    def datasets_are_listed(self) -> None:
        names = [name for name, dataset in self.datasets.items() if dataset.versions]
        for store in (self.store, self.random):
            assert list(store) == names
            assert len(store) == len(names)
            assert [name for name in self.datasets if name in store] == names

    @invariant()
    def versions_are_listed(self) -> None:
        for name in self.datasets:
            with self.there(name) as dataset:
                listed = [(v.version, v.rows) for v in self.store.versions(name)]
                assert listed == [(n, len(m)) for n, m in sorted(dataset.versions.items())]

    @invariant()
    def the_newest_is_what_was_published_last(self) -> None:
        # Of one dataset after each step: that takes most of the time.
        self.turn += 1
        with self.there("de"[self.turn % 2]) as dataset:
            handle = self.open(self.random if self.turn % 3 == 0 else self.store, dataset.name)
            self.check(handle, dataset.copy())

    @invariant()
    def handles_show_what_they_did(self) -> None:
        for entry in self.handles:
            self.check(entry.handle, entry.model)


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

    @property
    def whole(self) -> st.SearchStrategy[dict[Any, Any]]:
        return st.dictionaries(self.keys, VALUES, max_size=8)

    def put(self, name: str, whole: dict[Any, Any]) -> int:
        return self.store.put(name, self.data(whole), key=list(self.key_names), unique=True).version

    def open(self, store: pheon.Store, name: str, version: int | None = None) -> pheon.Map:
        return store.map(name, version=version)

    @rule(name=NAMES, data=st.data(), compact=st.booleans(), elsewhere=st.booleans())
    def upsert(self, name: str, data: st.DataObject, compact: bool, elsewhere: bool) -> None:
        entries = data.draw(st.dictionaries(self.keys, VALUES, min_size=1, max_size=4))
        with self.there(name) as dataset:
            if elsewhere:
                version = children.elsewhere(children.change, self.store, "upsert", name, self.data(entries))
            else:
                version = self.store.upsert(name, self.data(entries), compact=compact).version
            self.published_some(dataset, version, dataset.copy() | entries)

    def published_some(self, dataset: Dataset, version: int, model: Any) -> None:
        """One version, or two: after a change small segments may be merged."""
        assert version > dataset.newest
        # What was published before the merge shows the same.
        for made in range(dataset.newest + 1, version + 1):
            dataset.versions[made] = model.copy()

    @rule(name=NAMES, data=st.data())
    def append(self, name: str, data: st.DataObject) -> None:
        entries = data.draw(st.dictionaries(self.keys, VALUES, min_size=1, max_size=4))
        with self.there(name) as dataset:
            if dataset.versions and entries.keys() & dataset.copy().keys():
                with pytest.raises(pheon.DuplicateKeyError):
                    self.store.append(name, self.data(entries))
            else:
                version = self.store.append(name, self.data(entries)).version
                self.published_some(dataset, version, dataset.copy() | entries)

    @rule(name=NAMES, data=st.data(), compact=st.booleans())
    def delete(self, name: str, data: st.DataObject, compact: bool) -> None:
        keys = data.draw(st.lists(self.keys, min_size=1, max_size=4))
        with self.there(name) as dataset:
            deleted = self.store.delete(name, self.asked(keys), compact=compact)
            model = dataset.copy()
            assert deleted == len([model.pop(key) for key in set(keys) if key in model])
            version = self.store.versions(name)[-1].version
            assert version > dataset.newest or not deleted
            if version > dataset.newest:
                self.published_some(dataset, version, model)

    def check(self, handle: pheon.Map, model: dict[Any, Any]) -> None:
        assert len(handle) == len(model)
        assert list(handle.items()) == self.shown(model)
        keys = [*model, *self.absent]
        assert [handle.get(key, "none") for key in keys] == [model.get(key, "none") for key in keys]
        assert handle.get_many(keys, "none") == [model.get(key, "none") for key in keys]
        assert list(handle.contains_many(keys)) == [key in model for key in keys]


#: The writer's own rows; those of its parts, and where they are written; which rows win; how it ends.
IN_PARTS = st.tuples(
    st.dictionaries(TEXTS, VALUES, max_size=4),
    st.lists(st.tuples(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3), PLACES), min_size=1, max_size=3),
    st.sampled_from(["error", "first", "last"]),
    st.sampled_from(["skip", "commit", "fail"]),
)


class TextMapMachine(MapMachine):
    """Of keys of one column, which a writer takes piece by piece."""

    @rule(name=NAMES, data=st.data())
    def publish(self, name: str, data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            self.write_in_parts(name, *data.draw(IN_PARTS))
        else:
            super().publish(name, data)

    def write_in_parts(self, name: str, own: dict[str, Any], parts: list[Any], on_duplicate: Any, ends: str) -> None:
        entries = [*own.items()]
        dataset = self.datasets[name]
        try:
            with self.store.map_writer(name, on_duplicate=on_duplicate) as writer:
                # This sets the columns.
                writer.write(self.data(own))
                # What comes last is written first: the order of rows is that in which parts are handed out.
                handed_out = [(writer.part(), *part) for part in parts]
                for part, rows, where in reversed(handed_out):
                    where(children.fill, part, rows)
                    assert part.finished
                for _, rows, _ in handed_out:
                    entries += rows.items()
                if ends == "skip":
                    writer.part()
                    with pytest.raises(pheon.Error):
                        writer.commit()
                    writer.commit(unfinished="skip")
                if ends == "fail":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        except pheon.DuplicateKeyError:
            assert on_duplicate == "error"
            assert len(dict(entries)) < len(entries)
            return
        assert on_duplicate != "error" or len(dict(entries)) == len(entries)
        assert writer.version is not None
        self.published(dataset, writer.version, dict(reversed(entries) if on_duplicate == "first" else entries))


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


#: Columns of the table, in their order; "k" is the key.
COLUMNS = {"v": "str", "k": "int64", "n": "float64"}
ROWS = st.lists(st.tuples(VALUES, NUMBERS, st.sampled_from([-0.5, 0.0, 1e300])), max_size=6)


class TableMachine(Machine):
    """Of keys that repeat: rows of equal keys stay in the order in which they came."""

    everything = staticmethod(children.rows)
    whole = ROWS

    @staticmethod
    def shown(model: list[Any]) -> list[Any]:
        return model

    @staticmethod
    def frame(rows: list[Any]) -> pd.DataFrame:
        columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
        typed = zip(columns, COLUMNS.items(), strict=True)
        return pd.DataFrame({name: pd.Series(values, dtype=kind) for values, (name, kind) in typed})

    @staticmethod
    def data(rows: list[Any]) -> pa.Table:
        schema = pa.schema([("v", pa.string()), ("k", pa.int64()), ("n", pa.float64())])
        return pa.table([pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)], schema)

    def put(self, name: str, whole: list[Any]) -> int:
        return self.store.put(name, self.data(whole), key="k").version

    def modelled(self, whole: list[Any]) -> list[Any]:
        return sorted(whole, key=lambda row: row[1])

    def open(self, store: pheon.Store, name: str, version: int | None = None) -> pheon.Table:
        return store.table(name, version=version)

    def newer(self, dataset: Dataset, model: list[Any]) -> None:
        for version in self.store.versions(dataset.name):
            if version.version not in dataset.versions:
                assert version.version > dataset.newest
                dataset.versions[version.version] = self.modelled(model)

    @rule(name=NAMES, rows=ROWS, compact=st.booleans(), elsewhere=st.booleans())
    def append(self, name: str, rows: list[Any], compact: bool, elsewhere: bool) -> None:
        with self.there(name) as dataset:
            if elsewhere:
                children.elsewhere(children.change, self.store, "append", name, self.data(rows))
            else:
                self.store.append(name, self.data(rows), compact=compact)
            self.newer(dataset, dataset.copy() + rows)

    @rule(name=NAMES, rows=ROWS, compact=st.booleans())
    def upsert(self, name: str, rows: list[Any], compact: bool) -> None:
        with self.there(name) as dataset:
            self.store.upsert(name, self.data(rows), compact=compact)
            replaced = {row[1] for row in rows}
            self.newer(dataset, [row for row in dataset.copy() if row[1] not in replaced] + rows)

    @rule(name=NAMES, keys=st.lists(NUMBERS, min_size=1, max_size=3))
    def delete(self, name: str, keys: list[int]) -> None:
        with self.there(name) as dataset:
            deleted = self.store.delete(name, pa.array(keys, pa.int64()))
            kept = [row for row in dataset.copy() if row[1] not in keys]
            assert deleted == len(dataset.copy()) - len(kept)
            self.newer(dataset, kept)

    def check(self, handle: pheon.Table, model: list[Any]) -> None:
        assert handle.num_rows == len(model)
        assert handle.column_names == list(COLUMNS)
        rows = handle.to_pyarrow()
        rows.validate(full=True)
        assert list(zip(*(rows[name].to_pylist() for name in COLUMNS), strict=True)) == model
        assert handle.to_polars().equals(pl.from_arrow(rows))
        pd.testing.assert_frame_equal(handle.to_pandas(), self.frame(model), check_exact=True)
        for key in {row[1] for row in model} | {0, 77}:
            assert [tuple(row.values()) for row in handle.rows(key)] == [row for row in model if row[1] == key]
        assert [tuple(row.values()) for row in handle.range(-1, 3)] == [row for row in model if -1 <= row[1] < 3]


def _test_case(machine: type[Machine]) -> Any:
    case = machine.TestCase
    case.settings = PROFILE
    return case


TestMap = _test_case(TextMapMachine)
TestMapOfPairs = _test_case(PairMapMachine)
TestTable = _test_case(TableMachine)
