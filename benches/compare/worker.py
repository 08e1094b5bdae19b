"""One phase of one peer in a process of its own: build, size, open, look up, or read and hold still."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from benches.compare import data, memory, oracle, peers

if TYPE_CHECKING:
    from benches.compare.peers.base import Peer

FEW = 1000  # a peer that is asked fewer single questions scans for each: no warm-up round


def build(peer: Peer, place: Path, dataset: data.DataSet) -> dict[str, Any]:
    """Seconds from the table in memory to the finished map."""
    table = data.read_table(dataset.rows_file)
    peer.load()
    gc.disable()
    start = perf_counter()
    details = peer.build(table, place)
    seconds = perf_counter() - start
    os.sync()  # write-back of this peer must not slow the next one down
    return {"seconds": seconds, "details": details}


def size(peer: Peer, place: Path, dataset: data.DataSet) -> dict[str, Any]:
    """Bytes on disk."""
    return {"bytes": peer.size_bytes(place)}


def open_once(peer: Peer, place: Path, dataset: data.DataSet) -> dict[str, Any]:
    """Opening in this fresh process, and what the process holds more than before."""
    keys, right = data.read_reader_questions(dataset.reader_file(0))
    peer.load()
    gc.disable()
    before = memory.rollup()
    start = perf_counter()
    peer.open(place)
    opened = perf_counter()
    after = memory.rollup()
    asked = perf_counter()
    answer = peer.getter()(keys[0])
    answered = perf_counter()
    oracle.check(peer.title, keys[:1], right[:1], [answer])
    return {
        "ms": (opened - start) * 1e3,
        "first_lookup_ms": (answered - asked) * 1e3,
        "private_dirty_bytes": after["Private_Dirty"] - before["Private_Dirty"],
        "pss_bytes": after["Pss"] - before["Pss"],
    }


def lookup(peer: Peer, place: Path, dataset: data.DataSet, repeat: int) -> dict[str, Any]:
    """Nanoseconds a lookup, on one core; every answer of every round is checked."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peer.load()
    questions = data.read_table(dataset.questions_file).combine_chunks()
    keys = questions["key"].chunk(0)
    right = questions["answer"].to_pylist()
    peer.open(place)
    gc.disable()
    result: dict[str, Any] = {"single": _single(peer, keys, right, repeat)}
    if peer.batch is not None:
        result["batch"] = _batch(peer, keys, right, repeat)
    result["extras"] = _extras(peer, keys, repeat)
    return result


def _single(peer: Peer, keys: Any, right: list[str | None], repeat: int) -> dict[str, Any]:
    count = min(peer.single_count, len(keys))
    get = peer.getter()
    rounds: list[float] = []
    digest = ""
    for number in range(repeat + 1):
        asked = keys.slice(0, count).to_pylist()  # new strings: no hash is cached in them
        start = perf_counter_ns()
        found = [get(key) for key in asked]
        elapsed = perf_counter_ns() - start
        digest = oracle.check(peer.title, asked, right[:count], found)
        if number > 0 or count <= FEW:  # the first round warms the caches
            rounds.append(elapsed / count)
    return {"ns": rounds[:repeat], "count": count, "digest": digest}


def _batch(peer: Peer, keys: Any, right: list[str | None], repeat: int) -> dict[str, Any]:
    count = min(peer.batch_count, len(keys))
    rounds: list[float] = []
    digest = ""
    for number in range(repeat + 1):
        asked = peer.prepare_batch(keys.slice(0, count))
        start = perf_counter_ns()
        found = peer.lookup_batch(asked)
        elapsed = perf_counter_ns() - start
        answers = peer.answers(found).to_pylist()
        digest = oracle.check(peer.title, keys.slice(0, count).to_pylist(), right[:count], answers)
        if number > 0:
            rounds.append(elapsed / count)
    return {"ns": rounds, "count": count, "digest": digest}


def _extras(peer: Peer, keys: Any, repeat: int) -> dict[str, list[float]]:
    measured: dict[str, list[float]] = {}
    for name, prepare in peer.extras(keys).items():
        rounds: list[float] = []
        for _ in range(repeat + 1):
            count, call = prepare()
            start = perf_counter_ns()
            call()
            rounds.append((perf_counter_ns() - start) / count)
        measured[name] = rounds[1:]
    return measured


def read(peer: Peer, place: Path, dataset: data.DataSet, reader: int) -> None:
    """Looks its questions up, says "ready", and holds what it holds until standard input is closed."""
    keys, right = data.read_reader_questions(dataset.reader_file(reader))
    peer.load()
    peer.open(place)
    for start in range(0, min(peer.reader_count, len(keys)), peer.reader_slice):
        part = slice(start, start + peer.reader_slice)
        found = peer.lookup_all(keys[part])
        if found is not None:
            oracle.check(peer.title, keys[part], right[part], found)
    found = None
    gc.collect()
    print("ready", flush=True)
    sys.stdin.read()


def main() -> None:
    """The command line that run.py uses."""
    parser = argparse.ArgumentParser(prog="benches.compare.worker")
    parser.add_argument("phase", choices=["build", "size", "open", "lookup", "read"])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--reader", type=int, default=0)
    args = parser.parse_args()
    peer = peers.find(args.peer)
    dataset = data.load(args.data)
    if args.phase == "read":
        read(peer, args.place, dataset, args.reader)
    elif args.phase == "lookup":
        args.result.write_text(json.dumps(lookup(peer, args.place, dataset, args.repeat)))
    else:
        phase = {"build": build, "size": size, "open": open_once}[args.phase]
        args.result.write_text(json.dumps(phase(peer, args.place, dataset)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # freeing tens of millions of strings one by one is nobody's interest


if __name__ == "__main__":
    try:
        main()
    except oracle.WrongAnswerError as why:
        print(f"WRONG ANSWER: {why}", file=sys.stderr)
        os._exit(3)
