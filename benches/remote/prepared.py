"""A prepared statement for many keys at once: ADBC to Pheon, to PostgreSQL and to DuckDB."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa
from benches.live.peers.base import MissingError
from benches.live.plan import Figure, Measure
from benches.remote import data, servers
from benches.remote.plan import PHEON, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Ask = Callable[[pa.Table], list[str]]

TIMES = 20.0
POSTGRES, DUCKDB = "PostgreSQL (ADBC)", "DuckDB (PREPARE, EXECUTE)"
WHERE = 'select "value" from "map" where "key" = '


@contextmanager
def pheon_ask(port: int) -> Iterator[Ask]:
    """The ADBC driver for Flight SQL."""
    from adbc_driver_flightsql import dbapi

    with dbapi.connect(f"grpc://127.0.0.1:{port}", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_prepare(WHERE + "?")

        def ask(keys: pa.Table) -> list[str]:
            cursor.execute(WHERE + "?", keys)
            return cursor.fetch_arrow_table().column(0).to_pylist()

        yield ask


@contextmanager
def postgres_ask(folder: Path, entries: pa.Table) -> Iterator[Ask]:
    """The ADBC driver for PostgreSQL; the key is the primary key."""
    with servers.postgres(folder) as server:
        from adbc_driver_postgresql import dbapi

        uri = f"postgresql://bench@127.0.0.1:{server.port}/postgres"
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("map", entries, mode="create")
            cursor.execute('alter table "map" add primary key ("key")')
            cursor.execute('analyze "map"')
            cursor.adbc_prepare(WHERE + "$1")

            def ask(keys: pa.Table) -> list[str]:
                cursor.execute(WHERE + "$1", keys)
                return cursor.fetch_arrow_table().column(0).to_pylist()

            yield ask


@contextmanager
def duckdb_ask(entries: pa.Table) -> Iterator[Ask]:
    """DuckDB in this process, without a socket; the key is the primary key.

    Raises:
        MissingError: it is not installed.
    """
    if find_spec("duckdb") is None:
        raise MissingError("the Python module duckdb is not installed")
    import duckdb

    connection = duckdb.connect()
    connection.execute('create table "map" ("key" varchar primary key, "value" varchar)')
    connection.execute('insert into "map" select * from entries')
    connection.execute(f"prepare lookup as {WHERE}?")

    def ask(keys: pa.Table) -> list[str]:
        found = []
        for key in keys.column(0).to_pylist():
            found += connection.execute(f"execute lookup('{key}')").fetchall()
        return [value for (value,) in found]

    yield ask
    connection.close()


def run(run: Run) -> Figure:
    """Milliseconds of one call for all keys, all of which are there."""
    folder = run.folder / "prepared"
    folder.mkdir()
    store = data.make_map(run.sizes, folder)
    entries = data.entries(run.sizes)
    keys, right = data.questions(run.sizes, run.sizes.bound_keys * 2)
    there = [(key, value) for key, value in zip(keys, right, strict=True) if value is not None][: run.sizes.bound_keys]
    asked = pa.table({"key": [key for key, _ in there]})
    right = [value for _, value in there]
    measure = Measure(f"{len(there):,} bound keys", "ms", False)
    notes = []

    with ExitStack() as stack:
        server = stack.enter_context(servers.pheon(run.command, store))
        asks = {PHEON: stack.enter_context(pheon_ask(server.port))}
        for who, peer in ((POSTGRES, postgres_ask(folder, entries)), (DUCKDB, duckdb_ask(entries))):
            try:
                asks[who] = stack.enter_context(peer)
            except MissingError as why:
                notes.append(f"{who}: {why}.")
        for _ in range(run.repeat):
            for who, ask in asks.items():
                start = perf_counter()
                found = ask(asked)
                measure.rounds.setdefault(who, []).append((perf_counter() - start) * 1e3)
                data.check(who, list(found), right)
    others = [min(rounds) for who, rounds in measure.rounds.items() if who != PHEON]
    measure.goal = min(others) / TIMES if others else None
    return Figure(
        "A prepared statement for many keys",
        f"`{WHERE}?` over {run.sizes.map_entries:,} entries, the keys bound at once where the driver can.",
        [measure],
        [f"The goal is a {TIMES:.0f}th of the best other.", "DuckDB runs in the client's process.", *notes],
    )
