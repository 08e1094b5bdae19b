"""TPC-H: its tables in a store and in DuckDB, its queries, and answers compared."""

from __future__ import annotations

import math
import os
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet

import pheon

# The tests of every change take a tenth of what `make test-long` does.
SCALE = "0.1" if "PHEON_LONG" in os.environ else "0.01"

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


def queries() -> list[str]:
    """The 22 queries, in order."""
    text = (Path(__file__).parent / "tpch" / "queries.sql").read_text()
    return [query for query in text.split(";") if query.strip()]


def fill(store: pheon.Store, directory: Path) -> duckdb.DuckDBPyConnection:
    """Generates the tables, puts them into the store, and gives DuckDB the same files."""
    generator = Path(sysconfig.get_path("scripts")) / "tpchgen-cli"
    command = [str(generator), "parquet", "--scale-factor", SCALE, "--output-dir", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    oracle = duckdb.connect()
    for name, key in KEYS.items():
        path = directory / f"{name}.parquet"
        oracle.execute(f"create view {name} as select * from '{path}'")
        store.put(name, pyarrow.parquet.read_table(path), key=key, unique=True)
    return oracle


def same(ours: Any, theirs: Any) -> bool:
    """Equal, or as near as sums of doubles in another order and quotients of other precision come."""
    numbers = (int, float, Decimal)
    if isinstance(ours, numbers) and isinstance(theirs, numbers) and not (type(ours) is type(theirs) is int):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-6)
    return ours == theirs


def check(number: int, ours: Iterable[Sequence[Any]], theirs: Sequence[Sequence[Any]]) -> None:
    """The answers to a query are the same."""
    found = list(ours)
    assert len(found) == len(theirs), f"query {number}: {len(found)} rows and {len(theirs)}"
    for row, expected in zip(found, theirs, strict=True):
        assert len(row) == len(expected), f"query {number}"
        assert all(map(same, row, expected)), f"query {number}: {row} and {expected}"
