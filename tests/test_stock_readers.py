"""Every file opens in stock pyarrow, polars, DuckDB and pandas, and its bytes lie where docs/format.md promises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pytest
from format import ipc, reader, samples

import pheon

KEYS = samples.key_columns()
VALUES = samples.value_columns()
LINE = 64
HUGE = 2 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> pheon.Store:
    """A map for each key type and for each value type, tables, empty ones and large ones."""
    store = pheon.open(tmp_path_factory.mktemp("stock") / "store")
    for name, keys in KEYS.items():
        table = pa.table({"key": keys, "value": pa.array(range(len(keys)), pa.uint16())})
        store.put_map(_name("key", name), table, key="key", value="value")
    numbers = pa.array(range(samples.ROWS), pa.int64())
    for name, values in VALUES.items():
        store.put_map(_name("value", name), pa.table({"key": numbers, "value": values}), key="key", value="value")
    for rows in (0, 1):
        columns = {"key": pa.array(range(rows), pa.int64()), **samples.value_columns(rows)}
        store.put(f"rows.{rows}", pa.table(columns), key="key")
    store.put("no_key", pa.table({"n": numbers, "t": VALUES["text_view"]}))
    many = 300_000
    columns = {
        "key": pa.array([f"{i:06}" for i in range(many)]),
        "number": pa.array(range(many), pa.int64()),
        "small": pa.array([i % 100 for i in range(many)], pa.int8()),
        "nulls": pa.array([None if i % 3 else i for i in range(many)], pa.int32()),
    }
    store.put("large", pa.table(columns), key="key")
    return store


def _name(kind: str, type_name: str) -> str:
    return f"{kind}." + "".join(c if c.isalnum() else "_" for c in type_name)


def _arrow_files(store: pheon.Store) -> list[Path]:
    files = list(reader.files(Path(store.path)))
    assert len(files) == 2 * len(store) - 1, "a data.arrow each, and an index.arrow for all but the one without a key"
    return files


def test_pyarrow_opens_every_file_with_equal_contents(store: pheon.Store) -> None:
    for path in _arrow_files(store):
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            assert file.num_record_batches == 1, path
            batch = file.get_batch(0)
            batch.validate(full=True)
    for kind, columns in (("key", KEYS), ("value", VALUES)):
        for name, given in columns.items():
            [path] = Path(store.path).glob(f"{_name(kind, name)}/seg-*/data.arrow")
            table = pyarrow.feather.read_table(path)
            numbers = table["value" if kind == "key" else "key"].to_pylist()
            expected = samples.plain(given)
            assert samples.plain(table[kind]) == [expected[i] for i in numbers], name


def test_what_pyarrow_reads_is_what_pheon_exports(store: pheon.Store) -> None:
    for name in store:
        [path] = Path(store.path).glob(f"{name}/seg-*/data.arrow")
        assert pa.table(store.table(name)).equals(pyarrow.feather.read_table(path)), name


def _polars(path: Path) -> pl.DataFrame:
    frame = pl.read_ipc(path)
    assert frame.equals(pl.scan_ipc(path).collect(), null_equal=True)
    return frame


def _duckdb(path: Path) -> list[Any]:
    data = pyarrow.dataset.dataset(path, format="ipc")
    return duckdb.from_arrow(data).fetchall()


def _pandas(path: Path) -> pd.DataFrame:
    return pd.read_feather(path)


def _outcome(open_file: Callable[[Path], Any], path: Path) -> Any:
    """What a library makes of a file; the kind of error if it refuses it."""
    try:
        return open_file(path)
    except BaseException as error:  # polars panics are no Exception
        if isinstance(error, KeyboardInterrupt | AssertionError):
            raise
        return type(error)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, pl.DataFrame):
        return a.equals(b, null_equal=True)
    if isinstance(a, pd.DataFrame):
        # pandas does not compare arrays inside of cells.
        return a.equals(b) or repr(a.to_dict("list")) == repr(b.to_dict("list"))
    return repr(a) == repr(b)


@pytest.mark.parametrize("open_file", [_polars, _duckdb, _pandas])
@pytest.mark.filterwarnings("ignore")
def test_other_libraries_read_what_they_would_read_of_pyarrows_own_file(
    store: pheon.Store, open_file: Callable[[Path], Any], tmp_path: Path
) -> None:
    """A library that has no type for a column refuses it in anybody's file; in ours it must read all that it can."""
    opened = refused = 0
    for path in _arrow_files(store):
        stock = tmp_path / "stock.arrow"
        table = pyarrow.feather.read_table(path)
        with pa.ipc.new_file(stock, table.schema) as sink:
            sink.write_table(table.combine_chunks())
        ours, theirs = _outcome(open_file, path), _outcome(open_file, stock)
        assert _same(ours, theirs), (path, ours, theirs)
        if isinstance(ours, type):
            refused += 1
        else:
            opened += 1
            assert len(ours) == table.num_rows, path
    assert opened >= 0.85 * (opened + refused), f"{opened} files opened, {refused} refused"


@pytest.mark.parametrize("open_file", [_polars, _duckdb, _pandas])
@pytest.mark.parametrize(
    "name", ["key.string", "key.int64", "key.binary", "value.text_no_nulls", "value.list", "large"]
)
def test_other_libraries_read_the_common_types(store: pheon.Store, open_file: Callable[[Path], Any], name: str) -> None:
    [path] = Path(store.path).glob(f"{name}/seg-*/data.arrow")
    table = pyarrow.feather.read_table(path)
    found = open_file(path)
    rows = (
        found
        if isinstance(found, list)
        else list(found.itertuples(index=False, name=None))
        if isinstance(found, pd.DataFrame)
        else found.rows()
    )
    for at in {0, table.num_rows // 2, table.num_rows - 1}:
        expected = tuple(column[at].as_py() for column in table.columns)
        got = tuple(list(v) if hasattr(v, "tolist") and getattr(v, "ndim", 0) else v for v in rows[at])
        assert all(g == e or (e is None and pd.isna(g)) for g, e in zip(got, expected, strict=True)), (got, expected)


def test_duckdb_filters_and_polars_joins_our_file(store: pheon.Store) -> None:
    [path] = Path(store.path).glob("large/seg-*/data.arrow")
    data = pyarrow.dataset.dataset(path, format="ipc")
    relation = duckdb.from_arrow(data).filter("key between '000100' and '000199'")
    assert relation.aggregate("count(*), sum(number)").fetchall() == [(100, sum(range(100, 200)))]
    asked = pl.DataFrame({"key": ["000007", "299999", "nothing"]})
    joined = asked.join(pl.read_ipc(path), on="key", how="left")
    assert joined["number"].to_list() == [7, 299_999, None]


def test_every_buffer_lies_where_the_page_promises(store: pheon.Store) -> None:
    huge = small = dictionaries = 0
    for path in _arrow_files(store):
        data = path.read_bytes()
        layout = ipc.layout(data)
        assert layout.is_v5, path
        assert not layout.big_endian, path
        assert len(layout.batches) == 1, path
        [block] = layout.batches
        batch = ipc.batch(data, block)
        assert not batch.compressed, path
        assert block.body_offset % LINE == 0, path
        reached = block.body_offset
        for i, buffer in enumerate(batch.buffers):
            if buffer.length == 0:
                continue
            where = (path, i, buffer)
            assert buffer.offset % (HUGE if buffer.length >= HUGE else LINE) == 0, where
            assert buffer.offset >= reached, where
            assert not any(data[reached : buffer.offset]), where
            reached = buffer.offset + buffer.length
            huge += buffer.length >= HUGE
            small += buffer.length < HUGE
        assert reached <= block.body_offset + block.body_bytes <= layout.footer_offset, path
        assert not any(data[reached : block.body_offset + block.body_bytes]), path
        for dictionary in layout.dictionaries:
            dictionaries += 1
            assert dictionary.offset < block.offset, path
            assert not ipc.batch(data, dictionary, dictionary=True).compressed, path
    assert min(huge, small, dictionaries) > 0, "a rule was not put to the test"


def test_columns_without_nulls_have_no_validity_bits(store: pheon.Store) -> None:
    for path in _arrow_files(store):
        table = pyarrow.feather.read_table(path)
        for name, column in zip(table.column_names, table.columns, strict=True):
            for chunk in column.chunks:
                kind = chunk.type
                if chunk.null_count == 0 and not pa.types.is_union(kind) and not pa.types.is_null(kind):
                    assert chunk.buffers()[0] is None or chunk.buffers()[0].size == 0, (path, name)


def test_consumers_share_our_bytes(store: pheon.Store) -> None:
    """pyarrow over a mapped file copies nothing: its buffers lie in the mapping, 64 bytes apart as in the file."""
    [path] = Path(store.path).glob("large/seg-*/data.arrow")
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        assert table.nbytes > HUGE
        assert pa.total_allocated_bytes() - before < 64 << 10
        for column in table.columns:
            for buffer in column.chunk(0).buffers():
                assert buffer is None or buffer.address % LINE == 0
