"""All queries of TPC-H answer as DuckDB does: by `Store.sql`, and through ADBC from a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import tpch_data
from adbc_driver_flightsql import dbapi
from flight_server import FlightServer

import pheon

# The largest queries of the larger data, without optimisation.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tpch")


@pytest.fixture(scope="module")
def tables(folder: Path) -> Iterator[tuple[pheon.Store, duckdb.DuckDBPyConnection]]:
    with pheon.open(folder / "store") as store, tpch_data.fill(store, folder) as oracle:
        yield store, oracle


def rows(found: Any) -> Iterator[tuple[Any, ...]]:
    return (tuple(row.values()) for row in found.to_pylist())


def test_store_sql(tables: tuple[pheon.Store, duckdb.DuckDBPyConnection]) -> None:
    store, oracle = tables
    for number, query in enumerate(tpch_data.queries(), 1):
        tpch_data.check(number, rows(store.sql(query)), oracle.execute(query).fetchall())
    assert number == 22


def test_adbc(folder: Path, tables: tuple[pheon.Store, duckdb.DuckDBPyConnection]) -> None:
    _, oracle = tables
    with (
        FlightServer(folder / "store") as server,
        dbapi.connect(server.location, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for number, query in enumerate(tpch_data.queries(), 1):
            cursor.execute(query)
            tpch_data.check(number, cursor.fetchall(), oracle.execute(query).fetchall())
    assert number == 22
