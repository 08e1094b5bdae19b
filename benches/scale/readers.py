"""Readers side by side: lookups a second and memory of 1, 2, 4 ... processes on one map."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.compare.memory import available_bytes, rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.scale.plan import Plan

BATCH = 10_000
SINGLES = 2_000
# Of an interpreter with pyarrow and its questions, roughly.
PROCESS_BYTES = 200 * 2**20


def key_of(number: int) -> str:
    """The key of a row: its number, scattered."""
    return f"key:{number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF:016x}"


def value_of(number: int) -> str:
    """The value of a row."""
    return f"val:{number ^ 0x5555:016x}"


def build(folder: Path, rows: int) -> None:
    """Builds the map ``readers``, its rows made up on the way."""
    import numpy as np
    import pyarrow as pa

    import pheon

    def columns(numbers: Any) -> list[Any]:
        keys = numbers * np.uint64(0x9E3779B97F4A7C15)
        return [
            pa.array([f"key:{key:016x}" for key in keys.tolist()], pa.large_string()),
            pa.array([f"val:{value:016x}" for value in (numbers ^ np.uint64(0x5555)).tolist()], pa.large_string()),
        ]

    with pheon.open(folder).map_writer("readers") as writer:
        for start in range(0, rows, 1 << 18):
            numbers = np.arange(start, min(rows, start + (1 << 18)), dtype=np.uint64)
            writer.write(pa.table(dict(zip(["key", "value"], columns(numbers), strict=True))))


def read(folder: str, rows: int, seconds: float, seed: int) -> None:
    """One reader, in steps: each says a line of JSON when it is done, and the next begins when a line comes back.

    Ready (answers of a first round were right), batches for so many seconds, single lookups for as long, memory. Rates
    in lookups a second, memory in bytes beyond what the process held before it opened the map.
    """
    import pyarrow as pa

    import pheon

    dice = random.Random(seed)
    asked = [[dice.randrange(rows) for _ in range(BATCH)] for _ in range(16)]
    batches = [pa.array([key_of(number) for number in numbers], pa.large_string()) for numbers in asked]
    singles = [key_of(dice.randrange(rows)) for _ in range(200_000)]
    before = rollup()["Pss"]
    opened = pheon.open(folder, read_only=True).map("readers")
    for numbers, keys in zip(asked, batches, strict=True):
        if opened.get_many(keys).to_pylist() != [value_of(number) for number in numbers]:
            raise SystemExit("a reader got wrong answers")

    def one_batch(done: int) -> int:
        opened.get_many(batches[done // BATCH % len(batches)])
        return BATCH

    def some_singles(done: int) -> int:
        at = done % len(singles)
        for key in singles[at : at + SINGLES]:
            opened[key]
        return SINGLES

    steps: list[Callable[[], Any]] = [
        lambda: "ready",
        lambda: _rate(one_batch, seconds),
        lambda: _rate(some_singles, seconds),
        lambda: {"pss": rollup()["Pss"] - before, "page_tables": _page_tables()},
    ]
    for step in steps:
        print(json.dumps(step()), flush=True)
        sys.stdin.readline()


def _rate(work: Callable[[int], int], seconds: float) -> float:
    done = 0
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        done += work(done)
    return done / (now - begin)


def _page_tables() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPTE:"))


def run(plan: Plan) -> dict[str, Any]:
    """Rates and memory for each number of processes, as far as memory reaches."""
    folder = plan.work / "readers"
    build(folder, plan.reader_rows)
    file_bytes = sum(file.stat().st_size for file in folder.rglob("*.arrow"))
    found: list[dict[str, Any]] = []
    for count in plan.readers:
        if available_bytes() < count * PROCESS_BYTES:
            break
        found.append({"processes": count, **_together(folder, plan, count)})
    cores = len(os.sched_getaffinity(0))
    return {"rows": plan.reader_rows, "file_bytes": file_bytes, "cores": cores, "runs": found}


def _together(folder: Path, plan: Plan, count: int) -> dict[str, Any]:
    with ExitStack() as running:
        processes: list[subprocess.Popen[str]] = []
        for seed in range(count):
            asked = json.dumps([str(folder), plan.reader_rows, plan.reader_seconds, seed])
            command = [sys.executable, "-m", "benches.scale.readers", asked]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            running.enter_context(process)
            running.callback(process.kill)
            processes.append(process)
        _, batch_rates, single_rates, memory = (_step(processes) for _ in range(4))
    return {
        "batch_rate": sum(batch_rates),
        "single_rate": sum(single_rates),
        "pss_bytes": sum(one["pss"] for one in memory),
        "page_table_bytes": sum(one["page_tables"] for one in memory),
    }


def _step(processes: list[subprocess.Popen[str]]) -> list[Any]:
    """What all processes say; then all begin their next step."""
    answers: list[Any] = []
    for process in processes:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a reader ended early, with exit status {process.wait()}")
        answers.append(json.loads(line))
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
    return answers


if __name__ == "__main__":
    read(*json.loads(sys.argv[1]))
