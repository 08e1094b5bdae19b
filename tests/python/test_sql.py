"""`Store.sql`: queries, parameters, changes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pheon


@pytest.fixture
def store(tmp_path: Path) -> pheon.Store:
    """A store with a table of 100 rows."""
    store = pheon.open(tmp_path / "store")
    rows = {"id": list(range(100)), "name": [f"name {i}" for i in range(100)]}
    store.put("t", pa.table(rows), key="id", unique=True)
    return store


def rows(found: Any) -> list[tuple[Any, ...]]:
    """A batch as tuples."""
    return [tuple(row.values()) for row in found.to_pylist()]


def test_rows_come_in_every_library(store: pheon.Store) -> None:
    """pandas, polars, pyarrow and the C interface."""
    found = store.sql("select id, name from t where id < 3 order by id")
    assert isinstance(found, pheon.Batch)
    assert rows(found) == [(0, "name 0"), (1, "name 1"), (2, "name 2")]
    assert found.to_pyarrow().column("id").to_pylist() == [0, 1, 2]
    assert found.to_pandas()["name"].tolist() == ["name 0", "name 1", "name 2"]
    assert found.to_polars().shape == (3, 2)
    assert pa.table(found).num_rows == 3


def test_parameters(store: pheon.Store) -> None:
    """Values of one row, and a table of many."""
    assert rows(store.sql("select name from t where id = ?", [7])) == [("name 7",)]
    many = pa.table({"k": [5, 1000, 3]})
    assert rows(store.sql("select name from t where id = $1", many)) == [("name 5",), ("name 3",)]
    with pytest.raises(ValueError, match="parameters"):
        store.sql("select name from t where id = ?")


def test_changes_and_errors(store: pheon.Store) -> None:
    """Changes return a number; errors are the usual exceptions."""
    assert store.sql("create table u (id bigint, primary key (id))") == 0
    assert store.sql("insert into u select id from t where id < 10") == 10
    assert len(store.map("u")) == 10
    with pytest.raises(pheon.NotFoundError):
        store.sql("select * from nothing")
    with pytest.raises(pheon.DuplicateKeyError):
        store.sql("insert into u values (1)")
    with pytest.raises(ValueError, match="COPY"):
        store.sql("copy t to '/tmp/x.csv'")


def test_a_conflict_keeps_no_column_silently(store: pheon.Store) -> None:
    """Rows are replaced as a whole: a column that is not set would lose its value."""
    for columns in ("", " (id, name)"):
        with pytest.raises(ValueError, match=r"'?\"?name\"?'? as it was"):
            store.sql(f"insert into t{columns} values (1, 'x') on conflict (id) do update set id = excluded.id")
    assert rows(store.sql("select name from t where id = 1")) == [("name 1",)]
    assert store.sql("insert into t values (1, 'x') on conflict (id) do update set name = excluded.name") == 1
    assert rows(store.sql("select name from t where id = 1")) == [("x",)]


def test_ctrl_c_ends_a_statement_and_nothing_is_published(store: pheon.Store) -> None:
    """Whether it computes rows, or writes them."""
    endless = (
        "select count(*) from t a, t b, t c, t d, t e, t f, t g where a.id + b.id + c.id + d.id + e.id + f.id > g.id"
    )
    for statement in (endless, f"create table made as {endless}"):
        timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
        with pytest.raises(KeyboardInterrupt):
            # Within, however long the machine takes to get here.
            timer.start()
            store.sql(statement)
        timer.join()
    assert list(store) == ["t"]
    assert rows(store.sql("select count(*) from t")) == [(100,)]
