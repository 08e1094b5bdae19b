"""Fills every engine, then asks it with its files dropped from the page cache, and within a limit to memory."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any

from benches.cold import engines, limit
from benches.compare.phase import PhaseError, run_phase

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

# Part -> phase -> counts. Within the limit the first count of each phase settles what is kept in memory.
DROPPED = {"single": [1, 99, 900, 9_000], "batch": [1_000], "batch of 100,000": [100_000], "scan": [1, 99]}
LIMITED = {"single": [3_000, 3_000], "batch": [1_000] * 6, "batch of 100,000": [100_000] * 2, "scan": [50, 150]}


@dataclass(frozen=True)
class Plan:
    """What to measure and where to put files meanwhile."""

    work: Path
    rows: int
    limit_bytes: int
    engines: list[str]
    scale: float = 1.0  # of the counts: less where it shall be quick


def run(plan: Plan) -> dict[str, Any]:
    """Everything measured, ready for JSON: engine name -> results, or why there are none."""
    with limit.group(plan.limit_bytes) as possible:
        pass
    if possible is None:
        _say("no control group with a memory limit can be made here: only the part without a limit is measured")
    results: dict[str, Any] = {}
    for name in plan.engines:
        engine = engines.find(name)
        results[name] = {"title": engine.title, "how": engine.how}
        try:
            results[name]["version"] = engine.version()
            _say(f"{engine.title} {results[name]['version']}")
            results[name].update(_measure(plan, name, limited=possible is not None))
        except PackageNotFoundError as why:
            results[name]["missing"] = f"{why.name} is not installed"
        except PhaseError as why:
            results[name]["failed"] = str(why)
            _say(f"  failed: {why}")
    return results


def _measure(plan: Plan, name: str, *, limited: bool) -> dict[str, Any]:
    place = plan.work / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        result = {"build": _phase(plan, name, "build", [])}
        _say(f"  built in {result['build']['seconds']:.0f} s, {result['build']['bytes'] / MIB:,.0f} MiB")
        parts = {"dropped": DROPPED, **({"limited": LIMITED} if limited else {})}
        for part, phases in parts.items():
            result[part] = {}
            for phase, counts in phases.items():
                scaled = [max(int(count * plan.scale), 1) for count in counts]
                with limit.group(plan.limit_bytes) if part == "limited" else nullcontext() as group:
                    found = _phase(plan, name, phase.partition(" ")[0], scaled, group)
                result[part][phase] = found
                last = found["rounds"][-1]
                _say(f"  {part}, {phase}: {last['us']:,.1f} us, {last['read_bytes'] / 1024:,.1f} KiB")
        return result
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _phase(plan: Plan, name: str, phase: str, counts: list[int], group: Path | None = None) -> dict[str, Any]:
    worker = ["benches.cold.worker", phase, "--engine", name, "--place", str(plan.work / name)]
    worker += ["--rows", str(plan.rows), "--counts", *map(str, counts)]
    if group is not None:
        worker += ["--group", str(group)]
    return run_phase(phase, worker, plan.work / "result.json", os.environ)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
