"""Building maps and tables from every kind of source, and what happens around a build."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from store_files import leftovers

import pheon

SOURCE = pa.table({"k": ["b", "a", "c"], "x": [2, 1, 3], "y": ["two", "one", None]})
PAIRS = {"a": 1, "b": 2, "c": 3}


class OtherMapping(Mapping[str, int]):
    """A mapping that is no dict."""

    def __getitem__(self, key: str) -> int:
        return PAIRS[key]

    def __iter__(self) -> Iterator[str]:
        return iter(PAIRS)

    def __len__(self) -> int:
        return len(PAIRS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PAIRS,
        lambda: list(PAIRS.items()),
        lambda: iter(PAIRS.items()),
        lambda: ((k, v) for k, v in PAIRS.items()),
        lambda: [["a", 1], ["b", 2], ["c", 3]],
        lambda: OtherMapping(),
        lambda: zip(PAIRS, PAIRS.values(), strict=True),
        lambda: {"c": 3, "a": 1, "b": 2}.items(),
    ],
)
def test_python_sources(store: pheon.Store, make: Any) -> None:
    m = store.put_map("m", make())
    assert m == PAIRS
    assert (m.key, m.value_names) == ("key", ["value"])
    assert dict(store.map("m").items()) == PAIRS


def test_column_names_of_pairs(store: pheon.Store) -> None:
    m = store.put_map("m", PAIRS, key="word", value="count")
    assert m.table().column_names == ["word", "count"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SOURCE,
        lambda: SOURCE.to_batches()[0],
        lambda: SOURCE.to_reader(),
        lambda: pl.DataFrame(SOURCE),
        lambda: SOURCE.to_pandas(),
        lambda: duckdb.sql("from SOURCE"),
        lambda: pa.concat_tables([SOURCE.slice(0, 1), SOURCE.slice(1)]),
    ],
)
def test_arrow_sources(store: pheon.Store, make: Any) -> None:
    assert store.put_map("m", make(), key="k", value="x") == {"a": 1, "b": 2, "c": 3}
    m = store.put_map("m", make(), key="k")
    assert m["a"] == {"x": 1, "y": "one"}
    y = store.put_map("m", make(), key="k", value=["y"])
    assert [v if isinstance(v, str) else None for v in (y["a"], y["c"])] == ["one", None]


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(SOURCE, path)


def write_csv(path: Path) -> None:
    pyarrow.csv.write_csv(SOURCE, path)


def write_tsv(path: Path) -> None:
    pyarrow.csv.write_csv(SOURCE, path, pyarrow.csv.WriteOptions(delimiter="\t"))


def write_json(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in SOURCE.to_pylist()))


def write_feather(path: Path) -> None:
    pyarrow.feather.write_feather(SOURCE, path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".parquet", write_parquet),
        (".csv", write_csv),
        (".tsv", write_tsv),
        (".ndjson", write_json),
        (".arrow", write_feather),
        (".feather", write_feather),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_files(store: pheon.Store, tmp_path: Path, suffix: str, write: Any, as_text: bool) -> None:
    path = tmp_path / f"data{suffix}"
    write(path)
    source = str(path) if as_text else path
    assert store.put_map("m", source, key="k", value="x") == {"a": 1, "b": 2, "c": 3}
    assert store.put("t", source, key="x").to_pyarrow()["k"].to_pylist() == ["a", "b", "c"]


def test_maps_and_tables_as_sources(store: pheon.Store) -> None:
    m = store.put_map("m", PAIRS)
    assert store.put_map("copy", m) == PAIRS
    assert store.put_map("part", m.range("b")) == {"b": 2, "c": 3}
    assert store.put_map("turned", m, key="value", value="key") == {1: "a", 2: "b", 3: "c"}
    assert store.put("t", m).key == ["key"]
    mixed = store.put_map("mixed", {"a": [1], "b": {"x": 2}})
    assert store.put_map("mixed copy".replace(" ", "_"), mixed) == mixed


def test_pandas_sources(store: pheon.Store) -> None:
    frame = pd.DataFrame({"v": [2, 1]}, index=pd.Index(["b", "a"], name="i"))
    t = store.put("t", frame)
    assert t.key == ["i"]
    back = t.to_pandas()
    assert back.index.tolist() == ["a", "b"]
    assert back.index.name == "i"
    assert store.put_map("m", frame) == {"a": 1, "b": 2}
    assert store.put_map("s", pd.Series({"x": 1.5, "y": 2.5})) == {"x": 1.5, "y": 2.5}
    plain = store.put("p", pd.DataFrame({"v": [2, 1]}))
    assert plain.key == []
    assert plain.to_pandas()["v"].tolist() == [2, 1]
    times = pd.DataFrame({"v": [1, 2]}, index=pd.date_range("2020-01-01", periods=2, tz="UTC"))
    assert store.put("times", times).range(dt.datetime(2020, 1, 2, tzinfo=dt.UTC)).num_rows == 1


def test_on_duplicate(store: pheon.Store, store_path: Path) -> None:
    pairs = [("a", 1), ("b", 2), ("a", 3)]
    assert store.put_map("m", pairs, on_duplicate="first") == {"a": 1, "b": 2}
    assert store.put_map("m", pairs, on_duplicate="last") == {"a": 3, "b": 2}
    with pytest.raises(pheon.DuplicateKeyError, match=r'"a".* 0 and 2'):
        store.put_map("m", pairs)
    assert store.map("m") == {"a": 3, "b": 2}
    assert len(store.versions("m")) == 2
    assert leftovers(store_path) == []
    with pytest.raises(ValueError, match="on_duplicate"):
        store.put_map("m", pairs, on_duplicate="middle")  # type: ignore[arg-type]


def test_keys_of_several_types_are_named(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match=r"str and int|int and str"):
        store.put_map("m", {"a": 1, 5: 2})
    many: dict[Any, int] = {f"{i}": i for i in range(70_000)}
    many[b"bytes"] = 1
    with pytest.raises(pheon.SchemaError, match="str and bytes"):
        store.put_map("m", many)
    with pytest.raises(pheon.SchemaError, match="tuples"):
        store.put_map("m", {("a", "b"): 1})
    with pytest.raises(pheon.SchemaError, match="float"):
        store.put_map("m", {1.5: 1})
    assert list(store) == []


def test_a_late_mismatch_in_an_iterable_names_the_row(store: pheon.Store, store_path: Path) -> None:
    def pairs() -> Iterator[tuple[str, Any]]:
        for i in range(70_000):
            yield f"{i}", i
        yield "late", "text"

    with pytest.raises(pheon.SchemaError, match=r'row 70000.*str.*int.*codec="msgpack"'):
        store.put_map("m", pairs())
    assert "m" not in store
    assert leftovers(store_path) == []
    assert store.put_map("m", pairs(), codec="msgpack")["late"] == "text"


def test_null_keys_name_their_row(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match="row 1"):
        store.put_map("m", [("a", 1), (None, 2)])
    with pytest.raises(pheon.SchemaError, match=r"row 2\b"):
        store.put_map("m", pa.table({"k": ["a", "b", None], "v": [1, 2, 3]}), key="k")
    assert list(store) == []


def test_items_that_are_no_pairs(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match="row 1: expected a .key, value. tuple"):
        store.put_map("m", [("a", 1), "bc"])
    with pytest.raises(pheon.SchemaError, match="row 0"):
        store.put_map("m", [("a", 1, 2)])
    with pytest.raises(TypeError):
        store.put_map("m", 5)


def test_missing_columns_and_keys(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match=r'"nope".*\["k", "x", "y"\]'):
        store.put_map("m", SOURCE, key="nope")
    with pytest.raises(pheon.SchemaError, match="nope"):
        store.put_map("m", SOURCE, key="k", value="nope")
    with pytest.raises(pheon.SchemaError, match="twice"):
        store.put_map("m", SOURCE, key="k", value="k")
    with pytest.raises(ValueError, match="key="):
        store.put_map("m", SOURCE)
    with pytest.raises(ValueError, match="codec"):
        store.put_map("m", SOURCE, key="k", codec="msgpack")
    with pytest.raises(ValueError, match="codec"):
        store.put_map("m", PAIRS, codec="json")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="put_map"):
        store.put("t", PAIRS)


def test_the_sources_own_exceptions_come_through(store: pheon.Store, store_path: Path) -> None:
    def broken() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        store.put_map("m", broken())
    assert list(store) == []
    assert leftovers(store_path) == []


def test_a_dict_that_changes_while_it_is_stored(store: pheon.Store) -> None:
    class Meddler(np.float32):
        __module__ = "numpy"

        def item(self, *_: object) -> int:
            data["more"] = [1]
            return 1

    # Beyond the pairs that wait for the column types, so that values are encoded while the dict is gone through.
    data: dict[Any, Any] = {f"{i}": [i] if i != 66_000 else Meddler(1) for i in range(70_000)}
    with pytest.raises(RuntimeError, match="changed"):
        store.put_map("m", data, codec="msgpack")
    assert list(store) == []


# Tables ---------------------------------------------------------------------------------------------------------------


def test_table_exports(store: pheon.Store) -> None:
    t = store.put("t", SOURCE, key="x")
    assert (len(t), t.num_rows, t.num_columns, t.version, t.key) == (3, 3, 3, 1, ["x"])
    assert t.schema == {"k": "LargeUtf8", "x": "Int64", "y": "LargeUtf8"}
    assert t.nbytes > 0
    rows = [{"k": "a", "x": 1, "y": "one"}, {"k": "b", "x": 2, "y": "two"}, {"k": "c", "x": 3, "y": None}]
    assert pa.table(t).to_pylist() == rows
    assert t.to_pyarrow().to_pylist() == rows
    assert t.to_polars().to_dicts() == rows
    assert pl.DataFrame(t).to_dicts() == rows
    assert pl.DataFrame(t[1:]).to_dicts() == rows[1:]
    assert t.to_pandas()["x"].tolist() == [1, 2, 3]
    assert pd.DataFrame.from_arrow(t)["x"].tolist() == [1, 2, 3]
    assert duckdb.sql("select sum(x) from t").fetchall() == [(6,)]
    assert t.to_numpy("x").tolist() == [1, 2, 3]
    assert t.to_numpy("y").tolist() == ["one", "two", None]
    assert list(t) == rows
    assert (t[0], t[-1]) == (rows[0], rows[2])
    assert t["k"].to_pylist() == ["a", "b", "c"]
    with pytest.raises(KeyError):
        t["nope"]
    with pytest.raises(IndexError):
        t[3]
    assert pa.schema(t).names == ["k", "x", "y"]
    assert "3 rows" in repr(t)
    assert t.info().key == ["x"]


def test_table_slices(store: pheon.Store) -> None:
    t = store.put("t", pa.table({"k": [1, 2, 2, 2, 5], "v": list("abcde")}), key="k")
    assert t[1:3].to_pyarrow()["v"].to_pylist() == ["b", "c"]
    assert t[-2:].to_pyarrow()["v"].to_pylist() == ["d", "e"]
    assert t[4:2].num_rows == 0
    with pytest.raises(ValueError, match="step"):
        t[::2]
    assert [r["v"] for r in t.rows(2)] == ["b", "c", "d"]
    assert t.rows(3).num_rows == 0
    assert t.rows(2**70).num_rows == 0
    assert [r["v"] for r in t.range(2, 5)] == ["b", "c", "d"]
    assert [r["v"] for r in t[2:].range(2, 5)] == ["c", "d"]
    assert t[1:][1:][0] == {"k": 2, "v": "c"}
    with pytest.raises(TypeError, match="no key"):
        store.put("nokey", SOURCE).range(1)
    with pytest.raises(TypeError, match="unique"):
        store.map("t")


def test_exports_share_the_mapping(store: pheon.Store) -> None:
    numbers = np.arange(100_000)
    data = pa.table(
        {"k": numbers, "f": numbers * 0.5, "s": [f"text {i}" for i in numbers], "t": numbers.astype("M8[us]")}
    )
    t = store.put("t", data, key="k")
    arrow = t.to_pyarrow()
    mapped = set(mapped_ranges(str(store.path)))

    def is_mapped(address: int) -> bool:
        return any(start <= address < end for start, end in mapped)

    for name in data.column_names:
        for buffer in arrow[name].chunk(0).buffers()[1:]:
            assert is_mapped(buffer.address), name
    for name in ("k", "f", "t"):
        assert is_mapped(t.to_numpy(name).__array_interface__["data"][0]), name
        assert not t.to_numpy(name).flags.writeable
        assert is_mapped(t[500:]["k"].__array_interface__["data"][0])
    frame = t.to_pandas()
    for name in ("k", "f"):
        assert is_mapped(frame[name].to_numpy().__array_interface__["data"][0]), name
    strings = pa.chunked_array(pa.array(frame["s"]))
    assert is_mapped(strings.chunk(0).buffers()[2].address)


def mapped_ranges(path: str) -> Iterator[tuple[int, int]]:
    """Address ranges where this process has files under `path` mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if path in line:
            start, end = line.split()[0].split("-")
            yield int(start, 16), int(end, 16)


# Writers --------------------------------------------------------------------------------------------------------------


def test_map_writer_takes_everything(store: pheon.Store) -> None:
    other = store.put_map("other", {"from map": 8})
    with store.map_writer("m", on_duplicate="last") as w:
        w.put("a", 1)
        w.update({"b": 2})
        w.update([("c", 3)])
        w.update(OtherMapping())
        w.update(other)
        assert w.rows == 7
        assert "m" not in store
        w.write(pa.table({"key": ["z", "a"], "value": [26, 100]}))
        w.write(pl.DataFrame({"value": [27], "key": ["y"]}))
        w.write(other)
        w.put("last", 9)
    assert w.version == 1
    assert store.map("m") == {"a": 100, "b": 2, "c": 3, "from map": 8, "z": 26, "y": 27, "last": 9}
    with pytest.raises(pheon.ClosedError):
        w.put("x", 1)


def test_map_writer_starting_with_arrow_sets_the_schema(store: pheon.Store) -> None:
    with store.map_writer("m", key="word") as w:
        w.write(pa.table({"word": ["a"], "n": pa.array([1], pa.int32())}))
        w.put("b", 2)
        w.write(pa.table({"n": pa.array([3], pa.int64()), "word": pa.array(["c"], pa.string_view())}))
        with pytest.raises(pheon.ClosedError, match="in use"):
            w.update((k, w.put("x", 1)) for k in "y")
    m = store.map("m")
    assert m == {"a": 1, "b": 2, "c": 3}
    assert m.table().schema == {"word": "LargeUtf8", "n": "Int32"}
    with pytest.raises(pheon.SchemaError, match="missing"), store.map_writer("m", key="word") as w:
        w.write(pa.table({"word": ["a"], "n": [1]}))
        w.write(pa.table({"word": ["b"], "other": [1]}))
    with pytest.raises(pheon.SchemaError, match="Int8"), store.map_writer("m", key="word") as w:
        w.write(pa.table({"word": ["a"], "n": pa.array([1], pa.int8())}))
        w.put("b", 1000)
    with pytest.raises(pheon.SchemaError, match="2 value columns"), store.map_writer("m", key="k") as w:
        w.write(SOURCE)
        w.put("d", 1)
    assert store.map("m") == {"a": 1, "b": 2, "c": 3}


def test_map_writer_publishes_nothing_after_an_exception(store: pheon.Store, store_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.map_writer("m") as w:
        for i in range(100_000):
            w.put(i, i)
        raise ZeroDivisionError
    assert w.version is None
    assert "m" not in store
    assert leftovers(store_path) == []
    with pytest.raises(pheon.SchemaError, match="row 1"), store.map_writer("m") as w:
        w.put("a", 1)
        w.put(None, 2)
    assert list(store) == []


def test_a_writer_that_failed_once_publishes_nothing(store: pheon.Store) -> None:
    with pytest.raises(pheon.Error, match="failed at row"), store.map_writer("m") as w:
        w.put("a", 1)
        with pytest.raises(pheon.SchemaError):
            w.put(None, 2)
    assert list(store) == []


def test_map_writer_empty(store: pheon.Store) -> None:
    with store.map_writer("m"):
        pass
    assert store.map("m") == {}


def test_many_pairs_in_little_memory(store: pheon.Store) -> None:
    rng = random.Random(3)
    n = 300_000
    order = list(range(n))
    rng.shuffle(order)
    with store.map_writer("m", memory_limit="64MiB") as w:
        w.update((f"key number {i:08}", f"value {i}" * 10) for i in order)
    m = store.map("m")
    assert len(m) == n
    for i in rng.sample(range(n), 1000):
        assert m[f"key number {i:08}"] == f"value {i}" * 10
    assert store.verify("m")


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, None), (5, 5), ("5", 5), ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("10kb", 10_000), ("7 B", 7)],
)
def test_sizes(size: Any, expected: int | None) -> None:
    from pheon._options import parse_bytes

    assert parse_bytes(size) == expected


@pytest.mark.parametrize("size", ["", "GB", "2XB", "-1", -1, "1e9", 2**64, 10**30, "9" * 400])
def test_sizes_that_are_none(size: Any) -> None:
    from pheon._options import parse_bytes

    with pytest.raises(ValueError, match="size"):
        parse_bytes(size)


def test_options_are_checked(store: pheon.Store) -> None:
    for options in ({"memory_limit": "1MB"}, {"threads": 0}, {"lock_timeout": -1.0}, {"memory_limit": "much"}):
        with pytest.raises(ValueError, match=r"memory_limit|threads|lock_timeout|size"):
            store.put_map("m", PAIRS, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress"):
        store.put_map("m", PAIRS, progress="yes")  # type: ignore[arg-type]
    assert list(store) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"memory_limit": 10**30}, ValueError),
        ({"memory_limit": -1}, ValueError),
        ({"memory_limit": True}, TypeError),
        ({"memory_limit": 1e9}, TypeError),
        ({"memory_limit": "much"}, ValueError),
        ({"threads": -1}, ValueError),
        ({"threads": 10**30}, ValueError),
        ({"threads": "2"}, TypeError),
        ({"threads": 1.5}, TypeError),
        ({"lock_timeout": "x"}, TypeError),
        ({"lock_timeout": []}, TypeError),
        ({"lock_timeout": -1}, ValueError),
        ({"lock_timeout": float("nan")}, ValueError),
        ({"lock_timeout": 10**400}, ValueError),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(store: pheon.Store, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))) as raised:
        store.put_map("m", PAIRS, **options)
    assert type(raised.value) is error
    with pytest.raises(error, match=next(iter(options))):
        store.put("t", SOURCE, **options)
    with pytest.raises(error, match=next(iter(options))):
        store.map_writer("m", **options)
    if "threads" in options:
        with pytest.raises(error, match="threads"):
            store.put_map("m", PAIRS).get_many(["a"], **options)


@pytest.mark.parametrize("path", [Path("shm://x"), "shm:/x", "SHM://x", "Shm:/x", Path("SHM://x")], ids=repr)
def test_a_path_that_is_nearly_a_store_in_memory(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for read_only in (False, True):
        with pytest.raises(ValueError, match="shm://name"):
            pheon.open(path, read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def test_more_nones_than_a_batch_holds(store: pheon.Store) -> None:
    rows = 200_000
    m = store.put_map("m", dict.fromkeys(range(rows)))
    assert len(m) == rows
    assert m.get_many([0, 65_536, rows - 1, rows], "?") == [None, None, None, "?"]
    assert store.put_map("n", ((i, None) for i in range(rows))) == m
    assert store.verify("m")


def test_map_writer_remembers_its_rows(store: pheon.Store) -> None:
    with store.map_writer("m") as w:
        w.update(PAIRS)
        w.write(pa.table({"key": ["z"], "value": [9]}))
        assert w.rows == 4
    assert (w.rows, w.version) == (4, 1)
    with pytest.raises(pheon.ClosedError):
        w.put("y", 1)
    given_up = store.map_writer("m")
    given_up.put("a", 1)
    given_up.abort()
    given_up.abort()
    assert (given_up.rows, given_up.version) == (1, None)
    with pytest.raises(pheon.DuplicateKeyError), store.map_writer("m") as failed:
        failed.put("a", 1)
        failed.put("a", 2)
    assert (failed.rows, failed.version) == (2, None)


# pandas indexes -------------------------------------------------------------------------------------------------------


def test_a_named_range_index_is_the_key(store: pheon.Store) -> None:
    frame = pd.DataFrame({"v": [7, 8, 9]}, index=pd.RangeIndex(10, 13, name="i"))
    t = store.put("t", frame)
    assert t.key == ["i"]
    pd.testing.assert_frame_equal(t.to_pandas(), frame, check_index_type=False)
    assert store.put_map("m", frame) == {10: 7, 11: 8, 12: 9}


def test_an_unnamed_count_is_no_key(store: pheon.Store) -> None:
    t = store.put("t", pd.DataFrame({"v": [7, 8, 9]}))
    assert (t.key, t.column_names) == ([], ["v"])


@pytest.mark.parametrize("name", [None, "n"])
@pytest.mark.parametrize(
    "index",
    [None, pd.RangeIndex(5, 8), pd.RangeIndex(5, 8, name="i"), pd.Index([5, 6, 7]), pd.Index([5, 6, 7], name="i")],
)
def test_the_index_of_a_series_is_the_key(store: pheon.Store, index: Any, name: str | None) -> None:
    series = pd.Series([1.5, 2.5, 3.5], index=index, name=name)
    index_name = series.index.name
    m = store.put_map("m", series)
    assert m == dict(zip(series.index.tolist(), [1.5, 2.5, 3.5], strict=True))
    assert (m.key, m.value_names) == (index_name or "index", [name or "value"])
    # The caller's index is not touched.
    assert series.index.name == index_name


# Progress and Ctrl-C --------------------------------------------------------------------------------------------------


def test_progress_callback(store: pheon.Store) -> None:
    seen: list[pheon.Progress] = []
    store.put_map("m", {f"{i}": i for i in range(200_000)}, progress=seen.append)
    assert {p.phase for p in seen} <= {"read", "merge", "index", "sync"}
    assert {"read", "index"} <= {p.phase for p in seen}
    assert any(p.rows_total == 200_000 for p in seen)
    assert all(p.rows_done >= 0 and p.elapsed_seconds >= 0 for p in seen)
    assert "Progress(" in repr(seen[0])


def test_an_exception_in_the_callback_stops_the_build(store: pheon.Store, store_path: Path) -> None:
    def stop(progress: pheon.Progress) -> None:
        raise ZeroDivisionError(progress.phase)

    with pytest.raises(ZeroDivisionError):
        store.put_map("m", {f"{i}": i for i in range(300_000)}, progress=stop)
    assert list(store) == []
    assert leftovers(store_path) == []


@pytest.mark.parametrize("data", [PAIRS, SOURCE.select(["k", "x"])], ids=["pairs", "arrow"])
def test_an_exception_of_the_last_report_publishes_nothing(store: pheon.Store, store_path: Path, data: Any) -> None:
    phases: list[str] = []
    key = None if isinstance(data, dict) else "k"
    store.put_map("m", data, key=key, progress=lambda p: phases.append(p.phase))
    last = len(phases)
    assert phases[-1] == "sync"

    def stop(progress: pheon.Progress) -> None:
        phases.append(progress.phase)
        if len(phases) == 2 * last:
            raise ZeroDivisionError(progress.phase)

    with pytest.raises(ZeroDivisionError, match="sync"):
        store.put_map("m", data, key=key, progress=stop)
    assert [v.version for v in store.versions("m")] == [1]
    assert leftovers(store_path) == []


def test_progress_bar_is_for_terminals_only(store: pheon.Store, capfd: pytest.CaptureFixture[str]) -> None:
    store.put_map("m", PAIRS, progress=True)
    assert capfd.readouterr() == ("", "")


def test_progress_bar_on_a_terminal(store_path: Path) -> None:
    import pty

    code = (
        f"import pheon; pheon.open({str(store_path)!r}).put_map('m', {{i: i for i in range(100_000)}}, progress=True)"
    )
    main, terminal = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=terminal)
    os.close(terminal)
    drawn = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        drawn += chunk
    assert process.wait(60) == 0
    assert b"index" in drawn
    assert b"100%" in drawn or b"rows" in drawn
    assert drawn.endswith(b"\n")


INTERRUPTED = """
    import os, signal, sys, threading, time
    import pyarrow as pa
    import pheon

    kind, path = sys.argv[1:]
    store = pheon.open(path)
    store.put_map("m", {"old": 1})

    def pairs():
        i = 0
        while True:
            yield f"key {i}", i
            i += 1

    def batches():
        i = 0
        while True:
            yield pa.record_batch({"key": [f"{j}" for j in range(i, i + 1000)], "value": list(range(1000))})
            i += 1000

    class Endless(dict):
        def items(self):
            return pairs()

    try:
        threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
        if kind == "pairs":
            store.put_map("m", pairs())
        elif kind == "arrow":
            schema = pa.schema({"key": pa.string(), "value": pa.int64()})
            store.put_map("m", pa.RecordBatchReader.from_batches(schema, batches()), key="key")
        elif kind == "writer":
            with store.map_writer("m") as w:
                for k, v in pairs():
                    w.put(k, v)
        elif kind == "lock":
            with store.map_writer("m") as w:
                w.write(pa.table({"key": ["a"], "value": [1]}))
                store.put_map("m", {"b": 2}, lock_timeout=600)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("kind", ["pairs", "arrow", "writer", "lock"])
def test_ctrl_c_leaves_the_store_as_it_was(store_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), kind, str(store_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout == "interrupted\n", done.stderr
    store = pheon.open(store_path)
    assert store.map("m") == {"old": 1}
    assert len(store.versions("m")) == 1
    assert leftovers(store_path) == []


# Versions -------------------------------------------------------------------------------------------------------------


def test_versions_rollback_gc_drop(store: pheon.Store) -> None:
    for i in range(3):
        store.put_map("m", {"v": i})
    versions = store.versions("m")
    assert [(v.version, v.rows, v.origin) for v in versions] == [(1, 1, "put"), (2, 1, "put"), (3, 1, "put")]
    assert all(v.bytes > 0 and v.created.tzinfo is not None for v in versions)
    assert store.rollback("m", 1) == 4
    assert store.map("m") == {"v": 0}
    assert store.versions("m")[-1].origin == "rollback:1"
    held = store.map("m", 2)
    report = store.gc("m", keep=2)
    assert report.versions_removed == [1, 2]
    assert report.bytes_freed > 0
    assert held == {"v": 1}
    everywhere = store.gc()
    assert everywhere["m"].versions_removed == [3]
    assert [v.version for v in store.versions("m")] == [4]
    assert store.compact("m") == 4
    store.drop("m")
    assert "m" not in store
    assert held == {"v": 1}
    with pytest.raises(pheon.NotFoundError):
        store.map("m")


def test_store_basics(store: pheon.Store, store_path: Path) -> None:
    assert list(store) == []
    assert store
    store.put_map("b", PAIRS)
    store.put("a", SOURCE)
    assert list(store) == ["a", "b"]
    assert len(store) == 2
    assert "b" in store
    assert "c" not in store
    assert "../b" not in store
    assert 5 not in store
    assert store.path == str(store_path)
    assert len(store.uuid) == 32
    assert str(store_path) in repr(store)
    report = store.verify("b")
    assert report.ok
    assert (report.version, report.rows, report.keys, report.problems) == (1, 3, 3, [])
    memory = store.memory()
    assert set(memory) == {"a", "b"}
    assert memory["b"].file_bytes > 0
    warm = store.warm("b")
    assert warm.resident_bytes == warm.file_bytes


def test_two_threads_build_and_read(store: pheon.Store) -> None:
    store.put_map("m", {"a": 0})
    stop = threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        m = store.map("m")
        try:
            while not stop.is_set():
                m.refresh()
                assert m["a"] == m.get_many(["a"])[0] or m.refresh() is not None
        except BaseException as e:  # noqa: BLE001
            problems.append(e)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for i in range(20):
        store.put_map("m", {"a": i})
        store.gc("m", keep=2)
    stop.set()
    for thread in readers:
        thread.join()
    assert problems == []
    assert store.map("m") == {"a": 19}


def test_ctrl_c_restores_the_default_handlers_meaning() -> None:
    # The tests above rely on it; pytest or a parent that ignores SIGINT would make them meaningless.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
