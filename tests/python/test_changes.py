"""Appending, upserting, deleting, compacting and retention, from every kind of data."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pheon

ROWS = pa.table({"k": [5, 3], "v": ["five", "three"]})


def rows_of(store: pheon.Store, name: str = "t") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in store.table(name)]


@pytest.fixture
def table(store: pheon.Store) -> pheon.Table:
    return store.put("t", pa.table({"k": [1, 4, 9], "v": ["one", "four", "nine"]}), key="k")


EXPECTED = [(1, "one"), (3, "three"), (4, "four"), (5, "five"), (9, "nine")]


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        ROWS.select(["v", "k"]),
        ROWS.to_reader(),
        pl.DataFrame(ROWS),
        ROWS.to_pandas(),
        ROWS.to_pandas().set_index("k"),
        pd.DataFrame({"k": np.array([5, 3], np.int16), "v": pd.Categorical(["five", "three"])}),
        {5: "five", 3: "three"},
        [(5, "five"), (3, "three")],
        iter([(5, "five"), (3, "three")]),
    ],
    ids=lambda d: type(d).__name__,
)
@pytest.mark.parametrize("how", ["append", "upsert"])
def test_any_kind_of_data(store: pheon.Store, table: pheon.Table, data: Any, how: str) -> None:
    if isinstance(data, pa.RecordBatchReader):
        data = ROWS.to_reader()
    elif hasattr(data, "__next__"):
        data = iter([(5, "five"), (3, "three")])
    after = getattr(store, how)("t", data)
    assert (after.version, after.info().origin, len(after)) == (2, how, 5)
    assert rows_of(store) == EXPECTED
    assert len(table) == 3
    assert table.refresh()
    assert len(table) == 5
    assert store.verify("t")


def test_files_tables_and_maps_are_data_too(store: pheon.Store, table: pheon.Table, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(ROWS.slice(0, 1), tmp_path / "more.parquet")
    store.append("t", tmp_path / "more.parquet")
    store.append("t", store.put("other", ROWS.slice(1), key="k"))
    assert rows_of(store) == EXPECTED
    store.upsert("t", store.put_map("third", {9: "NINE"}, key="k", value="v"))
    assert rows_of(store)[-1] == (9, "NINE")


def test_a_map_stays_a_map(store: pheon.Store) -> None:
    m = store.put_map("m", {"b": 1, "a": 2})
    store.append("m", {"c": 3})
    with pytest.raises(pheon.DuplicateKeyError, match="'?\"?c"):
        store.append("m", {"d": 4, "c": 5})
    with pytest.raises(pheon.DuplicateKeyError):
        store.append("m", [("x", 1), ("x", 2)])
    store.upsert("m", [("a", 20), ("e", 5), ("e", 50)])
    assert store.delete("m", ["b", "zzz"]) == 1
    assert dict(m) == {"a": 2, "b": 1}
    assert m.refresh()
    assert dict(m) == {"a": 20, "c": 3, "e": 50}
    assert list(reversed(m)) == ["e", "c", "a"]
    assert next(iter(m.items())) == ("a", 20)
    assert m.get_many(["c", "b", "e"]) == [3, None, 50]
    assert m.get_many(pa.array(["c", "b", None])).to_pylist() == [3, None, None]
    assert "b" not in m
    assert m["e"] == 50
    assert m.info().segments > 1
    store.compact("m")
    assert m.refresh()
    assert dict(m) == {"a": 20, "c": 3, "e": 50}
    assert m.info().segments == 1
    assert pickle.loads(pickle.dumps(m)) == {"a": 20, "c": 3, "e": 50}


def test_encoded_values_stay_encoded(store: pheon.Store) -> None:
    store.put_map("m", {"a": [1, 2], "b": {"x": 1}})
    store.upsert("m", {"b": "plain", "c": (1, 2)})
    assert dict(store.map("m")) == {"a": [1, 2], "b": "plain", "c": (1, 2)}
    store.put_map("p", {"a": {1, 2}}, codec="pickle")
    store.append("p", {"b": {3}})
    assert dict(store.map("p", allow_pickle=True)) == {"a": {1, 2}, "b": {3}}


@pytest.mark.parametrize(
    "keys",
    [[4, 9, 7], (4, 9), np.array([9, 4]), pd.Series([4, 9]), pl.Series([4, 9]), pa.array([4, 9]), {4, 9}],
    ids=lambda d: type(d).__name__,
)
def test_delete_takes_keys_of_any_kind(store: pheon.Store, table: pheon.Table, keys: Any) -> None:
    assert store.delete("t", keys) == 2
    assert rows_of(store) == [(1, "one")]
    assert store.versions("t")[-1].origin == "delete"
    assert store.delete("t", keys) == 0
    assert len(store.versions("t")) == 2


def test_what_does_not_fit_is_refused_and_changes_nothing(store: pheon.Store, table: pheon.Table) -> None:
    with pytest.raises(pheon.NotFoundError):
        store.append("nothing", ROWS)
    assert "nothing" not in store
    for data, problem in [
        (ROWS.select(["k"]), "missing"),
        (ROWS.append_column("w", ROWS["k"]), "no column"),
        (pa.table({"k": ["x"], "v": ["y"]}), "without loss"),
        (pa.table({"k": [1.5], "v": ["y"]}), "without loss"),
    ]:
        with pytest.raises(pheon.SchemaError, match=problem):
            store.append("t", data)
    with pytest.raises(pheon.SchemaError, match="null"):
        store.append("t", pa.table({"k": pa.array([None], pa.int64()), "v": ["y"]}))
    with pytest.raises(TypeError):
        store.delete("t", ["text"])
    with pytest.raises(TypeError, match="many keys"):
        store.delete("t", "text")
    store.put("plain", ROWS)
    with pytest.raises(TypeError, match="no key"):
        store.upsert("plain", ROWS)
    with pytest.raises(TypeError, match="pairs"):
        store.append("plain", {1: "x"})
    assert [v.version for v in store.versions("t")] == [1]
    assert sorted(p.name.split("-")[0] for p in Path(store.path, "t").iterdir()) == ["LOCK", "manifest", "seg"]
    with pytest.raises(ValueError, match="read-only"):
        pheon.open(store.path, read_only=True).append("t", ROWS)


def test_nothing_to_add_publishes_nothing(store: pheon.Store, table: pheon.Table) -> None:
    assert store.append("t", ROWS.slice(0, 0)).version == 1
    assert store.upsert("t", ROWS.slice(0, 0)).version == 1


def test_without_a_key_rows_keep_their_order(store: pheon.Store) -> None:
    store.put("t", ROWS)
    store.append("t", ROWS)
    assert store.table("t").to_pyarrow().to_pydict() == {"k": [5, 3, 5, 3], "v": ["five", "three"] * 2}
    store.compact("t")
    assert store.table("t").to_pyarrow().to_pydict() == {"k": [5, 3, 5, 3], "v": ["five", "three"] * 2}


@pytest.mark.parametrize("age", [3600, 3600.0, dt.timedelta(hours=1)])
def test_retention(store: pheon.Store, table: pheon.Table, age: Any) -> None:
    for i in range(3):
        store.append("t", pa.table({"k": [10 + i], "v": ["x"]}))
    assert store.gc("t", max_age=age).versions_removed == []
    assert store.gc("t", keep=2).versions_removed == [1, 2]
    time.sleep(0.02)
    assert store.gc("t", max_age=0.001).versions_removed == [3]
    store.append("t", pa.table({"k": [20], "v": ["x"]}), keep=1)
    assert [v.version for v in store.versions("t")] == [5]
    store.delete("t", [20], keep=3)
    assert [v.version for v in store.versions("t")] == [5, 6]
    for bad in (0, -1):
        with pytest.raises(ValueError, match="keep"):
            store.append("t", ROWS, keep=bad)
    with pytest.raises(ValueError, match="max_age"):
        store.gc("t", max_age=-1)


def test_small_segments_are_merged(store: pheon.Store) -> None:
    store.put("t", pa.table({"k": [0], "v": [0]}), key="k")
    most = 0
    for i in range(1, 60):
        info = store.append("t", pa.table({"k": [i], "v": [i]}), keep=2).info()
        most = max(most, info.segments)
    assert most <= 16
    store.put("u", pa.table({"k": [0], "v": [0]}), key="k")
    for i in range(1, 20):
        store.append("u", pa.table({"k": [i], "v": [i]}), compact=False)
    assert store.table("u").info().segments == 20
    assert store.table("u")["v"].to_pylist() == list(range(20))


def test_chunks_and_their_join(store: pheon.Store) -> None:
    piece = 5000
    store.put("t", pa.table({"k": range(piece), "v": np.arange(piece) * 0.5}), key="k")
    store.append("t", pa.table({"k": range(piece, 2 * piece), "v": np.arange(piece, 2 * piece) * 0.5}), compact=False)
    t = store.table("t")
    assert t.num_chunks == 2
    assert pa.table(t)["k"].num_chunks == 2
    assert t.to_numpy("k").tolist() == list(range(2 * piece))
    assert t.to_pandas()["v"].tolist() == (np.arange(2 * piece) * 0.5).tolist()
    assert pl.DataFrame(t)["k"].to_list() == list(range(2 * piece))
    assert t[4990:5010]["k"].to_pylist() == list(range(4990, 5010))
    reopened = pickle.loads(pickle.dumps(t.range(4995, 5005).select(["v"])))
    assert reopened.column_names == ["v"]
    assert reopened["v"].to_pylist() == [i * 0.5 for i in range(4995, 5005)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "upsert", "delete", "compact", "reopen"]),
            st.dictionaries(st.text("abcé", max_size=3), st.integers(-5, 5), max_size=6),
        ),
        max_size=10,
    )
)
def test_a_map_is_a_dict_under_any_changes(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    store = pheon.open(tmp_path_factory.mktemp("s") / "store")
    model = {"a": 0}
    m = store.put_map("m", model)
    for what, data in steps:
        if what == "append":
            new = {k: v for k, v in data.items() if k not in model}
            store.append("m", new)
            model = model | new
        elif what == "upsert":
            store.upsert("m", data)
            model = model | data
        elif what == "delete":
            assert store.delete("m", list(data)) == len(model.keys() & data.keys())
            model = {k: v for k, v in model.items() if k not in data}
        elif what == "compact":
            store.compact("m")
        else:
            m = store.map("m")
        m.refresh()
        assert list(m.items()) == sorted(model.items())
        assert m == model
        asked = [*data, "zz", "a"]
        assert m.get_many(asked) == [model.get(k) for k in asked]


def _reader(path: str, stop: Any, failures: Any) -> None:
    table = pheon.open(path, read_only=True).table("t")
    while not stop.is_set():
        table.refresh()
        rows = len(table)
        tail = table.range(rows - 100, None)["v"].to_pylist()
        if tail != list(range(rows - 100, rows)):
            failures.put((table.version, rows, tail[:3]))
            return


def test_readers_range_over_the_tail_while_rows_come(store: pheon.Store) -> None:
    context = multiprocessing.get_context("spawn")
    store.put("t", pa.table({"k": range(100), "v": range(100)}), key="k")
    stop, failures = context.Event(), context.Queue()
    readers = [context.Process(target=_reader, args=(store.path, stop, failures)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(1, 120):
        span = range(100 * i, 100 * (i + 1))
        store.append("t", pa.table({"k": span, "v": span}), keep=2)
    stop.set()
    for reader in readers:
        reader.join(120)
        assert reader.exitcode == 0
    assert failures.empty()
    assert store.verify("t")
    assert len(store.table("t")) == 12_000


@pytest.mark.parametrize("step", ["1h", "30min"], ids=["behind each other", "taking turns"])
@pytest.mark.parametrize("rows", [5, 6000])
def test_frames_with_other_categories(store: pheon.Store, step: str, rows: int) -> None:
    def frame(start: pd.Timestamp, letters: str) -> pd.DataFrame:
        index = pd.date_range(start, periods=rows, freq="h")
        values = (letters * rows)[:rows]
        frame = pd.DataFrame({"c": pd.Categorical(list(values)), "v": range(rows)}, index=index)
        frame.attrs = {"unit": "EUR"}
        return frame

    first = pd.Timestamp("2026-01-01")
    behind = first + pd.Timedelta(hours=rows if step == "1h" else 0) + pd.Timedelta(step) - pd.Timedelta("1h")
    one, two = frame(first, "ab"), frame(behind + pd.Timedelta("1h"), "zb")
    store.put("t", one)
    t = store.append("t", two, compact=False)
    joined = pd.concat([one.astype({"c": object}), two.astype({"c": object})]).sort_index(kind="stable")
    back = t.to_pandas()
    assert back.attrs == {"unit": "EUR"}
    assert sorted(back["c"].cat.categories) == ["a", "b", "z"]
    pd.testing.assert_frame_equal(back.astype({"c": object}), joined.astype({"c": object}), check_freq=False)
    assert t.to_polars()["c"].to_list() == joined["c"].tolist()
    assert t["c"].to_pylist() == joined["c"].tolist()
    assert t.lookup(joined.index[:7])["c"].to_pylist() == joined["c"].tolist()[:7]
    store.compact("t")
    pd.testing.assert_frame_equal(store.table("t").to_pandas().astype({"c": object}), joined, check_freq=False)


def test_more_categories_than_the_indices_number_are_refused(store: pheon.Store) -> None:
    def categories(start: int) -> pa.Table:
        texts = pa.array([f"text {i}" for i in range(start, start + 100)])
        return pa.table(
            {"k": range(start, start + 100), "c": texts.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))}
        )

    store.put("t", categories(0), key="k")
    with pytest.raises(pheon.SchemaError, match="more values together"):
        store.append("t", categories(100))
    assert len(store.table("t")) == 100
    assert len(store.append("t", categories(20).set_column(0, "k", pa.array(range(500, 600))))) == 200


def test_ordered_dictionaries_keep_their_order(store: pheon.Store) -> None:
    def rows(keys: list[int], codes: list[int], values: list[str]) -> pa.Table:
        levels = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), values, ordered=True)
        return pa.table({"k": keys, "c": levels})

    store.put("t", rows([0, 2, 4], [2, 0, 1], ["lo", "mid", "hi"]), key="k")
    t = store.append("t", rows([3, 5], [0, 1], ["hi", "top"]), compact=False)
    assert t["c"].to_pylist() == ["hi", "lo", "hi", "mid", "top"]
    column = pa.table(t)["c"].chunk(0)
    assert column.dictionary.to_pylist() == ["lo", "mid", "hi", "top"]
    assert column.type.ordered
    assert t.to_pandas()["c"].max() == "top"
    with pytest.raises(pheon.SchemaError, match="ordered"):
        store.append("t", rows([9], [0], ["hi", "lo"]))
    store.compact("t")
    assert pa.table(store.table("t"))["c"].chunk(0).dictionary.to_pylist() == ["lo", "mid", "hi", "top"]


def test_dictionaries_inside_other_types(store: pheon.Store) -> None:
    def rows(offset: int, texts: list[str]) -> pa.Table:
        inner = pa.array(texts).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        return pa.table(
            {
                "k": np.arange(len(texts)) * 2 + offset,
                "s": pa.StructArray.from_arrays([inner], ["x"]),
                "l": pa.ListArray.from_arrays(pa.array(range(len(texts) + 1), pa.int32()), inner),
            }
        )

    store.put("t", rows(0, [f"a{i}" for i in range(60)]), key="k")
    store.append("t", rows(1, [f"a{i}" for i in range(60)][::-1]), compact=False)
    expected = [text for i in range(60) for text in (f"a{i}", f"a{59 - i}")]
    for _ in range(2):
        t = store.table("t")
        assert [row["x"] for row in t["s"].to_pylist()] == expected
        assert [row[0] for row in t["l"].to_pylist()] == expected
        store.compact("t")
    with pytest.raises(pheon.SchemaError, match="more values together"):
        store.append("t", rows(0, [f"b{i}" for i in range(100)]))


def test_a_map_stays_one_when_rows_follow_or_go(store: pheon.Store) -> None:
    store.put("t", pa.table({"k": [1, 2, 3], "v": [1, 2, 3]}), key="k")
    m = store.map("t")
    store.append("t", pa.table({"k": [4], "v": [4]}))
    store.delete("t", [2])
    assert m.refresh()
    assert dict(m) == {1: 1, 3: 3, 4: 4}
    assert store.table("t").loc[1, "v"] == 1
    store.append("t", pa.table({"k": [3], "v": [33]}), compact=False)
    with pytest.raises(TypeError, match="not unique"):
        store.map("t")


def test_rows_that_take_turns_are_no_zero_copy(store: pheon.Store) -> None:
    store.put("t", pa.table({"k": np.arange(9000) * 2, "v": np.arange(9000.0)}), key="k")
    t = store.append("t", pa.table({"k": np.arange(9000) * 2 + 1, "v": np.arange(9000.0)}), compact=False)
    assert not any(verdict.zero_copy for verdict in t.zero_copy_report().verdicts)
    for convert in (t.to_pyarrow, t.to_polars, t.to_pandas):
        with pytest.raises(pheon.CopyRequiredError, match="take turns"):
            convert(require_zero_copy=True)
    assert t[:1].to_pyarrow(require_zero_copy=True).num_rows == 1
    behind = store.put("u", pa.table({"k": np.arange(9000), "v": np.arange(9000.0)}), key="k")
    behind = store.append("u", pa.table({"k": np.arange(9000, 18000), "v": np.arange(9000.0)}), compact=False)
    assert behind.to_pyarrow(require_zero_copy=True).num_rows == 18_000
    assert not behind[8990:9010].zero_copy_report().of("pyarrow")["v"].zero_copy


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.put("t", ROWS, mode="append"),
        lambda store: store.put("t", ROWS, keep=1),
        lambda store: store.put_map("m", {}, compact=False),
        lambda store: store.append("t", ROWS, mode="upsert"),
        lambda store: store.append("t", ROWS, on_duplicate="first"),
        lambda store: store.delete("t", [1], thread=2),
    ],
)
def test_a_keyword_of_another_method_is_an_error(store: pheon.Store, table: pheon.Table, call: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        call(store)
    assert len(store.versions("t")) == 1
    assert list(store) == ["t"]
