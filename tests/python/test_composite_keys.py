"""Keys of several columns: tuples in, tuples out; and tables with unique or categorical keys."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pheon

DAYS = [dt.date(2026, 11, day) for day in (19, 20, 21)]
ROWS = [(symbol, day, side) for symbol in ("A", "AB", "B") for day in DAYS for side in (False, True)]


def frame(rows: list[tuple[Any, ...]], names: str = "symbol day side") -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({**dict(zip(names.split(), columns, strict=True)), "n": range(len(rows))})


@pytest.fixture
def trades(store: pheon.Store) -> pheon.Table:
    """Each of ROWS twice, backwards."""
    return store.put("trades", frame([*ROWS, *ROWS][::-1]), key=["symbol", "day", "side"])


@pytest.fixture
def quotes(store: pheon.Store) -> pheon.Map:
    store.put("quotes", frame(ROWS[::-1]), key=["symbol", "day", "side"], unique=True)
    return store.map("quotes")


def keys_of(t: pheon.Table) -> list[tuple[Any, ...]]:
    return [(row["symbol"], row["day"], row["side"]) for row in t]


def test_a_table_is_sorted_by_the_tuples(trades: pheon.Table, store: pheon.Store) -> None:
    assert trades.key == ["symbol", "day", "side"]
    assert keys_of(trades) == sorted([*ROWS, *ROWS])
    assert trades.info().key == trades.key
    assert not trades.info().unique
    assert store.verify("trades").ok
    with pytest.raises(TypeError, match="not unique"):
        store.map("trades")


def test_rows_of_a_tuple_or_of_its_first_values(trades: pheon.Table) -> None:
    twice = sorted([*ROWS, *ROWS])
    for row in ROWS:
        for length in (1, 2, 3):
            assert keys_of(trades.rows(row[:length])) == [r for r in twice if r[:length] == row[:length]]
        assert keys_of(trades.rows(row[0])) == keys_of(trades.rows(row[:1]))
    assert len(trades.rows(())) == len(trades)
    assert len(trades.rows(("A", DAYS[0], np.bool_(True)))) == 2
    for absent in (("C",), "", ("A", dt.date(2020, 1, 1)), ("A\0",), ("\ud800",)):
        assert len(trades.rows(absent)) == 0, absent
    assert keys_of(trades[3:9].rows("A")) == twice[3:9]


def test_ranges_follow_the_order_of_tuples(trades: pheon.Table) -> None:
    twice = sorted([*ROWS, *ROWS])
    ends = [None, "A", (), *{row[:length] for row in ROWS for length in (1, 2, 3)}, ("AA",), ("B", DAYS[1], True)]
    for start, stop in product(ends, ends):
        low, high = (("A",) if end == "A" else end for end in (start, stop))
        expected = [r for r in twice if (low is None or r >= low) and (high is None or r < high)]
        assert keys_of(trades.range(start, stop)) == expected, (start, stop)


def test_prefixes_of_a_string_among_the_values(trades: pheon.Table, store: pheon.Store) -> None:
    twice = sorted([*ROWS, *ROWS])
    assert keys_of(trades.prefix("A")) == [r for r in twice if r[0].startswith("A")]
    assert keys_of(trades.prefix(("AB",))) == [r for r in twice if r[0] == "AB"]
    assert len(trades.prefix("")) == len(trades.prefix(())) == len(twice)
    with pytest.raises(TypeError, match="'day' holds date|\"day\" holds date"):
        trades.prefix(("A", "2026"))
    data = pa.table(
        {"n": [1, 1, 1, 2], "t": ["a\0b", "a", "b", "a"], "f": pa.array([b"xy", b"xz", b"xy", b"xy"], pa.binary(2))}
    )
    t = store.put("t", data, key=["n", "t", "f"])
    assert [r["t"] for r in t.prefix((1, "a"))] == ["a", "a\0b"]
    assert [r["t"] for r in t.prefix((1, "a\0"))] == ["a\0b"]
    assert [r["f"] for r in t.prefix((1, "a", b"x"))] == [b"xz"]
    first = store.put("first", data, key=["f", "t"])
    assert [r["t"] for r in first.prefix(b"xy")] == ["a", "a\0b", "b"]
    assert len(first.prefix((b"xya",))) == 0
    assert len(t.prefix((1, "a", b"xyz"))) == len(t.prefix((2**70, "a"))) == 0


def test_a_map_takes_and_gives_tuples(quotes: pheon.Map) -> None:
    expected = {row: i for i, row in enumerate(ROWS[::-1])}
    assert dict(quotes) == expected
    assert list(quotes) == sorted(ROWS)
    assert list(reversed(quotes)) == sorted(ROWS)[::-1]
    assert next(iter(quotes.items())) == (min(ROWS), expected[min(ROWS)])
    assert all(quotes[row] == n and row in quotes for row, n in expected.items())
    assert quotes.first() == (min(ROWS), expected[min(ROWS)])
    assert quotes.last() == (max(ROWS), expected[max(ROWS)])
    assert (quotes.key, quotes.key_type) == (["symbol", "day", "side"], "(LargeUtf8, Date32, Boolean)")
    assert ("A", dt.date(1, 1, 1), True) not in quotes
    assert quotes.get(("\ud800", DAYS[0], True)) is None
    with pytest.raises(KeyError) as missing:
        quotes[("Z", DAYS[0], True)]
    assert missing.value.args == (("Z", DAYS[0], True),)
    assert "('A', datetime.date(2026, 11, 19), True): 16" in repr(quotes)
    assert pickle.loads(pickle.dumps(quotes)) == expected
    assert keys_of(quotes.range(("B",))) == [r for r in sorted(ROWS) if r[0] == "B"]


@pytest.mark.parametrize(
    "key", ["A", ("A",), ("A", DAYS[0]), ("A", DAYS[0], True, 1), ("A", 5, True), (1, DAYS[0], True), ["A"], None]
)
def test_other_keys_are_type_errors(quotes: pheon.Map, key: Any) -> None:
    for ask in (quotes.__getitem__, quotes.get, quotes.__contains__):
        with pytest.raises(TypeError, match="symbol|day|tuples"):
            ask(key)
    if key is not None:
        with pytest.raises(TypeError, match="symbol|day|tuples"):
            quotes.get_many([key])


def test_the_column_with_the_wrong_type_is_named(quotes: pheon.Map, trades: pheon.Table) -> None:
    with pytest.raises(TypeError, match=r'key column "day": keys are date, got int: 5'):
        quotes[("A", 5, True)]
    with pytest.raises(TypeError, match=r'key column "day": keys are date'):
        trades.rows(("A", "x"))
    with pytest.raises(TypeError, match=r'key column "side": keys are bool'):
        trades.range(("A", DAYS[0], 1), None)
    with pytest.raises(TypeError, match=r"tuples \(str, date, bool\) of the columns"):
        trades.rows(("A", DAYS[0], True, 1))


def test_batches_of_tuples(quotes: pheon.Map) -> None:
    asked = [*ROWS, ("Z", DAYS[0], True), ("\ud800", DAYS[0], True), None]
    expected = [*(quotes[row] for row in ROWS), None, None, None]
    assert quotes.get_many(asked) == expected
    assert quotes.get_many(tuple(asked)) == tuple(expected)
    assert quotes.get_many(iter(asked), -1) == [-1 if n is None else n for n in expected]
    assert quotes.contains_many(asked) == [n is not None for n in expected]
    assert quotes.get_many([]) == []


def as_struct(rows: list[Any], names: str = "symbol day side") -> pa.StructArray:
    return frame(rows, names).drop_columns("n").to_struct_array().combine_chunks()


BATCHES: dict[str, Callable[[list[Any]], Any]] = {
    "struct": as_struct,
    "struct in another order": lambda rows: as_struct([row[::-1] for row in rows], "side day symbol"),
    "struct of other names": lambda rows: as_struct(rows, "a b c"),
    "chunked": lambda rows: pa.chunked_array([as_struct(rows[:3]), as_struct(rows[3:])]),
    "polars": lambda rows: pl.DataFrame(rows, ["symbol", "day", "side"], orient="row").to_struct("keys"),
    "MultiIndex": lambda rows: pd.MultiIndex.from_tuples(rows, names=["symbol", "day", "side"]),
    "MultiIndex without names": pd.MultiIndex.from_tuples,
    "DataFrame": lambda rows: pd.DataFrame(rows, columns=["symbol", "day", "side"]).assign(more=1.5),
    "pyarrow Table": lambda rows: frame(rows),
    "RecordBatch": lambda rows: frame(rows).combine_chunks().to_batches()[0],
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_of_structs(quotes: pheon.Map, kind: str) -> None:
    rows = [*ROWS, ("Z", DAYS[0], True), *ROWS[::-1]]
    asked = BATCHES[kind](rows)
    found, there = quotes.get_many(asked), quotes.contains_many(asked)
    if isinstance(found, (pd.Series, pd.Index)):
        found, there = pa.array(found, from_pandas=True), pa.array(there)
    plain = found.to_list() if isinstance(found, pl.Series) else found.to_pylist()
    assert plain == [quotes.get(row) for row in rows]
    there = there.to_list() if isinstance(there, pl.Series) else there.to_pylist()
    assert there == [row in quotes for row in rows]


def test_structs_that_do_not_fit_are_refused(quotes: pheon.Map, store: pheon.Store) -> None:
    for bad in (as_struct(ROWS).flatten()[0], as_struct([row[:2] for row in ROWS], "symbol day")):
        with pytest.raises(TypeError, match="LargeUtf8, Date32, Boolean"):
            quotes.get_many(bad)
    words = store.put_map("words", {"a": 1})
    with pytest.raises(TypeError, match="choose a column"):
        words.get_many(pd.DataFrame({"a": ["a"]}))


def test_floor_and_ceiling_of_tuples(quotes: pheon.Map) -> None:
    ordered = sorted(ROWS)
    ends = [*ROWS, *(row[:length] for row in ROWS for length in (1, 2)), ("AA",), ("",), ("Z", DAYS[0], True)]
    for end in ends:
        below = [row for row in ordered if row <= end]
        above = [row for row in ordered if row >= end]
        assert quotes.floor(end) == ((below[-1], quotes[below[-1]]) if below else None), end
        assert quotes.ceiling(end) == ((above[0], quotes[above[0]]) if above else None), end


def test_ends_that_a_column_cannot_hold(store: pheon.Store) -> None:
    rows = [(n, Decimal(d), f) for n in (-128, 0, 127) for d in ("-0.5", "0.0", "2.5") for f in (b"ab", b"b\xff")]
    table = frame(rows, "i d f")
    kinds = {"i": pa.int8(), "d": pa.decimal128(5, 1), "f": pa.binary(2)}
    table = pa.table({name: table[name].cast(kinds.get(name, pa.int64())) for name in table.column_names})
    t = store.put("t", table, key=["i", "d", "f"], unique=True)
    m = store.map("t")
    parts: list[list[Any]] = [
        [-(2**80), -129, -128, -1, 0, 127, 128, 2**80],
        [Decimal("-0.55"), Decimal("-0.5"), 0, Decimal("0.01"), Decimal("2.5"), 10**9],
        [b"", b"a", b"ab", b"abc", b"b\xff", b"b\xff\0", b"\xff\xff\xff"],
    ]
    ordered = sorted(rows)
    for end in [*product(*parts), *product(*parts[:2]), *product(parts[0])]:
        low = [row for row in ordered if row < end]
        got = [(row["i"], row["d"], row["f"]) for row in t.range(None, end)]
        assert got == low, end
        assert len(t.range(end, None)) == len(ordered) - len(low), end
        floor, ceiling = m.floor(end), m.ceiling(end)
        assert (floor and floor[0]) == max((r for r in ordered if r <= end), default=None), end
        assert (ceiling and ceiling[0]) == min((r for r in ordered if r >= end), default=None), end
        assert len(t.rows(end)) == sum(row[: len(end)] == end for row in rows), end
        if len(end) == 3:
            assert m.get(end) == next((n for n, row in enumerate(rows) if row == end), None)
            assert m.get_many([end]) == [m.get(end)]


VALUES = st.tuples(
    st.text("ab\0\xff", max_size=3),
    st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    st.booleans(),
    st.binary(max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(VALUES, min_size=1, max_size=40), asked=st.lists(VALUES, max_size=5), cut=st.integers(0, 4))
def test_any_tuples_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], asked: list[Any], cut: int
) -> None:
    store = pheon.open(tmp_path_factory.mktemp("any") / "store")
    table = frame(rows, "t i b y")
    t = store.put("t", table, key=["t", "i", "b", "y"])
    # By the bytes of UTF-8, as strings are sorted.
    ordered = sorted(rows, key=lambda row: (row[0].encode(), *row[1:]))
    assert [(r["t"], r["i"], r["b"], r["y"]) for r in t] == ordered
    for key in [*rows, *asked]:
        assert len(t.rows(key[:cut])) == sum(row[:cut] == key[:cut] for row in rows)
    if len(set(rows)) == len(rows):
        assert dict(store.map("t")) == {row: n for n, row in enumerate(rows)}
    assert store.verify("t").ok


def test_unique_tables_refuse_a_second_row(store: pheon.Store) -> None:
    again = frame([*ROWS, ROWS[4]])
    with pytest.raises(pheon.DuplicateKeyError, match=r'\("A", 20778, 0\).*rows 4 and 18|rows 4 and 18'):
        store.put("t", again, key=["symbol", "day", "side"], unique=True)
    assert "t" not in store
    with pytest.raises(pheon.DuplicateKeyError):
        store.put("t", again, key="symbol", unique=True)
    with pytest.raises(ValueError, match="unique keys need a key column"):
        store.put("t", again, unique=True)
    assert store.put("t", frame(ROWS), key=["symbol", "day", "side"], unique=True).info().unique


def test_keys_that_do_not_repeat_make_a_map(store: pheon.Store) -> None:
    store.put("t", pa.table({"k": [3, 1, 2], "v": ["c", "a", "b"]}), key="k")
    assert store.table("t").info().unique
    assert dict(store.map("t")) == {1: "a", 2: "b", 3: "c"}
    store.put("t", pa.table({"k": [3, 1, 3], "v": ["c", "a", "b"]}), key="k")
    with pytest.raises(TypeError, match="not unique"):
        store.map("t")


def test_maps_of_files_and_tables_with_several_key_columns(store: pheon.Store, tmp_path: Any) -> None:
    pa.parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(frame(ROWS), path)
    m = store.put_map("m", path, key=["symbol", "day", "side"], value="n")
    assert m[ROWS[5]] == 5
    copy = store.put_map("copy", m)
    assert dict(copy) == dict(m)
    assert copy.key == m.key
    with pytest.raises(ValueError, match="one column"):
        store.put_map("pairs", {("a", 1): 2}, key=["a", "b"])
    by_index = store.put("indexed", frame(ROWS).to_pandas().set_index(["symbol", "day"]))
    assert by_index.key == ["symbol", "day"]
    assert [row["n"] for row in by_index.rows(("A", DAYS[1]))] == [2, 3]
    pd.testing.assert_frame_equal(
        by_index.to_pandas(), frame(ROWS).to_pandas().set_index(["symbol", "day"]), check_dtype=False
    )


def test_bad_keys_are_named(store: pheon.Store) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None], "c": [[1], [2]]})
    with pytest.raises(pheon.SchemaError, match='key column "b" is null in input row 1'):
        store.put("t", table, key=["a", "b"])
    with pytest.raises(pheon.SchemaError, match='"c" of type List.* cannot be a key'):
        store.put("t", table, key=["a", "c"])
    with pytest.raises(pheon.SchemaError, match='no column "d"'):
        store.put("t", table, key=["a", "d"])
    with pytest.raises(ValueError, match='"a" is named twice'):
        store.put("t", table, key=["a", "a"])
    assert "t" not in store


def test_categorical_keys_are_found_by_value(store: pheon.Store) -> None:
    names = pd.Categorical(["z", "a", "m", "a"], categories=["z", "m", "a"], ordered=True)
    data = pd.DataFrame({"name": names, "n": [1, 2, 3, 4], "kind": names})
    t = store.put("one", data, key="name")
    assert [row["name"] for row in t] == ["a", "a", "m", "z"]
    assert [row["n"] for row in t.rows("a")] == [2, 4]
    assert t.schema["name"] == "LargeUtf8"
    assert list(t.to_pandas()["name"]) == ["a", "a", "m", "z"]
    assert isinstance(t.to_pandas()["kind"].dtype, pd.CategoricalDtype)
    both = store.put("both", data, key=["name", "n"])
    assert [(row["name"], row["n"]) for row in both] == [("a", 2), ("a", 4), ("m", 3), ("z", 1)]
    m = store.map("both")
    assert m[("m", 3)] == "m"
    frame_of = pl.DataFrame({"name": pl.Series(["m", "q"], dtype=pl.Categorical), "n": [3, 3]})
    assert m.contains_many(frame_of.to_struct("k")).to_list() == [True, False]
    lazy = store.put("polars", pl.DataFrame({"k": pl.Series(["b", "a"], dtype=pl.Categorical), "v": [1, 2]}), key="k")
    assert lazy["k"].to_pylist() == ["a", "b"]
