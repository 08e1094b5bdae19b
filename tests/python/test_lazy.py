"""`Table.lazy`: answers equal those of polars on the same frame, and only what is needed is read."""

from __future__ import annotations

import datetime as dt
import multiprocessing as mp
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import pheon
from pheon._adapters import polars_lazy, polars_plan
from pheon._adapters.polars_lazy import TableSource

ROWS = 20_000
NAN = float("nan")
VIENNA = ZoneInfo("Europe/Vienna")
k = pl.col("k")
v = pl.col("v")
START = dt.datetime(2020, 1, 1)
STAMPS = [START + dt.timedelta(minutes=i) for i in range(ROWS)]
DAYS = [dt.date(1980, 1, 1) + dt.timedelta(days=i) for i in range(ROWS)]


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows read by each scan, as they happen."""
    read: list[int] = []

    def decide(*args: Any) -> polars_plan.Decision:
        decision = polars_plan.decide(*args)
        read.append(decision.rows)
        return decision

    monkeypatch.setattr(polars_lazy, "decide", decide)
    return read


@pytest.fixture
def prices(store: pheon.Store) -> pheon.Table:
    keys = range(ROWS)
    frame = pl.DataFrame({"k": keys, "v": [i / 7 for i in keys], "s": [f"name {i % 100}" for i in keys]})
    return store.put("prices", frame, key="k")


# What goes to the index -----------------------------------------------------------------------------------------------

# For each type of key: its values, and predicates with the rows that are to be read (None: all).
type_cases: dict[str, tuple[pa.Array, list[tuple[pl.Expr, int | None]]]] = {
    "int8": (
        pa.array([i % 100 - 50 for i in range(ROWS)], pa.int8()),
        [
            (k == 3, 200),
            (k > 40, 1800),
            (k == 3.0, 200),
            (k == 3.5, 0),
            (k <= -49.5, 200),
            (k == 300, 0),
            (k > -1000, None),
            (k.is_in([1, 2, None]), 400),
            (k.is_in([]), 0),
            (k > pl.lit(40), 1800),
            (k.eq_missing(3), 200),
            (k.is_null(), 0),
            (k == pl.lit(3, pl.Int64), 200),
            (k.cast(pl.Int64) > 45, 800),
            (k.cast(pl.Int64).is_in([45, 1000]), 200),
            (~(k > -40), 2200),
            (k != 3, None),
            (k + 1 > 45, None),
            (k == k.max(), None),
            (k == v, None),
        ],
    ),
    "uint64": (
        pa.array(range(ROWS), pa.uint64()),
        [
            (k == 3, 1),
            (k > 2**63, 0),
            (k < 5.5, 6),
            (k >= -1, None),
            (k == NAN, None),
            (k < NAN, None),
            (k > float("inf"), None),
            (k.is_in([1, 19_000]), 2),
            (k.is_between(5, 9), 5),
            (k.is_between(5, 9, "left"), 4),
            (k.is_between(5, 9, "right"), 4),
            (k.is_between(5, 9, "none"), 3),
            (k.is_between(9, 5), 0),
            (k.is_between(v, 9), 10),
        ],
    ),
    # Where floats no longer tell integers apart.
    "int64": (
        pa.array([2**53 + i for i in range(ROWS)], pa.int64()),
        [(k == 2.0**53, None), (k >= 2.0**53 + 4, None), (k < 2.0**53 + 2, None), (k == 2**53 + 1, 1)],
    ),
    "string": (
        pa.array([f"k{i:06}" for i in range(ROWS)]),
        [
            (k == "k000005", 1),
            (k > "k0199", 100),
            (k <= "k000003", 4),
            (k.str.starts_with("k00001"), 10),
            (k.str.starts_with(""), None),
            (k.str.starts_with(k), None),
            (k.str.contains("k00001"), None),
            (k.is_in(["k000001", "x", None]), 1),
            (k.is_between(pl.lit("k0001"), pl.lit("k0002")), 100),
            (k == pl.lit("k000003", pl.Categorical), None),
            (k.cast(pl.Categorical) == "k000003", None),
            (k.is_in(pl.Series(["k000001"], dtype=pl.Categorical).implode()), None),
        ],
    ),
    "binary": (
        pa.array([b"k%06d" % i for i in range(ROWS)]),
        [(k == b"k000005", 1), (k.bin.starts_with(b"k00001"), 10), (k <= b"k000003", 4), (k < b"k00001", 10)],
    ),
    "fixed size binary": (
        pa.array([b"k%06d" % i for i in range(ROWS)], pa.binary(7)),
        [(k == b"k000005", 1), (k.bin.starts_with(b"k00001"), 10), (k <= b"k000003", 4), (k < b"k00001", 10)],
    ),
    "boolean": (
        pa.array([i % 4 == 0 for i in range(ROWS)]),
        [(k, 5000), (~k, 15_000), (k == True, 5000), (k > False, 5000), (k <= False, 15_000), (k == 1, None)],  # noqa: E712
    ),
    "date32": (
        pa.array(DAYS, pa.date32()),
        [
            (k == DAYS[7], 1),
            (k > DAYS[-3], 2),
            (k >= dt.datetime(2020, 1, 1), 5390),
            (k < dt.datetime(1980, 1, 5, 3), 5),
            (k == dt.datetime(1980, 1, 5, 3), 0),
            (k.is_in(DAYS[:3]), 3),
            (k >= dt.date.max, 0),
            (k <= dt.date.max, None),
            (k < dt.date.min, 0),
        ],
    ),
    # Milliseconds for polars, days for the index: what is read may be a row more.
    "date64": (
        pa.array(DAYS, pa.date64()),
        [(k == DAYS[7], 1), (k > DAYS[-3], 3), (k < dt.datetime(1980, 1, 5, 3), 5)],
    ),
    "time32[s]": (
        pa.array([dt.time(i % 24, i % 60) for i in range(ROWS)], pa.time32("s")),
        [(k == dt.time(3, 3), 167), (k > dt.time(23, 50), 166), (k < dt.time(0, 0, 0, 5), 167)],
    ),
    "time64[ns]": (
        pa.array([dt.time(i % 24, i % 60, 0, i) for i in range(ROWS)], pa.time64("ns")),
        [(k == dt.time(3, 3, 0, 3), 1), (k <= dt.time(0, 0, 0, 5), 1), (k <= dt.time.max, None), (k > dt.time.max, 0)],
    ),
    "duration[s]": (
        pa.array([dt.timedelta(seconds=i) for i in range(ROWS)], pa.duration("s")),
        [(k == dt.timedelta(seconds=5), 1), (k <= pl.lit(1500, pl.Duration("ms")), 2), (k < dt.timedelta(0), 0)],
    ),
    "duration[ns]": (
        pa.array([dt.timedelta(seconds=i) for i in range(ROWS)], pa.duration("ns")),
        [(k == dt.timedelta(seconds=5), 1), (k <= pl.lit(1, pl.Duration("ns")), 1), (k > dt.timedelta(hours=5), 1999)],
    ),
}
for unit in ("s", "ms", "us", "ns"):
    type_cases[f"timestamp[{unit}]"] = (
        pa.array(STAMPS, pa.timestamp(unit)),
        [
            (k == STAMPS[3], 1),
            (k == STAMPS[0].date(), 1),
            (k <= STAMPS[0].date(), 1),
            (k < pl.lit(STAMPS[3], pl.Datetime("ns")), 3),
            (k < pl.lit(STAMPS[3], pl.Datetime("ms")), 3),
            (k.is_in(STAMPS[:3]), 3),
            (k >= STAMPS[3].replace(tzinfo=dt.UTC), None),
            (k < pl.datetime(2020, 1, 1, 0, 5), 5),
            (pl.date(2020, 1, 2) > k, 1440),
            (k < dt.datetime.min, 0),
        ],
    )
    type_cases[f"timestamp[{unit}, Europe/Vienna]"] = (
        pa.array(STAMPS, pa.timestamp(unit, "Europe/Vienna")),
        [
            (k == STAMPS[60].replace(tzinfo=dt.UTC).astimezone(VIENNA), 1),
            (k < STAMPS[120].replace(tzinfo=VIENNA), 60),
            (k < pl.lit(STAMPS[120]).dt.replace_time_zone("Europe/Vienna"), 60),
            (k < STAMPS[60].replace(tzinfo=dt.UTC), None),
            (k < STAMPS[3], None),
        ],
    )
for width in (32, 64, 128):
    type_cases[f"decimal{width}"] = (
        pa.array([Decimal(i) / 100 for i in range(ROWS)], getattr(pa, f"decimal{width}")(9, 2)),
        [
            (k == Decimal("1.5"), 1),
            (k > Decimal("199.9"), 9),
            (k > 199, 99),
            (k == 1, 1),
            (k == Decimal("1.555"), None),
            (k <= Decimal("1.999"), None),
            (k < 1.5, None),
            (k.is_in([Decimal("1.5"), Decimal("150")]), 2),
        ],
    )


def outcome(query: Callable[[], pl.DataFrame]) -> pl.DataFrame | type[Exception]:
    try:
        return query()
    except pl.exceptions.PolarsError as e:
        return type(e)


def same(got: pl.DataFrame | type[Exception], expected: pl.DataFrame | type[Exception]) -> None:
    if isinstance(got, pl.DataFrame) and isinstance(expected, pl.DataFrame):
        assert_frame_equal(got, expected, check_exact=True)
    else:
        assert got is expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", type_cases)
def test_a_key_filter_reads_the_rows_that_it_keeps(store: pheon.Store, rows_read: list[int], kind: str) -> None:
    keys, predicates = type_cases[kind]
    data = pa.table({"k": keys, "v": range(ROWS)})
    table = store.put("t", data, key="k")
    # Through pyarrow, as polars reads narrow decimals from Arrow streams as if they were wide.
    frame = pl.DataFrame(data).sort("k", maintain_order=True)
    for predicate, expected in predicates:
        rows_read.clear()
        expected_answer = outcome(lambda p=predicate: frame.filter(p))
        same(outcome(lambda p=predicate: table.lazy().filter(p).collect()), expected_answer)
        if isinstance(expected_answer, pl.DataFrame):
            # Several reads are one or more of the whole: polars did not hand the filter down.
            total = rows_read[0] if rows_read else 0
            assert total == (ROWS if expected is None else expected), f"{predicate}: read {total}"


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ((k > 100) & (k < 110), 9),
        ((k > 100) & (v > 20.0) & (k <= 150), 50),
        ((k < 3) | (k >= ROWS - 2), 5),
        ((k < 3) | (k == 1) | (k < 2), 3),
        ((k < 3) | (v < 0), ROWS),
        (((k < 3) | (v < 0)) & (k < 10), 10),
        ((k < 3) & (v < 0) & (k > 5), 0),
        (~((k < ROWS - 10) | (v < 0)), 10),
        (pl.any_horizontal(k == 7, k == 15_000), ROWS),
        (pl.all_horizontal(k > 7, k < 10), 2),
        (pl.when(k.is_null()).then(None).otherwise(k.is_in([3, 4])), 2),
        (pl.when(k < 10).then(v > 1).otherwise(k == 15_000), 11),
        ((k == 5) ^ (k == 6), ROWS),
        (pl.lit(value=True) & (k == 5), 1),
        (pl.lit(value=False), 0),
    ],
    ids=str,
)
def test_combined_filters(prices: pheon.Table, rows_read: list[int], predicate: pl.Expr, expected: int) -> None:
    answer = prices.lazy().filter(predicate).collect()
    assert_frame_equal(answer, prices.to_polars().filter(predicate))
    assert sum(rows_read) == expected


def test_a_chain_longer_than_python_recurses(prices: pheon.Table, rows_read: list[int]) -> None:
    either = k == 0
    for key in range(1, 60):
        either = either | (key * 300 == k)
    both = either
    for _ in range(400):
        both = both & (v >= 0)
    assert prices.lazy().filter(both).collect().height == 60
    assert rows_read == [60 * 300 - 299]  # they lie nearer than a run of its own costs


def test_keys_far_apart_are_runs_of_their_own(prices: pheon.Table, rows_read: list[int]) -> None:
    asked = [19_999, 3, 8_000, 3, 99_999]
    assert prices.lazy().filter(k.is_in(asked)).select("k").collect()["k"].to_list() == [3, 8_000, 19_999]
    assert rows_read == [3]


def test_more_keys_than_lookups_pay_for_are_read_as_one_range(prices: pheon.Table, rows_read: list[int]) -> None:
    asked = list(range(500, 19_000, 7))
    assert prices.lazy().filter(k.is_in(asked)).collect()["k"].to_list() == asked
    assert rows_read == [asked[-1] - asked[0] + 1]


def test_the_first_rows_are_taken_before_the_filter(prices: pheon.Table, rows_read: list[int]) -> None:
    frame = prices.to_polars()
    for query in (
        lambda f: f.head(10).filter(k > 5),
        lambda f: f.filter(k > 5).head(10),
        lambda f: f.filter(k > 5).head(10).filter(k > 7).head(1),
        lambda f: f.slice(100, 20).filter(k < 110),
        lambda f: f.tail(3),
    ):
        assert_frame_equal(query(prices.lazy()).collect(), query(frame))
    assert rows_read[0] == 4


def test_a_slice_and_a_range_of_a_table_are_lazy_too(prices: pheon.Table, rows_read: list[int]) -> None:
    part = prices[100:200]
    assert part.lazy().filter(k.is_between(195, 300)).collect()["k"].to_list() == [195, 196, 197, 198, 199]
    assert prices.range(50, 60).lazy().filter(k >= 58).collect()["k"].to_list() == [58, 59]
    assert rows_read == [5, 2]


def test_a_table_without_key_or_rows(store: pheon.Store, rows_read: list[int]) -> None:
    frame = pl.DataFrame({"k": [3, 1, 2], "v": ["c", None, "b"]})
    assert_frame_equal(store.put("t", frame).lazy().filter(k > 1).collect(), frame.filter(k > 1))
    assert rows_read == [3]
    empty = store.put("empty", frame.clear(), key="k")
    assert_frame_equal(empty.lazy().filter(k > 1).collect(), frame.clear())
    assert_frame_equal(empty.lazy().collect(), frame.clear())


def test_only_asked_columns_are_read(prices: pheon.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []
    original = polars_lazy._read

    def spy(rows: Any, names: list[str]) -> pl.DataFrame:
        read.append(names)
        return original(rows, names)

    monkeypatch.setattr(polars_lazy, "_read", spy)
    assert prices.lazy().select("v").collect().columns == ["v"]
    assert read == [["v"]]
    assert prices.lazy().select(pl.len()).collect().item() == ROWS


def test_rows_without_columns_are_counted(prices: pheon.Table) -> None:
    source = TableSource(prices)
    cases = [(None, ROWS), (k < 10, 10), (k.is_in([1, 15_000, 15_001]), 3), (v < 0, 0), (pl.col("s") == "name 7", 200)]
    for predicate, expected in cases:
        frames = list(source([], predicate, None, 1000))
        assert [frame.width for frame in frames] == [0] * len(frames)
        assert sum(frame.height for frame in frames) == expected


def test_the_plan_shows_columns_and_filter(prices: pheon.Table) -> None:
    plan = prices.lazy().filter(k > 19_990).select("v").explain()
    assert "pheon" in plan
    assert 'SELECTION: col("k") > 19990' in plan
    assert "PROJECT 2/3 COLUMNS" in plan
    assert "prices version 1: 20,000 rows, key k" in plan


def test_numbers_share_the_mapping(prices: pheon.Table) -> None:
    def address(frame: pl.DataFrame) -> int:
        return frame["v"].to_numpy(allow_copy=False).__array_interface__["data"][0]

    assert address(prices.lazy().select("v").collect(engine="in-memory")) == address(prices.to_polars())
    part = prices.lazy().filter(k >= 100, k < 200).collect(engine="in-memory")
    assert address(part) == address(prices.to_polars()) + 100 * 8


def test_the_key_is_known_to_ascend(store: pheon.Store, prices: pheon.Table) -> None:
    assert prices.lazy().collect()["k"].flags["SORTED_ASC"]
    assert prices.lazy().filter(k.is_in([1, 15_000])).collect()["k"].flags["SORTED_ASC"]
    assert not prices.lazy().collect()["v"].flags["SORTED_ASC"]
    plain = store.put("plain", pl.DataFrame({"k": [2, 1]}))
    assert not plain.lazy().collect()["k"].flags["SORTED_ASC"]
    assert prices.to_polars()["k"].flags["SORTED_ASC"]
    assert not plain.to_polars()["k"].flags["SORTED_ASC"]


@pytest.mark.parametrize("width", [32, 64])
def test_narrow_decimals_are_read_right(store: pheon.Store, width: int) -> None:
    # polars itself takes them for wide ones when they come by an Arrow stream.
    values = [None if i == 3 else Decimal(i) / 100 for i in range(50)]
    kind = getattr(pa, f"decimal{width}")(9, 2)
    nested = pa.array([[value] for value in values], pa.list_(kind))
    table = store.put("t", pa.table({"k": range(50), "v": pa.array(values, kind), "n": nested}), key="k")
    for frame in (table.to_polars(), table.lazy().collect(), table.lazy().filter(k >= 0).collect()):
        assert frame["v"].to_list() == values
        assert frame["n"].to_list() == [[value] for value in values]
        assert frame["v"].dtype == pl.Decimal(9, 2)
    assert table.lazy().filter(v == Decimal("0.07")).collect()["k"].to_list() == [7]
    m = store.put_map("m", table, key="k", value="v")
    assert m.get_many(pl.Series([49, 3, 99])).to_list() == [Decimal("0.49"), None, None]
    m = store.put_map("m", table, key="k")
    assert m.get_many(pl.Series([49, 3]))["v"].to_list() == [Decimal("0.49"), None]


# Living with polars ---------------------------------------------------------------------------------------------------


def test_every_way_to_run_it(prices: pheon.Table, tmp_path: Path) -> None:
    frame, lazy = prices.to_polars(), prices.lazy()
    query = lazy.filter(k > 19_000, pl.col("s").str.ends_with("7"))
    expected = frame.filter(k > 19_000, pl.col("s").str.ends_with("7"))
    assert_frame_equal(query.collect(engine="in-memory"), expected)
    assert_frame_equal(query.collect(engine="streaming"), expected)
    assert_frame_equal(query.collect(), expected)
    query.sink_parquet(tmp_path / "out.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "out.parquet"), expected)
    other = pl.LazyFrame({"k": [19_107, 5, -1], "x": ["a", "b", "c"]})
    assert_frame_equal(
        query.join(other, on="k").collect(), expected.join(other.collect(), on="k"), check_row_order=False
    )
    assert_frame_equal(
        pl.concat([lazy.filter(k < 2), lazy.filter(k == 9), pl.LazyFrame(frame[:1])]).collect(),
        pl.concat([frame[:2], frame[9:10], frame[:1]]),
    )
    assert_frame_equal(
        lazy.group_by("s").agg(pl.col("v").sum()).sort("s").collect(engine="streaming"),
        frame.group_by("s").agg(pl.col("v").sum()).sort("s"),
    )
    assert_frame_equal(
        lazy.join(lazy.filter(k < 5), on="k").collect(), frame.join(frame[:5], on="k"), check_row_order=False
    )
    assert_frame_equal(pl.concat(list(query.collect_batches(chunk_size=10))), expected)


def test_it_stays_on_its_version_when_the_store_closes(store: pheon.Store) -> None:
    table = store.put("t", pl.DataFrame({"k": [1, 2]}), key="k")
    lazy = table.lazy()
    store.put("t", pl.DataFrame({"k": [7, 8, 9]}), key="k")
    assert table.refresh()
    store.gc()
    store.close()
    assert lazy.collect()["k"].to_list() == [1, 2]
    assert lazy.filter(k == 2).collect()["k"].to_list() == [2]
    assert table.lazy().collect()["k"].to_list() == [7, 8, 9]


def collect_there(pickled: bytes) -> pl.DataFrame:
    return pickle.loads(pickled).collect()


def test_it_goes_to_other_processes(prices: pheon.Table) -> None:
    pytest.importorskip("cloudpickle")
    query = prices[10:].lazy().filter(k < 15)
    pickled = pickle.dumps(query)
    assert len(pickled) < 20_000
    with mp.get_context("spawn").Pool(1) as pool:
        assert_frame_equal(pool.apply(collect_there, (pickled,)), prices.to_polars()[10:15])


def test_the_source_is_pickled_as_how_to_reopen(prices: pheon.Table) -> None:
    source = pickle.loads(pickle.dumps(TableSource(prices[10:])))
    assert source.schema == prices.to_polars().schema
    assert source.decide(k == 20).runs == [(10, 11)]


def test_every_batch_size(prices: pheon.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polars_lazy, "_ROWS_AT_FIRST", 16)
    monkeypatch.setattr(polars_lazy, "_ROWS_AT_MOST", 4096)
    source, frame = TableSource(prices), prices.to_polars()
    monkeypatch.setattr(polars_lazy, "_ROWS_ALONE", 8)
    far = (k < 5) | k.is_in([5000, 9990]) | k.is_between(9999, 15_000)
    for predicate in (None, k >= 4000, pl.col("s") == "name 7", v < 0, far):
        for size in (None, 1000, 7):
            batches = list(source(None, predicate, 10_000, size))
            expected = frame[:10_000] if predicate is None else frame[:10_000].filter(predicate)
            assert_frame_equal(pl.concat(batches), expected)
            assert size is None or max(b.height for b in batches) <= size


def test_an_index_that_refuses_a_key_costs_speed_only(prices: pheon.Table) -> None:
    class Refusing:
        key, bounds, num_rows = ["k"], (0, ROWS), ROWS

        def range(self, start: Any, stop: Any) -> Iterator[None]:
            raise TypeError(f"no keys like {start} and {stop}")

    domains = TableSource(prices)._domains
    assert polars_plan.decide(Refusing(), k == 5, domains).runs == [(0, ROWS)]
