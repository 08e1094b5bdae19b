"""Many processes that sum random row ranges of one table: what they hold together."""

from __future__ import annotations

import gc
import json
import random
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.compare import memory
from benches.tables import data
from benches.tables.opening import TABLE
from benches.tables.plan import MIB, PHEON, Figure, Measure, Plan, environment, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

PYARROW = "pyarrow ipc.open_file(memory_map)"
WAYS = {PHEON: "pheon", PYARROW: "pyarrow"}
SHARE_MAX = 1.02


def ranges(reader: int, rows: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Column, start and stop (exclusive) of what a reader sums: two ranges a column, about all of the data once."""
    dice = random.Random(reader)
    for column in range(count):
        for _ in range(2):
            length = dice.randint(0, rows)
            start = dice.randint(0, rows - length)
            yield column, start, start + length


def hold(*, how: str, folder: str, reader: int, rows: int, count: int, answers: str) -> dict[str, Any]:
    """A step: sums its ranges into a file, says "ready", and holds what it holds until standard input is closed."""
    import pandas as pd  # pyarrow loads it for its NumPy arrays: the bare interpreter has it, too
    import pyarrow as pa

    import pheon
    import pheon._adapters.numpy

    pd.DataFrame({"a": [1.0]}).sum()

    names = data.columns(count)
    if how != "bare":
        if how == "pheon":
            table = pheon.open(folder, read_only=True).table(TABLE)
            arrays = [table.to_numpy(name) for name in names]
        else:
            batch = pa.ipc.open_file(pa.memory_map(data.arrow_file(folder, TABLE))).get_batch(0)
            arrays = [batch.column(name).to_numpy() for name in names]
        sums = [float(arrays[column][start:stop].sum()) for column, start, stop in ranges(reader, rows, count)]
        Path(answers).write_text(json.dumps(sums))
    gc.collect()
    print("ready", flush=True)
    sys.stdin.read()
    return {}


def check_sums(answers: dict[str, list[str]], rows: int, count: int) -> dict[str, Any]:
    """A step: compares the sums of all readers (file names, by library) with sums of the formula, in one process."""
    import numpy as np

    for how, files in answers.items():
        found = [iter(json.loads(Path(file).read_text())) for file in files]
        asked = [ranges(reader, rows, count) for reader in range(len(files))]
        for column in range(count):
            until = np.concatenate(([0.0], np.cumsum(data.values(np.arange(rows, dtype=np.int64), column))))
            for reader in range(len(files)):
                for _ in range(2):
                    where, start, stop = next(asked[reader])
                    what = f"{how}, process {reader}, sum of column {where}, rows {start}:{stop}"
                    data.check(what, next(found[reader]), until[stop] - until[start])
    return {}


def _together(plan: Plan, how: str) -> tuple[int, int, list[str]]:
    """PSS and page tables of all processes of one kind, bytes, and the files of their sums."""
    sizes = plan.sizes
    files = [str(plan.work / f"sums-{how}-{reader}.json") for reader in range(plan.processes)]
    with ExitStack() as running:
        pids: list[int] = []
        for reader, file in enumerate(files):
            step = worker(
                hold,
                how=how,
                folder=str(plan.work / "store"),
                reader=reader,
                rows=sizes.float_rows,
                count=sizes.float_columns,
                answers=file,
            )
            waiting = memory.waiting([sys.executable, "-m", *step], environment(one_thread=True))
            pids.append(running.enter_context(waiting).pid)
        return sum(map(memory.pss_bytes, pids)), sum(map(_page_table_bytes, pids)), files


def _page_table_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmPTE:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmPTE")


def run(plan: Plan) -> Figure:
    """Shares of the data's size, beyond what bare interpreters hold."""
    sizes = plan.sizes
    size = sizes.float_rows * sizes.float_columns * 8
    bare, bare_tables, _ = _together(plan, "bare")
    shares: dict[str, list[float]] = {}
    tables: dict[str, list[float]] = {}
    answers: dict[str, list[str]] = {}
    for title, how in WAYS.items():
        pss, page_tables, answers[title] = _together(plan, how)
        shares[title] = [(pss - bare) / size]
        tables[title] = [(page_tables - bare_tables) / MIB]
    plan.step(check_sums, answers=answers, rows=sizes.float_rows, count=sizes.float_columns)
    return Figure(
        f"{plan.processes} processes sum random ranges",
        f"The same table, {size / 2**30:.2f} GiB; each process sums two random row ranges of every column.",
        [
            Measure("PSS of all processes / size of the data", "times", shares, at_most=SHARE_MAX),
            Measure("page tables of all processes", "MiB", tables),
        ],
        ["Beyond what as many bare interpreters with the same imports hold. Every sum was compared."],
    )
