"""Maps: single lookups, batches in every library's kind, ranges, views, refresh."""

from __future__ import annotations

import datetime as dt
import gc
import random
import shutil
import string
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pheon

WORDS = {"quick": "fast", "lazy": "idle", "brown": "dun", "grün": "green", "": "empty", "火": "fire"}
NUMBERS = {-5: 1.5, 0: -0.0, 7: float("inf"), 2**62: 2.5}
UTC = dt.UTC

KEY_KINDS = {
    "str": ["", "a", "ab", "zoo", "ü", "\U0001f525", "x" * 1000],
    "bytes": [b"", b"\x00", b"a\xff", b"zz"],
    "int": [-(2**63), -1, 0, 1, 255, 2**63 - 1],
    "uint": [0, 5, 2**63, 2**64 - 1],
    "bool": [False, True],
    "date": [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2026, 11, 21)],
    "time": [dt.time(0), dt.time(12, 30, 15, 250), dt.time(23, 59, 59, 999999)],
    "datetime": [dt.datetime(1, 1, 1), dt.datetime(1970, 1, 1), dt.datetime(2026, 11, 21, 1, 2, 3, 4)],
    "aware": [dt.datetime(1999, 1, 1, tzinfo=UTC), dt.datetime(2026, 11, 21, 1, 2, 3, 4, tzinfo=UTC)],
    "timedelta": [dt.timedelta(-1), dt.timedelta(0), dt.timedelta(days=3, microseconds=1)],
    "Decimal": [Decimal("-1.25"), Decimal(0), Decimal("3.1"), Decimal("12345678901234567890.5")],
}


@pytest.fixture
def words(store: pheon.Store) -> pheon.Map:
    return store.put_map("words", WORDS)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_every_key_type_looks_up_iterates_and_bounds(store: pheon.Store, kind: str) -> None:
    keys = KEY_KINDS[kind]
    data = {key: i for i, key in enumerate(random.Random(1).sample(keys, len(keys)))}
    m = store.put_map("m", data)
    assert list(m) == sorted(keys) if kind != "str" else list(m) == sorted(keys, key=str.encode)
    assert list(reversed(m)) == list(m)[::-1]
    for key, value in data.items():
        assert m[key] == value
        assert key in m
        assert type(next(iter(m))) is type(key)
    assert m.get_many(keys) == [data[k] for k in keys]
    ordered = list(m)
    assert m.first() == (ordered[0], data[ordered[0]])
    assert m.last() == (ordered[-1], data[ordered[-1]])
    middle = ordered[1]
    assert [r["key"] for r in m.range(middle)] == ordered[1:]
    assert [r["key"] for r in m.range(None, middle)] == ordered[:1]
    assert [r["key"] for r in m.range(ordered[0], ordered[-1])] == ordered[:-1]
    assert m.floor(middle) == m.ceiling(middle) == (middle, data[middle])


def test_single_lookup(words: pheon.Map) -> None:
    assert words["grün"] == "green"
    assert words[""] == "empty"
    assert words.get("nope") is None
    assert words.get("nope", 3) == 3
    assert words.get("lazy", 3) == "idle"
    assert "lazy" in words
    assert "Lazy" not in words
    with pytest.raises(KeyError) as raised:
        words["nope"]
    assert raised.value.args == ("nope",)
    assert not isinstance(raised.value, pheon.Error)


def test_a_tuple_as_missing_key_stays_one_argument(store: pheon.Store) -> None:
    m = store.put_map("m", {1: 1})
    with pytest.raises(KeyError) as raised:
        m[2]
    assert raised.value.args == (2,)


@pytest.mark.parametrize("key", [5, b"lazy", None, 1.5, ("a",), [1]])
def test_wrong_key_type_is_a_type_error_everywhere(words: pheon.Map, key: object) -> None:
    for look in (
        lambda: words[key],
        lambda: words.get(key),
        lambda: key in words,
        lambda: words.floor(key),
        lambda: words.ceiling(key),
    ):
        with pytest.raises(TypeError, match="keys are str"):
            look()
    if key is not None:
        with pytest.raises(TypeError, match="keys are str"):
            words.get_many([key])


def test_a_lone_surrogate_is_a_missing_key(words: pheon.Map) -> None:
    assert words.get("\ud800") is None
    assert words.get_many(["\ud800", "lazy"]) == [None, "idle"]


def test_integers_beyond_the_column_are_missing(store: pheon.Store) -> None:
    m = store.put_map("m", NUMBERS)
    assert m.get(2**70) is None
    assert m.get(-(2**70)) is None
    assert m.get_many([2**70, 7]) == [None, float("inf")]
    assert len(m.range(-(2**70), 2**70)) == 4
    assert len(m.range(2**70)) == 0
    assert m.floor(2**70) == (2**62, 2.5)
    assert m.ceiling(2**70) is None
    assert m.floor(-(2**70)) is None
    assert m.ceiling(-(2**70)) == (-5, 1.5)


def test_floor_and_ceiling_between_keys(store: pheon.Store) -> None:
    m = store.put_map("m", {10: "a", 20: "b"})
    assert (m.floor(9), m.floor(15), m.floor(25)) == (None, (10, "a"), (20, "b"))
    assert (m.ceiling(5), m.ceiling(15), m.ceiling(25)) == ((10, "a"), (20, "b"), None)
    coarse = store.put_map("t", pa.table({"k": pa.array([1, 2], pa.timestamp("s")), "v": ["x", "y"]}), key="k")
    between = dt.datetime(1970, 1, 1, 0, 0, 1, 500_000)
    assert coarse.get(between) is None
    assert coarse.floor(between)[1] == "x"
    assert coarse.ceiling(between)[1] == "y"
    assert len(coarse.range(None, between)) == 1
    assert len(coarse.range(between)) == 1
    money = store.put_map("d", {Decimal("1.10"): 1, Decimal("2.20"): 2})
    assert money.get(Decimal("1.1000")) == 1
    assert money.get(Decimal("1.105")) is None
    assert money.floor(Decimal("1.105"))[1] == 1
    assert money.ceiling(Decimal("1.105"))[1] == 2
    assert len(money.range(Decimal("1.105"))) == 1


def test_mapping_views(words: pheon.Map) -> None:
    assert isinstance(words, Mapping)
    assert isinstance(words.keys(), KeysView)
    assert isinstance(words.values(), ValuesView)
    assert isinstance(words.items(), ItemsView)
    assert set(words.keys()) == set(WORDS)
    assert dict(words.items()) == dict(words) == WORDS
    assert sorted(words.values()) == sorted(WORDS.values())
    assert words.keys() & {"lazy", "nope", 5} == {"lazy"}
    assert words.keys() | {5} == set(WORDS) | {5}
    assert words.keys() - {"lazy"} == set(WORDS) - {"lazy"}
    assert words.keys() == set(WORDS)
    assert ("lazy", "idle") in words.items()
    assert ("lazy", "x") not in words.items()
    assert (5, "x") not in words.items()
    assert "idle" in words.values()
    assert "x" not in words.values()
    assert list(reversed(words.keys())) == list(words)[::-1]
    assert list(reversed(words.items())) == list(words.items())[::-1]
    assert list(reversed(words.values())) == list(words.values())[::-1]
    assert len(words.keys()) == len(words.values()) == len(words.items()) == len(WORDS)
    match words:
        case {"lazy": value}:
            assert value == "idle"
        case _:
            pytest.fail("a map matches mapping patterns")


def test_equality_and_hash(store: pheon.Store, words: pheon.Map) -> None:
    assert words == WORDS
    assert words == WORDS
    assert words == store.map("words")
    assert words != {**WORDS, "lazy": "x"}
    assert words != {}
    assert words != {**WORDS, "more": "entries"}
    assert words != dict.fromkeys(range(len(WORDS)))
    assert words != store.put_map("numbers", dict.fromkeys(range(len(WORDS)), 1))
    assert words != 5
    with pytest.raises(TypeError):
        hash(words)


def test_iterators_end_once_and_hint_their_length(words: pheon.Map) -> None:
    it = iter(words)
    assert it.__length_hint__() == len(WORDS)
    assert len(list(it)) == len(WORDS)
    assert list(it) == []
    assert it.__length_hint__() == 0


def test_repr_is_bounded(store: pheon.Store) -> None:
    m = store.put_map("m", {f"{i}" * 500: "v" * 10_000 for i in range(100)})
    assert len(repr(m)) < 500
    assert "100 entries" in repr(m)


def test_empty_map(store: pheon.Store) -> None:
    m = store.put_map("empty", {})
    assert (len(m), list(m), m.first(), m.last(), m.get("a")) == (0, [], None, None, None)
    assert m.get_many(["a"]) == [None]
    assert m == {}
    assert m.table().to_pyarrow().num_rows == 0
    assert not m


# Batches --------------------------------------------------------------------------------------------------------------

KEYS = ["lazy", "nope", "火", "quick"]
VALUES = ["idle", None, "fire", "fast"]
FOUND = [True, False, True, True]


def test_get_many_lists_and_iterables(words: pheon.Map) -> None:
    assert words.get_many(KEYS) == VALUES
    assert words.get_many(KEYS, "?") == ["idle", "?", "fire", "fast"]
    assert words.get_many(tuple(KEYS)) == tuple(VALUES)
    assert words.get_many(iter(KEYS)) == VALUES
    assert words.get_many(dict.fromkeys(KEYS).keys()) == VALUES
    assert words.get_many([]) == []
    assert words.get_many(["lazy", None]) == ["idle", None]
    assert words.contains_many(KEYS) == FOUND
    assert words.contains_many(tuple(KEYS)) == tuple(FOUND)
    with pytest.raises(TypeError, match="many keys"):
        words.get_many("lazy")


def test_get_many_default_leaves_stored_nulls(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": None, "b": 1})
    assert m.get_many(["a", "b", "c"], 9) == [None, 1, 9]
    assert m.get_many(pa.array(["a", "b", "c"]), 9).to_pylist() == [None, 1, 9]
    with pytest.raises(TypeError):
        m.get_many(pa.array(["c"]), "text")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_get_many_pyarrow(words: pheon.Map, kind: pa.DataType) -> None:
    keys = (
        pa.array([*KEYS, None]).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array([*KEYS, None]).dictionary_encode()
    )
    values = words.get_many(keys)
    assert isinstance(values, pa.Array)
    assert values.to_pylist() == [*VALUES, None]
    assert values.type == pa.large_string()
    chunked = pa.chunked_array([pa.array(KEYS[:1]), pa.array(KEYS[1:])])
    assert isinstance(words.get_many(chunked), pa.ChunkedArray)
    assert words.get_many(chunked).to_pylist() == VALUES
    assert words.get_many(chunked, "?").to_pylist() == ["idle", "?", "fire", "fast"]
    assert words.contains_many(chunked).to_pylist() == FOUND
    assert words.get_many(pa.chunked_array([], pa.string())).to_pylist() == []


def test_get_many_polars(words: pheon.Map) -> None:
    values = words.get_many(pl.Series("k", KEYS))
    assert isinstance(values, pl.Series)
    assert (values.name, values.to_list(), values.dtype) == ("k", VALUES, pl.String)
    assert words.get_many(pl.Series("k", KEYS), "?").to_list() == ["idle", "?", "fire", "fast"]
    assert words.contains_many(pl.Series("k", KEYS)).to_list() == FOUND


def test_get_many_pandas(words: pheon.Map) -> None:
    keys = pd.Series(KEYS, index=[10, 20, 30, 40], name="k")
    values = words.get_many(keys)
    assert isinstance(values, pd.Series)
    assert (list(values.index), values.name) == ([10, 20, 30, 40], "k")
    assert [None if pd.isna(v) else v for v in values] == VALUES
    assert str(values.dtype) == "str"
    assert list(words.get_many(keys, "?")) == ["idle", "?", "fire", "fast"]
    found = words.contains_many(keys)
    assert (list(found), list(found.index)) == (FOUND, [10, 20, 30, 40])
    index = words.get_many(pd.Index(KEYS[:1], name="i"))
    assert isinstance(index, pd.Index)
    assert (list(index), index.name) == (["idle"], "i")
    gaps = pd.Series(["lazy", None, float("nan")], dtype=object)
    assert [None if pd.isna(v) else v for v in words.get_many(gaps)] == ["idle", None, None]


def test_get_many_pandas_numbers_stay_numbers(store: pheon.Store) -> None:
    m = store.put_map("m", {1: 10, 2: 20})
    values = m.get_many(pd.Series([1, 3, 2]))
    assert str(values.dtype) == "Int64"
    assert values.tolist() == [10, pd.NA, 20]
    assert str(m.get_many(pd.Series([1, 2])).dtype) == "int64"
    assert m.get_many(pd.Series([1, None, 2])).tolist() == [10, pd.NA, 20]


def test_get_many_numpy(store: pheon.Store, words: pheon.Map) -> None:
    for keys in (np.array(KEYS), np.array(KEYS, dtype=object), np.array(KEYS, dtype=np.dtypes.StringDType())):
        values = words.get_many(keys)
        assert isinstance(values, np.ndarray)
        assert values.tolist() == VALUES
        assert words.contains_many(keys).tolist() == FOUND
        assert words.contains_many(keys).dtype == bool
    square = words.get_many(np.array(KEYS).reshape(2, 2))
    assert square.shape == (2, 2)
    numbers = store.put_map("n", {1: 10, 2: 20, 2**40: 30})
    assert numbers.get_many(np.array([2, 1], dtype=np.int16)).tolist() == [20, 10]
    assert numbers.get_many(np.array([2, 1])).dtype == np.int64
    assert numbers.get_many(np.array([2, 9, 2**40], dtype=np.uint64)).tolist() == [20, None, 30]
    assert numbers.get_many(np.array([2, 9, 1]), -1).tolist() == [20, -1, 10]
    floats = store.put_map("f", {1: 1.5})
    values = floats.get_many(np.array([1, 2]))
    assert values.dtype == np.float64
    assert np.isnan(values[1])
    times = store.put_map("t", {dt.datetime(2020, 1, 1): dt.datetime(2021, 1, 1)})
    values = times.get_many(np.array(["2020-01-01", "2020-01-02", "NaT"], dtype="datetime64[s]"))
    assert values.dtype == "datetime64[us]"
    assert np.isnat(values).tolist() == [False, True, True]
    dates = store.put_map("dates", {dt.date(2020, 1, 1): dt.date(2021, 1, 1)})
    values = dates.get_many(np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"))
    assert values.dtype == "datetime64[D]"
    assert values[0] == np.datetime64("2021-01-01")
    assert store.put_map("b", {b"ab": True}).get_many(np.array([b"ab"])).tolist() == [True]


def test_numpy_scalars_are_looked_up_as_what_they_are(store: pheon.Store, words: pheon.Map) -> None:
    assert words[np.str_("lazy")] == "idle"
    m = store.put_map("m", {5: "five"})
    assert m[np.int32(5)] == m[np.uint8(5)] == "five"
    assert m.get(np.int64(6)) is None
    days = store.put_map("d", {dt.datetime(2020, 1, 1): 1})
    assert days[np.datetime64("2020-01-01T00:00:00", "ns")] == 1


class ArrowOnly:
    """Keys that speak nothing but the PyCapsule protocol."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> object:
        return self._array.__arrow_c_array__(requested_schema)


def test_get_many_capsules(words: pheon.Map) -> None:
    values = words.get_many(ArrowOnly(pa.array(KEYS)))
    assert isinstance(values, pheon.Column)
    assert values.to_pylist() == VALUES
    assert list(values) == VALUES
    assert pa.array(values).to_pylist() == VALUES
    assert words.contains_many(ArrowOnly(pa.array(KEYS))).to_pylist() == FOUND
    assert (values[0], values[-1], values[1:3].to_pylist()) == ("idle", "fast", [None, "fire"])
    with pytest.raises(IndexError):
        values[4]


def test_several_value_columns(store: pheon.Store) -> None:
    data = pa.table({"k": ["b", "a"], "x": [2, 1], "y": ["two", "one"]})
    m = store.put_map("m", data, key="k")
    assert m.value_names == ["x", "y"]
    assert m["a"] == {"x": 1, "y": "one"}
    assert m.get_many(["b", "c"]) == [{"x": 2, "y": "two"}, None]
    assert m.get_many(["c"], 0) == [0]
    assert m.get_many(pa.array(["b", "c"])).to_pydict() == {"x": [2, None], "y": ["two", None]}
    assert m.get_many(pl.Series(["b", "c"])).to_dict(as_series=False) == {"x": [2, None], "y": ["two", None]}
    frame = m.get_many(pd.Series(["b", "c"], index=[5, 6]))
    assert list(frame.index) == [5, 6]
    assert frame["x"].tolist() == [2, pd.NA]
    arrays = m.get_many(np.array(["b", "c"]))
    assert arrays["y"].tolist() == ["two", None]
    square = m.get_many(np.array([["b", "c"], ["a", "b"]]))
    assert square["y"].tolist() == [["two", None], ["one", "two"]]
    batch = m.get_many(ArrowOnly(pa.array(["b", "c"])))
    assert isinstance(batch, pheon.Batch)
    assert batch.to_pylist() == [{"x": 2, "y": "two"}, {"x": None, "y": None}]
    assert pa.table(batch).num_rows == 2
    assert pa.record_batch(batch).num_columns == 2
    assert dict(m.items()) == {"a": {"x": 1, "y": "one"}, "b": {"x": 2, "y": "two"}}
    only = store.put_map("only", data, key="k", value="y")
    assert only["a"] == "one"
    assert store.put_map("none", data.select(["k"]), key="k")["a"] == {}


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_large_batches_agree_with_a_dict(store: pheon.Store, threads: int | None) -> None:
    rng = random.Random(7)
    letters = string.ascii_letters + "äöü€"
    data = {"".join(rng.choices(letters, k=rng.randrange(1, 40))): rng.randrange(10**9) for _ in range(30_000)}
    m = store.put_map("m", data)
    keys = rng.choices(list(data), k=80_000) + [f"missing {i}" for i in range(20_000)]
    rng.shuffle(keys)
    expected = [data.get(k) for k in keys]
    assert m.get_many(keys, threads=threads) == expected
    assert m.get_many(pa.array(keys), threads=threads).to_pylist() == expected
    assert m.contains_many(keys, threads=threads) == [k in data for k in keys]
    assert list(m) == sorted(data, key=str.encode)
    assert m == data


def test_non_ascii_keys_do_not_grow_the_callers_strings(store: pheon.Store) -> None:
    import sys

    keys = [f"ключ {i}" for i in range(5_000)]
    before = sum(map(sys.getsizeof, keys))
    m = store.put_map("m", dict.fromkeys(keys, 1))
    assert m.get_many(keys) == [1] * len(keys)
    grown = sum(map(sys.getsizeof, keys)) - before
    assert grown < before // 100


# Slices ---------------------------------------------------------------------------------------------------------------


def test_prefix(store: pheon.Store) -> None:
    m = store.put_map(
        "m", {p: i for i, p in enumerate(["usr", "usr/bin/a", "usr/bin/b", "usr/bin\U0010ffff", "usr/lib", "v"])}
    )
    assert [r["key"] for r in m.prefix("usr/bin/")] == ["usr/bin/a", "usr/bin/b"]
    assert len(m.prefix("")) == 6
    assert len(m.prefix("zzz")) == 0
    raw = store.put_map("raw", {b"\xff": 1, b"\xff\xff": 2, b"\xff\xff\x00": 3, b"a": 4})
    assert [r["value"] for r in raw.prefix(b"\xff\xff")] == [2, 3]
    with pytest.raises(TypeError, match="prefix"):
        m.prefix(b"usr")
    with pytest.raises(TypeError, match="prefix"):
        store.put_map("n", {1: 1}).prefix("1")


def test_range_is_half_open_and_tolerates_reversed_ends(words: pheon.Map) -> None:
    assert [r["key"] for r in words.range("brown", "lazy")] == ["brown", "grün"]
    assert len(words.range("z", "a")) == 0
    assert len(words.range()) == len(WORDS)
    with pytest.raises(TypeError):
        words.range(5)


def test_views_outlive_map_store_and_files(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = pheon.open(path)
    data = {f"key {i:05}": f"value {i}" for i in range(20_000)}
    m = store.put_map("m", data)
    table = m.table().to_pyarrow()
    part = m.range("key 00100", "key 00200").to_pyarrow()
    column = m.table()["value"]
    view = memoryview(np.asarray(store.put_map("n", {i: i for i in range(1000)}).table()["value"]))
    store.close()
    shutil.rmtree(path)
    assert m["key 00007"] == "value 7"
    del m, store
    gc.collect()
    assert table.num_rows == len(data)
    assert table["value"][123].as_py() == data[table["key"][123].as_py()]
    assert part["key"].to_pylist() == [f"key {i:05}" for i in range(100, 200)]
    assert column[5] == "value 5"
    assert view[999] == 999


# Versions -------------------------------------------------------------------------------------------------------------


def test_refresh_moves_to_the_newest_version(store: pheon.Store, words: pheon.Map) -> None:
    reader = store.map("words")
    old_table = reader.table()
    assert reader.refresh() is False
    store.put_map("words", {"lazy": "changed"})
    assert (reader["lazy"], reader.version, len(reader)) == ("idle", 1, len(WORDS))
    items = iter(reader.items())
    assert reader.refresh() is True
    assert (reader["lazy"], reader.version, len(reader)) == ("changed", 2, 1)
    assert len(old_table) == len(WORDS)
    assert dict(items) == WORDS
    assert store.map("words", version=1) == WORDS
    assert store.map("words", 2) == {"lazy": "changed"}
    with pytest.raises(pheon.NotFoundError):
        store.map("words", version=3)


def test_refresh_may_change_the_key_type(store: pheon.Store, words: pheon.Map) -> None:
    store.put_map("words", {1: "one"})
    assert words.refresh()
    assert words[1] == "one"
    with pytest.raises(TypeError):
        words["lazy"]


def test_info(words: pheon.Map) -> None:
    info = words.info()
    assert (info.name, info.version, info.rows, info.key, info.unique) == ("words", 1, len(WORDS), ["key"], True)
    assert info.columns == {"key": "LargeUtf8", "value": "LargeUtf8"}
    assert info.index_keys == len(WORDS)
    assert abs(info.created - dt.datetime.now(UTC)) < dt.timedelta(minutes=5)
    assert (words.key, words.key_type, words.name) == ("key", "LargeUtf8", "words")


def test_shared_memory_store(shm_store: pheon.Store) -> None:
    m = shm_store.put_map("m", WORDS)
    assert m == WORDS
    assert shm_store.path.startswith("shm://")


def test_views_know_their_mapping(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": 1})
    for view in (m.keys(), m.values(), m.items()):
        assert view.mapping is m  # type: ignore[attr-defined] - collections.abc has no such attribute
