"""Random queries answer as DuckDB does: keys of several types, filters that the index answers and that it does not.

Where the two differ (docs/sql.md, "Beside DuckDB") the queries do not ask, or say what they mean.
"""

from __future__ import annotations

import datetime
import math
import os
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pheon

ROWS = 400
TEXTS = ["", "a", "ab", "aba", "abb", "b", "ba", "é", "ÿ", "zz", "a%b", "a_b", "😀", "Zz", "a\\b", "ab é"]
DAYS = [datetime.date(1969, 12, 30) + datetime.timedelta(n) for n in range(5)]
TIMES = [datetime.datetime(1969, 12, 31, 23, 59, 59, n) for n in (0, 1, 999_999)] + [datetime.datetime(2024, 2, 29)]
AMOUNTS = [Decimal(n) / 100 for n in (-12345, -1, 0, 1, 250, 99_999_999)]
INTS = [-(2**63), -128, -3, -1, 0, 1, 5, 127, 2**62]
SMALL = [-128, -3, 0, 5, 127]
DOUBLES = [-math.inf, -1.5, 0.0, 1e-300, 2.5, math.inf, math.nan]

# Columns of every table: their types, values, and how a value is written in SQL.
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "big": (pa.int64(), INTS),
    "small": (pa.int8(), SMALL),
    "whole": (pa.uint32(), [0, 1, 7, 2**32 - 1]),
    "text": (pa.large_string(), TEXTS),
    "day": (pa.date32(), DAYS),
    "at": (pa.timestamp("us"), TIMES),
    "amount": (pa.decimal128(12, 2), AMOUNTS),
    "flag": (pa.bool_(), [False, True]),
}
# These may be null, and are keys of nothing.
NULLABLE: dict[str, tuple[pa.DataType, list[Any]]] = {
    "n": (pa.int32(), [None, -7, 0, 3, 1000]),
    "x": (pa.float64(), [None, *DOUBLES]),
    "note": (pa.large_string(), [None, *TEXTS]),
}
KEYS = [
    ["big"],
    ["small"],
    ["text"],
    ["day"],
    ["at"],
    ["amount"],
    ["text", "small"],
    ["flag", "day", "whole"],
    ["amount", "big"],
]


def table() -> pa.Table:
    chance = random.Random(7)
    columns: dict[str, pa.Array] = {"id": pa.array(range(ROWS), pa.int64())}
    for name, (kind, values) in (COLUMNS | NULLABLE).items():
        columns[name] = pa.array([chance.choice(values) for _ in range(ROWS)], kind)
    return pa.table(columns)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pheon.Store, duckdb.DuckDBPyConnection]]:
    rows = table()
    with pheon.open(tmp_path_factory.mktemp("random") / "store") as store, duckdb.connect() as oracle:
        oracle.register("rows", rows)
        for number, key in enumerate(KEYS):
            # Of several segments, some rows of which are hidden, and of one.
            store.put(f"t{number}", rows.slice(0, 250), key=key)
            store.append(f"t{number}", rows.slice(250), compact=number % 2 == 0)
            if number % 2 == 0:
                store.compact(f"t{number}")
            oracle.execute(f"create table t{number} as select * from rows")
        yield store, oracle


def literal(value: object) -> str:
    """A value as SQL has it."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case str():
            text = "'" + value.replace("'", "''") + "'"
        case datetime.datetime():
            text = f"timestamp '{value}'"
        case datetime.date():
            text = f"date '{value}'"
        case float():
            text = f"cast('{value}' as double)"
        case Decimal():
            text = f"cast({value} as decimal(12, 2))"
        case _:
            text = str(value)
    return text


def others(kind: pa.DataType) -> st.SearchStrategy[str]:
    """Literals that are in no row, or of another type than the column."""
    if pa.types.is_integer(kind):
        return st.sampled_from(["2", "-1000", "2.5", "99999999999", "cast(5 as double)", "'5'"])
    if pa.types.is_large_string(kind):
        return st.sampled_from(["'c'", "'ab%'", "'ABA'", "'\x7f'"])
    if pa.types.is_decimal(kind):
        return st.sampled_from(["1", "0.01", "-1.235", "cast(2.5 as decimal(10, 1))", "1e3"])
    if pa.types.is_date(kind):
        return st.sampled_from(["date '2000-02-29'", "timestamp '1970-01-01 00:00:00.5'", "'1970-01-01'"])
    if pa.types.is_timestamp(kind):
        return st.sampled_from(["date '1970-01-01'", "timestamp '1969-12-31 23:59:59'"])
    return st.nothing()


PATTERNS = ["a%", "ab%", "%b", "a_a", "é%", "", "%", "a%b", "_", "😀%", "a", "zz_"]


def leaf(name: str, kind: pa.DataType, values: list[Any]) -> st.SearchStrategy[str]:
    one = st.sampled_from(values).map(literal) | others(kind) | st.just("null")
    parts = [
        st.tuples(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), one).map(lambda t: f"{name} {t[0]} {t[1]}"),
        st.tuples(one, st.sampled_from(["=", "<>", "<", "<=", ">", ">="])).map(lambda t: f"{t[0]} {t[1]} {name}"),
        st.tuples(
            st.sampled_from(["in", "not in"]), st.lists(st.sampled_from(values).map(literal), min_size=1, max_size=80)
        ).map(lambda t: f"{name} {t[0]} ({', '.join(t[1])})"),
        st.tuples(st.sampled_from(["between", "not between"]), one, one).map(
            lambda t: f"{name} {t[0]} {t[1]} and {t[2]}"
        ),
        st.sampled_from([f"{name} is null", f"{name} is not null", f"({name} is not distinct from null)"]),
    ]
    if pa.types.is_large_string(kind):
        parts.append(
            st.tuples(st.sampled_from(["like", "not like"]), st.sampled_from(PATTERNS)).map(
                lambda t: f"{name} {t[0]} {literal(t[1])}"
            )
        )
        parts.append(st.sampled_from(TEXTS).map(lambda t: f"starts_with({name}, {literal(t)})"))
    if pa.types.is_boolean(kind):
        parts.append(st.sampled_from([name, f"not {name}"]))
    return st.one_of(parts)


def predicate(key: list[str]) -> st.SearchStrategy[str]:
    of_key = st.one_of([leaf(name, *COLUMNS[name]) for name in key])
    other = st.one_of([leaf(name, *column) for name, column in (COLUMNS | NULLABLE).items()])
    single = of_key | of_key | of_key | other
    return st.recursive(
        single,
        lambda inner: (
            st.tuples(inner, st.sampled_from(["and", "and", "or"]), inner).map(lambda t: f"({' '.join(t)})")
            | inner.map(lambda p: f"not ({p})")
        ),
        max_leaves=6,
    )


AGGREGATES = ", ".join(
    ["count(*)", "count(n)", "sum(n)", "min(text)", "max(text)", "min(day)", "max(amount)", "sum(amount)", "count(x)"]
)


def statement(number: int) -> st.SearchStrategy[str]:
    name, key = f"t{number}", KEYS[number]
    where = predicate(key)
    order = ", ".join(key)

    def limited(condition: str, limit: int, offset: int, direction: str) -> str:
        by = ", ".join(f"{column} {direction}" for column in key)
        return f"select * from {name} where {condition} order by {by}, id limit {limit} offset {offset}"

    def ordered(condition: str, column: str, direction: str) -> str:
        return f"select id, {column} from {name} where {condition} order by {column} {direction}, id"

    def grouped(condition: str, column: str) -> str:
        grouping = f"group by {column} order by {column} nulls first"
        return f"select {column}, {AGGREGATES} from {name} where {condition} {grouping}"

    def joined(condition: str, other: str) -> str:
        inner = f"(select * from {name} where {condition}) a"
        on = "a.text = b.text and a.small < b.small"
        return f"select a.id, b.id from {inner} join {name} b on {on} where b.{other} order by 1, 2"

    columns = st.sampled_from(list(COLUMNS | NULLABLE))
    nulls = st.sampled_from(["asc nulls first", "asc nulls last", "desc nulls first", "desc nulls last"])
    return st.one_of(
        where.map(lambda p: f"select * from {name} where {p} order by id"),
        where.map(lambda p: f"select {order}, id from {name} where {p} order by {order}, id"),
        where.map(lambda p: f"select {AGGREGATES} from {name} where {p}"),
        where.map(lambda p: f"select count(*), min({key[0]}), max({key[0]}) from {name} where {p}"),
        where.map(lambda p: f"select distinct {order} from {name} where {p} order by {order}"),
        st.builds(limited, where, st.integers(0, 20), st.integers(0, 10), st.sampled_from(["asc", "desc"])),
        st.builds(ordered, where, columns, nulls),
        st.builds(grouped, where, columns),
        st.builds(joined, where, leaf("text", *COLUMNS["text"])),
        where.map(lambda p: f"select id, ({p}) as truth from {name} order by id"),
    )


def comparable(value: Any) -> Any:
    """NaN equals NaN; numbers are the same whatever holds them."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return value


@settings(
    max_examples=2000 if "PHEON_LONG" in os.environ else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, len(KEYS) - 1).flatmap(statement))
def test_answers_are_duckdbs(engines: tuple[pheon.Store, duckdb.DuckDBPyConnection], sql: str) -> None:
    store, oracle = engines
    try:
        expected = oracle.execute(sql).fetchall()
    except duckdb.Error:
        # A literal that DuckDB does not convert: Pheon may refuse it, or not.
        return
    found = [tuple(row.values()) for row in named(store.sql(sql))]
    assert [[*map(comparable, row)] for row in found] == [[*map(comparable, row)] for row in expected]


def named(batch: Any) -> list[dict[str, Any]]:
    """Rows, also where two columns have one name."""
    rows = batch.to_pyarrow()
    return rows.rename_columns([f"{at}" for at in range(rows.num_columns)]).to_pylist()


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("7 / 2", 3),
        ("cast(2.5 as int)", 2),
        ("0.1 + 0.2 = 0.3", False),
        ("cast(0.1 as decimal(2, 1)) + cast(0.2 as decimal(2, 1)) = cast(0.3 as decimal(2, 1))", True),
        ("(select max(x) from (values (cast('nan' as double), 1), (2.0, 1)) v(x, g) group by g)", 2.0),
        ("(select x from (values (1), (null)) v(x) order by x desc limit 1)", None),
    ],
)
def test_documented_differences(
    engines: tuple[pheon.Store, duckdb.DuckDBPyConnection], expression: str, answer: object
) -> None:
    store, _ = engines
    assert store.sql(f"select {expression} as answer").to_pylist() == [{"answer": answer}]
