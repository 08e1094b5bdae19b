"""Putting a large unsorted frame into a store, beside polars' sort and write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

from benches.tables import data
from benches.tables.plan import PHEON, Figure, Measure, Plan

SYNCED, UNSYNCED = "polars sort + write_ipc + fsync", "polars sort + write_ipc, no fsync"
SOURCES = {"polars": "a polars frame", "pyarrow": "a pyarrow table"}
SPEEDUP_MIN = 0.5


def prepare(plan: Plan) -> None:
    """Each process makes its frame in memory: nothing lies on disk before."""


def by_pheon(source: str, folder: str, rows: int, count: int) -> dict[str, Any]:
    """A step: seconds of a put, the file synchronised; then every value is checked."""
    import polars as pl

    import pheon

    table = data.stream(rows, count, "random").read_all()
    frame: Any = pl.from_arrow(table, rechunk=False) if source == "polars" else table
    place = Path(folder) / "put"
    shutil.rmtree(place, ignore_errors=True)
    os.sync()
    start = perf_counter()
    t = pheon.open(place).put("frame", frame, key="key")
    seconds = perf_counter() - start
    del table, frame
    names = data.columns(count)
    data.check_sorted_frame("put", t.to_numpy("key"), {name: t.to_numpy(name) for name in names}, rows)
    shutil.rmtree(place)
    return {"s": seconds}


def by_polars(folder: str, rows: int, count: int) -> dict[str, Any]:
    """A step: seconds of sort and write, without and with synchronising the file; then every value is checked."""
    import polars as pl
    import pyarrow as pa

    frame = pl.from_arrow(data.stream(rows, count, "random").read_all(), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    file = Path(folder) / "sorted.arrow"
    file.unlink(missing_ok=True)
    os.sync()
    start = perf_counter()
    frame.sort("key").write_ipc(file)
    written = perf_counter()
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    synced = perf_counter()
    del frame
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    names = data.columns(count)
    data.check_sorted_frame("polars", table["key"], {name: table[name] for name in names}, rows)
    file.unlink()
    return {"unsynced": written - start, "s": synced - start}


def run(plan: Plan) -> Figure:
    """Pheon from two kinds of source, polars with and without synchronising."""
    sizes = plan.sizes
    shared = {"folder": str(plan.work), "rows": sizes.float_rows, "count": sizes.float_columns}
    polars = plan.rounds(by_polars, **shared)
    others = {SYNCED: polars["s"], UNSYNCED: polars["unsynced"]}
    measures = [
        Measure(
            f"put from {words}",
            "s",
            {PHEON: plan.rounds(by_pheon, source=source, **shared)["s"], **others},
            speedup_min=SPEEDUP_MIN,
        )
        for source, words in SOURCES.items()
    ]
    return Figure(
        "Put of an unsorted frame",
        f"{sizes.float_rows:,} rows in random order, an int64 key and {sizes.float_columns} float64 columns, "
        f"{sizes.float_rows * (sizes.float_columns + 1) * 8 / 2**30:.2f} GiB in memory.",
        measures,
        ["Pheon's time includes fsync, the index and checksums. Every value of every result was compared."],
    )
