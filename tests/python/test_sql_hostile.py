"""Statements that want too much: limits answer, and the server serves others meanwhile and afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from flight_server import FlightServer

import pheon

LIMITS = {"query_time_max": "5s", "query_memory_bytes_max": "64MiB", "memory_bytes_max": "128MiB"}
# Of the whole process: its binary, the mapped store, and several times what queries may take together.
RESIDENT_BYTES_MAX = 2 << 30

DOUBLED = "with t0 as (select word as s from words)"
for level in range(1, 41):
    DOUBLED += f", t{level} as (select s || s as s from t{level - 1})"
DOUBLED += " select max(length(s)) from t40"

RECURSIVE = "with recursive t as (select {} as n union all select {} from t) select count(*) from t"

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
    "a file": "select * from '/etc/passwd'",
    "a file made": "copy words to '/tmp/pheon-hostile'",
    "a setting": "set datafusion.runtime.memory_limit = '1T'",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlightServer]:
    path = tmp_path_factory.mktemp("hostile") / "store"
    with pheon.open(path) as store:
        words = {"word": [f"word {i:04}" for i in range(2000)], "n": list(range(2000))}
        store.put("words", pa.table(words), key="word", unique=True)
    options = [text for name, value in LIMITS.items() for text in ("--limit", f"{name}={value}")]
    with FlightServer(path, *options) as running:
        yield running


def ask(location: str, statement: str) -> list[tuple[object, ...]]:
    with dbapi.connect(location, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def resident_bytes(server: FlightServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("name", BOMBS)
def test_a_limit_answers(server: FlightServer, name: str) -> None:
    with pytest.raises(dbapi.Error):
        ask(server.location, BOMBS[name])
    assert ask(server.location, "select count(*) from words") == [(2000,)]
    assert resident_bytes(server) < RESIDENT_BYTES_MAX


def test_others_are_served_meanwhile(server: FlightServer) -> None:
    failures: list[Exception] = []

    def hog() -> None:
        try:
            ask(server.location, BOMBS["a cross join without end"])
        except dbapi.Error as error:
            failures.append(error)

    hogs = [threading.Thread(target=hog) for _ in range(8)]
    for thread in hogs:
        thread.start()
    with dbapi.connect(server.location, autocommit=True) as connection:
        assert connection.adbc_get_table_types() == ["TABLE"]
    for thread in hogs:
        thread.join()
    assert len(failures) == len(hogs)
    assert ask(server.location, "select n from words where word = 'word 0007'") == [(7,)]
