"""`Store.sql`: queries, parameters, changes; TPC-H beside DuckDB."""

from __future__ import annotations

import math
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import pheon

duckdb = pytest.importorskip("duckdb")
pa = pytest.importorskip("pyarrow")

TPCH = Path(__file__).parent / "tpch" / "queries.sql"
SCALE = "0.1"
KEYS = {
    "lineitem": ["l_orderkey", "l_linenumber"],
    "orders": ["o_orderkey"],
    "customer": ["c_custkey"],
    "part": ["p_partkey"],
    "supplier": ["s_suppkey"],
    "partsupp": ["ps_partkey", "ps_suppkey"],
    "nation": ["n_nationkey"],
    "region": ["r_regionkey"],
}


def has_sql(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether this build has SQL."""
    try:
        pheon.open(tmp_path_factory.mktemp("probe") / "store").sql("select 1")
    except pheon.Error as error:
        assert "no SQL" in str(error)
        return False
    return True


@pytest.fixture
def store(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> pheon.Store:
    """A store with a table of 100 rows."""
    if not has_sql(tmp_path_factory):
        pytest.skip("built without SQL")
    store = pheon.open(tmp_path / "store")
    rows = {"id": list(range(100)), "name": [f"name {i}" for i in range(100)]}
    store.put_table("t", pa.table(rows), key="id")
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


def same(a: Any, b: Any) -> bool:
    """Equal, or as near as sums in another order come."""
    if isinstance(a, (float, Decimal)) and isinstance(b, (float, Decimal)):
        return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-2)
    return a == b


def test_tpch_answers_as_duckdb_does(store: pheon.Store, tmp_path: Path) -> None:
    """All 22 queries."""
    generator = shutil.which("tpchgen-cli")
    if generator is None:
        pytest.skip("tpchgen-cli is not installed")
    command = [generator, "parquet", "-s", SCALE, "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    import pyarrow.parquet

    oracle = duckdb.connect()
    for name, key in KEYS.items():
        path = tmp_path / f"{name}.parquet"
        oracle.execute(f"create view {name} as select * from '{path}'")
        store.put_table(name, pyarrow.parquet.read_table(path), key=key)
    queries = [query for query in TPCH.read_text().split(";") if query.strip()]
    assert len(queries) == 22
    for number, query in enumerate(queries, 1):
        found, expected = rows(store.sql(query)), oracle.execute(query).fetchall()
        assert len(found) == len(expected), f"query {number}"
        for ours, theirs in zip(found, expected, strict=True):
            assert all(map(same, ours, theirs)), f"query {number}: {ours} and {theirs}"
