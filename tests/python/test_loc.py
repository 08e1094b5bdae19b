"""Rows by key: `loc`, `lookup`, `select`, beside what pandas answers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pheon

FRAME = pd.DataFrame({"k": [3, 1, 2, 3, 7], "v": ["c", "a", "b", "d", "e"], "n": [0.5, 1.5, 2.5, 3.5, 4.5]})


@pytest.fixture(params=["one segment", "several"])
def table(store: pheon.Store, request: pytest.FixtureRequest) -> pheon.Table:
    if request.param == "one segment":
        return store.put("t", pa.table(FRAME), key="k")
    store.put("t", pa.table(FRAME[:2]), key="k")
    store.append("t", pa.table(FRAME[2:3]), compact=False)
    return store.append("t", pa.table(FRAME[3:]), compact=False)


SORTED = FRAME.sort_values("k", kind="stable")


def values(rows: Any) -> list[str]:
    return rows["v"].to_pylist()


def test_one_key(table: pheon.Table) -> None:
    assert values(table.loc[3]) == ["c", "d"]
    assert isinstance(table.loc[3], pheon.Table)
    assert values(table.loc[np.int64(7)]) == ["e"]
    with pytest.raises(KeyError, match="5"):
        _ = table.loc[5]
    with pytest.raises(TypeError):
        _ = table.loc["3"]
    assert values(table.rows(5)) == []


def test_ranges_include_both_ends(table: pheon.Table) -> None:
    indexed = SORTED.set_index("k")
    for first, last in [(1, 3), (2, 3), (0, 9), (None, 2), (3, None), (4, 6), (3, 2), (None, None), (4, 7)]:
        assert values(table.loc[first:last]) == indexed.loc[first:last]["v"].tolist(), (first, last)
    assert values(table.range(1, 3)) == ["a", "b"]
    with pytest.raises(ValueError, match="step"):
        _ = table.loc[1:3:2]


@pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series, pa.array], ids=lambda m: m.__name__)
def test_many_keys(table: pheon.Table, make: Any) -> None:
    assert values(table.loc[make([7, 3, 1, 3])]) == ["e", "c", "d", "a", "c", "d"]
    with pytest.raises(KeyError, match="8"):
        _ = table.loc[make([7, 8])]
    found = table.lookup(make([2, 5, 3]))
    assert found["position"].to_pylist() == [0, 2, 2]
    assert found["v"].to_pylist() == ["b", "c", "d"]
    assert found.column_names == ["position", "k", "v", "n"]


def test_columns_too(table: pheon.Table) -> None:
    assert table.loc[3, "n"].to_pylist() == [0.5, 3.5]
    assert table.loc[1:2, ["n", "v"]].column_names == ["n", "v"]
    assert table.loc[[2, 1], "v"].to_pylist() == ["b", "a"]
    assert table.loc[[2, 1], ["v"]].column_names == ["v"]
    assert values(table.loc[:, ["v"]]) == SORTED["v"].tolist()
    assert len(table.loc[1, :]) == 1
    with pytest.raises(KeyError, match="nope"):
        _ = table.loc[1, "nope"]
    with pytest.raises(TypeError, match="columns"):
        _ = table.loc[1, 2:3]


def test_one_value_of_a_unique_key(store: pheon.Store) -> None:
    t = store.put("u", pa.table({"k": ["b", "a"], "v": [2, 1]}), key="k")
    assert t.loc["a", "v"] == 1
    assert t.loc["a":"b", "v"].to_pylist() == [1, 2]


def test_a_mask_is_no_key(table: pheon.Table) -> None:
    with pytest.raises(TypeError, match="mask"):
        _ = table.loc[np.array([True, False, True, False, True])]


def test_lookup_names_its_positions(store: pheon.Store) -> None:
    t = store.put("p", pa.table({"position": [1, 2], "v": [3, 4]}), key="position")
    with pytest.raises(ValueError, match="another name"):
        t.lookup([1])
    assert t.lookup([2, 1], position="i")["i"].to_pylist() == [0, 1]
    assert t.loc[[2, 1]]["v"].to_pylist() == [4, 3]


def test_lookup_for_every_library(table: pheon.Table) -> None:
    found = table.lookup([3, 1])
    assert found.to_pyarrow()["v"].to_pylist() == ["c", "d", "a"]
    assert found.to_polars()["v"].to_list() == ["c", "d", "a"]
    assert found.to_pandas()["v"].tolist() == ["c", "d", "a"]
    assert table.lookup([]).num_rows == 0
    assert table.lookup(pa.chunked_array([[3], [1]], pa.int64()))["v"].to_pylist() == ["c", "d", "a"]


def test_lookup_stays_within_a_slice(table: pheon.Table) -> None:
    assert table[:3].lookup([3, 1])["v"].to_pylist() == ["c", "a"]
    assert values(table[3:].loc[3]) == ["d"]


def test_select(table: pheon.Table) -> None:
    some = table.select(["n", "k"])
    assert some.column_names == ["n", "k"]
    assert some.key == ["k"]
    assert table[["v"]].column_names == ["v"]
    assert some.range(2, 3).to_pyarrow().column_names == ["n", "k"]
    assert some.loc[7]["n"].to_pylist() == [4.5]
    assert table.select([]).to_pyarrow().num_columns == 0
    with pytest.raises(KeyError, match="nope"):
        table.select(["nope"])


def test_without_a_key(store: pheon.Store) -> None:
    t = store.put("plain", pa.table({"v": [1]}))
    for ask in (lambda: t.loc[1], lambda: t.loc[1:2], lambda: t.lookup([1])):
        with pytest.raises(TypeError, match="no key"):
            ask()


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.integers(-9, 9), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    asked=st.lists(st.integers(-10, 10), min_size=1, max_size=5),
)
def test_as_pandas_answers(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int], cuts: list[int], asked: list[int]
) -> None:
    store = pheon.open(tmp_path_factory.mktemp("s") / "store")
    frame = pd.DataFrame({"k": np.array(keys, np.int64), "v": [str(i) for i in range(len(keys))]})
    edges = [0, *sorted(min(c, len(keys)) for c in cuts), len(keys)]
    pieces = [pa.table(frame[a:b]) for a, b in itertools.pairwise(edges)]
    store.put("t", pieces[0], key="k")
    for piece in pieces[1:]:
        store.append("t", piece, compact=False)
    t = store.table("t")
    indexed = frame.sort_values("k", kind="stable").set_index("k")
    first, last = min(asked), max(asked)
    assert values(t.loc[first:last]) == indexed.loc[first:last]["v"].tolist()
    known = [k for k in asked if k in indexed.index]
    assert values(t.loc[known]) == (indexed.loc[known]["v"].tolist() if known else [])
    for key in known:
        assert values(t.loc[key]) == indexed.loc[[key]]["v"].tolist()


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_text_stands_for_a_span_of_time(store: pheon.Store, zone: str | None) -> None:
    hours = pd.date_range("2026-01-30 22:00", periods=80, freq="h", name="ts", tz=zone)
    frame = pd.DataFrame({"v": range(80)}, index=hours)
    t = store.put("hours", frame)
    for text in ("2026-01", "2026-01-31", "2026-02-01 05", "2026"):
        assert t.loc[text]["v"].to_pylist() == np.atleast_1d(frame.loc[text]["v"]).tolist(), text
    span = slice("2026-01-31", "2026-02-01 05:00")
    assert t.loc[span]["v"].to_pylist() == frame.loc[span]["v"].tolist()
    assert t.loc["2026-02":]["v"].to_pylist() == frame.loc["2026-02":]["v"].tolist()
    with pytest.raises(KeyError, match="1999"):
        _ = t.loc["1999"]
    with pytest.raises(ValueError, match="is no time"):
        _ = t.loc["no time"]


def test_text_stands_for_a_span_of_dates(store: pheon.Store) -> None:
    days = pl.DataFrame({"day": pl.date_range(pl.date(2026, 1, 30), pl.date(2026, 2, 3), eager=True), "v": range(5)})
    t = store.put("days", days, key="day")
    assert t.loc["2026-01"]["v"].to_pylist() == [0, 1]
    assert t.loc["2026-01-31":"2026-02-02"]["v"].to_pylist() == [1, 2, 3]


def test_a_key_of_several_columns(store: pheon.Store) -> None:
    frame = pd.DataFrame({"a": list("BAABCA"), "b": [9, 2, 1, 1, 1, 2], "v": range(6)})
    t = store.put("t", frame, key=["a", "b"])
    indexed = frame.sort_values(["a", "b"], kind="stable").set_index(["a", "b"])
    for span in [slice("A", "B"), slice("B", None), slice(None, "A"), slice(("A", 2), ("B", 1)), slice(("A",), ("B",))]:
        assert values(t.loc[span]) == indexed.loc[span]["v"].tolist(), span
    assert values(t.loc["A"]) == indexed.loc["A"]["v"].tolist()
    assert values(t.loc["A", 2]) == [1, 5]
    assert values(t.loc[("A", 2)]) == [1, 5]
    assert t.loc[("B", 9), "v"].to_pylist() == [0]
    assert values(t.loc[[("B", 9), ("A", 1)]]) == [0, 2]
    with pytest.raises(KeyError, match="Z"):
        _ = t.loc["Z"]


def test_one_value_of_the_first_key_column(store: pheon.Store) -> None:
    t = store.put("t", pa.table({"a": [1, 2, 1], "b": [3, 3, 4], "v": [0, 1, 2]}), key=["a", "b"])
    assert values(t.loc[1]) == [0, 2]
    assert t.loc[(1, 4), "v"] == 2
    with pytest.raises(KeyError, match="9"):
        _ = t.loc[9]


@pytest.mark.parametrize("text", ["2026-10-24T05:00:00+05:00", "2026-10-24T02:30:00+02:00"])
def test_text_with_an_offset_is_an_instant(store: pheon.Store, text: str) -> None:
    index = pd.date_range("2026-10-24", periods=100, freq="30min", tz="Europe/Berlin", name="ts")
    frame = pd.DataFrame({"v": range(100)}, index=index)
    t = store.put("t", frame)
    assert values(t.loc[text]) == np.atleast_1d(frame.loc[text]["v"]).tolist()
    assert values(t.loc[text:]) == frame.loc[text:]["v"].tolist()
    with pytest.raises(ValueError, match="no time zone"):
        _ = store.put("naive", frame.tz_localize(None)).loc[text]


def test_some_columns_as_a_lazy_frame(store: pheon.Store) -> None:
    t = store.put("t", pa.table({"a": [1, 2, 1], "b": [3, 3, 4], "v": [0, 1, 2]}), key=["a", "b"])
    assert t.select(["v"]).lazy().filter(pl.col("v") > 0).collect()["v"].to_list() == [2, 1]
    assert t.select(["v", "a"]).lazy().filter(pl.col("a") == 1).collect().rows() == [(0, 1), (2, 1)]
    with pytest.raises(TypeError, match="twice"):
        t.select(["v", "v"])
