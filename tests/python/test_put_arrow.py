"""Arrow data as other libraries hand it over: nobody has looked at it, and pieces of columns share their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pheon


def strings_of(values: bytes, *ends: int) -> pa.StringArray:
    offsets = np.array([0, *ends], np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(values))


# pyarrow looks at nobody's bytes, and reads such text from Parquet files of other programs.
BAD_TEXT = strings_of(b"a\xffbb", 2, 4)


@pytest.mark.parametrize(
    "column",
    [
        BAD_TEXT,
        BAD_TEXT.cast(pa.large_string()),
        BAD_TEXT.cast(pa.string_view()),
        pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), BAD_TEXT),
        pa.StructArray.from_arrays([BAD_TEXT], ["x"]),
        pa.ListArray.from_arrays([0, 1, 2], BAD_TEXT),
        strings_of("aéb".encode(), 2, 4),
    ],
    ids=["string", "large_string", "string_view", "dictionary", "struct", "list", "halves of a character"],
)
def test_text_that_is_not_utf_8(store: pheon.Store, column: pa.Array) -> None:
    with pytest.raises(pheon.SchemaError, match=r'column "v".*not UTF-8'):
        store.put("t", pa.table({"k": ["x", "y"], "v": column}), key="k")
    if pa.types.is_string(column.type):
        with pytest.raises(pheon.SchemaError, match=r'column "k".*not UTF-8'):
            store.put("t", pa.table({"k": column, "v": [1, 2]}), key="k")
        with pytest.raises(pheon.SchemaError, match=r'column "v".*not UTF-8'):
            store.put("t", pa.table({"v": column}))
    assert "t" not in store


NUMBERS = pa.array([1, None, 3], pa.int64())
NO_NULLS = pa.field("x", pa.int64(), nullable=False)
# Rows that are null may have nulls within.
MASK = pa.array([False, True, False])


@pytest.mark.parametrize(
    ("column", "is_sound"),
    [
        (pa.StructArray.from_arrays([NUMBERS], fields=[NO_NULLS]), False),
        (pa.StructArray.from_arrays([NUMBERS], fields=[NO_NULLS], mask=MASK), True),
        (pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), NUMBERS, type=pa.list_(NO_NULLS)), False),
        (pa.FixedSizeListArray.from_arrays(NUMBERS, type=pa.list_(NO_NULLS, 1)), False),
        (pa.FixedSizeListArray.from_arrays(NUMBERS, type=pa.list_(NO_NULLS, 1), mask=MASK), True),
        (pa.StructArray.from_arrays([NUMBERS.drop_null()], fields=[NO_NULLS]), True),
    ],
    ids=["struct", "masked struct", "list", "fixed list", "masked fixed list", "no nulls"],
)
def test_nulls_that_a_type_denies(store: pheon.Store, column: pa.Array, is_sound: bool) -> None:
    table = pa.table({"k": list(range(len(column))), "v": column})
    if is_sound:
        store.put("t", table, key="k")
        assert store.verify("t").ok
        assert store.table("t").to_pyarrow()["v"].to_pylist() == column.to_pylist()
    else:
        with pytest.raises(pheon.SchemaError, match=r'column "v".*field "(x|item)".*without nulls'):
            store.put("t", table, key="k")


@pytest.mark.parametrize(
    "column",
    [
        pa.StructArray.from_arrays([pa.DictionaryArray.from_arrays([0, 1, 0], ["a", None])], names=["x"]),
        pa.StructArray.from_arrays([pa.RunEndEncodedArray.from_arrays([2, 3], [1, None])], names=["x"]),
    ],
    ids=["dictionary", "runs"],
)
def test_nulls_that_only_values_have(store: pheon.Store, column: pa.StructArray) -> None:
    (child,) = column.flatten()
    declared = pa.StructArray.from_arrays([child], fields=[pa.field("x", child.type, nullable=False)])
    with pytest.raises(pheon.SchemaError, match=r'column "v".*field "x".*without nulls'):
        store.put("t", pa.table({"k": [1, 2, 3], "v": declared}), key="k")
    store.put("t", pa.table({"k": [1, 2, 3], "v": column}), key="k")
    assert store.verify("t").ok


def test_a_column_of_runs_that_declares_to_have_no_nulls(store: pheon.Store) -> None:
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], [1, None])
    table = pa.table([runs], schema=pa.schema([pa.field("v", runs.type, nullable=False)]))
    with pytest.raises(pheon.SchemaError, match=r'"v" is declared without nulls'):
        store.put("t", table)
    with pytest.raises(pheon.SchemaError, match=r'"v" is declared without nulls'), store.map_writer("t", key="k") as w:
        w.write(table.append_column("k", pa.array([1, 2, 3])))


def pieces() -> dict[str, pa.Array]:
    """Columns of three rows; what is wrong or large stands before the last two."""
    offsets = pa.array([0, 1, 2, 3], pa.int32())
    texts = strings_of(b"\xffokx", 1, 3, 4)
    within = pa.StructArray.from_arrays([pa.array([None, 2, 3], pa.int64())], fields=[NO_NULLS])
    return {
        "list of texts": pa.ListArray.from_arrays(offsets, texts),
        "list of large texts": pa.ListArray.from_arrays(offsets, texts.cast(pa.large_string())),
        "large list": pa.LargeListArray.from_arrays(offsets.cast(pa.int64()), texts.cast(pa.large_string())),
        "list of structs": pa.ListArray.from_arrays(offsets, within),
        "dense union": pa.UnionArray.from_dense(
            pa.array([0, 0, 1], pa.int8()), pa.array([0, 1, 0], pa.int32()), [texts, pa.array([7])]
        ),
        "dense union, downwards": pa.UnionArray.from_dense(
            pa.array([0, 0, 0], pa.int8()), pa.array([0, 2, 1], pa.int32()), [texts, pa.array([7])]
        ),
    }


@pytest.mark.parametrize("name", pieces())
def test_pieces_are_looked_at_by_themselves(store: pheon.Store, name: str) -> None:
    column = pieces()[name]
    with pytest.raises(pheon.SchemaError, match='column "v"'):
        store.put("t", pa.table({"k": [1, 2, 3], "v": column}), key="k")
    piece = column.slice(1)
    store.put("t", pa.table({"k": [2, 3], "v": piece}), key="k")
    assert store.verify("t").ok
    assert store.table("t").to_pyarrow()["v"].to_pylist() == piece.to_pylist()


@pytest.mark.parametrize(
    "values", [pa.array(["aaaa", "bb", "cc"]), pa.array([b"aaaa", b"bb", b"cc"], pa.large_binary())]
)
def test_lists_of_nothing(store: pheon.Store, values: pa.Array) -> None:
    """Of no values the offsets point behind what is there."""
    nothing = values.slice(2, 0)
    columns = {
        "list": pa.ListArray.from_arrays(pa.array([0, 0, 0], pa.int32()), nothing),
        "large": pa.LargeListArray.from_arrays(pa.array([0, 0, 0], pa.int64()), nothing),
        "map": pa.MapArray.from_arrays(pa.array([0, 0, 0], pa.int32()), nothing, nothing),
    }
    store.put("t", pa.table({"k": [1, 2], **columns}), key="k")
    assert store.verify("t").ok
    assert store.table("t").to_pyarrow().drop_columns("k").to_pylist() == [{name: [] for name in columns}] * 2
    store.put("t", pa.table({"v": nothing}))
    assert len(store.table("t")) == 0


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], None, [3]], pa.list_(pa.field("element", pa.int64()))),
        pa.array([[1, 2], None, [3]], pa.large_list(pa.field("element", pa.int64()))),
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.field("x", pa.int64()), 2)),
        pa.array(
            [[("a", 1)], None, []],
            pa.map_(pa.field("name", pa.string(), nullable=False), pa.field("number", pa.int64())),
        ),
        pa.array(
            [[{"a": [1]}], None, []], pa.list_(pa.field("y", pa.struct({"a": pa.list_(pa.field("z", pa.int8()))})))
        ),
    ],
    ids=["list", "large list", "fixed list", "map", "nested"],
)
def test_names_within_lists_are_free(store: pheon.Store, column: pa.Array) -> None:
    """Also where rows are written down before they are merged: in parts, and in little memory."""
    table = pa.table({"k": ["a", "b", "c"], "v": column})
    with store.map_writer("m", key="k") as writer, writer.part("p") as part:
        part.write(table)
    assert store.verify("m").ok
    assert store.table("m").to_pyarrow()["v"].to_pylist() == column.to_pylist()
    many = pa.concat_tables([table.set_column(0, "k", [[f"{i} {key}" for key in "abc"]]) for i in range(2000)])
    wide = many.append_column("w", pa.array(["x" * 10_000] * len(many)))
    store.put("t", wide, key="k", memory_limit="64MiB")
    assert sorted(store.table("t").to_pyarrow()["v"].to_pylist(), key=str) == sorted(many["v"].to_pylist(), key=str)


def test_a_slice_that_arrow_cannot_take_over(store: pheon.Store) -> None:
    """A panic of arrow-rs's is an error like any other; should a later one take it over, it is stored."""
    rows: list[Any] = [[{"a": 1}, {"a": 2}], [{"a": 3}, {"a": 4}], [{"a": 5}, {"a": 6}]]
    column = pa.array(rows, pa.list_(pa.struct({"a": pa.int64()}), 2))
    table = pa.table({"v": column}).slice(1)
    with pytest.raises(pheon.Error, match="copy it first"):
        store.put("t", table)
    assert "t" not in store
    store.put("t", table.take([0, 1]))
    assert store.table("t").to_pyarrow()["v"].to_pylist() == rows[1:]


def union_of(*values: int | str) -> pa.UnionArray:
    numbers = pa.array([v if isinstance(v, int) else None for v in values], pa.int64())
    texts = pa.array([v if isinstance(v, str) else None for v in values])
    return pa.UnionArray.from_sparse(pa.array([isinstance(v, str) for v in values]).cast(pa.int8()), [numbers, texts])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[b"", b""], None, [b""]], pa.list_(pa.binary(0))),
        pa.ListArray.from_arrays([0, 1, 1, 3], union_of(1, "b", 3)),
        pa.FixedSizeListArray.from_arrays(union_of(1, "b", 3), 1),
        pa.MapArray.from_arrays([0, 1, 1, 3], ["x", "y", "z"], union_of(1, "b", 3)),
    ],
    ids=["lists of values without bytes", "lists of unions", "fixed lists of unions", "maps to unions"],
)
def test_rows_of_lists_of_what_arrow_takes_wrongly(store: pheon.Store, column: pa.Array) -> None:
    store.put("m", pa.table({"k": ["a", "b", "c"], "v": column}), key="k")
    one, two, three = column.to_pylist()
    found = pa.array(store.map("m").get_many(pa.array(["c", "missing", "a", "b"])))
    assert found.to_pylist() == [three, None, one, two]
