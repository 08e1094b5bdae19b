"""The data sets, made as streams so that they need little memory, and the formulas that say what each value must be.

A value follows from its row (or its key) and its column alone, so that every answer can be judged without any of the
libraries that are measured. Values are whole numbers below 2^20: sums of them are exact in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare.oracle import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa

BATCH_ROWS = 1 << 17
VALUE_BITS = 20
KEY_BITS = 40
KEY_STEP = 3  # of the keys that stand for row numbers: between them are keys that are not there
REPEATS = 10  # rows of one key in the table whose keys repeat


def values(numbers: np.ndarray[Any, Any], column: int) -> np.ndarray[Any, Any]:
    """The values of a column, as float64, for rows or keys with these numbers (a mixer like splitmix64's)."""
    import numpy as np

    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64((column + 1) * 0xD1B54A32D192ED03 % 2**64)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed >>= np.uint64(64 - VALUE_BITS)
    return mixed.astype(np.float64)


def value(number: int, column: int) -> float:
    """One value, as `values` gives it."""
    import numpy as np

    return float(values(np.array([number]), column)[0])


def keys(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keys of these rows: all different, in no order, 0 <= key < 2^40."""
    import numpy as np

    # An odd factor permutes the numbers below a power of two.
    return ((rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) % np.uint64(1 << KEY_BITS)).astype(np.int64)


def columns(count: int) -> list[str]:
    """Names of value columns."""
    return [f"c{number:02}" for number in range(count)]


def stream(rows: int, count: int, key: str | None, start: int = 0) -> pa.RecordBatchReader:
    """Batches of `rows` rows from `start` on: the key column, if any, then `count` float64 columns.

    `key`: None: no key column, values follow the row; "random": `keys`; "ordered": row * KEY_STEP; "repeated": each
    key of `keys` in REPEATS rows far from each other. With a key, values follow the key, and in "repeated" the last
    column is the number of the repetition.
    """
    import numpy as np
    import pyarrow as pa

    names = columns(count)
    schema = pa.schema([*([("key", pa.int64())] if key else []), *((name, pa.float64()) for name in names)])
    distinct = max(rows // REPEATS, 1)

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(start, start + rows, BATCH_ROWS):
            at = np.arange(first, min(first + BATCH_ROWS, start + rows), dtype=np.int64)
            if key is None:
                arrays = [values(at, number) for number in range(count)]
            else:
                own = {
                    "random": keys,
                    "ordered": lambda at: at * KEY_STEP,
                    "repeated": lambda at: keys(at % distinct),
                }[key](at)
                arrays = [own, *(values(own, number) for number in range(count))]
                if key == "repeated":
                    arrays[-1] = (at // distinct).astype(np.float64)
            yield pa.record_batch([pa.array(each) for each in arrays], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def build(folder: str, name: str, rows: int, count: int, key: str | None) -> dict[str, Any]:
    """A step: puts a stream into a store as table `name`."""
    import pheon

    with pheon.open(folder) as store:
        table = store.put(name, stream(rows, count, key), key="key" if key else None)
        if len(table) != rows or table.num_chunks != 1:
            raise WrongAnswerError(
                f"put of {name}: {len(table)} rows in {table.num_chunks} chunks, expected {rows} in 1"
            )
    return {"rows": rows}


def arrow_file(folder: str, name: str) -> str:
    """The one data file of a table, for libraries that read Arrow files."""
    from pathlib import Path

    (found,) = (Path(folder) / name).glob("seg-*/data.arrow")
    return str(found)


def check(what: str, found: Any, expected: Any) -> None:
    """Compares values one by one.

    Raises:
        WrongAnswerError: one is different, or their number is.
    """
    import numpy as np

    array, expected = np.atleast_1d(np.asarray(found)), np.atleast_1d(expected)
    if array.shape != expected.shape:
        raise WrongAnswerError(f"{what}: {array.shape} values, expected {expected.shape}")
    wrong = np.flatnonzero(array != expected)
    if len(wrong):
        at = int(wrong[0])
        raise WrongAnswerError(
            f"{what}: value {at} is {array[at]!r}, expected {expected[at]!r}; {len(wrong)} are wrong"
        )


def check_sorted_frame(what: str, key: Any, frame: dict[str, Any], rows: int) -> None:
    """Checks every value of a frame that was sorted by `keys` of 0..rows, given as arrays.

    Raises:
        WrongAnswerError: a key or a value is wrong, or out of order.
    """
    import numpy as np

    expected = np.sort(keys(np.arange(rows, dtype=np.int64)))
    check(f"{what}, key", key, expected)
    for number, (name, column) in enumerate(frame.items()):
        for first in range(0, rows, BATCH_ROWS):
            part = slice(first, first + BATCH_ROWS)
            check(f"{what}, {name} from row {first}", column[part], values(expected[part], number))
