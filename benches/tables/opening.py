"""Opening a large all-float table in a fresh process, up to the first pandas frame."""

from __future__ import annotations

import gc
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benches.compare import memory
from benches.tables import data
from benches.tables.plan import MIB, PHEON, Figure, Measure, Plan, Rounds, environment, worker

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

TABLE = "floats"
OTHERS = {
    "feather": "pyarrow feather.read_table(memory_map=True).to_pandas()",
    "ipc": "pyarrow ipc.open_file(memory_map), to_pandas(split_blocks=True)",
    "pandas": "pd.read_feather",
}
LIGHT = ("pheon", "ipc")  # ways that map the file and copy nothing
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


def open_once(*, how: str, folder: str, rows: int, count: int, warm: bool, hold: bool = False) -> dict[str, Any]:
    """A step: milliseconds and private MiB from nothing to a frame; then every value of three columns is checked.

    `warm`: the process has made a frame of one row before. `hold`: it says "ready" then, and keeps what it has until
    standard input is closed.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.pandas_compat
    import pyarrow.vendored.version

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

    if warm:
        pd.DataFrame({"a": [1.0]}).sum()
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
    if hold:
        print("ready", flush=True)
        sys.stdin.read()
    return {"ms": ms, "mib": added}


def floor_once(*, count: int) -> dict[str, Any]:
    """A step: what pandas itself takes for the first frame of a process, of one row with as many columns."""
    import numpy as np
    import pandas as pd
    import pyarrow.pandas_compat  # noqa: F401

    row, names = np.ones((1, count)), data.columns(count)
    gc.collect()
    gc.disable()
    before = private_mib()
    start = perf_counter()
    frame = pd.DataFrame(row, columns=names)
    ms = (perf_counter() - start) * 1e3
    added = private_mib() - before
    data.check("one row", frame.to_numpy(), row)
    return {"ms": ms, "mib": added}


def run(plan: Plan) -> Figure:
    """Pheon and the three ways of reading the same file, each in fresh processes."""
    sizes = plan.sizes
    shared = {"folder": str(plan.work / "store"), "rows": sizes.float_rows, "count": sizes.float_columns}
    ways = {PHEON: "pheon", **{title: how for how, title in OTHERS.items()}}
    first = {title: plan.rounds(open_once, how=how, warm=False, **shared) for title, how in ways.items()}
    floor = plan.rounds(floor_once, count=sizes.float_columns)
    further: dict[str, Rounds] = {}
    for title, how in ways.items():
        # Two processes that each read everything might not fit into memory.
        light = how if how in LIGHT else "ipc"
        step = worker(open_once, how=light, warm=True, hold=True, **shared)
        with memory.waiting([sys.executable, "-m", *step], environment()):
            further[title] = plan.rounds(open_once, how=how, warm=True, **shared)
    return Figure(
        "Open and first to_pandas()",
        f"{sizes.float_rows:,} rows, {sizes.float_columns} float64 columns, "
        f"{sizes.float_rows * sizes.float_columns * 8 / 2**30:.2f} GiB, in the page cache.",
        [
            Measure(f"{what}, {which}", unit, {t: each[name] for t, each in rounds.items()}, at_most=most)
            for what, name, unit, most in (
                ("open + to_pandas()", "ms", "ms", OPEN_MS_MAX),
                ("private memory added", "mib", "MiB", OPEN_MIB_MAX),
            )
            for which, rounds in (("first process", first), ("further process", further))
        ]
        + [
            Measure("for comparison: a frame of one row, first process", unit, {"pandas alone": floor[name]})
            for name, unit in (("ms", "ms"), ("mib", "MiB"))
        ],
        [
            "Libraries are imported before the clock starts.",
            "All read the same file, Pheon's: one uncompressed record batch, the best case for memory-mapped reading.",
            "First process: no other has the libraries loaded, so code that runs counts as private memory.",
            "It has made no frame either: what pandas and pyarrow set up for their first one counts.",
            "Further process: another one maps the file with the same libraries; this one has made a frame of one row.",
            "Private memory is Private_Clean + Private_Dirty of /proc/self/smaps_rollup, after minus before.",
        ],
    )
