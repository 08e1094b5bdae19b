"""No value changes on its way in or out: later batches, defaults and nanoseconds fit exactly or are refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from store_files import leftovers

import pheon

# Later batches of a writer --------------------------------------------------------------------------------------------


def write_two(store: pheon.Store, first: pa.Array, second: pa.Array) -> list[Any]:
    with store.map_writer("m") as w:
        w.write(pa.table({"key": ["a"], "v": first}))
        w.write(pa.table({"key": ["b"], "v": second}))
    return list(store.map("m").values())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1]), pa.array([3.7])),
        (pa.array([1]), pa.array([3.0])),
        (pa.array([1]), pa.array(["12"])),
        (pa.array([1]), pa.array([True])),
        (pa.array(["x"]), pa.array([12])),
        (pa.array(["x"]), pa.array([b"x"])),
        (pa.array([True]), pa.array([2])),
        (pa.array([1], pa.int8()), pa.array([200])),
        (pa.array([1], pa.uint32()), pa.array([-1])),
        (pa.array([1.5]), pa.array([2**53 + 1])),
        (pa.array([1.5]), pa.array([2**63 - 1])),
        (pa.array([1.5], pa.float32()), pa.array([0.1])),
        (pa.array([1], pa.timestamp("s")), pa.array([1_500], pa.timestamp("ms"))),
        (pa.array([1], pa.timestamp("s")), pa.array([1_000], pa.timestamp("ms", "UTC"))),
        (pa.array([1], pa.duration("ms")), pa.array([1_500], pa.duration("us"))),
        (pa.array([1], pa.date32()), pa.array([1], pa.timestamp("s"))),
        (pa.array([Decimal("1.5")]), pa.array([Decimal("1.55")])),
        (pa.array([[1]]), pa.array([["1"]])),
    ],
    ids=str,
)
def test_a_later_batch_that_would_lose_something_is_refused(
    store: pheon.Store, first: pa.Array, second: pa.Array
) -> None:
    with pytest.raises(pheon.SchemaError, match=r'column "v"'):
        write_two(store, first, second)
    assert "m" not in store


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (pa.array([1]), pa.array([2], pa.int8()), [1, 2]),
        (pa.array([1], pa.int8()), pa.array([2]), [1, 2]),
        (pa.array([1]), pa.array([None], pa.null()), [1, None]),
        (pa.array([1.5]), pa.array([2]), [1.5, 2.0]),
        (pa.array([1.5]), pa.array([2.25], pa.float32()), [1.5, 2.25]),
        (pa.array(["x"]), pa.array(["y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x"]), pa.array(["y"], pa.string_view()), ["x", "y"]),
        (pa.array(["x"]), pa.array(["y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([b"x"]), pa.array([b"y"], pa.binary(1)), [b"x", b"y"]),
        (
            pa.array([1], pa.timestamp("us")),
            pa.array([1], pa.timestamp("s")),
            [dt.datetime(1970, 1, 1, 0, 0, 0, 1), dt.datetime(1970, 1, 1, 0, 0, 1)],
        ),
        (pa.array([Decimal("1.25")]), pa.array([2]), [Decimal("1.25"), Decimal(2)]),
        (pa.array([[1]]), pa.array([[2]], pa.large_list(pa.int32())), [[1], [2]]),
    ],
    ids=str,
)
def test_a_later_batch_is_converted_where_that_is_exact(
    store: pheon.Store, first: pa.Array, second: pa.Array, expected: list[Any]
) -> None:
    assert write_two(store, first, second) == expected


def test_a_later_batch_with_another_column_is_refused(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match='"w"'), store.map_writer("m") as w:
        w.write(pa.table({"key": ["a"], "v": [1]}))
        w.write(pa.table({"key": ["b"], "v": [2], "w": [3]}))
    with store.map_writer("m") as w:
        w.write(pa.table({"key": ["a"], "v": [1]}))
        w.write(pa.table({"w": [3], "v": [2], "key": ["b"]}), value="v")
    assert store.map("m") == {"a": 1, "b": 2}


def test_arrow_bytes_do_not_join_encoded_values(store: pheon.Store) -> None:
    with pytest.raises(pheon.SchemaError, match="codec"), store.map_writer("m", codec="msgpack") as w:
        w.put("a", [1])
        w.write(pa.table({"key": ["b"], "value": pa.array([b"\x01"], pa.large_binary())}))


# Defaults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "default"),
    [
        ([1], 7.9),
        ([1], 7.0),
        ([1], True),
        ([1], "5"),
        (["x"], 5),
        (["x"], b"x"),
        ([True], 1),
        ([1.5], "1"),
        ([1.5], 2**53 + 1),
        (pa.array([1], pa.int8()), 128),
        (pa.array([1], pa.timestamp("s")), dt.datetime(2020, 1, 1, 0, 0, 0, 5)),
    ],
    ids=str,
)
def test_a_default_that_does_not_fit_is_refused(store: pheon.Store, values: Any, default: object) -> None:
    m = store.put_map("m", pa.table({"key": ["a"], "v": values}), key="key")
    for keys in (pa.array(["a", "?"]), pa.array(["a"]), pl.Series(["?"]), pd.Series(["?"]), np.array(["?"])):
        with pytest.raises(TypeError, match="default"):
            m.get_many(keys, default)
    assert m.get_many(["?"], default) == [default]


@pytest.mark.parametrize(
    ("values", "default"),
    [
        ([1], -1),
        (pa.array([1], pa.uint8()), 255),
        ([1.5], 0),
        (["x"], "y"),
        ([True], False),
        (pa.array([1], pa.timestamp("s")), dt.datetime(2020, 1, 1)),
        ([Decimal("1.25")], Decimal("0.5")),
    ],
    ids=str,
)
def test_a_default_that_fits(store: pheon.Store, values: Any, default: object) -> None:
    m = store.put_map("m", pa.table({"key": ["a"], "v": values}), key="key")
    given = pa.array(values)[0].as_py()
    assert m.get_many(pa.array(["?", "a"]), default).to_pylist() == [default, given]


def test_get_many_of_streams_is_aligned(store: pheon.Store) -> None:
    m = store.put_map("m", {f"k{i}": i for i in range(1_000)})
    chunks = [[f"k{i}" for i in range(700)], [], ["?", None, "k999"]]
    expected = [*range(700), None, None, 999]
    keys = pa.chunked_array(chunks, pa.string())
    assert m.get_many(keys).to_pylist() == expected
    assert m.get_many(keys, threads=2).to_pylist() == expected
    assert m.get_many(keys, -1).to_pylist() == [*range(700), -1, -1, 999]
    empty = m.get_many(pa.chunked_array([], pa.string()))
    assert len(empty) == 0
    assert empty.type == pa.int64()


# Nanoseconds ----------------------------------------------------------------------------------------------------------

STAMP = pd.Timestamp("2020-01-01 00:00:00.000001")
FINER = pd.Timestamp("2020-01-01 00:00:00.000001007")


def test_nanoseconds_are_no_key_of_microseconds(store: pheon.Store) -> None:
    m = store.put_map("m", {STAMP.to_pydatetime(): 1, dt.datetime(2021, 1, 1): 2})
    assert m[STAMP] == 1
    assert FINER not in m
    assert m.get_many([STAMP, FINER]) == [1, None]
    assert len(m.range(FINER)) == 1
    assert len(m.range(STAMP)) == 2
    assert m.floor(FINER) == (STAMP.to_pydatetime(), 1)
    assert m.ceiling(FINER) == (dt.datetime(2021, 1, 1), 2)


@pytest.mark.parametrize("early", [False, True])
def test_nanoseconds_are_exact_keys_of_nanoseconds(store: pheon.Store, early: bool) -> None:
    first = pd.Timestamp("1969-12-31 23:59:59.999999993") if early else FINER
    stamps = pa.array([first.value, first.value + 1], pa.timestamp("ns"))
    m = store.put_map("m", pa.table({"k": stamps, "v": [1, 2]}), key="k")
    assert m[first] == 1
    assert m[first + pd.Timedelta(1, "ns")] == 2
    assert first - pd.Timedelta(1, "ns") not in m
    assert m.get_many([first, first.floor("us")]) == [1, None]
    assert len(m.range(first + pd.Timedelta(1, "ns"))) == 1


def test_nanoseconds_of_durations(store: pheon.Store) -> None:
    m = store.put_map("m", {dt.timedelta(microseconds=3): 1})
    assert m[pd.Timedelta(3_000, "ns")] == 1
    assert pd.Timedelta(3_001, "ns") not in m


@pytest.mark.parametrize("object_", [FINER, FINER.tz_localize("UTC"), pd.Timedelta(3_001, "ns")])
def test_nanoseconds_are_not_cut_off_when_stored(store: pheon.Store, store_path: Path, object_: Any) -> None:
    with pytest.raises(pheon.SchemaError, match="nanoseconds"):
        store.put_map("m", {"a": object_})
    with pytest.raises(pheon.SchemaError, match="nanoseconds"):
        store.put_map("m", {object_: 1})
    assert leftovers(store_path) == []


def test_stamps_of_whole_microseconds_are_stored(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": STAMP})
    assert m["a"] == STAMP.to_pydatetime()


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_arrays_are_no_values(store: pheon.Store) -> None:
    for array in (np.array([1, 2]), np.array([1])):
        with pytest.raises(pheon.SchemaError, match="ndarray"):
            store.put_map("m", {"a": array})
    assert store.put_map("m", {"a": np.int64(3)}) == {"a": 3}


def test_decimals_with_more_places_than_digits(store: pheon.Store) -> None:
    unscaled = pa.py_buffer(b"".join(value.to_bytes(16, "little", signed=True) for value in (123, -7)))
    column = pa.Array.from_buffers(pa.decimal128(3, 5), 2, [None, unscaled])
    store.put("t", pa.table({"k": [1, 2], "x": column}), key="k")
    assert store.table("t").to_pyarrow()["x"].to_pylist() == [Decimal("0.00123"), Decimal("-0.00007")]
    assert store.verify("t").ok
