"""`python -m benches.live`: measures live maps beside their peers, and writes the report."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.compare.arguments import some_of
from benches.compare.report import load, save
from benches.live import counting, latency, reading, report, shapes, sharing, writing
from benches.live.peers import PEERS, find
from benches.live.peers.base import MissingError
from benches.live.plan import QUICK, Figure, Plan, Sizes, Who

if TYPE_CHECKING:
    from types import ModuleType

FIGURES: dict[str, ModuleType] = {
    "reads": reading,
    "writes": writing,
    "counter": counting,
    "memory": sharing,
    "latencies": latency,
    "shapes": shapes,
}
LIMIT_SECONDS = 90.0  # of a step, all its processes and the comparing included
REPEAT = 3


def main() -> int:
    """Exit status: 0 done, 1 a figure of Pheon's failed or an answer was wrong, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m benches.live", description=__doc__)
    parser.add_argument("--peers", type=some_of(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)}; default: all")
    parser.add_argument("--only", type=some_of(FIGURES), default=list(FIGURES), help=f"of {','.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: whether it works")
    parser.add_argument("--repeat", type=int, help=f"rounds; the best counts; default: {REPEAT}")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds of a step; default: %(default).0f")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks-live"), help="writes OUTPUT.md, .json")
    parser.add_argument("--readme", type=Path, help="puts the table between this file's bench-live markers, too")
    parser.add_argument("--report-only", action="store_true", help="writes the report from an existing OUTPUT.json")
    args = parser.parse_args()
    json_file, markdown_file = (args.output.with_suffix(suffix) for suffix in (".json", ".md"))
    if args.report_only:
        results = load(json_file)
    else:
        who, peers = present(args.peers)
        repeat = args.repeat or (1 if args.quick else REPEAT)
        plan = Plan(who, QUICK if args.quick else Sizes(), repeat, args.limit)
        command = shlex.join(["python", "-m", "benches.live", *sys.argv[1:]])
        results = report.describe(plan, command, peers, measure(plan, args.only))
        save(results, json_file)
    markdown_file.write_text(report.markdown(results))
    if args.readme is not None:
        report.update_readme(args.readme, results)
    print(report.table(results))
    print("\n".join([*report.losses(results), *report.failed(results)]))
    return int(report.pheon_failed(results))


def present(names: list[str]) -> tuple[list[Who], dict[str, dict[str, Any]]]:
    """Who can be measured here, and what the report says of everybody."""
    who = []
    facts: dict[str, dict[str, Any]] = {}
    for name in names:
        peer = find(name)
        facts[name] = {"title": peer.title, "how": peer.how}
        try:
            facts[name]["version"] = peer.version()
            who.append(Who(name, peer.title, peer.shared))
        except MissingError as why:
            facts[name]["missing"] = str(why)
            print(f"{peer.title}: {why}", file=sys.stderr, flush=True)
    return who, facts


def measure(plan: Plan, names: list[str]) -> dict[str, Figure | str]:
    """All figures, or why there is none."""
    found: dict[str, Figure | str] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = FIGURES[name].run(plan)
        except (OSError, RuntimeError) as why:
            found[name] = str(why)
            print(f"  failed: {why}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
