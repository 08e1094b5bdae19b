"""A time series that grows under running readers."""

from __future__ import annotations

import json
import random
import select
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

from benches.compare import memory
from benches.compare.oracle import WrongAnswerError
from benches.compare.phase import PhaseError
from benches.tables import data
from benches.tables.plan import MIB, PHEON, Figure, Measure, Plan, environment, worker

if TYPE_CHECKING:
    import pheon

TABLE = "prices"
KEEP = 2
READERS = 2
COLUMNS = 2
TAIL_BATCHES = 10  # how far back readers range
PAUSE_SECONDS = 0.002  # of a reader between two rounds: it must not take a core for itself
REFRESHES, TRACED = 100_000, 10_000


def prepare(plan: Plan) -> None:
    """Publishes the first batch."""
    plan.step(
        data.build,
        folder=str(plan.work / "store"),
        name=TABLE,
        rows=plan.sizes.append_rows,
        count=COLUMNS,
        key="ordered",
    )


def _open(folder: str) -> pheon.Table:
    import pheon

    return pheon.open(folder, read_only=True).table(TABLE)


def _disk_bytes(folder: Path) -> int:
    """Bytes of all files, however many names they have; files may go while they are counted."""
    sizes: dict[int, int] = {}
    for file in folder.rglob("*"):
        try:
            facts = file.lstat()
        except FileNotFoundError:
            continue
        if file.is_file():
            sizes[facts.st_ino] = facts.st_blocks * 512
    return sum(sizes.values())


def write(folder: str, appends: int, rows: int) -> dict[str, Any]:
    """A step: appends batch after batch; milliseconds of each, segments and bytes on disk meanwhile."""
    import pheon

    store = pheon.open(folder)
    took: list[float] = []
    segments = disk = 0
    for number in range(1, appends + 1):
        batch = data.stream(rows, COLUMNS, "ordered", start=number * rows).read_all()
        start = perf_counter()
        table = store.append(TABLE, batch, keep=KEEP)
        took.append((perf_counter() - start) * 1e3)
        if len(table) != (number + 1) * rows:
            raise WrongAnswerError(f"append {number}: {len(table)} rows, expected {(number + 1) * rows}")
        segments = max(segments, table.info().segments)
        if number % 20 == 0 or number == appends:
            disk = max(disk, _disk_bytes(Path(folder) / TABLE))
    table = _open(folder)
    at = 0
    for part in _frames(table):
        _check_rows("all rows in the end", part, at)
        at += part.num_rows
    if at != (appends + 1) * rows:
        raise WrongAnswerError(f"in the end: {at} rows, expected {(appends + 1) * rows}")
    took.sort()
    return {
        "median_ms": took[len(took) // 2],
        "p99_ms": took[min(len(took) * 99 // 100, len(took) - 1)],
        "max_ms": took[-1],
        "seconds": sum(took) / 1e3,
        "segments": segments,
        "versions": len(store.versions(TABLE)),
        "most_disk_bytes": disk,
        "disk_bytes": _disk_bytes(Path(folder) / TABLE),
    }


def _frames(table: pheon.Table) -> Any:
    import pyarrow as pa

    return pa.table(table).to_batches(max_chunksize=data.BATCH_ROWS)


def _check_rows(what: str, part: Any, first: int) -> None:
    """Checks that Arrow data holds the rows from number `first` on."""
    import numpy as np

    key = np.arange(first, first + part.num_rows, dtype=np.int64) * data.KEY_STEP
    data.check(f"{what}, key from row {first}", part["key"], key)
    for number, name in enumerate(data.columns(COLUMNS)):
        data.check(f"{what}, {name} from row {first}", part[name], data.values(key, number))


def read(folder: str, reader: int, rows: int, answer: str) -> dict[str, Any]:
    """A step: refreshes and ranges over the tail until standard input is closed; every row is checked."""
    import pyarrow as pa

    table = _open(folder)
    print("ready", flush=True)
    dice = random.Random(reader)
    idle: list[int] = []
    moved: list[int] = []
    ranged: list[int] = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        start = perf_counter_ns()
        newer = table.refresh()
        (moved if newer else idle).append(perf_counter_ns() - start)
        if len(table) % rows:
            raise WrongAnswerError(f"version {table.version} has {len(table)} rows: part of an append of {rows}")
        first = dice.randint(max(len(table) - TAIL_BATCHES * rows, 0), len(table) - rows)
        start = perf_counter_ns()
        found = pa.table(table.range(first * data.KEY_STEP, (first + rows) * data.KEY_STEP))
        ranged.append(perf_counter_ns() - start)
        if found.num_rows != rows:
            raise WrongAnswerError(f"version {table.version}: a range of {rows} rows gave {found.num_rows}")
        _check_rows(f"version {table.version}", found, first)
        sleep(PAUSE_SECONDS)
    table.refresh()
    ranged.sort()
    result = {
        "versions": len(moved),
        "rows": len(table),
        "ranges": len(ranged),
        "range_us": ranged[len(ranged) // 2] / 1e3,
        "range_p99_us": ranged[len(ranged) * 99 // 100] / 1e3,
        "refresh_ms": sorted(moved)[len(moved) // 2] / 1e6 if moved else None,
    }
    Path(answer).write_text(json.dumps(result))
    return {}


def refresh(folder: str, count: int) -> dict[str, Any]:
    """A step: microseconds of a refresh with nothing new."""
    table = _open(folder)
    start = perf_counter_ns()
    for _ in range(count):
        if table.refresh():
            raise WrongAnswerError("refresh says that there is a newer version, but nobody has written one")
    return {"us": (perf_counter_ns() - start) / 1e3 / max(count, 1)}


def _system_calls(plan: Plan, folder: str, count: int) -> int:
    """All system calls of a process that refreshes so many times."""
    counts = plan.work / "strace.txt"
    command = [
        "strace",
        "-f",
        "-c",
        "-o",
        str(counts),
        sys.executable,
        "-m",
        *worker(refresh, folder=folder, count=count),
    ]
    subprocess.run(command, env=environment(), check=True)
    total = next(line for line in counts.read_text().splitlines() if line.endswith(" total"))
    return int(total.split()[3])


def run(plan: Plan) -> Figure:
    """One writer, two readers, then refreshes when all is quiet."""
    sizes, folder = plan.sizes, str(plan.work / "store")
    files = [plan.work / f"reader-{reader}.json" for reader in range(READERS)]
    with ExitStack() as running:
        for reader, file in enumerate(files):
            file.unlink(missing_ok=True)
            step = worker(read, folder=folder, reader=reader, rows=sizes.append_rows, answer=str(file))
            running.enter_context(memory.waiting([sys.executable, "-m", *step], environment()))
        written = plan.step(write, folder=folder, appends=sizes.appends, rows=sizes.append_rows)
    if any(not file.exists() for file in files):
        raise PhaseError("a reader failed or gave WRONG ANSWERS; its message is on standard error")
    readers = [json.loads(file.read_text()) for file in files]
    rows = (sizes.appends + 1) * sizes.append_rows
    if any(reader["rows"] != rows for reader in readers):
        raise PhaseError(f"a reader did not come to the last version of {rows:,} rows: {readers}")
    quiet = plan.rounds(refresh, folder=folder, count=REFRESHES)["us"]
    measures = [
        _own("append of one batch, median", "ms", [written["median_ms"]]),
        _own("append of one batch, p99", "ms", [written["p99_ms"]]),
        _own("append of one batch, slowest", "ms", [written["max_ms"]]),
        _own("rows appended a second", "rows/s", [sizes.appends * sizes.append_rows / written["seconds"]]),
        _own("most segments at once", "", [written["segments"]]),
        _own("range of one batch in the tail, median", "us", [reader["range_us"] for reader in readers]),
        _own("range of one batch in the tail, p99", "us", [reader["range_p99_us"] for reader in readers]),
        _own("refresh() to a newer version, median", "ms", [r["refresh_ms"] for r in readers if r["refresh_ms"]]),
        _own("refresh() with nothing new", "us", quiet),
        _own("most bytes on disk while appending", "MiB", [written["most_disk_bytes"] / MIB]),
        _own("bytes on disk in the end", "MiB", [written["disk_bytes"] / MIB]),
    ]
    size = rows * (COLUMNS + 1) * 8 / MIB
    seen = " and ".join(str(reader["versions"]) for reader in readers)
    ranges = sum(reader["ranges"] for reader in readers)
    notes = [
        f"The rows themselves are {size:,.1f} MiB. keep={KEEP}: {written['versions']} versions lie there in the end.",
        f"Readers saw {seen} versions and ranged {ranges:,} times; every row was compared.",
    ]
    if shutil.which("strace"):
        calls = (_system_calls(plan, folder, TRACED) - _system_calls(plan, folder, 0)) / TRACED
        # The interpreter itself makes a few more or less from run to run.
        measures.append(_own("system calls of a refresh() with nothing new", "", [round(calls, 1)], at_most=1.0))
    else:
        notes.append("System calls were not counted: the program strace is not installed.")
    return Figure(
        "A time series under running readers",
        f"{sizes.appends:,} appends of {sizes.append_rows:,} rows (int64 key, {COLUMNS} float64 columns) in key order, "
        f"{READERS} readers that refresh and range over the last {TAIL_BATCHES} batches.",
        measures,
        notes,
    )


def _own(name: str, unit: str, rounds: list[float], at_most: float | None = None) -> Measure:
    return Measure(name, unit, {PHEON: rounds}, at_most=at_most)
