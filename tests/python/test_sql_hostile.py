"""Statements that want too much: limits answer, and the server serves others meanwhile and afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from flight_server import FlightServer
from service import WATCHDOG_SECONDS

import pheon

LIMITS = {"query_time_max": "5s", "query_memory_bytes_max": "64MiB", "memory_bytes_max": "128MiB"}
# Of the whole process: its binary, the mapped store, and several times what queries may take together.
RESIDENT_BYTES_MAX = 2 << 30

DOUBLED = "with t0 as (select word as s from words)"
for level in range(1, 41):
    DOUBLED += f", t{level} as (select s || s as s from t{level - 1})"
DOUBLED += " select max(length(s)) from t40"

RECURSIVE = "with recursive t as (select {} as n union all select {} from t) select count(*) from t"

LIST = "string_to_array(repeat('a,', 1000000), ',')"
LONG = "repeat('x', 1000000)"

BOMBS = {
    "a cross join without end": "select count(*) from words a, words b, words c, words d where a.n + b.n + c.n < d.n",
    "a cross join that is sorted": "select * from words a, words b, words c order by a.word, b.word, c.word",
    "a cross join that is grouped": "select a.n, b.n, c.n, count(*) from words a, words b, words c group by 1, 2, 3",
    "a series without end": "select count(*) from generate_series(1, 1000000000000000)",
    "a long list": "select array_length(generate_series(1, 1000000000000))",
    "a long list backwards": "select array_length(range(-1000000000000, 0))",
    "a long text": "select length(repeat('x', 1000000000000))",
    "texts in texts": "select length(replace(repeat('x', 100000), 'x', repeat('y', 100000)))",
    "a text that doubles": DOUBLED,
    "a recursion without end": RECURSIVE.format("1", "n + 1"),
    "a recursion that doubles": RECURSIVE.format("'x'", "n || n"),
    "an aggregate of everything": "select array_agg(value) from generate_series(1, 1000000000)",
    "a text of everything": "select string_agg(repeat('x', 10000), ',') from generate_series(1, 1000000000)",
    "parentheses": f"select {'(' * 100_000}1{')' * 100_000}",
    "subqueries": f"select {'(select ' * 10_000}1{')' * 10_000}",
    "operators": f"select 1{' + 1' * 100_000}",
    "conditions": f"select 1 where {' or '.join(['1 = 2'] * 50_000)}",
    "unions": " union all ".join(["select 1"] * 50_000),
    "a very long statement": f"select '{'x' * (2 << 20)}'",
    "many joins": f"select count(*) from words {'natural join words ' * 500}",
    "many placeholders": f"select {', '.join('?' * 10_000)}",
    "a list of long texts": f"select array_replace_all({LIST}, 'a', {LONG})",
    "a list of some long texts": f"select array_replace_n({LIST}, 'a', {LONG}, 900000)",
    "a list that grows by long texts": f"select array_resize(['a'], 1000000, {LONG})",
    "nulls as long texts": f"select length(array_to_string(array_repeat('a', 1000000), ',', {LONG}))",
    "lists side by side": f"select arrays_zip(generate_series(1, 1000000), {', '.join(['[1]'] * 10_000)})",
    "groups within groups": f"select regexp_match(repeat('x', 10000000), '{'(' * 200}.*{')' * 200}')",
    "a long format": "select to_char(now(), repeat('%c', 5000000))",
    "lists of all rows before": "select array_agg(value) over (order by value) from generate_series(1, 1000000)",
    "a null of fixed size": "select word, arrow_cast(null, 'FixedSizeBinary(2000000000)') from words",
    "a file": "select * from '/etc/passwd'",
    "a file made": "copy words to '/tmp/pheon-hostile'",
    "a setting": "set datafusion.runtime.memory_limit = '1T'",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "store"
    with pheon.open(path) as store:
        words = {"word": [f"word {i:04}" for i in range(2000)], "n": list(range(2000))}
        store.put("words", pa.table(words), key="word", unique=True)
    return path


def limited(path: Path, **limits: str) -> FlightServer:
    return FlightServer(path, *(text for name, value in limits.items() for text in ("--limit", f"{name}={value}")))


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[FlightServer]:
    with limited(path, **LIMITS) as running:
        yield running


def ask(location: str, statement: str) -> list[tuple[object, ...]]:
    with dbapi.connect(location, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def serves(server: FlightServer) -> bool:
    """On a slow machine, which a bomb still keeps busy, the limit of time may be for this statement too."""
    try:
        return ask(server.location, "select count(*) from words") == [(2000,)]
    except dbapi.Error as error:
        if "query_time_max" not in str(error):
            raise
        return False


def resident_bytes(server: FlightServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("name", BOMBS)
def test_a_limit_answers(server: FlightServer, name: str) -> None:
    with pytest.raises(dbapi.Error):
        ask(server.location, BOMBS[name])
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while not serves(server):
        assert time.monotonic() < deadline
    assert resident_bytes(server) < RESIDENT_BYTES_MAX


def test_others_are_served_meanwhile(path: Path) -> None:
    ended: list[Exception] = []
    hogs = []
    with limited(path, **{**LIMITS, "query_time_max": "10m"}) as server:

        def hog(cursor: dbapi.Cursor) -> None:
            try:
                cursor.execute(BOMBS["a cross join without end"])
                cursor.fetchall()
            except (dbapi.Error, pa.ArrowException, OSError) as error:
                ended.append(error)

        with contextlib.ExitStack() as stack:
            for _ in range(8):
                connection = stack.enter_context(dbapi.connect(server.location, autocommit=True))
                cursor = stack.enter_context(connection.cursor())
                hogs.append((cursor, threading.Thread(target=hog, args=[cursor])))
            for _, thread in hogs:
                thread.start()
            # They are at work before and after others are answered.
            time.sleep(1)
            for _ in range(3):
                assert all(thread.is_alive() for _, thread in hogs), ended
                assert ask(server.location, "select n from words where word = 'word 0007'") == [(7,)]
            assert all(thread.is_alive() for _, thread in hogs), ended
            assert not ended
            for cursor, thread in hogs:
                deadline = time.monotonic() + WATCHDOG_SECONDS
                while thread.is_alive():
                    assert time.monotonic() < deadline
                    cursor.adbc_cancel()
                    thread.join(0.1)
        assert len(ended) == len(hogs)
        assert all("cancel" in str(error).lower() for error in ended), ended
