"""Who reads the mapped file in place: what the report says, compared with the addresses that each library holds."""

from __future__ import annotations

import decimal
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pheon
from pheon._adapters import pandas_frame
from pheon._adapters.pandas_source import frame_source

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
ROWS = 1000
COUNT = list(range(ROWS))
TEXTS = [f"a text too long for a view {i}" for i in COUNT]


def _plain_columns() -> dict[str, pa.Array]:
    numbers = np.arange(ROWS) % 100
    columns: dict[str, pa.Array] = {}
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"):
        columns[name] = pa.array(numbers.astype(name))
    columns["float16"] = pa.array(numbers.astype("f2"))
    for unit in ("s", "ms", "us", "ns"):
        columns[f"timestamp {unit}"] = pa.array(COUNT, pa.timestamp(unit))
        columns[f"zoned {unit}"] = pa.array(COUNT, pa.timestamp(unit, "Europe/Berlin"))
        columns[f"duration {unit}"] = pa.array(COUNT, pa.duration(unit))
    columns["date32"] = pa.array(COUNT, pa.int32()).cast(pa.date32())
    columns["date64"] = pa.array([i * 86_400_000 for i in COUNT], pa.int64()).cast(pa.date64())
    for unit in ("s", "ms"):
        columns[f"time32 {unit}"] = pa.array(COUNT, pa.int32()).cast(pa.time32(unit))
    for unit in ("us", "ns"):
        columns[f"time64 {unit}"] = pa.array([i * 1000 for i in COUNT], pa.int64()).cast(pa.time64(unit))
    columns["bool"] = pa.array([i % 2 == 0 for i in COUNT])
    columns["string"] = pa.array(TEXTS)
    columns["binary"] = pa.array([text.encode() for text in TEXTS])
    columns["fixed binary"] = pa.array([b"abcd"] * ROWS, pa.binary(4))
    for kind in (pa.decimal32(5), pa.decimal64(5), pa.decimal128(5), pa.decimal256(5)):
        columns[str(kind)] = pa.array([decimal.Decimal(i) for i in COUNT], kind)
    columns["list"] = pa.array([[i] for i in COUNT])
    columns["large list"] = pa.array([[i] for i in COUNT], pa.large_list(pa.int64()))
    columns["fixed list"] = pa.array([[i, i] for i in COUNT], pa.list_(pa.int64(), 2))
    columns["list of strings"] = pa.array([[text] for text in TEXTS], pa.large_list(pa.string()))
    columns["struct"] = pa.array([{"a": i, "List(": 1.5} for i in COUNT])
    columns["struct of strings"] = pa.array([{"a": text} for text in TEXTS])
    columns["map"] = pa.array([[(text, 1)] for text in TEXTS], pa.map_(pa.string(), pa.int64()))
    columns["dictionary"] = pa.array([f"v{i % 7}" for i in COUNT]).dictionary_encode()
    columns["dictionary int8"] = columns["dictionary"].cast(pa.dictionary(pa.int8(), pa.string()))
    columns["dictionary of ints"] = pa.array([i % 7 for i in COUNT]).dictionary_encode()
    return columns


def _frame_columns() -> dict[str, Any]:
    return {
        "pandas big endian": np.arange(ROWS).astype(">i8"),
        "pandas Int64": pd.array(COUNT, dtype="Int64"),
        "pandas string[python]": pd.array(TEXTS, dtype="string[python]"),
        "pandas string[pyarrow]": pd.array(TEXTS, dtype="string[pyarrow]"),
        "pandas objects": pd.Series(TEXTS, dtype=object),
        "pandas category": pd.Categorical([f"v{i % 7}" for i in COUNT]),
        "pandas category of many": pd.Categorical([f"v{i}" for i in COUNT]),
        "pandas category of periods": pd.Categorical(pd.period_range("2020", periods=ROWS, freq="D")),
        "pandas period": pd.period_range("2020", periods=ROWS, freq="D"),
        "pandas interval": pd.interval_range(0, ROWS),
        "pandas sparse": pd.arrays.SparseArray(np.arange(ROWS) % 5),
        "pandas zoned": pd.date_range("2020", periods=ROWS, tz="Asia/Tokyo"),
        "pandas list arrow": pd.Series(pd.arrays.ArrowExtensionArray(pa.array([[i] for i in COUNT]))),
        "pandas string arrow": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(TEXTS))),
        "pandas large_string arrow": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(TEXTS, pa.large_string()))),
    }


def _columns() -> dict[str, Any]:
    plain = _plain_columns()
    gaps = {
        f"{name}, null": pa.concat_arrays([array.slice(0, ROWS - 1), pa.nulls(1, array.type)])
        for name, array in plain.items()
    }
    return plain | gaps | _frame_columns()


COLUMNS = _columns()

# What each library reads in place at least, so that a report that only says "copy" is wrong.
IN_PLACE = {
    "pandas": [
        *(name for name in COLUMNS if name.split(",")[0] not in ("bool", "dictionary") and "pandas" not in name),
        "bool, null",
        "pandas string[pyarrow]",
        "pandas category",
        "pandas category of many",
        "pandas period",
        "pandas zoned",
        "pandas list arrow",
        "pandas large_string arrow",
    ],
    "numpy": [name for name in COLUMNS if name.startswith(("int", "uint", "float", "timestamp", "zoned", "duration"))],
    "polars": ["int8", "int64", "float64, null", "bool", "date32", "timestamp ns", "zoned us, null", "large list"],
    "pyarrow": list(COLUMNS),
}
# Whole dictionaries, decoded, or of codes that pandas has in another width.
IN_PLACE["pandas"] = [
    n
    for n in IN_PLACE["pandas"]
    if n not in ("dictionary of ints", "dictionary of ints, null", "dictionary int8, null")
]
IN_PLACE["numpy"] = [name for name in IN_PLACE["numpy"] if "null" not in name]


class Mapped:
    """The address ranges where this process has a store's data files mapped."""

    def __init__(self, path: str) -> None:
        self.ranges = [
            tuple(int(part, 16) for part in line.split()[0].split("-"))
            for line in Path("/proc/self/maps").read_text().splitlines()
            if path in line and "data.arrow" in line
        ]
        assert self.ranges

    def __contains__(self, address: int) -> bool:
        return any(start <= address < end for start, end in self.ranges)


def put(store: pheon.Store, name: str) -> pheon.Table:
    column = COLUMNS[name]
    if isinstance(column, pa.Array):
        return store.put("t", pa.table({name: column}))
    return store.put("t", pd.DataFrame({name: column}))


def value_buffers(array: pa.Array) -> Iterator[int]:
    """Addresses of all buffers of an array and its children, without validity bitmaps."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    yield from (
        buffer.address for buffer in array.buffers()[1 : kind.num_buffers] if buffer is not None and buffer.size
    )
    if pa.types.is_dictionary(kind):
        # The codes; categories are an index of its own.
        return
    if pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            yield from value_buffers(array.field(at))
    elif pa.types.is_map(kind):
        yield from value_buffers(array.keys)
        yield from value_buffers(array.items)
    elif pa.types.is_nested(kind):
        yield from value_buffers(array.values)


def address_of(array: np.ndarray[Any, Any]) -> int:
    return array.__array_interface__["data"][0]


def pandas_addresses(series: pd.Series) -> list[int]:  # noqa: PLR0911 - one a kind
    values = series.array
    if isinstance(values, pd.Categorical):
        return [address_of(values.codes)]
    if isinstance(values, (pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray, pd.arrays.PeriodArray)):
        return [address_of(values._ndarray)]
    if isinstance(values, pd.arrays.SparseArray):
        return [address_of(values.sp_values)]
    if isinstance(values, pd.arrays.IntervalArray):
        return [address_of(values.left.to_numpy())]
    if hasattr(values, "_pa_array"):
        return [address for chunk in values._pa_array.chunks for address in value_buffers(chunk)]
    if hasattr(values, "_mask"):
        return [address_of(values._data)]
    return [address_of(series.to_numpy())]


def polars_addresses(series: pl.Series) -> list[int]:
    if series.dtype.is_decimal():
        return list(value_buffers(series.to_arrow()))
    return list(value_buffers(series.to_arrow(compat_level=pl.CompatLevel.newest())))


def consumers_of(table: pheon.Table, name: str) -> dict[str, Any]:
    """What each library makes of the table: held, so that nothing else gets the addresses."""
    return {
        "pandas": table.to_pandas(),
        "numpy": table.to_numpy(name),
        "polars": None if "decimal256" in name else table.to_polars(),
        "pyarrow": table.to_pyarrow(),
    }


def addresses(held: Any, name: str, consumer: str) -> list[int]:
    if consumer == "pandas":
        return pandas_addresses(held[name])
    if consumer == "numpy":
        return [address_of(held)]
    if consumer == "polars":
        return polars_addresses(held[name])
    return [address for chunk in held[name].chunks for address in value_buffers(chunk)]


@pytest.mark.parametrize("name", COLUMNS)
def test_the_report_agrees_with_the_addresses(store: pheon.Store, name: str) -> None:
    whole = put(store, name)
    for table in (whole, whole[ROWS // 2 + 3 :]):
        report = table.zero_copy_report()
        assert report.consumers == ["pandas", "numpy", "polars", "pyarrow"]
        for consumer, held in consumers_of(table, name).items():
            verdict = report.of(consumer)[name]
            assert verdict.zero_copy == (verdict.reason == "")
            assert (name in IN_PLACE[consumer]) <= verdict.zero_copy
            if held is None:
                assert not verdict.zero_copy
                with pytest.raises(pheon.SchemaError, match="decimal256.*polars"):
                    table.to_polars()
                continue
            mapped = Mapped(str(store.path))
            found = [address in mapped for address in addresses(held, name, consumer)]
            assert found
            assert all(found) == verdict.zero_copy, (verdict, found)
            if verdict.zero_copy:
                assert len(require(table, consumer, name)) == len(table)
                continue
            with pytest.raises(pheon.CopyRequiredError) as raised:
                require(table, consumer, name)
            assert repr(name) in str(raised.value)
            assert verdict.reason in str(raised.value)


def require(table: pheon.Table, consumer: str, name: str) -> Any:
    if consumer == "numpy":
        return table.to_numpy(name, require_zero_copy=True)
    return getattr(table, f"to_{consumer}")(require_zero_copy=True)


def test_copies_are_refused_before_any_is_made(store: pheon.Store) -> None:
    table = store.put("t", pa.table({"x": [1.5, 2.5], "flag": [True, False], "also": [False, False]}))
    with pytest.raises(pheon.CopyRequiredError, match=r"2 of 3 columns of 't'.*'flag' \(booleans.*'also' \(booleans"):
        table.to_pandas(require_zero_copy=True)
    with pytest.raises(pheon.CopyRequiredError, match="flag"):
        table.to_numpy("flag", require_zero_copy=True)
    assert table.to_numpy("x", require_zero_copy=True).tolist() == [1.5, 2.5]
    assert table.to_polars(require_zero_copy=True).height == 2
    assert table.to_pyarrow(require_zero_copy=True).num_rows == 2
    with pytest.raises(KeyError):
        table.to_numpy("nope", require_zero_copy=True)


def test_an_index_is_read_in_place(store: pheon.Store) -> None:
    index = pd.date_range("2020", periods=ROWS, tz="UTC", name="when")
    table = store.put("t", pd.DataFrame({"v": np.arange(ROWS * 1.0)}, index=index))
    frame = table.to_pandas(require_zero_copy=True)
    assert address_of(frame.index.array._ndarray) in Mapped(str(store.path))
    numbers = store.put("n", pd.DataFrame({"v": np.arange(3.0)}, index=[3, 5, 7])).to_pandas(require_zero_copy=True)
    assert address_of(numbers.index.to_numpy()) in Mapped(str(store.path))
    levels = pd.MultiIndex.from_arrays([[1, 2], [3, 4]], names=["a", "b"])
    report = store.put("m", pd.DataFrame({"v": [1.5, 2.5]}, index=levels)).zero_copy_report().of("pandas")
    assert [verdict.zero_copy for verdict in report.values()] == [True, False, False]


# Several pieces ------------------------------------------------------------------------------------------------------


class Pieces:
    """Two slices of a table as one stream, as a version of several segments gives it."""

    def __init__(self, table: pheon.Table) -> None:
        half = ROWS // 2
        self.table = pa.concat_tables([table[:half].to_pyarrow(), table[half:].to_pyarrow()])

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_in_several_pieces(store: pheon.Store, name: str) -> None:
    table = put(store, name)
    pieces = Pieces(table)
    assert pieces.table[name].num_chunks == 2
    frame = pandas_frame.frame_of(pieces.table)
    pd.testing.assert_frame_equal(frame, table.to_pandas())
    reason = pandas_frame.copies(pieces.table)[name]
    found = [address in Mapped(str(store.path)) for address in pandas_addresses(frame[name])]
    assert all(found) == (reason is None), reason
    if table.zero_copy_report().of("pandas")[name].zero_copy and not hasattr(frame[name].array, "_pa_array"):
        assert "2 pieces" in str(reason)
    if "decimal" not in name:
        assert pl.DataFrame(pieces).equals(table.to_polars())


@pytest.mark.parametrize("kind", [pa.decimal32(5, 1), pa.decimal64(5, 1), pa.decimal128(5, 1)], ids=str)
def test_narrow_decimals_in_polars(store: pheon.Store, kind: pa.DataType) -> None:
    values = [decimal.Decimal("1.5"), None, decimal.Decimal("-3.5")]
    table = store.put("t", pa.table({"a": pa.array(values, kind), "b": [1, 2, 3]}))
    assert table.to_polars()["a"].to_list() == values
    nested = store.put("t", pa.table({"a": pa.array([[value] for value in values], pa.list_(kind))}))
    assert nested.to_polars()["a"].to_list() == [[value] for value in values]


# pandas works on what it gets ----------------------------------------------------------------------------------------


@pytest.fixture
def days(store: pheon.Store) -> pheon.Table:
    frame = pd.DataFrame(
        {
            "x": np.arange(100.0),
            "n": np.arange(100) % 7,
            "s": [f"s{i % 3}" for i in range(100)],
            "c": pd.Categorical([f"c{i % 4}" for i in range(100)]),
            "tz": pd.date_range("2021", periods=100, tz="UTC"),
            "gap": pd.array([None if i % 10 == 0 else i for i in range(100)], dtype="Int64"),
        },
        index=pd.date_range("2020", periods=100, freq="h", name="when"),
    )
    return store.put("days", frame, key="when")


OPERATIONS: dict[str, Any] = {
    "groupby": lambda f: f.groupby("s")[["x", "n"]].agg(["sum", "mean"]),
    "groupby category": lambda f: f.groupby("c", observed=True)["x"].median(),
    "merge": lambda f: f.reset_index().merge(f[["n", "x"]].head(7), on="n", suffixes=("", "_r")),
    "merge strings": lambda f: f.merge(pd.DataFrame({"s": ["s0", "s1"], "w": [1, 2]}), on="s", how="left"),
    "rolling": lambda f: f["x"].rolling("5h").mean(),
    "rolling rows": lambda f: f[["x", "n"]].rolling(3).std(),
    "sort_values": lambda f: f.sort_values(["n", "x"], ascending=False),
    "resample": lambda f: f.resample("D")[["x"]].sum(),
    "loc": lambda f: f.loc["2020-01-02":"2020-01-03", ["x", "s"]],
    "loc mask": lambda f: f.loc[f["x"] > 50, "n"],
    "iloc": lambda f: f.iloc[[5, 3]],
    "describe": lambda f: f.describe(),
    "fillna": lambda f: f["gap"].fillna(0),
    "query": lambda f: f.query("n > 3 and s == 's1'"),
    "pivot": lambda f: f.pivot_table(index="s", columns="c", values="x", aggfunc="sum", observed=True),
    "assign": lambda f: f.assign(y=f["x"] * 2, z="z"),
    "arithmetic": lambda f: f["x"] + f["n"],
    "cumsum": lambda f: f[["x", "n"]].cumsum(),
    "value_counts": lambda f: f["c"].value_counts(),
    "shift": lambda f: f.shift(1),
    "diff": lambda f: f["tz"].diff(),
    "zone": lambda f: f["tz"].dt.tz_convert("Asia/Tokyo"),
    "upper": lambda f: f["s"].str.upper(),
    "concat": lambda f: pd.concat([f, f]),
    "drop_duplicates": lambda f: f.drop_duplicates("n"),
    "melt": lambda f: f.melt(value_vars=["x", "n"]),
    "rank": lambda f: f["x"].rank(),
    "quantile": lambda f: f[["x", "n"]].quantile([0.1, 0.9]),
    "clip": lambda f: f[["x"]].clip(3, 50),
    "copy": lambda f: f.copy(),
    "pickle": lambda f: pickle.loads(pickle.dumps(f)),
    "interpolate": lambda f: f["x"].where(f["x"] > 5).interpolate(),
    "reindex": lambda f: f.reindex(f.index[::-1]),
    "isin": lambda f: f["s"].isin(["s1"]),
    "asof": lambda f: pd.merge_asof(f[["x"]], f[["n"]], left_index=True, right_index=True),
    "apply": lambda f: f[["x", "n"]].apply(lambda row: row.sum(), axis=1),
    "unstack": lambda f: f.set_index(["s", "n"], append=True)["x"].unstack("s"),
    "eval": lambda f: f.eval("x * 2 + n"),
    "to_numpy": lambda f: pd.DataFrame(f[["x", "n"]].to_numpy()),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_pandas_operations(days: pheon.Table, name: str) -> None:
    frame = days.to_pandas()
    own = frame.copy(deep=True)
    for column in ("x", "n"):
        own[column] = own[column].to_numpy().copy()
        assert not np.shares_memory(own[column].to_numpy(), frame[column].to_numpy())
    expected, answer = OPERATIONS[name](own), OPERATIONS[name](frame)
    if isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(answer, expected)
    else:
        pd.testing.assert_frame_equal(answer, expected)


def _inplace_fillna(frame: pd.DataFrame) -> None:
    frame.loc[frame.index[3], "x"] = np.nan
    frame.fillna({"x": -1.0}, inplace=True)


def _series_of_a_dead_frame(frame: pd.DataFrame) -> pd.Series:
    series = frame["x"]
    del frame
    return series


WRITES: dict[str, Any] = {
    "iloc": lambda f: f.iloc.__setitem__((0, 0), -1.0),
    "iat": lambda f: f.iat.__setitem__((0, 0), -1.0),
    "loc": lambda f: f.loc.__setitem__((f.index[0], "x"), -1.0),
    "mask": lambda f: f.loc.__setitem__((f["x"] > 50, "x"), -1.0),
    "column": lambda f: f.__setitem__("x", 0.0),
    "added": lambda f: f.__setitem__("x", f["x"] + 1),
    "row": lambda f: f.iloc.__setitem__((0, slice(0, 2)), -1),
    "fillna": _inplace_fillna,
    "replace": lambda f: f.replace({"x": {5.0: -1.0}}, inplace=True),
    "update": lambda f: f.update(pd.DataFrame({"x": [-1.0]}, index=f.index[:1])),
    "zoned": lambda f: f.loc.__setitem__((f.index[0], "tz"), pd.Timestamp("1999", tz="UTC")),
    "category": lambda f: f.loc.__setitem__((f.index[0], "c"), "c3"),
    "string": lambda f: f.loc.__setitem__((f.index[0], "s"), "new"),
    "pop": lambda f: f.pop("x"),
    "del": lambda f: f.__delitem__("n"),
    "insert": lambda f: f.insert(0, "first", f["x"]),
    "at": lambda f: f.at.__setitem__((f.index[5], "n"), 99),
    "columns": lambda f: f.__setitem__(["x", "n"], 0),
}


def _refusal(write: Any, frame: pd.DataFrame) -> str | None:
    """What pandas says if it refuses to write."""
    try:
        write(frame)
    except (ValueError, AssertionError) as error:
        # pandas 2 takes the refusal of a zoned column for a fault of its own.
        return str(error.__context__ or error)
    return None


@pytest.mark.parametrize("name", WRITES)
def test_a_write_never_reaches_the_file(store: pheon.Store, days: pheon.Table, name: str) -> None:
    frame = days.to_pandas()
    own = frame.copy(deep=True)
    before = days.to_pyarrow().to_pydict()
    WRITES[name](own)
    refusal = _refusal(WRITES[name], frame)
    if refusal is None:
        pd.testing.assert_frame_equal(frame, own)
    else:
        # Without copy-on-write pandas writes in place, and the place is read-only.
        assert not PANDAS_3
        assert "read-only" in refusal
    assert days.to_pyarrow().to_pydict() == before
    assert store.verify("days").ok


@pytest.mark.skipif(not PANDAS_3, reason="without copy-on-write these frames are read-only")
def test_parts_of_a_frame_that_is_gone_are_copied_too(store: pheon.Store, days: pheon.Table) -> None:
    series = _series_of_a_dead_frame(days.to_pandas())
    series.iloc[0] = -1.0
    assert series.iloc[0] == -1.0
    index_column = days.to_pandas().reset_index()
    index_column.loc[0, "when"] = pd.Timestamp("1999")
    assert index_column.loc[0, "when"] == pd.Timestamp("1999")
    of_index = pd.Series(days.to_pandas().index, copy=False)
    of_index.iloc[0] = pd.Timestamp("1999")
    assert of_index.iloc[0] == pd.Timestamp("1999")
    of_numbers = pd.Series(store.put("n", pd.DataFrame({"v": [1]}, index=[7])).to_pandas().index, copy=False)
    of_numbers.iloc[0] = 8
    assert of_numbers.tolist() == [8]
    assert days.to_pandas().index[0] == pd.Timestamp("2020")
    part = days.to_pandas()[["n", "x"]].iloc[5:10]
    part.iloc[0, 0] = 99
    assert part.iloc[0, 0] == 99
    assert days.to_pandas().iloc[0, 0] == 0.0
    # A second write is in place: the copy is the frame's own.
    address = address_of(part["n"].to_numpy())
    part.iloc[1, 0] = 98
    assert address_of(part["n"].to_numpy()) == address


def test_arrays_are_read_only(days: pheon.Table) -> None:
    with pytest.raises(ValueError, match="read-only"):
        days.to_numpy("x")[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        days.to_pandas()["x"].to_numpy()[0] = 1.0
    assert days.to_numpy("x")[0] == 0.0


def test_frames_outlive_table_store_and_file(tmp_path: Path) -> None:
    with pheon.open(tmp_path / "s") as store:
        store.put("t", pd.DataFrame({"x": np.arange(10_000.0), "s": ["text"] * 10_000}))
        frame = store.table("t").to_pandas()
        store.drop("t")
    assert frame["x"].sum() == 49_995_000
    assert (frame["s"] == "text").all()


# Cost ----------------------------------------------------------------------------------------------------------------


def test_the_source_is_not_copied() -> None:
    block = np.zeros((3, 100_000))
    frame = pd.DataFrame(block.T, columns=list("abc"), copy=False)
    strings = pa.chunked_array([pa.array(["text"] * 100_000, pa.large_string())])
    frame["s"] = pd.array(strings, dtype=pd.StringDtype("pyarrow"))
    frame["i"] = np.arange(100_000).astype("M8[s]")
    frame["k"] = pd.Categorical.from_codes(np.zeros(100_000, dtype="i1"), ["x"])
    source, _ = frame_source(frame)
    for at, name in enumerate("abc"):
        assert source[name].chunk(0).buffers()[1].address == address_of(block[at])
    assert source["i"].chunk(0).buffers()[1].address == address_of(frame["i"].to_numpy())
    assert source["k"].chunk(0).indices.buffers()[1].address == address_of(frame["k"].array.codes)
    assert source["s"].chunk(0).buffers()[2].address == strings.chunk(0).buffers()[2].address


PRIVATE = """
    import sys
    from pathlib import Path
    import pheon

    def anonymous():
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

    store = pheon.open(sys.argv[1], read_only=True)
    store.table("small").to_pandas(require_zero_copy=True)
    before = anonymous()
    table = store.table("wide")
    frame = table.to_pandas(require_zero_copy=True)
    print(table.nbytes, (anonymous() - before) * 1024, frame.shape[1])
"""


def test_a_wide_frame_costs_next_to_no_memory(store: pheon.Store) -> None:
    rows = 200_000
    store.put("small", pd.DataFrame({"a": [1.5]}))
    store.put("wide", pd.DataFrame({f"c{i}": np.full(rows, float(i)) for i in range(50)}))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRIVATE), str(store.path)], capture_output=True, text=True, check=True
    )
    data_bytes, private_bytes, columns = map(int, done.stdout.split())
    assert (data_bytes, columns) == (rows * 50 * 8, 50)
    # A few KiB; once in a while the kernel gives a whole huge page.
    assert private_bytes < 2 * 2**20 + 2**19


# The report itself ---------------------------------------------------------------------------------------------------


def test_how_the_report_shows_itself(store: pheon.Store) -> None:
    name = "<b>&"
    table = store.put("t", pa.table({"x": [1.5], name: [True], **{f"c{i}": [1] for i in range(150)}}))
    report = table.zero_copy_report()
    assert (report.name, report.version, report.consumers) == ("t", 1, ["pandas", "numpy", "polars", "pyarrow"])
    assert len(report) == 4 * 152
    assert [verdict.column for verdict in report.copies] == [name, name]
    assert {verdict.consumer for verdict in report} == set(report.consumers)
    shown = repr(report)
    assert "copy [1]" in shown
    assert "[1] booleans are bits in Arrow" in shown
    assert "... 52 more" in shown
    markup = report._repr_html_()
    assert "&lt;b&gt;&amp;" in markup
    assert name not in markup
    with pytest.raises(AttributeError):
        report.name = "other"  # type: ignore[misc]
    assert report.of("duckdb") == {}


def test_a_report_without_the_libraries(store: pheon.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from pheon import _zero_copy

    table = store.put("t", pa.table({"x": [1.5, 2.5], "b": [True, False]}))
    monkeypatch.setattr(_zero_copy, "find_spec", lambda name: None if name == "pyarrow" else object())
    assert table.zero_copy_report().consumers == ["numpy", "polars"]
    monkeypatch.setattr(_zero_copy, "find_spec", lambda name: None)
    assert len(table.zero_copy_report()) == 0
    assert "ZeroCopyReport" in repr(table.zero_copy_report())
