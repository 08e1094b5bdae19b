"""DuckDB over tables: by the Arrow stream, and through `Table.lazy` with filters pushed down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import pheon
from pheon._adapters import polars_lazy, polars_plan

duckdb = pytest.importorskip("duckdb", minversion="1.3")

ROWS = 20_000
START = dt.datetime(2024, 1, 1)


@pytest.fixture
def connection() -> Iterator[Any]:
    with duckdb.connect() as opened:
        yield opened


@pytest.fixture
def data() -> pa.Table:
    keys = range(ROWS)
    return pa.table(
        {
            "k": pa.array(keys, pa.int64()),
            "ts": [START + dt.timedelta(minutes=i) for i in keys],
            "name": [None if i % 11 == 0 else f"name {i % 100}" for i in keys],
            "price": [None if i % 13 == 0 else i / 7 for i in keys],
            "amount": pa.array([Decimal(i) / 100 for i in keys], pa.decimal128(12, 2)),
            "tags": [[f"t{i % 3}", None] if i % 5 else None for i in keys],
            "place": [{"x": i, "y": str(i)} for i in keys],
            "kind": pa.array(["a", "b", "c", None] * (ROWS // 4)).dictionary_encode(),
        }
    )


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    read: list[int] = []

    def decide(*args: Any) -> polars_plan.Decision:
        decision = polars_plan.decide(*args)
        read.append(decision.rows)
        return decision

    monkeypatch.setattr(polars_lazy, "decide", decide)
    return read


QUERIES = [
    "select count(*), sum(price), min(name), max(ts) from t",
    "select * from t where k between 100 and 103 order by k",
    "select k, tags, place.y, kind, amount from t where kind = 'b' and k < 40 order by k",
    "select name, count(*), sum(amount) from t group by name order by name nulls first",
    "select a.k, b.price from t a join t b on a.k = b.k + 1 where a.k < 20 order by a.k",
    "select k from t order by price desc nulls last, k limit 5",
    "select count(*) from t where name is null and ts >= timestamp '2024-01-02'",
    "select k from t where name like 'name 7%' and price < 50 order by k",
]


@pytest.mark.parametrize("query", QUERIES)
def test_sql_over_a_table(store: pheon.Store, connection: Any, data: pa.Table, query: str) -> None:
    t = store.put("t", data, key="k")
    answer = connection.sql(query).fetchall()
    connection.register("t", data)
    assert len(answer) > 0
    assert answer == connection.sql(query).fetchall()
    assert t.num_rows == ROWS


def test_a_table_is_scanned_as_often_as_asked(store: pheon.Store, connection: Any, data: pa.Table) -> None:
    t = store.put("t", data, key="k")
    relation = connection.sql("select k, price from t")
    assert relation.limit(2).fetchall() == relation.limit(2).fetchall() == [(0, None), (1, 1 / 7)]
    connection.register("again", t[100:200])
    assert connection.sql("select min(k), max(k), count(*) from again").fetchall() == [(100, 199, 100)]
    assert connection.sql("select count(*) from again").fetchall() == [(100,)]


def test_sql_over_other_readers(store: pheon.Store, connection: Any, data: pa.Table) -> None:
    m = store.put_map("m", {"a": 1, "b": 2}).table()
    assert connection.sql("select * from m order by key").fetchall() == [("a", 1), ("b", 2)]
    part = store.put("t", data, key="k").range(10, 13)
    assert connection.sql("select k from part").fetchall() == [(10,), (11,), (12,)]
    assert m.num_rows == 2
    assert part.num_rows == 3


def test_a_result_goes_back_into_a_store(store: pheon.Store, connection: Any, data: pa.Table) -> None:
    t = store.put("t", data, key="k")
    sums = store.put(
        "sums", connection.sql("select name, sum(k)::bigint as total from t where name > '' group by 1"), key="name"
    )
    assert sums.rows("name 3")[0] == {"name": "name 3", "total": sum(i for i in range(3, ROWS, 100) if i % 11)}
    assert t.num_rows == ROWS


# What is read, where DuckDB hands filters to a polars LazyFrame.
PUSHED = [
    ("k = 77", 1),
    ("k between 100 and 109", 10),
    ("k > 100 and k <= 150 and price > 20", 50),
    ("k in (3, 12000, 99999)", 2),
    ("k < 3 or k >= 19998", 5),
    ("k = 5 or name = 'name 7'", ROWS),
    ("k > 19990 and name is not null", 9),
    ("price is null", ROWS),
    ("k % 1000 = 0", ROWS),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", PUSHED, ids=str)
def test_filters_reach_the_index_through_lazy(
    store: pheon.Store, connection: Any, data: pa.Table, rows_read: list[int], case: tuple[str, int]
) -> None:
    where, expected = case
    lazy = store.put("t", data, key="k").lazy()
    query = "select k, name, price from {} where " + where + " order by k"
    answer = connection.sql(query.format("lazy")).fetchall()
    assert answer == connection.sql(query.format("data")).fetchall()
    assert rows_read == [expected]
    assert isinstance(lazy, pl.LazyFrame)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("query", [q.replace("from t", "from lazy").replace("join t", "join lazy") for q in QUERIES])
def test_sql_over_lazy(store: pheon.Store, connection: Any, data: pa.Table, query: str) -> None:
    lazy = store.put("t", data, key="k").lazy()
    answer = connection.sql(query).fetchall()
    connection.register("lazy", data)
    assert answer == connection.sql(query).fetchall()
    assert isinstance(lazy, pl.LazyFrame)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "case",
    [
        ("ts", "ts >= timestamp '2024-01-02' and ts < timestamp '2024-01-02 00:10:00'"),
        ("name", "name = 'name 7'"),
        ("name", "name >= 'name 98' and name < 'name 99'"),
        ("name", "name in ('name 5', 'name 93')"),
        ("amount", "amount between 1.5 and 1.6"),
        ("day", "day = date '2024-01-03'"),
        ("day", "day < timestamp '2024-01-03 00:00:00'"),
    ],
    ids=str,
)
def test_every_kind_of_key_through_lazy(
    store: pheon.Store, connection: Any, data: pa.Table, rows_read: list[int], case: tuple[str, str]
) -> None:
    key, where = case
    data = data.append_column("day", data["ts"].cast(pa.date32())).filter(data["name"].is_valid())
    lazy = store.put("t", data, key=key).lazy()
    answer = sorted(connection.sql(f"select k from lazy where {where}").fetchall())
    assert answer == sorted(connection.sql(f"select k from data where {where}").fetchall())
    assert len(answer) > 5
    assert rows_read == [len(answer)]
    assert isinstance(lazy, pl.LazyFrame)


def test_the_plan_shows_the_filter(store: pheon.Store, connection: Any, data: pa.Table) -> None:
    lazy = store.put("t", data, key="k").lazy()
    plan = connection.sql("explain select sum(price) from lazy where k between 10 and 20").fetchall()[0][1]
    assert "Filters" in plan
    assert '"k" >= 10' in plan
    assert "Projections: price" in plan
    assert isinstance(lazy, pl.LazyFrame)
