"""What a server keeps for clients of SQL, and for whom: handles, tables, rights, cancelling."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from flight_server import FlightServer
from pyarrow import flight
from raw_flight import field
from service import WATCHDOG_SECONDS, Service, make_token

import pheon

ROWS = 1000


@pytest.fixture
def filled(store: pheon.Store) -> pheon.Store:
    words = {"word": [f"word {i:04}" for i in range(ROWS)], "number": list(range(ROWS))}
    store.put("words", pa.table(words), key="word", unique=True)
    store.put("FX_Positions", pa.table({"id": [1, 2], "size": [10, 20]}), key="id", unique=True)
    return store


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def connect(server: Service | FlightServer, secret: str) -> dbapi.Connection:
    header = DatabaseOptions.AUTHORIZATION_HEADER.value
    return dbapi.connect(server.location, db_kwargs={header: f"Bearer {secret}"}, autocommit=True)


def message(name: str, *fields: bytes) -> bytes:
    """A message of Flight SQL within an Any; its fields are numbered from 1 on."""
    content = b"".join(field(number, part) for number, part in enumerate(fields, 1))
    kind = f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
    return field(1, kind) + field(2, content)


def first_field(data: bytes) -> bytes:
    """The content of field 1, which has a length."""
    assert data[0] == 1 << 3 | 2
    length, at, shift = 0, 1, 0
    while True:
        length |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return data[at : at + length]


def prepare(client: flight.FlightClient, statement: str) -> bytes:
    """Prepares a statement; the ticket of its rows."""
    request = message("ActionCreatePreparedStatementRequest", statement.encode())
    [result] = client.do_action(flight.Action("CreatePreparedStatement", request))
    body = result.body.to_pybytes()
    kind = first_field(body)
    handle = first_field(first_field(body[2 + len(kind) :].replace(b"\x12", b"\x0a", 1)))
    return message("CommandPreparedStatementQuery", handle)


def fetched(client: flight.FlightClient, ticket: bytes) -> pa.Table:
    return client.do_get(flight.Ticket(ticket)).read_all()


def maps(server: FlightServer) -> int:
    return Path(f"/proc/{server.process.pid}/maps").read_text().count("\n")


def test_rights_are_those_of_the_dataset_whatever_its_capitals(
    filled: pheon.Store, store_path: Path, tokens: Path
) -> None:
    pattern = make_token(tokens, "pattern", read="fx*", write="fx*", admin="fx*")
    exact = make_token(tokens, "exact", read="FX_Positions", write="FX_Positions", admin="FX_Positions")
    with FlightServer(store_path, "--token-file", str(tokens)) as server:
        with connect(server, pattern) as connection, connection.cursor() as cursor:
            for statement in (
                "select * from fx_positions",
                'select * from "FX_POSITIONS"',
                "select * from FX_Positions",
                "insert into fx_positions values (3, 30)",
                "update fx_positions set size = 0",
                "delete from fx_positions",
                "truncate table fx_positions",
                "drop table fx_positions",
            ):
                with pytest.raises(dbapi.Error, match="no dataset|no right"):
                    cursor.execute(statement)
        assert filled.table("FX_Positions").to_pyarrow()["size"].to_pylist() == [10, 20]
        with connect(server, exact) as connection, connection.cursor() as cursor:
            cursor.execute("select * from fx_positions")
            assert cursor.fetchall() == [(1, 10), (2, 20)]
            cursor.execute("insert into fx_positions values (3, 30)")
            cursor.execute("drop table fx_positions")
    assert list(filled) == ["words"]


def test_a_handle_is_of_one_process(filled: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    options = ("--config", str(tmp_path / "pheon.toml"))
    (tmp_path / "pheon.toml").write_text(f'signing_key_file = "{key}"\n')
    with (
        FlightServer(store_path, *options) as one,
        FlightServer(store_path, *options) as other,
        flight.connect(one.location) as client,
        flight.connect(other.location) as stranger,
    ):
        mine = prepare(client, "select 1 as x")
        theirs = prepare(stranger, "select 2 as x")
        assert fetched(client, mine)["x"].to_pylist() == [1]
        assert fetched(stranger, theirs)["x"].to_pylist() == [2]
        with pytest.raises(KeyError, match="no such handle"):
            fetched(stranger, mine)


def test_statements_keep_few_tables_open(filled: pheon.Store, store_path: Path) -> None:
    with FlightServer(store_path) as server, flight.connect(server.location) as client:
        before = maps(server)

        def plan(statement: str) -> bytes:
            command = message("CommandStatementQuery", statement.encode())
            return client.get_flight_info(flight.FlightDescriptor.for_command(command)).endpoints[0].ticket.ticket

        tickets = [plan(f"select {i} as x, number from words where word = 'word 0007'") for i in range(60)]
        for i, ticket in enumerate(tickets):
            # Some clients fetch an endpoint again.
            for _ in range(2):
                assert fetched(client, ticket).to_pylist() == [{"x": i, "number": 7}]
        assert maps(server) - before < 100
        one = maps(server)
        plan("select * from words")
        of_table = maps(server) - one
        for _ in range(600):
            plan("select * from words")
        assert maps(server) - before < 520 * max(of_table, 1)
        of_many = maps(server)
        for _ in range(100):
            plan("select * from words")
        assert maps(server) <= of_many + of_table


def is_denied(connection: dbapi.Connection, statement: str) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except dbapi.ProgrammingError as error:
        return "no right" in str(error)
    return False


def test_rights_are_asked_at_each_execution(filled: pheon.Store, store_path: Path, tokens: Path) -> None:
    secret = make_token(tokens, "alice", read="*", write="*")
    entry = tokens.read_text()
    listing = "select table_name from information_schema.tables where table_schema = 'public' order by 1"
    with (
        FlightServer(store_path, "--token-file", str(tokens)) as server,
        connect(server, secret) as connection,
        connection.cursor() as reading,
        connection.cursor() as writing,
        connection.cursor() as naming,
    ):
        select, update = "select number from words where word = ?", "update words set number = ? where word = ?"
        reading.execute(select, ("word 0001",))
        assert reading.fetchall() == [(1,)]
        writing.execute(update, (5, "word 0001"))
        naming.adbc_prepare(listing)
        naming.execute(listing)
        assert naming.fetchall() == [("FX_Positions",), ("words",)]
        tokens.write_text(entry.replace('"*"', '"FX_Positions"'))
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WATCHDOG_SECONDS
        while not is_denied(connection, "select 1 from words"):
            assert time.monotonic() < deadline
        # The driver fetches rows when they are asked for.
        reading.execute(select, ("word 0001",))
        with pytest.raises((dbapi.Error, pa.ArrowException, OSError), match="no right to read"):
            reading.fetchall()
        with pytest.raises(dbapi.ProgrammingError, match="no right to"):
            writing.execute(update, (6, "word 0001"))
        naming.execute(listing)
        assert naming.fetchall() == [("FX_Positions",)]
    assert filled.map("words")["word 0001"] == 5


def test_a_bulk_ingest_is_cancelled(filled: pheon.Store, store_path: Path, tokens: Path) -> None:
    secret = make_token(tokens, "alice", read="*", write="*")
    schema = pa.schema([("x", pa.int64())])
    goes_on = threading.Event()
    ended: list[Exception | int] = []

    def rows() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"x": [1, 2]}, schema)
        goes_on.wait(WATCHDOG_SECONDS)
        yield pa.record_batch({"x": [3]}, schema)

    with Service(store_path, "--token-file", str(tokens), token=secret) as service:

        def ingest() -> None:
            with connect(service, secret) as connection, connection.cursor() as cursor:
                try:
                    reader = pa.RecordBatchReader.from_batches(schema, rows())
                    ended.append(cursor.adbc_ingest("taken", reader, mode="create"))
                except (dbapi.Error, pa.ArrowException, OSError) as error:
                    ended.append(error)

        ingesting = threading.Thread(target=ingest)
        ingesting.start()
        deadline = time.monotonic() + WATCHDOG_SECONDS
        while not (running := service.api("queries")["running"]):
            assert time.monotonic() < deadline
        assert "taken" in running[0]["text"]
        assert service.api(f"queries/{running[0]['id']}/cancel", {}) == {"cancelled": True}
        while service.api("queries")["running"]:
            assert time.monotonic() < deadline
        goes_on.set()
        ingesting.join()
        assert isinstance(ended[0], Exception), ended
        assert "cancel" in str(ended[0])
    assert "taken" not in filled


def test_a_change_that_runs_out_of_time_is_not_published(filled: pheon.Store, store_path: Path) -> None:
    schema = filled.table("words").to_pyarrow().schema.remove_metadata()
    begun, goes_on = threading.Event(), threading.Event()

    def rows() -> Iterator[pa.RecordBatch]:
        begun.set()
        goes_on.wait(WATCHDOG_SECONDS)
        msg = "never mind"
        raise ValueError(msg)
        yield

    def hold_lock() -> None:
        with pytest.raises(pheon.Error, match="never mind"):
            filled.append("words", pa.RecordBatchReader.from_batches(schema, rows()))

    holding = threading.Thread(target=hold_lock)
    holding.start()
    try:
        assert begun.wait(WATCHDOG_SECONDS)
        with (
            FlightServer(store_path, "--limit", "query_time_max=3s") as server,
            dbapi.connect(server.location, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            for statement in ("update words set number = 0", "delete from words where number < 10"):
                with pytest.raises(dbapi.Error, match="query_time_max"):
                    cursor.execute(statement)
            goes_on.set()
            holding.join()
            cursor.execute("insert into words values ('word', 1)")
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert filled.table("words").version == 2
                time.sleep(0.02)
    finally:
        goes_on.set()
        holding.join()
    assert filled.map("words")["word 0007"] == 7
