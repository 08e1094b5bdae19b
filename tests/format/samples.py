"""Columns of every key type and of many value types, unsorted, with the extremes of each."""

import decimal
import random
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

ROWS = 40


def _spread(low: int, high: int) -> list[int]:
    """ROWS different integers of a range, the extremes among them, in no order."""
    rng = random.Random(f"{low} {high}")
    found = {low, high, low + 1, high - 1, max(low, -1), 0, 1, max(low, -2)}
    while len(found) < ROWS:
        found.add(rng.randint(low, high) if rng.random() < 0.5 else rng.randint(max(low, -500), min(high, 500)))
    values = sorted(found)[:ROWS]
    if high not in values:
        values[-1] = high
    rng.shuffle(values)
    return values


def _integers(kind: pa.DataType, low: int, high: int) -> pa.Array:
    return pa.array(_spread(low, high), kind)


def _signed_as(kind: pa.DataType, bits: int) -> pa.Array:
    """Any value of the integer that a temporal type stores."""
    integers = pa.int32() if bits == 32 else pa.int64()
    # The type's own range of meaningful values is left to those that have one (times of day).
    return _integers(integers, -(1 << bits - 1), (1 << bits - 1) - 1).view(kind)


def _times(kind: pa.DataType, per_second: int) -> pa.Array:
    integers = pa.int32() if kind.bit_width == 32 else pa.int64()
    return _integers(integers, 0, 86_400 * per_second - 1).view(kind)


def _days_as_date64() -> pa.Array:
    return pa.array([day * 86_400_000 for day in _spread(-700_000, 2_900_000)], pa.int64()).view(pa.date64())


def _decimals(kind: Any) -> pa.Array:
    digits = kind.precision
    unscaled = [-(10**digits) + 1, 10**digits - 1, *_spread(-(10 ** (digits - 1)), 10 ** (digits - 1))][:ROWS]
    with decimal.localcontext(prec=digits + 1):
        return pa.array([decimal.Decimal(value).scaleb(-kind.scale) for value in unscaled], kind)


def _texts() -> list[str]:
    rng = random.Random(7)
    fixed = [
        "",
        "a",
        "aa",
        "ab",
        "a\0",
        "é",
        "e\u0301",
        "\U0001f426",
        "\uffff",
        "\U00010000",
        "z" * 300,
        " ",
        "\n",
        "usr/bin/a",
    ]
    return fixed + [f"usr/share/{rng.getrandbits(rng.choice((8, 24, 60))):x}/{i}" for i in range(ROWS - len(fixed))]


def _blobs() -> list[bytes]:
    rng = random.Random(8)
    fixed = [b"", b"\0", b"\0\0", b"\xff", b"\xff\xff", b"\x7f", b"\x80", b"a", b"a\0b"]
    # Lengths on both sides of each of XXH3's own cases: 3, 8, 16, 128, 240 and 1024 bytes.
    lengths = [3, 4, 7, 8, 9, 15, 16, 17, 32, 33, 64, 127, 128, 129, 130, 239, 240, 241, 1023, 1024, 1025, 3000]
    return (fixed + [rng.randbytes(n) for n in lengths] + [rng.randbytes(12) for _ in range(ROWS)])[:ROWS]


def key_columns() -> dict[str, pa.Array]:
    """A column of distinct values for each type that can be a key, by a name."""
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    columns: dict[str, pa.Array] = {
        "string": pa.array(_texts(), pa.string()),
        "large_string": pa.array(_texts(), pa.large_string()),
        "string_view": pa.array(_texts(), pa.string_view()),
        "binary": pa.array(_blobs(), pa.binary()),
        "large_binary": pa.array(_blobs(), pa.large_binary()),
        "binary_view": pa.array(_blobs(), pa.binary_view()),
        "bool": pa.array([True, False]),
        "date32": _signed_as(pa.date32(), 32),
        "date64": _days_as_date64(),
        "time32_s": _times(pa.time32("s"), 1),
        "time32_ms": _times(pa.time32("ms"), 10**3),
        "time64_us": _times(pa.time64("us"), 10**6),
        "time64_ns": _times(pa.time64("ns"), 10**9),
        "timestamp_zone": _signed_as(pa.timestamp("us", "Europe/Berlin"), 64),
    }
    for width in (8, 16, 32, 64):
        columns[f"int{width}"] = _integers(getattr(pa, f"int{width}")(), -(1 << width - 1), (1 << width - 1) - 1)
        columns[f"uint{width}"] = _integers(getattr(pa, f"uint{width}")(), 0, (1 << width) - 1)
    for unit in units:
        columns[f"timestamp_{unit}"] = _signed_as(pa.timestamp(unit), 64)
        columns[f"duration_{unit}"] = _signed_as(pa.duration(unit), 64)
    for kind in (
        pa.decimal32(9, 2),
        pa.decimal64(18, 0),
        pa.decimal128(38, 10),
        pa.decimal256(76, 5),
        pa.decimal128(5, -2),
    ):
        columns[f"{kind}"] = _decimals(kind)
    for width in (1, 4, 16, 33):
        blobs = random.Random(width).sample(range(1 << min(8 * width, 60)), ROWS)
        columns[f"fixed_binary_{width}"] = pa.array([v.to_bytes(width, "big") for v in blobs], pa.binary(width))
    return columns


def value_columns(rows: int = ROWS) -> dict[str, pa.Array]:
    """Columns of many types, with nulls where the name does not say otherwise."""
    rng = random.Random(rows)

    def some(make: Any, kind: pa.DataType) -> pa.Array:
        return pa.array([None if i % 7 == 3 else make(i) for i in range(rows)], kind)

    texts = [f"Wert {i} ü \U0001f426"[: i % 14] for i in range(rows)]
    ints = pa.array(range(rows), pa.int32())
    columns: dict[str, pa.Array] = {
        "text_no_nulls": pa.array(texts, pa.string()),
        "large_text": some(lambda i: texts[i], pa.large_string()),
        "text_view": some(lambda i: texts[i] * (i % 3), pa.string_view()),
        "blob": some(lambda i: rng.randbytes(i % 20), pa.binary()),
        "blob_view": some(lambda i: rng.randbytes(i % 20), pa.binary_view()),
        "fixed_binary": some(lambda i: rng.randbytes(5), pa.binary(5)),
        "bool": some(lambda i: i % 3 == 0, pa.bool_()),
        "float16_no_nulls": pa.array([i / 8 for i in range(rows)], pa.float16()),
        "float32": some(lambda i: -i / 3, pa.float32()),
        "float64": some(lambda i: [float("inf"), -0.0, 1e308, 5e-324, i / 7][i % 5], pa.float64()),
        "date32": some(lambda i: date(1970, 1, 1) + timedelta(days=400 * i), pa.date32()),
        "date64": some(lambda i: date(1970, 1, 1) - timedelta(days=400 * i), pa.date64()),
        "time32": some(lambda i: time(i % 24, 59, 1), pa.time32("ms")),
        "time64": some(lambda i: time(i % 24, 59, 1, i), pa.time64("us")),
        "timestamp": some(lambda i: datetime(2026, 1, 1 + i % 28, 5, 6, 7, i), pa.timestamp("us")),
        "timestamp_utc": some(lambda i: datetime(1826, 1, 1 + i % 28, tzinfo=UTC), pa.timestamp("ms", "UTC")),
        "duration": some(lambda i: timedelta(microseconds=-i), pa.duration("us")),
        "decimal128": some(lambda i: decimal.Decimal(i * 10**20 + i).scaleb(-4), pa.decimal128(30, 4)),
        "decimal256": some(lambda i: decimal.Decimal(-i).scaleb(-1), pa.decimal256(50, 1)),
        "null": pa.nulls(rows),
        "list": some(lambda i: list(range(i % 4)), pa.list_(pa.int64())),
        "large_list": some(lambda i: texts[: i % 3], pa.large_list(pa.string())),
        "list_view": some(lambda i: [i] * (i % 4), pa.list_view(pa.int16())),
        "large_list_view": some(lambda i: [i / 2] * (i % 4), pa.large_list_view(pa.float32())),
        "fixed_list": some(lambda i: [i, None, -i], pa.list_(pa.int32(), 3)),
        "struct": some(
            lambda i: {"a": i, "b": texts[i], "c": [{"d": None}] * (i % 3)},
            pa.struct([("a", pa.int8()), ("b", pa.string()), ("c", pa.list_(pa.struct([("d", pa.float64())])))]),
        ),
        "map": some(lambda i: [(str(k), k) for k in range(i % 3)], pa.map_(pa.string(), pa.int32())),
        "dictionary": some(lambda i: f"category {i % 5}", pa.dictionary(pa.int32(), pa.string())),
        "dictionary_int": some(lambda i: 10 * (i % 3), pa.dictionary(pa.int8(), pa.int64())),
        "list_of_dictionary": pa.ListArray.from_arrays(
            pa.array(range(rows + 1), pa.int32()), pa.array([f"x{i % 4}" for i in range(rows)]).dictionary_encode()
        ),
        "run_end_encoded": pa.RunEndEncodedArray.from_arrays(
            pa.array([rows // 2, rows][-min(rows, 2) :] if rows else [], pa.int32()),
            pa.array(["left", "right"][-min(rows, 2) :] if rows else [], pa.string()),
        ),
        "interval": some(lambda i: pa.MonthDayNano([i, -i, i * 10**9]), pa.month_day_nano_interval()),
        "sparse_union": pa.UnionArray.from_sparse(
            pa.array([i % 2 for i in range(rows)], pa.int8()), [ints, pa.array(texts)], ["number", "text"]
        ),
        "dense_union": pa.UnionArray.from_dense(
            pa.array([i % 2 for i in range(rows)], pa.int8()),
            pa.array([i // 2 for i in range(rows)], pa.int32()),
            [ints, pa.array(texts)],
            ["number", "text"],
        ),
    }
    columns |= {
        f"{kind}": some(lambda i: i % 100, kind)
        for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64())
    }
    return columns


def plain(array: Any) -> list[Any]:
    """The values of a column in a form that compares equal exactly when they are stored alike."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_temporal(array.type) and not pa.types.is_interval(array.type):
        # Python's own types end at year 9999 and at microseconds.
        integers = pa.int32() if array.type.bit_width == 32 else pa.int64()
        return array.view(integers).to_pylist()
    return array.to_pylist()


def canonical(array: Any) -> list[Any]:
    """The values of a column as JSON can hold them, each exactly."""
    return [_canonical(value) for value in plain(array)]


def _canonical(value: Any) -> Any:
    match value:
        case bytes():
            return {"hex": value.hex()}
        case float() | decimal.Decimal() | date() | time() | timedelta():
            return {type(value).__name__: str(value)}
        case pa.MonthDayNano():
            return {"interval": list(value)}
        case dict():
            return {"struct": {key: _canonical(item) for key, item in value.items()}}
        case list() | tuple():
            return [_canonical(item) for item in value]
        case _:
            return value
