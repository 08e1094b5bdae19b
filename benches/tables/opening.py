"""Opening a large all-float table in a fresh process, up to the first pandas frame."""

from __future__ import annotations

import gc
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benches.compare import memory
from benches.tables import data
from benches.tables.plan import MIB, PHEON, Figure, Measure, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

TABLE = "floats"
OTHERS = {
    "feather": "pyarrow feather.read_table(memory_map=True).to_pandas()",
    "ipc": "pyarrow ipc.open_file(memory_map), to_pandas(split_blocks=True)",
    "pandas": "pd.read_feather",
}
OPEN_MS_MAX, OPEN_MIB_MAX = 5.0, 2.0


def prepare(plan: Plan) -> None:
    """Builds the table."""
    sizes = plan.sizes
    plan.step(
        data.build,
        folder=str(plan.work / "store"),
        name=TABLE,
        rows=sizes.float_rows,
        count=sizes.float_columns,
        key=None,
    )


def private_mib() -> float:
    """Memory of this process that no other shares, MiB."""
    now = memory.rollup()
    return (now["Private_Clean"] + now["Private_Dirty"]) / MIB


def open_once(how: str, folder: str, rows: int, count: int) -> dict[str, Any]:
    """A step: milliseconds and private MiB from nothing to a frame; then every value of three columns is checked."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.pandas_compat

    import pheon
    import pheon._adapters.pandas

    file = data.arrow_file(folder, TABLE)

    def by_pheon() -> pd.DataFrame:
        return pheon.open(folder, read_only=True).table(TABLE).to_pandas()

    def by_feather() -> pd.DataFrame:
        return pyarrow.feather.read_table(file, memory_map=True).to_pandas()

    def by_ipc() -> pd.DataFrame:
        return pa.ipc.open_file(pa.memory_map(file)).read_all().to_pandas(split_blocks=True)

    def by_pandas() -> pd.DataFrame:
        return pd.read_feather(file)

    opener: Callable[[], pd.DataFrame] = {"pheon": by_pheon, "feather": by_feather, "ipc": by_ipc, "pandas": by_pandas}[
        how
    ]
    gc.collect()
    gc.disable()
    before = private_mib()
    start = perf_counter()
    frame = opener()
    ms = (perf_counter() - start) * 1e3
    added = private_mib() - before
    names = data.columns(count)
    if list(frame.columns) != names:
        raise data.WrongAnswerError(f"{how}: columns {list(frame.columns)}, expected {names}")
    numbers = np.arange(rows, dtype=np.int64)
    for number in sorted({0, count // 2, count - 1}):
        expected = data.values(numbers, number)
        data.check(f"{how}, {names[number]}", frame[names[number]].to_numpy(), expected)
        data.check(f"{how}, sum", frame[names[number]].sum(), expected.sum())
    return {"ms": ms, "mib": added}


def run(plan: Plan) -> Figure:
    """Pheon and the three ways of reading the same file, each in fresh processes."""
    sizes = plan.sizes
    shared = {"folder": str(plan.work / "store"), "rows": sizes.float_rows, "count": sizes.float_columns}
    ways = {PHEON: "pheon", **{title: how for how, title in OTHERS.items()}}
    rounds = {title: plan.rounds(open_once, how=how, **shared) for title, how in ways.items()}
    return Figure(
        "Open and first to_pandas()",
        f"{sizes.float_rows:,} rows, {sizes.float_columns} float64 columns, "
        f"{sizes.float_rows * sizes.float_columns * 8 / 2**30:.2f} GiB, in the page cache.",
        [
            Measure("open + to_pandas()", "ms", {t: r["ms"] for t, r in rounds.items()}, at_most=OPEN_MS_MAX),
            Measure("private memory added", "MiB", {t: r["mib"] for t, r in rounds.items()}, at_most=OPEN_MIB_MAX),
        ],
        [
            "Libraries are imported before the clock starts; no frame has been made before.",
            "All read the same file, Pheon's: one uncompressed record batch, the best case for memory-mapped reading.",
            "Private memory is Private_Clean + Private_Dirty of /proc/self/smaps_rollup, after minus before.",
        ],
    )
