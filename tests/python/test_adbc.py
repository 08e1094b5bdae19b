"""Stock SQL clients against a real server: ADBC's Flight SQL driver by its DB-API, pandas, polars."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_flightsql
import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from flight_server import FlightServer

import pheon

ROWS = 1000


@pytest.fixture
def filled(store: pheon.Store) -> pheon.Store:
    """`words`, a map, and `events`, a table whose key has several rows."""
    words = {
        "word": [f"word {i:04}" for i in range(ROWS)],
        "number": list(range(ROWS)),
        "half": [None, *range(1, ROWS)],
    }
    store.put("words", pa.table(words), key="word", unique=True)
    events = {"at": pa.array([i // 2 for i in range(ROWS)], pa.timestamp("us")), "who": ["ann", "bob"] * (ROWS // 2)}
    store.put("events", pa.table(events), key="at")
    return store


@pytest.fixture
def server(filled: pheon.Store, store_path: Path) -> Iterator[FlightServer]:
    with FlightServer(store_path) as running:
        yield running


@pytest.fixture
def connection(server: FlightServer) -> Iterator[dbapi.Connection]:
    with dbapi.connect(server.location, autocommit=True) as connected:
        yield connected


@pytest.fixture
def cursor(connection: dbapi.Connection) -> Iterator[dbapi.Cursor]:
    with connection.cursor() as made:
        yield made


def answer(cursor: dbapi.Cursor, statement: str, parameters: Any = None) -> list[Any]:
    cursor.execute(statement, parameters)
    return cursor.fetchall()


# Queries and parameters -------------------------------------------------------------------------------------------


def test_rows_of_a_query(cursor: dbapi.Cursor) -> None:
    cursor.execute("select number, word, half from words where number < 3 order by number desc")
    assert [column[0] for column in cursor.description] == ["number", "word", "half"]
    assert cursor.fetchone() == (2, "word 0002", 2)
    assert cursor.fetchmany(5) == [(1, "word 0001", 1), (0, "word 0000", None)]
    assert cursor.fetchone() is None
    cursor.execute("select * from events")
    assert cursor.fetch_arrow_table().num_rows == ROWS
    cursor.execute("select 1 as x where false")
    assert cursor.fetch_arrow_table().schema.names == ["x"]


@pytest.mark.parametrize(
    "value",
    [
        7,
        -(2**63),
        1.5,
        "text é 😀",
        b"\x00bytes",
        True,
        None,
        datetime.date(1969, 12, 31),
        datetime.time(23, 59, 59, 999_999),
        datetime.datetime(2024, 2, 29, 12, 30, 1, 5),
        decimal.Decimal("-12.345"),
    ],
    ids=repr,
)
def test_values_come_back_as_they_went(cursor: dbapi.Cursor, value: object) -> None:
    assert answer(cursor, "select ? as x", (value,)) == [(value,)]


def test_parameters_of_one_row(cursor: dbapi.Cursor) -> None:
    assert answer(cursor, "select number from words where word = ?", ("word 0007",)) == [(7,)]
    assert answer(cursor, "select number from words where word = $1 and number < $2", ("word 0007", 7)) == []
    assert answer(cursor, "select count(*) from words where number between ? and ?", (10, 19)) == [(10,)]
    assert answer(cursor, "select word from words where half = ?", (None,)) == [], "nothing equals null"
    assert answer(cursor, "select max(at) from events where at < ?", (datetime.datetime(1970, 1, 1, 0, 0, 0, 9),)) == [
        (datetime.datetime(1970, 1, 1, 0, 0, 0, 8),)
    ]


def test_many_rows_of_parameters_are_one_query(cursor: dbapi.Cursor) -> None:
    keys = [f"word {i * 7 % 1500:04}" for i in range(500)]
    found = answer(cursor, "select number from words where word = ?", pa.table({"k": keys}))
    assert found == [(int(key[5:]),) for key in keys if int(key[5:]) < ROWS]
    pairs = pa.table({"number": [3, 4, 8], "half": [3, 5, 8]})
    found = answer(cursor, "select word from words where number = ? and half = ?", pairs)
    assert found == [("word 0003",), ("word 0008",)]
    with pytest.raises(dbapi.NotSupportedError, match="is a query"):
        cursor.executemany("select number from words where word = ?", [("word 0001",)])


def test_a_prepared_statement_is_executed_again(cursor: dbapi.Cursor) -> None:
    schema = cursor.adbc_prepare("select number from words where word = ?")
    assert schema.types == [pa.large_string()]
    for i in (5, 3, 5):
        assert answer(cursor, "select number from words where word = ?", (f"word {i:04}",)) == [(i,)]


def test_large_results_are_streamed(cursor: dbapi.Cursor) -> None:
    cursor.execute("select a.number, b.word from words a, words b")
    reader = cursor.fetch_record_batch()
    first = reader.read_next_batch()
    assert 0 < first.num_rows < ROWS * ROWS
    total = first.num_rows + sum(batch.num_rows for batch in reader)
    assert total == ROWS * ROWS
    # Left after its first batch; the connection goes on.
    cursor.execute("select a.number, b.word from words a, words b, words c")
    assert cursor.fetch_record_batch().read_next_batch().num_rows > 0
    assert answer(cursor, "select count(*) from words") == [(ROWS,)]


def test_long_lists(cursor: dbapi.Cursor) -> None:
    keys = ", ".join(f"'word {i:04}'" for i in range(10_000))
    assert answer(cursor, f"select count(*) from words where word in ({keys})") == [(ROWS,)]
    numbers = ", ".join(map(str, range(100, 10_000)))
    assert answer(cursor, f"select count(*) from words where number not in ({numbers})") == [(100,)]


# Changes ----------------------------------------------------------------------------------------------------------


def test_changes_count_rows(cursor: dbapi.Cursor, filled: pheon.Store) -> None:
    cursor.execute("create table made (id bigint, name varchar, primary key (id))")
    cursor.execute("insert into made values (1, 'a'), (2, 'b')")
    assert cursor.rowcount == 2
    cursor.execute("insert into made values (2, 'B'), (3, 'c') on conflict (id) do nothing")
    assert cursor.rowcount == 1
    cursor.execute("insert or replace into made values (2, 'B')")
    cursor.execute("update made set name = upper(name) where id = 1")
    assert cursor.rowcount == 1
    assert answer(cursor, "select * from made") == [(1, "A"), (2, "B"), (3, "c")]
    cursor.execute("delete from made where id > ?", (1,))
    assert cursor.rowcount == 2
    assert dict(filled.map("made").items()) == {1: "A"}
    cursor.execute("drop table made")
    assert "made" not in filled


def test_executemany_publishes_one_version(cursor: dbapi.Cursor, filled: pheon.Store) -> None:
    rows = [(f"new {i}", i, None) for i in range(100)]
    cursor.executemany("insert into words values (?, ?, ?)", rows)
    assert cursor.rowcount == 100
    assert filled.table("words").version == 2
    assert answer(cursor, "select count(*) from words where word like 'new %'") == [(100,)]
    cursor.executemany("delete from words where word = ?", [(f"new {i}",) for i in range(0, 100, 2)])
    assert filled.table("words").version == 3
    assert filled.table("words").num_rows == ROWS + 50
    with pytest.raises(dbapi.Error, match="new 1"):
        cursor.executemany("insert into words values (?, ?, ?)", [("fresh", 1, 1), ("new 1", 1, 1)])
    assert filled.table("words").version == 3


INGESTED = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"]})


def test_bulk_ingest_in_all_modes(cursor: dbapi.Cursor, filled: pheon.Store) -> None:
    with pytest.raises(dbapi.Error):
        cursor.adbc_ingest("bulk", INGESTED, mode="append")
    assert cursor.adbc_ingest("bulk", INGESTED, mode="create") == 3
    with pytest.raises(dbapi.Error):
        cursor.adbc_ingest("bulk", INGESTED, mode="create")
    assert cursor.adbc_ingest("bulk", INGESTED, mode="append") == 3
    assert cursor.adbc_ingest("bulk", INGESTED.to_batches()[0], mode="create_append") == 3
    assert filled.table("bulk").num_rows == 9
    assert cursor.adbc_ingest("bulk", INGESTED.to_reader(), mode="replace") == 3
    assert filled.table("bulk").to_pyarrow().to_pylist() == INGESTED.to_pylist()
    for arguments in ({"db_schema_name": "other"}, {"catalog_name": "other"}, {"temporary": True}):
        with pytest.raises(dbapi.Error):
            cursor.adbc_ingest("elsewhere", INGESTED, mode="create", **arguments)
    assert cursor.adbc_ingest("here", INGESTED, mode="create", catalog_name="pheon", db_schema_name="public") == 3
    with pytest.raises(dbapi.Error):
        cursor.adbc_ingest("../evil", INGESTED, mode="create")
    assert sorted(filled) == ["bulk", "events", "here", "words"]


def test_bulk_ingest_into_a_map(cursor: dbapi.Cursor, filled: pheon.Store) -> None:
    cursor.execute("create table keyed (id bigint, name varchar, primary key (id))")
    assert cursor.adbc_ingest("keyed", INGESTED, mode="append") == 3
    assert dict(filled.map("keyed").items()) == {1: "a", 2: None, 3: "c"}
    with pytest.raises(dbapi.ProgrammingError, match="key 1 is there already"):
        cursor.adbc_ingest("keyed", INGESTED, mode="append")
    assert cursor.adbc_ingest("keyed", INGESTED.slice(1), mode="replace") == 2
    assert dict(filled.map("keyed").items()) == {2: None, 3: "c"}, "a map stays one"


def test_an_ingest_that_fails_publishes_nothing(cursor: dbapi.Cursor, filled: pheon.Store) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        yield INGESTED.to_batches()[0]
        msg = "the source is gone"
        raise ValueError(msg)

    with pytest.raises(dbapi.Error):
        cursor.adbc_ingest("broken", pa.RecordBatchReader.from_batches(INGESTED.schema, rows()), mode="create")
    # The server hears of it when the stream ends, which may be later.
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert "broken" not in filled
        time.sleep(0.02)


# What there is ----------------------------------------------------------------------------------------------------


def objects(connection: dbapi.Connection, **arguments: Any) -> list[dict[str, Any]]:
    return connection.adbc_get_objects(**arguments).read_all().to_pylist()


def test_objects_at_every_depth(connection: dbapi.Connection) -> None:
    [catalog] = objects(connection, depth="catalogs")
    assert catalog["catalog_name"] == "pheon"
    [catalog] = objects(connection, depth="db_schemas")
    assert [schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]] == ["public"]
    [catalog] = objects(connection, depth="tables")
    [schema] = catalog["catalog_db_schemas"]
    tables = {(table["table_name"], table["table_type"]) for table in schema["db_schema_tables"]}
    assert tables == {("events", "TABLE"), ("words", "TABLE")}
    [catalog] = objects(connection, depth="columns", table_name_filter="wor%")
    [table] = catalog["catalog_db_schemas"][0]["db_schema_tables"]
    columns = [(c["column_name"], c["ordinal_position"]) for c in table["table_columns"]]
    assert columns == [("word", 1), ("number", 2), ("half", 3)]
    [catalog] = objects(connection, depth="columns", column_name_filter="wh_")
    [table] = [t for t in catalog["catalog_db_schemas"][0]["db_schema_tables"] if t["table_columns"]]
    assert table["table_name"] == "events"
    [catalog] = objects(connection, depth="tables", table_types_filter=["VIEW"])
    assert catalog["catalog_db_schemas"][0]["db_schema_tables"] == []
    assert objects(connection, depth="all", catalog_filter="other") == []


def test_schemas_and_types_of_tables(connection: dbapi.Connection, filled: pheon.Store) -> None:
    expected = pa.schema(filled.table("words").to_pyarrow().schema)
    assert connection.adbc_get_table_schema("words").names == expected.names
    assert connection.adbc_get_table_schema("words").types == expected.types
    assert not connection.adbc_get_table_schema("words").field("word").nullable
    with pytest.raises(dbapi.Error):
        connection.adbc_get_table_schema("nothing")
    assert connection.adbc_get_table_types() == ["TABLE"]


def test_the_server_tells_about_itself(connection: dbapi.Connection) -> None:
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Pheon"
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["vendor_version"])
    assert info["vendor_arrow_version"]


def test_catalog_and_schema_are_session_options(connection: dbapi.Connection) -> None:
    assert connection.adbc_current_catalog == "pheon"
    assert connection.adbc_current_db_schema == "public"
    connection.adbc_current_catalog = "pheon"
    connection.adbc_current_db_schema = "public"
    for name in ("adbc_current_catalog", "adbc_current_db_schema"):
        with pytest.raises(dbapi.Error):
            setattr(connection, name, "other")


# Transactions, cancelling, errors -----------------------------------------------------------------------------------


def test_a_transaction_is_a_snapshot_that_takes_no_changes(server: FlightServer, connection: dbapi.Connection) -> None:
    with dbapi.connect(server.location) as transaction, transaction.cursor() as inside, connection.cursor() as outside:
        assert answer(inside, "select count(*) from words") == [(ROWS,)]
        outside.execute("delete from words where number < 10")
        assert answer(inside, "select count(*) from words") == [(ROWS,)]
        with pytest.raises(dbapi.Error, match="only reads"):
            inside.execute("delete from words")
        transaction.commit()
        assert answer(inside, "select count(*) from words") == [(ROWS - 10,)]
        outside.execute("delete from words where number < 20")
        assert answer(inside, "select count(*) from words") == [(ROWS - 10,)]
        transaction.rollback()
        assert answer(inside, "select count(*) from words") == [(ROWS - 20,)]


def test_a_query_is_cancelled(cursor: dbapi.Cursor) -> None:
    cursor.execute("select a.number from words a, words b, words c, words d")
    reader = cursor.fetch_record_batch()
    reader.read_next_batch()
    timer = threading.Timer(0.3, cursor.adbc_cancel)
    timer.start()
    with pytest.raises((dbapi.Error, pa.ArrowException, OSError), match="(?i)cancel"):
        for _ in reader:
            pass
    timer.join()
    assert answer(cursor, "select 1") == [(1,)]


@pytest.mark.parametrize(
    ("statement", "error", "status", "text"),
    [
        ("selec 1", dbapi.ProgrammingError, "INVALID_ARGUMENT", "selec"),
        ("select nothing from words", dbapi.ProgrammingError, "INVALID_ARGUMENT", "nothing"),
        ("select 1 / 0", dbapi.ProgrammingError, "INVALID_ARGUMENT", "(?i)zero"),
        ("select * from nothing", dbapi.ProgrammingError, "NOT_FOUND", "nothing"),
        ("create table words (x int)", dbapi.ProgrammingError, "ALREADY_EXISTS", "words"),
        ("insert into words values ('word 0001', 1, 1)", dbapi.ProgrammingError, "ALREADY_EXISTS", "word 0001"),
        ("copy words to '/tmp/x'", dbapi.NotSupportedError, "NOT_IMPLEMENTED", "COPY"),
        ("update events set who = 'x'", dbapi.NotSupportedError, "NOT_IMPLEMENTED", "UPDATE"),
        ("select repeat('x', 1000000000)", dbapi.InternalError, "INTERNAL", "at most 16777216"),
    ],
)
def test_errors_are_those_of_the_db_api(
    cursor: dbapi.Cursor, statement: str, error: type[Exception], status: str, text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        cursor.execute(statement)
        cursor.fetchall()
    assert raised.value.status_code.name == status
    assert answer(cursor, "select 1") == [(1,)]


def test_tokens(store: pheon.Store, filled: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    def entry(name: str, secret: str, rights: str) -> str:
        return f'[[token]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{rights}\n'

    tokens = tmp_path / "tokens.toml"
    secrets = {name: name[0] * 43 for name in ("reader", "writer")}
    rights = {"reader": 'read = ["words"]', "writer": 'read = ["*"]\nwrite = ["words"]'}
    tokens.write_text("".join(entry(name, secret, rights[name]) for name, secret in secrets.items()))
    tokens.chmod(0o600)
    header = DatabaseOptions.AUTHORIZATION_HEADER.value
    with FlightServer(store_path, "--token-file", str(tokens)) as server:
        with pytest.raises(dbapi.Error), dbapi.connect(server.location, autocommit=True) as stranger:
            stranger.adbc_get_table_types()

        def connect(name: str) -> dbapi.Connection:
            return dbapi.connect(server.location, db_kwargs={header: f"Bearer {secrets[name]}"}, autocommit=True)

        with connect("reader") as connection, connection.cursor() as cursor:
            assert answer(cursor, "select count(*) from words") == [(ROWS,)]
            [catalog] = objects(connection, depth="tables")
            assert [t["table_name"] for t in catalog["catalog_db_schemas"][0]["db_schema_tables"]] == ["words"]
            for statement in ("select * from events", "select * from nothing", "delete from words", "drop table words"):
                with pytest.raises(dbapi.ProgrammingError, match="no right") as raised:
                    cursor.execute(statement)
                assert raised.value.status_code == adbc_driver_manager.AdbcStatusCode.UNAUTHORIZED
        with connect("writer") as connection, connection.cursor() as cursor:
            cursor.execute("delete from words where number = 1")
            assert cursor.rowcount == 1
        options = {"username": "reader", "password": secrets["reader"]}
        with (
            dbapi.connect(server.location, db_kwargs=options, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            assert answer(cursor, "select count(*) from words") == [(ROWS - 1,)]


# pandas and polars --------------------------------------------------------------------------------------------------


def test_pandas_reads(connection: dbapi.Connection, filled: pheon.Store) -> None:
    frame = pd.read_sql("select word, number from words where number < 10", connection)
    assert frame["number"].tolist() == list(range(10))
    # What pandas itself does not do with ADBC.
    for arguments in ({"params": ["word 0007"]}, {"chunksize": 100}):
        with pytest.raises(NotImplementedError):
            pd.read_sql("select number from words where word = ?", connection, **arguments)
    assert pd.read_sql_table("words", connection)["number"].tolist() == list(range(ROWS))


def test_pandas_writes(connection: dbapi.Connection, filled: pheon.Store) -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None]})
    assert frame.to_sql("frame", connection, index=False) == 3
    with pytest.raises(ValueError, match="frame"):
        frame.to_sql("frame", connection, index=False)
    assert frame.to_sql("frame", connection, index=False, if_exists="append") == 3
    assert filled.table("frame").num_rows == 6
    assert frame.to_sql("frame", connection, index=False, if_exists="replace") == 3
    assert pd.read_sql("select * from frame", connection)["id"].tolist() == [1, 2, 3]


def test_polars_reads(connection: dbapi.Connection, server: FlightServer) -> None:
    frame = pl.read_database("select word, number from words where number < 10", connection)
    assert frame["number"].to_list() == list(range(10))
    frame = pl.read_database(
        "select number from words where word = ?", connection, execute_options={"parameters": ["word 0007"]}
    )
    assert frame["number"].to_list() == [7]
    batches = pl.read_database("select a.word from words a, events b", connection, iter_batches=True, batch_size=1000)
    assert sum(batch.height for batch in batches) == ROWS * ROWS


def test_polars_writes(connection: dbapi.Connection, filled: pheon.Store) -> None:
    frame = pl.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None]})
    assert frame.write_database("frame", connection, engine="adbc") == 3
    with pytest.raises((dbapi.Error, ValueError)):
        frame.write_database("frame", connection, engine="adbc")
    assert frame.write_database("frame", connection, engine="adbc", if_table_exists="append") == 3
    assert filled.table("frame").num_rows == 6
    assert frame.write_database("frame", connection, engine="adbc", if_table_exists="replace") == 3
    assert filled.table("frame").to_pyarrow()["id"].to_pylist() == [1, 2, 3]
    assert frame.write_database("public.other", connection, engine="adbc") == 3


def test_the_driver_is_the_stock_one() -> None:
    assert adbc_driver_flightsql.__version__
