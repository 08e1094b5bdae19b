"""One phase of one engine in a process of its own, which puts itself into the control group if it is given one."""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from benches.cold import data, engines, limit
from benches.compare import oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.cold.engines import Engine

Work: TypeAlias = "Callable[[Engine], dict[str, Any]]"

MISS_SHARE = 0.1
SCAN_ROWS = 1000


class Watch:
    """Time, bytes read from the disk and waits for it, of one piece of work."""

    def __init__(self) -> None:
        self.bytes, self.waits, self.start = limit.read_bytes(), _waits(), perf_counter()

    def stop(self, count: int) -> dict[str, float]:
        """Divided by `count`."""
        seconds = perf_counter() - self.start
        return {
            "us": seconds * 1e6 / count,
            "read_bytes": (limit.read_bytes() - self.bytes) / count,
            "waits": (_waits() - self.waits) / count,
        }


def _waits() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def build(engine: Engine, place: Path, rows: int) -> dict[str, Any]:
    """Seconds, and bytes on disk."""
    start = perf_counter()
    engine.build(place, rows)
    return {"seconds": perf_counter() - start, "bytes": limit.drop(place)}


def singles(rows: int, counts: list[int]) -> Work:
    """Random keys one by one: a figure for each of `counts`, one after the other."""
    asked = data.questions(rows, sum(counts), MISS_SHARE, seed=len(counts))
    texts, right = data.keys(asked).to_pylist(), data.answers(rows, asked)

    def measure(engine: Engine) -> dict[str, Any]:
        rounds, start = [], 0
        for count in counts:
            part = slice(start, start + count)
            watch = Watch()
            found = [engine.get(text) for text in texts[part]]
            rounds.append({"count": count, **watch.stop(count)})
            oracle.check(engine.title, texts[part], right[part], found)
            start += count
        return {"rounds": rounds}

    return measure


def batches(rows: int, counts: list[int]) -> Work:
    """The same, each count as one batch."""
    parts = [data.questions(rows, count, MISS_SHARE, seed=100 + number) for number, count in enumerate(counts)]
    keys = [data.keys(part) for part in parts]

    def measure(engine: Engine) -> dict[str, Any]:
        rounds = []
        for part, texts in zip(parts, keys, strict=True):
            watch = Watch()
            # Python strings from all of them: the peers have nothing else to give.
            found = engine.answers(engine.batch(texts))
            rounds.append({"count": len(part), **watch.stop(len(part))})
            oracle.check(engine.title, texts.to_pylist(), data.answers(rows, part), found)
        return {"rounds": rounds}

    return measure


def scans(rows: int, counts: list[int]) -> Work:
    """Ranges of 1,000 rows at random places."""
    span = min(SCAN_ROWS, rows // 2)
    ordered = data.in_key_order(rows)
    dice = data.questions(rows - span, sum(counts), 0.0, seed=200).tolist()
    parts = [ordered[start : start + span] for start in dice]
    ends = [data.keys(ordered[[start, start + span]]).to_pylist() for start in dice]
    del ordered

    def measure(engine: Engine) -> dict[str, Any]:
        rounds, at = [], 0
        for count in counts:
            watch = Watch()
            found = [engine.scan(start, stop, span) for start, stop in ends[at : at + count]]
            rounds.append({"count": count, "rows": span, **watch.stop(count)})
            for part, pairs in zip(parts[at : at + count], found, strict=True):
                texts = data.keys(part).to_pylist()
                oracle.check(engine.title, texts, texts, [key for key, _ in pairs])
                oracle.check(engine.title, texts, data.values(part).to_pylist(), [value for _, value in pairs])
            at += count
        return {"rounds": rounds}

    return measure


PHASES = {"single": singles, "batch": batches, "scan": scans}


def measure(engine: Engine, work: Work, place: Path, group: Path | None) -> dict[str, Any]:
    """Drops the engine's files from the page cache, enters the group, opens and measures."""
    # Questions and libraries are in memory before the limit counts.
    engine.rehearse(place)
    gc.collect()
    gc.disable()
    limit.drop(place)
    if group is not None:
        limit.enter(group)
    watch = Watch()
    engine.open(place)
    opened = watch.stop(1)
    return {"open": opened, **work(engine), "facts": engine.facts()}


def main() -> None:
    """The command line that run.py uses."""
    parser = argparse.ArgumentParser(prog="benches.cold.worker")
    parser.add_argument("phase", choices=["build", *PHASES])
    parser.add_argument("--engine", required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[])
    parser.add_argument("--group", type=Path)
    parser.add_argument("--result", type=Path, required=True)
    args = parser.parse_args()
    engine = engines.find(args.engine)
    if args.phase == "build":
        found = build(engine, args.place, args.rows)
    else:
        found = measure(engine, PHASES[args.phase](args.rows, args.counts), args.place, args.group)
    args.result.write_text(json.dumps(found))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except oracle.WrongAnswerError as why:
        print(f"WRONG ANSWER: {why}", file=sys.stderr)
        os._exit(3)
