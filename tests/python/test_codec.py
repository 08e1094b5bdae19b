"""How Python values are stored: column types, msgpack, pickle."""

from __future__ import annotations

import datetime as dt
import enum
import math
import pickle
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pheon

BERLIN = ZoneInfo("Europe/Berlin")

COLUMN_VALUES: dict[str, tuple[list[Any], pa.DataType]] = {
    "str": (["", "a", "ß", "\U0001f525"], pa.large_string()),
    "bytes": ([b"", b"\x00\xff"], pa.large_binary()),
    "int": ([-(2**63), 0, 2**63 - 1], pa.int64()),
    "uint": ([0, 2**64 - 1], pa.uint64()),
    "float": ([0.0, -0.0, 1e308, float("inf")], pa.float64()),
    "bool": ([True, False], pa.bool_()),
    "none": ([None, None], pa.null()),
    "date": ([dt.date(1, 1, 1), dt.date(9999, 12, 31)], pa.date32()),
    "time": ([dt.time(0), dt.time(23, 59, 59, 999999)], pa.time64("us")),
    "datetime": ([dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)], pa.timestamp("us")),
    "utc": ([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
    "zone": ([dt.datetime(2020, 7, 1, 12, tzinfo=BERLIN)], pa.timestamp("us", "Europe/Berlin")),
    "offset": (
        [dt.datetime(2020, 7, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30)))],
        pa.timestamp("us", "-03:30"),
    ),
    "timedelta": ([dt.timedelta(-1, 1, 1), dt.timedelta(9999)], pa.duration("us")),
    "Decimal": ([Decimal("1.50"), Decimal("-0.001"), Decimal("1E+5")], pa.decimal128(38, 3)),
}


@pytest.mark.parametrize("kind", COLUMN_VALUES)
@pytest.mark.parametrize("with_none", [False, True])
def test_columns_keep_values_and_types(store: pheon.Store, kind: str, with_none: bool) -> None:
    values, expected_type = COLUMN_VALUES[kind]
    data = {f"{i}": v for i, v in enumerate(values)}
    if with_none:
        data["none"] = None
    m = store.put_map("m", data)
    assert dict(m) == data
    assert m.get_many(list(data)) == list(data.values())
    for key, value in data.items():
        assert type(m[key]) is type(value)
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            assert m[key].utcoffset() == value.utcoffset()
    arrow = m.table().to_pyarrow()
    assert arrow["value"].type == expected_type
    assert arrow["key"].type == pa.large_string()


def test_signed_zero_and_nan_survive(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": -0.0, "b": float("nan")})
    assert math.copysign(1, m["a"]) == -1
    assert math.isnan(m["b"])


NESTED = {
    "list": [1, [2, [3, []]], {}],
    "dict": {"a": {"b": [None, True, 1.5, "x", b"y"]}, 1: 2, (1, 2): "tuple key"},
    "tuple": (1, ("a", [()]), {"t": (None,)}),
    "scalar": 5,
    "text": "grün",
    "none": None,
    "big": 2**64 - 1,
    "small": -(2**63),
    "long": list(range(70_000)),
    "long text": "ä" * 70_000,
    "bytes": b"x" * 300,
    "wide": {f"k{i}": i for i in range(70)},
}


def test_nested_and_mixed_values(store: pheon.Store) -> None:
    m = store.put_map("m", NESTED)
    assert dict(m) == NESTED
    for key, value in NESTED.items():
        assert m[key] == value
        assert type(m[key]) is type(value)
    keys = list(NESTED)
    assert m.get_many(keys) == list(NESTED.values())
    assert m.get_many(np.array(keys, dtype=object)).tolist() == list(NESTED.values())
    assert m.get_many(pd.Series(keys)).tolist() == list(NESTED.values())
    field = pa.schema(m.table()).field("value")
    assert field.type == pa.large_binary()
    assert field.metadata[b"pheon.codec"] == b"msgpack"
    stored = m.get_many(pa.array(["list", "dict"]))
    assert msgpack.unpackb(stored[0].as_py()) == NESTED["list"]
    assert m.get_many(pl.Series(["scalar"])).dtype == pl.Binary
    assert m.table()["value"].to_pylist() == list(dict(m).values())
    assert m.table()[0]["value"] == m[next(iter(m))]


def test_other_writers_msgpack_is_read(store: pheon.Store) -> None:
    packed = msgpack.packb({"a": [1, -1, 1 << 40, -(1 << 40), 1.5, None, True, b"b", "s" * 40, "t" * 300]})
    float32 = b"\xca\x3f\xc0\x00\x00"
    field = pa.field("v", pa.large_binary(), metadata={"pheon.codec": "msgpack"})
    data = pa.table(
        [["a", "b"], pa.array([packed, float32], pa.large_binary())], pa.schema([pa.field("k", pa.string()), field])
    )
    m = store.put_map("m", data, key="k")
    assert m["a"] == {"a": [1, -1, 1 << 40, -(1 << 40), 1.5, None, True, b"b", "s" * 40, "t" * 300]}
    assert m["b"] == 1.5


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\xc1", b"\x92\x01", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffabc",
     b"\xa1\xff", b"\x01\x01", b"\xd4\x05\x00", b"\xd4\x01\x01", b"\x81\x90\x01", b"\x91" * 500 + b"\x01",
     b"\xc7\x02\x01\x90\x90"],
)  # fmt: skip
def test_damaged_msgpack_is_an_error(store: pheon.Store, encoded: bytes) -> None:
    field = pa.field("v", pa.large_binary(), metadata={"pheon.codec": "msgpack"})
    data = pa.table([["a"], pa.array([encoded], pa.large_binary())], pa.schema([pa.field("k", pa.string()), field]))
    m = store.put_map("m", data, key="k")
    with pytest.raises(pheon.CorruptError, match="msgpack"):
        m["a"]


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner), max_leaves=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(hashable, inner) | st.tuples(inner, inner) | st.tuples(),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), anything, max_size=8))
def test_whatever_goes_in_comes_out(store: pheon.Store, data: dict[str, Any]) -> None:
    m = store.put_map("m", data, codec="msgpack")
    out = dict(m)
    assert out == data
    # == is blind to the types of numbers; repr is not.
    assert {k: repr(v) for k, v in out.items()} == {k: repr(v) for k, v in data.items()}
    assert store.put_map("n", data) == data


def test_codec_msgpack_for_plain_values(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": 1, "b": 2}, codec="msgpack")
    assert (m["a"], m.get_many(["b", "c"], 7)) == (1, [2, 7])
    assert pa.schema(m.table()).field("value").metadata[b"pheon.codec"] == b"msgpack"


def test_mixed_values_late_in_a_dict_are_read_again(store: pheon.Store) -> None:
    data: dict[str, Any] = {f"{i:06}": i for i in range(70_000)}
    data["zlast"] = "text"
    m = store.put_map("m", data)
    assert m["000005"] == 5
    assert m["zlast"] == "text"
    assert len(m) == len(data)
    numbers: dict[int, int] = dict.fromkeys(range(70_000), 1)
    numbers[-1] = 2**63 + 5
    assert store.put_map("n", numbers)[-1] == 2**63 + 5
    decimals = {i: Decimal(i) for i in range(66_000)}
    decimals[-1] = Decimal("0.125")
    assert store.put_map("d", decimals)[-1] == Decimal("0.125")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


def test_subclasses_and_numpy_scalars_become_their_base(store: pheon.Store) -> None:
    m = store.put_map("m", {Text("a"): Colour.RED, np.str_("b"): np.int32(2)})
    assert dict(m) == {"a": 1, "b": 2}
    assert {type(k) for k in m} == {str}
    assert dict(store.put_map("f", {"a": np.float32(1.5), "b": 2.5})) == {"a": 1.5, "b": 2.5}
    assert dict(store.put_map("t", {"a": np.datetime64("2020-01-01T00:00:00")})) == {"a": dt.datetime(2020, 1, 1)}
    assert dict(store.put_map("n", {np.int64(1): [np.int64(2)]})) == {1: [2]}
    assert dict(store.put_map("b", {"a": np.True_, "b": False})) == {"a": True, "b": False}
    assert dict(store.put_map("y", {bytearray(b"x").decode(): bytearray(b"v")})) == {"x": b"v"}
    for data in (Counter("aab"), OrderedDict(a=1), defaultdict(int, a=1)):
        assert store.put_map("o", data) == data


class Thing:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def test_pickle_needs_both_sides_to_opt_in(store: pheon.Store) -> None:
    data = {"a": Thing(1), "b": {1, 2}, "c": None}
    with pytest.raises(pheon.SchemaError, match=r'Thing.*codec="pickle"'):
        store.put_map("m", data)
    m = store.put_map("m", data, codec="pickle")
    assert dict(m) == data
    assert m.get_many(["b", "x"]) == [{1, 2}, None]
    closed = store.map("m")
    assert len(closed) == 3
    assert "a" in closed
    assert list(closed) == ["a", "b", "c"]
    for read in (lambda: closed["a"], lambda: closed.get_many(["a"]), lambda: dict(closed), lambda: closed.first()):
        with pytest.raises(pheon.Error, match="allow_pickle=True"):
            read()
    assert closed.get("nope") is None
    assert "entries" in repr(closed)
    opened = store.map("m", allow_pickle=True)
    assert opened["a"] == Thing(1)
    assert pickle.loads(opened.table()["value"][0]) == Thing(1)


def test_unpickling_never_happens_unasked(store: pheon.Store) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("unpickled without permission",)

    payload = pickle.dumps(Bomb())
    field = pa.field("v", pa.large_binary(), metadata={"pheon.codec": "pickle"})
    data = pa.table([["a"], pa.array([payload], pa.large_binary())], pa.schema([pa.field("k", pa.string()), field]))
    m = store.put_map("m", data, key="k")
    with pytest.raises(pheon.Error, match="allow_pickle"):
        m["a"]
    assert m.table()["v"].to_pylist() == [payload]
    assert m.table()[0]["v"] == payload


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**64, "more than 64 bits"),
        ([2**64], "more than 64 bits"),
        ({1, 2}, "set"),
        ([object()], "object"),
        (Decimal("NaN"), "Decimal"),
        (1j, "complex"),
        (dt.time(1, tzinfo=dt.UTC), "time zone"),
        ("\ud800", "Unicode"),
        (["\ud800"], "Unicode"),
        (dt.timedelta.max, "64 bits"),
    ],
)
def test_values_without_a_column_type(store: pheon.Store, value: Any, message: str) -> None:
    with pytest.raises(pheon.SchemaError, match=message) as raised:
        store.put_map("m", {"a": value})
    assert "row 0" in str(raised.value)
    assert "m" not in store


def test_self_containing_values_end(store: pheon.Store) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(pheon.SchemaError, match="deeper"):
        store.put_map("m", {"a": loop})
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    assert store.put_map("m", {"a": deep})["a"] == deep


def test_nanoseconds_are_not_rounded_silently(store: pheon.Store) -> None:
    data = pa.table({"k": ["a", "b"], "v": pa.array([1_000, 1_001], pa.timestamp("ns"))})
    m = store.put_map("m", data, key="k")
    assert m["a"] == dt.datetime(1970, 1, 1, 0, 0, 0, 1)
    with pytest.raises(ValueError, match="microseconds"):
        m["b"]
    assert m.get_many(pa.array(["b"])).cast(pa.int64()).to_pylist() == [1_001]


def test_every_arrow_value_type_becomes_python(store: pheon.Store) -> None:
    columns = {
        "i8": pa.array([1, None], pa.int8()),
        "u16": pa.array([1, None], pa.uint16()),
        "f16": pa.array(np.array([1.5, 2.5], np.float16)),
        "f32": pa.array([1.5, None], pa.float32()),
        "fsb": pa.array([b"ab", None], pa.binary(2)),
        "d64": pa.array([dt.date(2020, 1, 1), None], pa.date64()),
        "t32": pa.array([dt.time(1), None], pa.time32("s")),
        "ts_s": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("s")),
        "dur": pa.array([dt.timedelta(1), None], pa.duration("ms")),
        "dec": pa.array([Decimal("1.5"), None], pa.decimal128(5, 2)),
        "dec256": pa.array([Decimal("1.5"), None], pa.decimal256(50, 2)),
        "list": pa.array([[1, None], None], pa.list_(pa.int64())),
        "large_list": pa.array([["a"], None], pa.large_list(pa.string())),
        "fsl": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        "struct": pa.array([{"x": 1, "y": ["a"]}, None], pa.struct([("x", pa.int8()), ("y", pa.list_(pa.string()))])),
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "dict": pa.array(["x", None]).dictionary_encode(),
        "bool": pa.array([True, None]),
        "null": pa.nulls(2),
    }
    data = pa.table({"k": ["a", "b"], **columns})
    m = store.put_map("m", data, key="k")
    for name, column in columns.items():
        assert m["a"][name] == column[0].as_py(), name
        assert m["b"][name] == column[1].as_py(), name
    assert m.get_many(["b", "a"]) == [m["b"], m["a"]]
    assert store.put_map("n", data, key="k", value="struct")["a"] == {"x": 1, "y": ["a"]}
