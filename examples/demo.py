"""`make demo`: a real dictionary of millions of entries, one copy of it, eight worker processes that share it.

Builds the map from this machine's data (see real_data.py), starts workers by spawn that look random keys up one by one
and in batches, compares every answer with a Python dict filled from the same source by another process, and prints what
it took. Exit status 1 if any answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from real_data import Source, debian_index, find_source, source_lines

import pheon

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

NAME = "files"
FOLDER = Path(__file__).resolve().parent.parent / "demo-data"
BATCH = 1000
MISS_SHARE = 0.2
SEED = 7
MIB = 2**20
DICT_BYTES_AN_ENTRY = 300  # rough; only decides whether the whole index fits as one private dict


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know."""

    store: str
    folder: str
    entries_max: int | None
    workers: int
    lookups: int
    data: str

    def questions_file(self, worker: int) -> Path:
        """Keys and right answers of one worker."""
        return Path(self.folder) / f"questions-{worker}.json"

    def source(self) -> Source:
        """The data, read from the beginning."""
        if self.data == "lines":
            return source_lines(self.entries_max)
        find = debian_index if self.data == "debian" else find_source
        return find(Path(self.folder), self.entries_max)


@dataclass(frozen=True)
class Rate:
    """Lookups of one kind in one worker: how many, seconds by the clock, seconds on a processor."""

    lookups: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Findings:
    """What one worker reports."""

    open_ms: float
    wrong: list[str]
    one_by_one: Rate
    lists: Rate


def memory_bytes(pid: int | str, field: str) -> int:
    """One field of /proc/<pid>/smaps_rollup. Pss counts a page that n processes share as 1/n for each of them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no field {field}")


def build(plan: Plan) -> None:
    """Streams the source into the store and prints rates and sizes."""
    source = plan.source()
    print(f"data     {source.title}")
    rows = 0
    start = perf_counter()
    with pheon.open(plan.store) as store:
        reading = 0.0
        with store.map_writer(NAME, on_duplicate="last") as writer:
            read_from = perf_counter()
            for chunk in source.chunks():
                reading += perf_counter() - read_from
                writer.update(chunk)
                rows += len(chunk)
                read_from = perf_counter()
            reading += perf_counter() - read_from
        seconds = perf_counter() - start
        entries = len(store.map(NAME))
    own = seconds - reading
    print(f"build    {entries:,} entries from {rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} rows/s; of that,")
    print(f"         {reading:.1f} s reading the source and {own:.1f} s in Pheon ({rows / own:,.0f} rows/s)")
    data, index = (file_bytes(plan, name) for name in ("data.arrow", "index.arrow"))
    print(f"files    data {data / MIB:,.0f} MiB, index {index / MIB:,.0f} MiB ({index / entries:.2f} bytes a key)")


def file_bytes(plan: Plan, name: str) -> int:
    """Bytes of the files of that name in the store."""
    return sum(file.stat().st_size for file in Path(plan.store).rglob(name))


def make_truth(plan: Plan, answer: Connection) -> None:
    """In a process of its own: a private dict of the source, what it costs, questions and answers for all workers."""
    before = memory_bytes("self", "Pss")
    truth = {key: value for chunk in plan.source().chunks() for key, value in chunk}
    dict_bytes = memory_bytes("self", "Pss") - before
    keys = list(truth)
    for worker in range(plan.workers):
        dice = random.Random(SEED + worker)
        asked = dice.choices(keys, k=plan.lookups)
        for place in dice.sample(range(plan.lookups), int(plan.lookups * MISS_SHARE)):
            position = dice.randrange(len(asked[place]))
            asked[place] = asked[place][:position] + "\n" + asked[place][position + 1 :]  # in no key: they are lines
        right = [truth.get(key) for key in asked]
        plan.questions_file(worker).write_text(json.dumps([asked, right]))
    answer.send((len(truth), dict_bytes))


def work(plan: Plan, worker: int, parent: Connection) -> None:
    """One worker process. Waits for its parent's word before it opens the store, and again before Arrow batches."""
    asked, right = json.loads(plan.questions_file(worker).read_text())
    parent.send("ready")
    parent.recv()
    start = perf_counter()
    lookup = pheon.open(plan.store, read_only=True).map(NAME)
    open_ms = (perf_counter() - start) * 1e3
    wrong: list[str] = []

    def in_slices(find: Callable[[list[str]], list[str | None]]) -> Rate:
        seconds = cpu = 0.0
        for first in range(0, len(asked), BATCH):
            keys, expected = asked[first : first + BATCH], right[first : first + BATCH]
            clock, processor = perf_counter(), process_time()
            found = find(keys)
            seconds, cpu = seconds + perf_counter() - clock, cpu + process_time() - processor
            if found != expected:
                wrong.extend(key for key, a, b in zip(keys, found, expected, strict=True) if a != b)
        return Rate(len(asked), seconds, cpu)

    one_by_one = in_slices(lambda keys: [lookup.get(key) for key in keys])
    lists = in_slices(lookup.get_many)
    parent.send(Findings(open_ms, wrong[:5], one_by_one, lists))
    parent.recv()
    if find_spec("pyarrow"):
        parent.send(look_up_arrow(lookup, asked, right))
    else:
        parent.send(None)


def look_up_arrow(lookup: pheon.Map, asked: list[str], right: list[str | None]) -> Rate | str:
    """All keys in one Arrow array. Returns what was wrong, if anything."""
    import pyarrow as pa

    keys = pa.array(asked, pa.large_string())
    clock, processor = perf_counter(), process_time()
    found = lookup.get_many(keys)
    rate = Rate(len(keys), perf_counter() - clock, process_time() - processor)
    return rate if found.to_pylist() == right else "get_many of an Arrow array gave a wrong answer"


def run_workers(plan: Plan, dict_bytes: int) -> list[str]:
    """Starts all workers, lets them look up at the same time, prints rates and memory. Returns wrong answers."""
    spawn = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    for worker in range(plan.workers):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(plan, worker, theirs))
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)

    def answers() -> list:
        return [pipe.recv() for pipe in pipes]

    def go() -> None:
        for pipe in pipes:
            pipe.send("go")

    def total_pss() -> int:
        return sum(memory_bytes(process.pid, "Pss") for process in processes)

    answers()
    before = total_pss()
    go()
    found: list[Findings] = answers()
    after = total_pss()
    go()
    arrow: list[Rate | str | None] = answers()
    for process in processes:
        process.join()

    wrong = [key for one in found for key in one.wrong] + [one for one in arrow if isinstance(one, str)]
    print(f"open     {median(one.open_ms for one in found):.2f} ms (median of {plan.workers} fresh processes)")
    cores = len(os.sched_getaffinity(0))
    print(
        f"lookups  {plan.workers} workers on {cores} cores, {plan.lookups:,} random keys each, {MISS_SHARE:.0%} absent:"
    )
    print_rate("one by one", [one.one_by_one for one in found])
    print_rate(f"lists of {BATCH}", [one.lists for one in found])
    if rates := [one for one in arrow if isinstance(one, Rate)]:
        print_rate("Arrow arrays", rates)
    asked = plan.workers * plan.lookups * (3 if rates else 2)
    print(f"answers  {asked:,} compared with a Python dict's: " + ("all right" if not wrong else f"WRONG: {wrong[:5]}"))
    print_memory(plan, before, after, dict_bytes)
    return wrong


def print_rate(kind: str, rates: list[Rate]) -> None:
    """One line for one way to look up."""
    a_worker = median(rate.lookups / rate.seconds for rate in rates)
    a_cpu_second = sum(rate.lookups for rate in rates) / sum(rate.cpu_seconds for rate in rates)
    print(
        f"         {kind:13} {a_worker:>11,.0f} a second and worker, {a_cpu_second:>11,.0f} a second of processor time"
    )


def print_memory(plan: Plan, before: int, after: int, dict_bytes: int) -> None:
    """What the workers hold together, beside the data and beside private dicts."""
    files = file_bytes(plan, "data.arrow") + file_bytes(plan, "index.arrow")
    shared = after - before
    private = dict_bytes * plan.workers
    print(
        f"memory   {plan.workers} workers hold {after / MIB:,.0f} MiB (PSS); before opening, {before / MIB:,.0f} MiB:"
    )
    print(f"         the map costs {shared / MIB:,.0f} MiB for all of them; its files are {files / MIB:,.0f} MiB")
    print(f"         one private dict costs {dict_bytes / MIB:,.0f} MiB (measured), {plan.workers} of them")
    print(f"         {private / MIB:,.0f} MiB: {private / shared:.0f} times as much")


def fitting_entries() -> int | None:
    """How many entries to use where memory is too small for the whole index as one private dict; None: all."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return 1_500_000 if available < 8_000_000 * DICT_BYTES_AN_ENTRY else None


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for store and questions; default: %(default)s")
    parser.add_argument("--entries", type=int, default=fitting_entries(), help="at most so many; default: all that fit")
    parser.add_argument(
        "--data", choices=["any", "debian", "lines"], default="any", help="default: the first that works"
    )
    parser.add_argument("--workers", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--lookups", type=int, default=200_000, help="a worker and way; default: %(default)s")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(str(args.folder / "store"), str(args.folder), args.entries, args.workers, args.lookups, args.data)
    shutil.rmtree(plan.store, ignore_errors=True)
    build(plan)
    start = perf_counter()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    truth = spawn.Process(target=make_truth, args=(plan, theirs))
    truth.start()
    theirs.close()
    entries, dict_bytes = ours.recv()
    truth.join()
    with pheon.open(plan.store, read_only=True) as store:
        count = len(store.map(NAME))
    wrong = run_workers(plan, dict_bytes)
    if count != entries:
        wrong.append(f"len() is {count:,}, the dict's {entries:,}")
    print(f"time     {perf_counter() - start:.0f} s after the build")
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
