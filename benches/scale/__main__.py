"""`python -m benches.scale`: lookups beside the memory's bound, builds beyond their memory, readers side by side."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from benches.compare.arguments import some_of
from benches.compare.report import load, save
from benches.scale import builds, readers, report
from benches.scale.plan import GIB, Build, Plan

PARTS = ("engine", "builds", "readers")


def main() -> int:
    """Exit status: 0 done, 1 a part failed or an answer was wrong, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m benches.scale", description=__doc__)
    parser.add_argument("--binaries", type=Path, default=Path("target/release"), help="of pheon-bench-engine")
    parser.add_argument("--work", type=Path, default=Path("target/bench-scale"), help="folder for maps; emptied after")
    parser.add_argument("--file", type=Path, help="Arrow file of the long strings; default: made up")
    parser.add_argument("--only", type=some_of(PARTS), default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks-scale"), help="writes OUTPUT.md, .json")
    parser.add_argument("--report-only", action="store_true", help="writes the report from an existing OUTPUT.json")
    args = parser.parse_args()
    json_file, markdown_file = (args.output.with_suffix(suffix) for suffix in (".json", ".md"))
    if args.report_only:
        results = load(json_file)
    else:
        plan = _plan(args.binaries, args.work.resolve(), quick=args.quick)
        command = shlex.join(["python", "-m", "benches.scale", *sys.argv[1:]])
        results = report.describe(command, measure(plan, args.only, args.file))
        save(results, json_file)
    markdown_file.write_text(report.markdown(results))
    print(report.markdown(results))
    return 1 if any(isinstance(results.get(part), str) for part in (*PARTS, "small", "model")) else 0


def _plan(binaries: Path, work: Path, *, quick: bool) -> Plan:
    if quick:
        small = [Build("str", "random", 2_000_000, 64 * 2**20), Build("int", "sorted", 2_000_000, 64 * 2**20)]
        calibration = Build("str", "random", 1_000_000, 64 * 2**20)
        return Plan(binaries, work, small, 1_000_000, 2_000_000, [1, 2], 200_000, 1.0, calibration)
    full = [
        Build("str", "random", 100_000_000, 2 * GIB),
        Build("str", "sorted", 100_000_000, 2 * GIB),
        Build("int", "random", 1_000_000_000, 2 * GIB),
    ]
    return Plan(binaries, work, full, 7_300_000, 100_000_000, [1, 2, 4, 8, 16, 32], 10_000_000, 5.0, touch_memory=True)


def measure(plan: Plan, parts: list[str], file: Path | None) -> dict[str, Any]:
    """All parts, or why there is none."""
    found: dict[str, Any] = {}
    engine = ["--json", str(plan.engine_rows), *([str(file)] if file else [])]
    large = ["pheon-bench-engine", "--json", str(plan.large_rows), "--only", "int64"]
    work = {
        "engine": lambda: plan.run_program("pheon-bench-engine", *engine) + plan.run_program(*large),
        "small": lambda: builds.run(plan, [plan.small])[0],
        "builds": lambda: builds.run(plan, plan.builds),
        "readers": lambda: readers.run(plan),
    }
    for name, run in work.items():
        if name not in parts and not (name == "small" and "builds" in parts):
            continue
        shutil.rmtree(plan.work, ignore_errors=True)
        plan.work.mkdir(parents=True)
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = run()
        except (RuntimeError, OSError) as why:
            found[name] = str(why)
            print(f"  failed: {why}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(plan.work, ignore_errors=True)
    measured = {name: part for name, part in found.items() if not isinstance(part, str)}
    if {"engine", "builds", "small"} <= measured.keys():
        parts_of_model = (measured["engine"], measured["builds"], measured["small"], measured.get("readers"))
        found["model"] = report.modelled(*parts_of_model)
    return found


if __name__ == "__main__":
    sys.exit(main())
