"""Runs every phase of every peer, each in a process of its own, and collects what they report."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benches.compare import memory, peers
from benches.compare.peers.base import MissingError, Peer
from benches.compare.phase import PhaseError, run_phase

if TYPE_CHECKING:
    from pathlib import Path

    from benches.compare.data import DataSet

BUILD_SECONDS_ENOUGH = 60.0  # no further repetition once a peer's builds took this long
OPENS = 5

ONE_THREAD = {
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Plan:
    """What to measure and where to put files meanwhile."""

    dataset: DataSet
    work: Path
    peers: list[str]
    repeat: int
    processes: int
    readers: int
    touch_memory: bool = False


def run(plan: Plan) -> dict[str, Any]:
    """Everything measured, ready for JSON: peer name -> results, or why there are none."""
    plan.work.mkdir(parents=True, exist_ok=True)
    link = plan.work / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(plan.dataset.folder)
    results: dict[str, Any] = {}
    bare: dict[int, int] = {}
    for name in plan.peers:
        peer = peers.find(name)
        results[name] = {"title": peer.title}
        try:
            results[name]["version"] = peer.version()
            _say(f"{peer.title} {results[name]['version']}")
            results[name].update(_measure(plan, name, peer, bare))
        except MissingError as why:
            results[name]["missing"] = str(why)
        except (PhaseError, RuntimeError) as why:
            results[name]["failed"] = str(why)
        for outcome in ("missing", "failed"):
            if outcome in results[name]:
                _say(f"  {outcome}: {results[name][outcome]}")
    return results


def _measure(plan: Plan, name: str, peer: Peer, bare: dict[int, int]) -> dict[str, Any]:
    place = plan.work / name
    _empty(place)
    if plan.touch_memory:
        memory.touch_half()
    with peer.serving(place) as servers:
        result: dict[str, Any] = {"build": _builds(plan, name, peer, place)}
        result["bytes"] = _phase(plan, name, "size")["bytes"]
        opens = [_phase(plan, name, "open") for _ in range(OPENS)]
        result["open"] = {measure: [one[measure] for one in opens] for measure in opens[0]}
        _say(f"  open {statistics.median(result['open']['ms']):.3f} ms")
        result.update(_phase(plan, name, "lookup", "--repeat", str(plan.repeat)))
        for kind in ("single", "batch"):
            if kind in result:
                _say(f"  {kind} {statistics.median(result[kind]['ns']):,.0f} ns")
        result["memory"] = _memory(plan, name, plan.processes, servers, bare)
        if name == "pheon" and plan.readers:
            result["many_readers"] = _memory(plan, name, plan.readers, servers, bare)
    result["how"] = {"single": peer.single, "batch": peer.batch, "notes": peer.notes}
    shutil.rmtree(place)
    return result


def _builds(plan: Plan, name: str, peer: Peer, place: Path) -> list[dict[str, Any]]:
    builds: list[dict[str, Any]] = []
    while len(builds) < plan.repeat and sum(build["seconds"] for build in builds) < BUILD_SECONDS_ENOUGH:
        if builds and not peer.has_server:
            _empty(place)
        builds.append(_phase(plan, name, "build"))
        _say(f"  build {builds[-1]['seconds']:.2f} s")
    return builds


def _memory(plan: Plan, name: str, count: int, servers: list[int], bare: dict[int, int]) -> dict[str, Any]:
    if count not in bare:
        bare[count] = memory.measure(_arguments(plan, "bare"), _environment(one_thread=True), count, []).pss_bytes
    readers = memory.measure(_arguments(plan, name), _environment(one_thread=True), count, servers)
    beyond = readers.pss_bytes + readers.server_pss_bytes - bare[count]
    _say(f"  {count} processes hold {beyond / 2**20:,.0f} MiB")
    return {
        "processes": count,
        "measured_processes": readers.measured,
        "beyond_bare_bytes": beyond,
        "server_bytes": readers.server_pss_bytes,
        "bare_bytes": bare[count],
    }


def _phase(plan: Plan, name: str, phase: str, *more: str) -> dict[str, Any]:
    worker = ["benches.compare.worker", phase, *_arguments(plan, name), *more]
    return run_phase(phase, worker, plan.work / "result.json", _environment(one_thread=phase != "build"))


def _arguments(plan: Plan, name: str) -> list[str]:
    return ["--peer", name, "--place", str(plan.work / name), "--data", plan.dataset.folder]


def _environment(one_thread: bool) -> dict[str, str]:
    return {**os.environ, **(ONE_THREAD if one_thread else {})}


def _empty(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
