"""A pandas frame that is stored comes back as it was: values, index, labels, dtypes and attrs."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import pickle
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as numpy_strategies
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import pheon
from pheon._adapters.pandas_labels import METADATA_KEY
from pheon._adapters.pandas_source import frame_source

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
DAY = dt.date(2020, 1, 1)


def same(back: pd.DataFrame, frame: pd.DataFrame) -> None:
    # An index's freq is no property of the values; all else is compared as strictly as pandas does by itself.
    pd.testing.assert_frame_equal(back, frame, check_freq=False)
    assert back.attrs == frame.attrs


def there_and_back(store: pheon.Store, frame: pd.DataFrame, **options: Any) -> pd.DataFrame:
    table = store.put("t", frame, **options)
    names = table.column_names
    assert len(set(names)) == len(names)
    # Stock pyarrow reads the same file.
    assert len(table.to_pyarrow().to_pandas()) == len(frame)
    return table.to_pandas()


def arrow(values: list[Any] | pa.Array, kind: pa.DataType | None = None) -> pd.Series:
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([array])))


def objects(*values: Any) -> pd.Series:
    # Not pd.Series(values): it would look into them.
    array = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        array[at] = value
    return pd.Series(array, dtype=object)


def masked_floats() -> pd.arrays.FloatingArray:
    return pd.arrays.FloatingArray(np.array([1.0, np.nan, 0.0]), np.array([False, False, True]))


NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?", ">i8", ">f4"]
TIMES = [f"{kind}8[{unit}]" for kind in "Mm" for unit in ("s", "ms", "us", "ns")]

COLUMNS: dict[str, Any] = {
    **{name: np.array([3, 0, 1]).astype(name) for name in NUMBERS},
    **{name: np.array([3, 0, 1]).astype(name) for name in TIMES},
    "NaN": [1.5, np.nan, -np.inf],
    "float32 NaN": np.array([1.5, np.nan, -0.0], dtype="f4"),
    "float16 NaN": np.array([1.5, np.nan, -0.0], dtype="f2"),
    "NaT": pd.to_datetime(["2020-01-01", None, "1677-09-22"]),
    "timedelta NaT": pd.to_timedelta([1, None, -5]),
    "UTC": pd.to_datetime(["2020-01-01", None, "2021-01-01"]).tz_localize("UTC"),
    "Berlin": pd.date_range("2020-03-29", periods=3, freq="h", tz="Europe/Berlin").as_unit("ms"),
    "fixed offset": pd.date_range("2020", periods=3, tz=dt.timezone(dt.timedelta(hours=5, minutes=30))).as_unit("s"),
    "strings": ["x", None, "ü"],
    "string[python]": pd.array(["x", None, "y"], dtype="string[python]"),
    "string[pyarrow]": pd.array(["x", None, "y"], dtype="string[pyarrow]"),
    "object strings": objects("x", None, "y"),
    "object strings NaN": objects("x", np.nan, "y"),
    "object strings NA": objects("x", pd.NA, "y"),
    "Int64": pd.array([1, None, -3], dtype="Int64"),
    "UInt8": pd.array([1, 2, 255], dtype="UInt8"),
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "Float64": masked_floats(),
    "Float32": pd.array([1.5, None, 2.5], dtype="Float32"),
    "category": pd.Categorical(["x", "y", None], categories=["unused", "y", "x"]),
    "ordered category": pd.Categorical(["x", "y", "x"], categories=["y", "x"], ordered=True),
    "category of ints": pd.Categorical([7, 5, 7], categories=[7, 6, 5]),
    "category of floats": pd.Categorical([1.5, None, 0.5]),
    "category of bools": pd.Categorical([True, False, True]),
    "category of days": pd.Categorical(pd.to_datetime(["2020", "2021", "2020"])),
    "category of zoned days": pd.Categorical(pd.to_datetime(["2020", "2021", "2020"]).tz_localize("Asia/Tokyo")),
    "category of timedeltas": pd.Categorical(pd.to_timedelta([2, 1, 2])),
    "category of dates": pd.Categorical([DAY, DAY, dt.date(2019, 1, 1)]),
    "category of intervals": pd.cut([1, 2, 3], 2),
    "category of periods": pd.Categorical(pd.period_range("2020", periods=3, freq="M")),
    "category of mixed": pd.Categorical([1, "1", None], categories=pd.Index([1, "1", (2, "x")], tupleize_cols=False)),
    "category of Int64": pd.Categorical(pd.array([1, None, 3], dtype="Int64")),
    "category of none": pd.Categorical([None, None, None]),
    "many categories": pd.Categorical.from_codes([0, 1999, -1], [f"v{i}" for i in range(2000)][::-1]),
    "int[pyarrow]": arrow([1, None, 2]),
    "double[pyarrow]": arrow([math.nan, None, 2.5]),
    "string arrow": arrow(["a", None, "b"], pa.string()),
    "large_string arrow": arrow(["a", None, "b"], pa.large_string()),
    "binary arrow": arrow([b"a", None, b""]),
    "bool arrow": arrow([True, None, False]),
    "date arrow": arrow([DAY, None, DAY]),
    "time arrow": arrow([dt.time(1), None, dt.time(2, 3, 4, 5)]),
    "decimal arrow": arrow([decimal.Decimal("1.5"), None, decimal.Decimal("-2")]),
    "timestamp arrow": arrow([1, None, 3], pa.timestamp("ns", "UTC")),
    "duration arrow": arrow([1, None, 3], pa.duration("s")),
    "list arrow": arrow([["1"], None, ["2", None]]),
    "struct arrow": arrow([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "map arrow": arrow([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "dictionary arrow": arrow(pa.array(["a", None, "a"]).dictionary_encode()),
    "null arrow": arrow(pa.nulls(3)),
    "bytes": objects(b"a", None, b""),
    "date": objects(DAY, None, DAY),
    "time": objects(dt.time(1, 2, 3), dt.time(0), None),
    "datetime": objects(dt.datetime(2020, 1, 1), dt.datetime(2021, 1, 1, 1, 1, 1, 1), None),
    "Timestamp": objects(pd.Timestamp("2020"), pd.NaT, pd.Timestamp("2021")),
    "Decimal": objects(decimal.Decimal("1.5"), None, decimal.Decimal("2.25")),
    "list": objects([1, 2], None, []),
    "list with NaN": objects([1.5, math.nan], None, [None]),
    "tuple": objects((1, 2), (3,), None),
    "array": objects(np.array([1, 2], "i2"), None, np.array([3], "i2")),
    "dict": objects({"a": 1, "b": [1]}, {"a": 2, "b": []}, None),
    "object ints": objects(1, None, 3),
    "object bools": objects(True, None, False),
    "object floats": objects(1.5, math.nan, 2.5),
    "nothing": objects(None, None, None),
    "sparse": pd.arrays.SparseArray([0.0, 0.0, 1.5], fill_value=0.0),
    "sparse ints": pd.arrays.SparseArray([0, 0, 1]),
    "sparse NaN": pd.arrays.SparseArray([math.nan, 1.0, math.nan]),
    "sparse bools": pd.arrays.SparseArray([True, False, False]),
    "period": pd.period_range("2020", periods=3, freq="M"),
    "period NaT": pd.PeriodIndex(["2020-01-01", None, "2020-01-03"], freq="D"),
    "interval": pd.interval_range(0, 3),
    "interval None": pd.arrays.IntervalArray.from_tuples([(0.0, 1.5), None, (1.0, 2.0)], closed="both"),
    "interval of days": pd.interval_range(pd.Timestamp("2020", tz="UTC"), periods=3),
}


def label_frame(columns: Any) -> pd.DataFrame:
    return pd.DataFrame(np.arange(2 * len(columns)).reshape(2, -1), columns=columns)


LABELS: dict[str, Any] = {
    "str": ["b", "a"],
    "int": [5, -1],
    "count": pd.RangeIndex(2),
    "range": pd.RangeIndex(3, 9, 3, name="r"),
    "uint8": pd.Index([1, 2], dtype="uint8"),
    "float": [1.5, np.nan],
    "bool": [True, False],
    "tuples": pd.Index([("a", 1), ("b", None)], tupleize_cols=False),
    "mixed": pd.Index([1, "1", None, np.nan, ("a", (1,)), pd.Timestamp("2020", tz="UTC"), b"x", DAY], dtype=object),
    "twice": ["a", "a", "a.1"],
    "empty": ["", " "],
    "NUL": ["a\0b", "a\0c", "\0"],
    "quotes": ['"', "\\", "\n", "ü"],
    "None": pd.Index([None, "a"], dtype=object),
    "named": pd.Index(["a", "b"], name="letters"),
    "named by a tuple": pd.Index(["a", "b"], name=("x", 1)),
    "MultiIndex": pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")], names=["one", None]),
    "MultiIndex of kinds": pd.MultiIndex.from_arrays(
        [[1, 1, 2], pd.to_datetime(["2020", "2021", None]), pd.Categorical(["x", "y", "x"], categories=["y", "x", "z"])]
    ),
    "MultiIndex twice": pd.MultiIndex.from_tuples([("a", 1), ("a", 1)]),
    "days": pd.date_range("2020", periods=2, name="when"),
    "zoned days": pd.date_range("2020", periods=2, tz="Europe/Berlin"),
    "timedeltas": pd.to_timedelta([1, 2], unit="s"),
    "periods": pd.period_range("2020", periods=2, freq="D"),
    "intervals": pd.interval_range(0, 2),
    "categories": pd.CategoricalIndex(["a", "b"], categories=["b", "a", "c"], ordered=True),
    "Int64": pd.Index([1, None], dtype="Int64"),
    "index_level": ["__index_level_0__", "a"],
}

# Values in ascending order, so that a key leaves them where they are; whether the index becomes the key.
INDEXES: dict[str, tuple[Any, bool]] = {
    "ints": (pd.Index([3, 5, 7]), True),
    "named": (pd.Index(["a", "b", "c"], name="k"), True),
    "named as a column": (pd.Index(["a", "b", "c"], name="v"), True),
    "named by a tuple": (pd.Index(["a", "b", "c"], name=("a", 1)), True),
    "named by an int": (pd.Index([1, 2, 3], name=0), True),
    "range": (pd.RangeIndex(10, 16, 2), True),
    "falling range": (pd.RangeIndex(3, 0, -1), True),
    "named count": (pd.RangeIndex(3, name="n"), True),
    "twice": (pd.Index([1, 1, 2]), True),
    "days": (pd.date_range("2020", periods=3), True),
    "zoned days": (pd.date_range("2020", periods=3, tz="Europe/Berlin", name="when"), True),
    "timedeltas": (pd.to_timedelta([1, 2, 3]), True),
    "periods": (pd.period_range("2020", periods=3, freq="D"), True),
    "dates": (pd.Index([DAY, dt.date(2020, 1, 2), dt.date(2020, 1, 3)], dtype=object), True),
    "bytes": (pd.Index([b"a", b"b", b"c"], dtype=object), True),
    "bools": (pd.Index([False, True, True]), True),
    "Int64": (pd.Index([1, 2, 3], dtype="Int64"), True),
    "arrow": (pd.Index([1, 2, 3], dtype=pd.ArrowDtype(pa.int32())), True),
    "decimals": (pd.Index([decimal.Decimal(i) for i in range(3)], dtype=object), True),
    "categories": (pd.CategoricalIndex(["a", "b", "d"], categories=["d", "b", "a", "c"], ordered=True), True),
    "categories of ints": (pd.CategoricalIndex([1, 2, 3], categories=[3, 2, 1, 0]), True),
    "floats": (pd.Index([1.5, 0.5, np.nan]), False),
    "None": (pd.Index(["b", None, "a"]), False),
    "NaT": (pd.to_datetime(["2020", None, "2019"]), False),
    "intervals": (pd.interval_range(0, 3), False),
    "tuples": (pd.Index([(1, 2), (0, 1), (5, 5)], tupleize_cols=False), False),
    "MultiIndex": (pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", None]), True),
    "MultiIndex named by numbers": (
        pd.MultiIndex.from_arrays([[1, 2, 3], list("abc")], names=[1, 0]),
        True,
    ),
    "MultiIndex NaN": (pd.MultiIndex.from_arrays([["b", "a", "a"], [1.5, np.nan, 2]]), False),
    "MultiIndex of kinds": (
        pd.MultiIndex.from_arrays([pd.CategoricalIndex(["b", "a", "b"]), pd.interval_range(0, 3)], names=["x", "x"]),
        False,
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_every_dtype(store: pheon.Store, name: str) -> None:
    frame = pd.DataFrame({"before": [1, 2, 3], name: COLUMNS[name]})
    same(there_and_back(store, frame), frame)
    same(store.table("t")[1:].to_pandas(), frame[1:].reset_index(drop=True))
    none = store.table("t")[:0].to_pandas()
    if name != "many categories":  # beyond a thousand they are where the rows are
        assert none[name].dtype == frame[name].dtype
    same(there_and_back(store, frame[:0]).iloc[:, :1], frame[:0].iloc[:, :1])
    if name != "many categories":
        assert store.table("t").to_pandas()[name].dtype == frame[name].dtype
    assert store.verify("t").ok


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_kind(store: pheon.Store, name: str) -> None:
    frame = label_frame(LABELS[name])
    back = there_and_back(store, frame)
    same(back, frame)
    assert [type(label) for label in back.columns] == [type(label) for label in frame.columns]
    assert back.columns.names == frame.columns.names
    # The names of one frame are not those of another.
    back.columns.names = ["changed"] * back.columns.nlevels
    same(store.table("t").to_pandas(), frame)


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_every_kind(store: pheon.Store, name: str) -> None:
    index, is_key = INDEXES[name]
    frame = pd.DataFrame({"v": [1.5, 2.5, 3.5], "w": ["x", "y", "z"]}, index=index)
    back = there_and_back(store, frame)
    assert bool(store.table("t").key) == is_key
    expected = frame.iloc[::-1] if name == "falling range" else frame
    same(back, expected)
    assert back.index.names == frame.index.names
    same(store.table("t")[1:2].to_pandas(), expected.iloc[1:2])
    # The caller's frame is not touched.
    assert frame.index is index or frame.index.equals(index)
    if PANDAS_3 or index.nlevels == 1:  # pandas 2 compares what levels hold beside the index's values
        same(there_and_back(store, frame.iloc[:0]), frame.iloc[:0])


def test_a_key_sorts_and_keeps_the_index(store: pheon.Store) -> None:
    frame = pd.DataFrame({"k": [3, 1, 3, 2], "v": list("abcd")}, index=pd.Index(list("wxyz"), name="i"))
    back = there_and_back(store, frame, key="k")
    assert store.table("t").key == ["k"]
    same(back, frame.sort_values("k", kind="stable"))
    # A plain count is not stored: fresh positions.
    count = frame.reset_index(drop=True)
    same(there_and_back(store, count, key="k"), count.sort_values("k", kind="stable").reset_index(drop=True))
    assert store.table("t").column_names == ["k", "v"]
    # By the index.
    shuffled = frame.iloc[[2, 0, 3, 1]]
    same(there_and_back(store, shuffled), frame)
    same(there_and_back(store, shuffled, key="i"), frame)


@pytest.mark.parametrize("label", [0, ("a", 1), None, "a"], ids=repr)
def test_a_key_by_its_label(store: pheon.Store, label: Any) -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5], "y": [2, 1]})
    frame.columns = pd.Index(["x", label], tupleize_cols=False, dtype=object)
    table = store.put("t", frame, key=[label])
    assert table.key == [str(label)]
    same(table.to_pandas(), frame.iloc[::-1].reset_index(drop=True))


def test_a_label_that_stands_for_two_columns_is_no_key(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match=r"'a' is the label of 2 columns"):
        store.put("t", pd.DataFrame([[1, 2]], columns=["a", "a"]), key="a")


CATEGORIES = [name for name in COLUMNS if name.startswith(("category", "ordered", "many"))]
# Categories that Arrow has no type for are kept, and sorted, as text.
AS_TEXT = ["category of intervals", "category of periods", "category of mixed"]


@pytest.mark.parametrize(
    "name", [name for name in CATEGORIES if name not in ("category of floats", "category of none")]
)
def test_a_categorical_key(store: pheon.Store, name: str) -> None:
    frame = pd.DataFrame({"k": COLUMNS[name], "v": [1, 2, 3]}).dropna().reset_index(drop=True)
    back = store.put("t", frame, key="k").to_pandas()
    assert back["k"].dtype == frame["k"].dtype
    values = frame["k"].tolist()
    order = sorted(range(len(frame)), key=lambda at: str(values[at]) if name in AS_TEXT else values[at])
    same(back, frame.iloc[order].reset_index(drop=True))


@pytest.mark.parametrize("name", ["category of floats", "ordered category"])
def test_a_categorical_that_is_no_key(store: pheon.Store, name: str) -> None:
    frame = pd.DataFrame({"k": COLUMNS[name]})
    frame.loc[0, "k"] = None
    with pytest.raises(pheon.SchemaError, match="k"):
        store.put("t", frame, key="k")


def test_attrs(store: pheon.Store) -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"unit": "m", 3: (1, [2.5, None], {"when": DAY}), "nan": float("inf"), "b": b"\x00"}
    back = there_and_back(store, frame)
    same(back, frame)
    back.attrs[3][1].append("changed")
    same(store.table("t").to_pandas(), frame)
    frame.attrs = {"thing": object()}
    with pytest.raises(pheon.SchemaError, match=r"attrs.*object"):
        store.put("t", frame)


def test_a_frame_without_columns_or_rows(store: pheon.Store) -> None:
    for frame in (pd.DataFrame(index=[1, 2, 3]), pd.DataFrame(index=pd.RangeIndex(3)), pd.DataFrame({"a": []})):
        same(there_and_back(store, frame), frame)


def test_series_and_indexes(store: pheon.Store) -> None:
    series = pd.Series([1.5, 2.5], index=["a", "b"], name=("x", 1))
    same(store.put("t", series).to_pandas(), series.to_frame())
    unnamed = pd.Series([1.5, 2.5])
    assert store.put("t", unnamed).column_names == ["value", "index"]
    assert store.table("t").key == ["index"]
    same(store.table("t").to_pandas(), unnamed.to_frame("value"))
    assert store.put_map("m", pd.Series({"x": 1, "y": 2})) == {"x": 1, "y": 2}
    index = pd.Index(["b", "a"], name="i")
    same(store.put("t", index).to_pandas(), pd.DataFrame({"i": ["b", "a"]}))


# What cannot be held -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.array([1j, 2]),
        np.array([1, 2], dtype="longdouble"),
        objects(1, "a"),
        objects(1, 2.5),
        objects(1, True),
        objects({"a": 1}, {"b": 1}),
        objects([1], (1,)),
        objects(object(), None),
        objects("a", b"a"),
        objects("\ud800", "a"),
        objects(2**70, 1),
        pd.arrays.SparseArray([1j, 2]),
    ],
)
def test_what_arrow_cannot_hold_names_the_column(store: pheon.Store, values: Any) -> None:
    with pytest.raises(pheon.SchemaError, match="column 'the bad one'") as raised:
        store.put("t", pd.DataFrame({"good": [1, 2], "the bad one": values}))
    assert isinstance(raised.value, TypeError)
    assert list(store) == []


def test_labels_that_cannot_be_kept(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match=r"label of column .*object"):
        store.put("t", pd.DataFrame([[1]], columns=[object()]))
    with pytest.raises(pheon.SchemaError, match="index level"):
        store.put("t", pd.DataFrame({"a": [1, 2]}, index=[1, "x"]))


# Missing values ------------------------------------------------------------------------------------------------------


def test_nan_is_a_value_where_it_was_one(store: pheon.Store) -> None:
    frame = pd.DataFrame(
        {"numpy": [1.0, np.nan, 3.0], "nullable": masked_floats(), "arrow": arrow([math.nan, None, 1.0])}
    )
    table = store.put("t", frame).to_pyarrow()
    assert [table[name].null_count for name in table.column_names] == [0, 1, 1]
    assert [str(value) for value in table["nullable"].to_pylist()] == ["1.0", "nan", "None"]
    assert [str(value) for value in table["arrow"].to_pylist()] == ["nan", "None", "1.0"]


# Data from elsewhere -------------------------------------------------------------------------------------------------


def test_data_from_elsewhere(store: pheon.Store) -> None:
    data = pa.table(
        {
            "i": pa.array([1, 2], pa.int16()),
            "i0": pa.array([1, None]),
            "f0": pa.array([1.5, None]),
            "b": [True, False],
            "b0": [True, None],
            "s": ["x", None],
            "d": pa.array([DAY, DAY]),
            "ts": pa.array([1, 2], pa.timestamp("us")),
            "tz": pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")),
            "ts0": pa.array([1, None], pa.timestamp("us")),
            "dur": pa.array([1, 2], pa.duration("s")),
            "l": [[1], None],
            "c": pa.array(["x", None]).dictionary_encode(),
            "n": pa.nulls(2),
        }
    )
    frame = store.put("t", data).to_pandas()
    strings = "str" if PANDAS_3 else "string[pyarrow]"
    assert {name: str(frame[name].dtype) for name in frame if name not in "sc"} == {
        "i": "int16",
        "i0": "int64[pyarrow]",
        "f0": "double[pyarrow]",
        "b": "bool",
        "b0": "bool[pyarrow]",
        "d": "date32[day][pyarrow]",
        "ts": "datetime64[us]",
        "tz": "datetime64[ns, Europe/Berlin]",
        "ts0": "timestamp[us][pyarrow]",
        "dur": "timedelta64[s]",
        "l": "list<item: int64>[pyarrow]",
        "n": "null[pyarrow]",
    }
    assert frame["s"].dtype == strings
    assert frame["c"].cat.categories.tolist() == ["x"]
    assert pa.table(pa.Table.from_pandas(frame)).to_pylist() == data.to_pylist()


def test_the_metadata_of_pyarrow_are_understood(store: pheon.Store, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {("a", "x"): pd.array([1, None], dtype="Int64"), ("a", "y"): [1.5, 2.5]},
        index=pd.Index([5, 6], name="i"),
    )
    frame.columns.names = ["one", "two"]
    frame.attrs = {"unit": "m"}
    same(store.put("t", pa.Table.from_pandas(frame)).to_pandas(), frame)
    pyarrow.parquet.write_table(pa.Table.from_pandas(frame), tmp_path / "f.parquet")
    same(store.put("t", tmp_path / "f.parquet").to_pandas(), frame)
    counted = pd.DataFrame({1: pd.Categorical(["x", "y"]), 2: pd.period_range("2020", periods=2, freq="D")})
    counted.index = pd.RangeIndex(4, 8, 2, name="r")
    same(store.put("t", pa.Table.from_pandas(counted)).to_pandas(), counted)
    assert store.table("t")[:1].to_pandas().index.tolist() == [0]


def test_stock_pyarrow_reads_the_file(store: pheon.Store) -> None:
    frame = pd.DataFrame(
        {("a", "x"): [1.5, np.nan], ("a", "y"): pd.Categorical(["x", "y"])},
        index=pd.date_range("2020", periods=2, tz="UTC", name="when"),
    )
    same(store.put("t", frame).to_pyarrow().to_pandas(), frame)
    ints = pd.DataFrame({7: pd.array([1, None], dtype="Int64"), 8: ["a", "b"]}, index=pd.Index([3, 4]))
    ints.attrs = {"unit": "m"}
    same(store.put("t", ints).to_pyarrow().to_pandas(), ints)
    described = json.loads(store.table("t").to_pyarrow().schema.metadata[b"pandas"])
    assert described["index_columns"] == ["__index_level_0__"]


# What changed since the frame was stored ----------------------------------------------------------------------------


def with_metadata_of(frame: pd.DataFrame, data: pa.Table) -> pa.Table:
    return data.replace_schema_metadata(frame_source(frame)[0].schema.metadata)


def test_columns_that_went_or_came(store: pheon.Store) -> None:
    frame = pd.DataFrame({1: [1, 2], 2: [1.5, 2.5], 3: ["a", "b"]}, index=pd.Index(["x", "y"], name="i"))
    whole = frame_source(frame)[0]
    some = store.put("t", whole.select(["3", "1", "i"])).to_pandas()
    same(some, frame[[3, 1]])
    without_index = store.put("t", whole.select(["1", "2"])).to_pandas()
    same(without_index, frame[[1, 2]].reset_index(drop=True))
    more = store.put("t", whole.append_column("new", pa.array([1, 2]))).to_pandas()
    assert more.columns.tolist() == [1, 2, 3, "new"]
    counted = frame_source(pd.DataFrame(np.arange(6).reshape(2, 3)))[0]
    assert store.put("t", counted.select(["2", "0"])).to_pandas().columns.tolist() == [2, 0]


def test_values_that_no_longer_fit_the_dtype(store: pheon.Store) -> None:
    frame = pd.DataFrame(
        {"i": [1], "f": [1.5], "b": [True], "t": pd.to_datetime(["2020"]), "s": ["x"], "c": pd.Categorical(["x"])}
    )
    changed = pa.table(
        {
            "i": [1, None],
            "f": [1.5, None],
            "b": [True, None],
            "t": pa.array([1, None], frame_source(frame)[0].schema.field("t").type),
            "s": [1, 2],
            "c": pa.array(["y", "x"]).dictionary_encode(),
        }
    )
    back = store.put("t", with_metadata_of(frame, changed)).to_pandas()
    assert str(back["i"].dtype) == "int64[pyarrow]"
    assert back["f"].dtype == "f8"
    assert np.isnan(back["f"][1])
    assert str(back["b"].dtype) == "bool[pyarrow]"
    assert back["t"].isna().tolist() == [False, True]
    assert back["s"].tolist() == [1, 2]
    assert back["c"].tolist() == ["y", "x"]
    plain = changed.set_column(5, "c", pa.array(["new", "x"]))
    assert store.put("t", with_metadata_of(frame, plain)).to_pandas()["c"].tolist() == ["new", "x"]
    # Another order of the same categories.
    two = pd.DataFrame({"c": pd.Categorical(["a", "b"], categories=["b", "a", "z"])})
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), ["a", "b"])
    back = store.put("t", with_metadata_of(two, pa.table({"c": codes}))).to_pandas()["c"]
    assert back.dtype == two["c"].dtype
    assert back.tolist()[:2] == ["a", "b"]
    assert back.isna().tolist() == [False, False, True]


def test_metadata_of_a_newer_version(store: pheon.Store) -> None:
    table = frame_source(pd.DataFrame({"a": [1]}))[0]
    for text, expected in ((b'{"version":2}', "version 2.*newer"), (b"{", "not as Pheon writes")):
        changed = table.replace_schema_metadata({METADATA_KEY: text})
        with pytest.raises(pheon.CorruptError, match=expected):
            store.put("t", changed).to_pandas()


# Any frame ------------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
LABEL = st.one_of(
    TEXT,
    INT64,
    st.booleans(),
    st.floats(allow_nan=False),
    st.just(np.nan),
    st.none(),
    st.tuples(INT64, TEXT),
    st.dates(),
    st.binary(max_size=4),
)


def series_of(draw: Any, rows: int, endianness: str = "=") -> Any:  # noqa: PLR0911 - one a kind
    def many(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    kind = draw(st.sampled_from(["numpy", "text", "object", "category", "nullable", "arrow", "period", "zoned"]))
    if kind == "numpy":
        dtype = draw(
            st.one_of(
                numpy_strategies.boolean_dtypes(),
                numpy_strategies.integer_dtypes(endianness=endianness),
                numpy_strategies.floating_dtypes(endianness=endianness),
                st.sampled_from([np.dtype(name) for name in TIMES]),
            )
        )
        return draw(numpy_strategies.arrays(dtype, rows, elements=None))
    if kind == "text":
        dtype = draw(st.sampled_from([None, "string[python]", "string[pyarrow]"]))
        return pd.array(many(st.none() | TEXT), dtype=dtype or "str") if PANDAS_3 or dtype else many(TEXT)
    if kind == "object":
        values = draw(
            st.sampled_from(
                [TEXT, st.binary(max_size=5), st.dates(), INT64, st.lists(INT64, max_size=3), st.booleans()]
            )
        )
        return objects(*many(st.none() | values))
    if kind == "category":
        of = draw(st.sampled_from([TEXT, INT64, st.dates(), st.tuples(INT64)]))
        categories = pd.Index(draw(st.lists(of, unique=True, min_size=1)), tupleize_cols=False)
        codes = many(st.integers(-1, len(categories) - 1))
        dtype = pd.CategoricalDtype(categories, ordered=draw(st.booleans()))
        return pd.Categorical.from_codes(codes, dtype=dtype)
    if kind == "nullable":
        name = draw(st.sampled_from(["Int64", "UInt8", "boolean", "Float64"]))
        values = {"Int64": INT64, "UInt8": st.integers(0, 255), "boolean": st.booleans(), "Float64": st.floats()}
        data = np.array(many(values[name]), dtype=pd.api.types.pandas_dtype(name).numpy_dtype)
        return pd.api.types.pandas_dtype(name).construct_array_type()(data, np.array(many(st.booleans()), dtype=bool))
    if kind == "arrow":
        of, values = draw(
            st.sampled_from(
                [
                    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
                    (pa.string(), TEXT),
                    (pa.list_(pa.float64()), st.lists(st.floats(), max_size=3)),
                    (pa.date32(), st.dates()),
                ]
            )
        )
        return arrow(many(st.none() | values), of)
    if kind == "period":
        counts = np.array(many(st.integers(-1000, 1000)), dtype="i8")
        return pd.arrays.PeriodArray(counts, dtype=pd.PeriodDtype(draw(st.sampled_from(["D", "M", "h"]))))
    instants = np.array(many(st.integers(0, 2**32)), dtype="M8[s]")
    zone = draw(st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]))
    return pd.Series(instants).dt.tz_localize("UTC").dt.tz_convert(zone)


@st.composite
def frames(draw: Any) -> pd.DataFrame:
    rows = draw(st.integers(0, 8))
    count = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["count", "one", "two"]))
    # pandas takes no rows of foreign byte order, which comparing the rows of a table with a key needs.
    endianness = "?" if kind == "count" else "="
    frame = pd.concat([pd.Series(series_of(draw, rows, endianness)) for _ in range(count)], axis=1)
    labels = draw(st.lists(LABEL, min_size=count, max_size=count))
    frame.columns = pd.Index(labels, tupleize_cols=False, name=draw(LABEL), dtype=object)
    if kind == "one":
        values = pd.Series(series_of(draw, rows))
        assume(values.dtype != np.float16)  # of which pandas makes no index
        frame.index = pd.Index(values, name=draw(LABEL), tupleize_cols=False)
    elif kind == "two" and rows:
        frame.index = pd.MultiIndex.from_arrays(
            [draw(st.lists(INT64, min_size=rows, max_size=rows)), draw(st.lists(TEXT, min_size=rows, max_size=rows))],
            names=[draw(LABEL), draw(LABEL)],
        )
    frame.attrs = draw(st.dictionaries(TEXT, LABEL, max_size=2))
    return frame


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(frames())
def test_any_frame(shm_store: pheon.Store, frame: pd.DataFrame) -> None:
    table = shm_store.put("t", frame)
    back = table.to_pandas()
    if table.key:
        # The same order by the engine's word: every row once, and by itself in its place.
        back = back.iloc[np.argsort(original_positions(shm_store, frame))]
    same_but_nan_attrs(back, frame)
    shm_store.gc(keep=1)


def original_positions(store: pheon.Store, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Where in the frame each stored row was."""
    source, keys = frame_source(frame)
    numbered = source.append_column("position of the row", pa.array(np.arange(len(frame))))
    return store.put("numbered", numbered, key=keys).to_numpy("position of the row")


def same_but_nan_attrs(back: pd.DataFrame, frame: pd.DataFrame) -> None:
    assert repr(back.attrs) == repr(frame.attrs)
    pd.testing.assert_frame_equal(back, frame, check_freq=False)


def test_pickle_and_files(store: pheon.Store, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(5.0), "s": list("abcde"), "c": pd.Categorical(list("xyxyx"))})
    back = store.put("t", frame).to_pandas()
    same(pickle.loads(pickle.dumps(back)), frame)
    back.to_parquet(tmp_path / "f.parquet")
    same(pd.read_parquet(tmp_path / "f.parquet"), frame)
    assert pl.from_pandas(back)["a"].to_list() == frame["a"].tolist()
