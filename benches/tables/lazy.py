"""Filters on the key of a lazy frame, beside polars' scan of the same file."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benches.tables import data
from benches.tables.plan import PHEON, Figure, Measure, Plan

TABLE = "long"
SCAN = "polars scan_ipc"
KINDS = {"key == k": "equal", "k <= key < k + 3000 (1,000 rows)": "range", "key.is_in(1,000 keys)": "is_in"}
RANGE_ROWS = 1_000
IS_IN_KEYS = 1_000
QUESTIONS = {"pheon": 25, "scan": 3}
SPEEDUP_MIN = 50.0


def prepare(plan: Plan) -> None:
    """Builds the table."""
    plan.step(
        data.build, folder=str(plan.work / "store"), name=TABLE, rows=plan.sizes.lazy_rows, count=1, key="ordered"
    )


def filtered(how: str, kind: str, folder: str, rows: int) -> dict[str, Any]:
    """A step: milliseconds of a query with a filter on the key, the best of several with other keys each."""
    import numpy as np
    import polars as pl

    import pheon

    if how == "pheon":
        frame = pheon.open(folder, read_only=True).table(TABLE).lazy()
    else:
        frame = pl.scan_ipc(data.arrow_file(folder, TABLE))
    dice = np.random.default_rng(11)
    key = pl.col("key")
    best = float("inf")
    for _ in range(QUESTIONS[how]):
        if kind == "equal":
            expected = dice.integers(0, rows, 1)
            predicate = key == int(expected[0]) * data.KEY_STEP
        elif kind == "range":
            first = int(dice.integers(0, max(rows - RANGE_ROWS, 1)))
            expected = np.arange(first, min(first + RANGE_ROWS, rows))
            begin, end = first * data.KEY_STEP, (first + RANGE_ROWS) * data.KEY_STEP
            predicate = (key >= begin) & (key < end)
        else:
            expected = np.unique(dice.integers(0, rows, IS_IN_KEYS))
            misses = expected[:10] * data.KEY_STEP + 1
            predicate = key.is_in([*(expected * data.KEY_STEP).tolist(), *misses.tolist()])
        query = frame.filter(predicate)
        start = perf_counter()
        found = query.collect()
        best = min(best, (perf_counter() - start) * 1e3)
        data.check(f"{how}, {kind}, key", found["key"].to_numpy(), expected * data.KEY_STEP)
        data.check(f"{how}, {kind}, c00", found["c00"].to_numpy(), data.values(expected * data.KEY_STEP, 0))
    return {"ms": best}


def run(plan: Plan) -> Figure:
    """Three kinds of filters."""
    sizes = plan.sizes
    shared = {"folder": str(plan.work / "store"), "rows": sizes.lazy_rows}
    measures: list[Measure] = []
    for title, kind in KINDS.items():
        rounds = {
            name: plan.rounds(filtered, how=how, kind=kind, **shared)["ms"]
            for name, how in ((PHEON, "pheon"), (SCAN, "scan"))
        }
        measures.append(Measure(f"filter({title}).collect()", "ms", rounds, speedup_min=SPEEDUP_MIN))
    return Figure(
        "Lazy frames with a filter on the key",
        f"{sizes.lazy_rows:,} rows, an int64 key and a float64 column, {sizes.lazy_rows * 16 / 2**30:.2f} GiB, in "
        "the page cache; both read the same file.",
        measures,
        [
            f"A round is the best of {QUESTIONS['pheon']} different queries ({QUESTIONS['scan']} of the scan).",
            "polars may use all cores. Every row of every answer was compared.",
        ],
    )
