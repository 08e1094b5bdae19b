"""`python -m benches.tables`: measures tables beside pandas, polars and pyarrow, and writes the report."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from itertools import groupby
from pathlib import Path
from types import ModuleType

from benches.compare.arguments import some_of
from benches.compare.phase import PhaseError
from benches.compare.report import load, save
from benches.tables import keys, lazy, opening, puts, report, series, sharing
from benches.tables.plan import Figure, Plan, Sizes

# figure -> its module, and the module that prepares its data; figures with the same data stand together.
FIGURES: dict[str, tuple[ModuleType, ModuleType]] = {
    "open": (opening, opening),
    "share": (sharing, opening),
    "keys": (keys, keys),
    "lazy": (lazy, lazy),
    "put": (puts, puts),
    "series": (series, series),
}
QUICK = 20


def main() -> int:
    """Exit status: 0 done, 1 a figure failed or an answer was wrong, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m benches.tables", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("target/bench-tables"), help="folder for data; emptied after")
    parser.add_argument(
        "--only", type=some_of(FIGURES), default=list(FIGURES), help=f"of {','.join(FIGURES)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help=f"1/{QUICK} of the sizes, one round")
    parser.add_argument("--divide", type=int, default=1, help="sizes divided by this; default: %(default)s")
    parser.add_argument("--repeat", type=int, help="rounds; the best counts; default: 3")
    parser.add_argument("--processes", type=int, default=10, help="that share a table; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks-tables"), help="writes OUTPUT.md, .json")
    parser.add_argument("--readme", type=Path, help="puts the table between this file's bench-tables markers, too")
    parser.add_argument("--report-only", action="store_true", help="writes the report from an existing OUTPUT.json")
    args = parser.parse_args()
    json_file, markdown_file = (args.output.with_suffix(suffix) for suffix in (".json", ".md"))
    if args.report_only:
        results = load(json_file)
    else:
        sizes = Sizes().divided(args.divide * (QUICK if args.quick else 1))
        plan = Plan(args.data.resolve() / "work", sizes, args.repeat or (1 if args.quick else 3), args.processes)
        command = shlex.join(["python", "-m", "benches.tables", *sys.argv[1:]])
        results = report.describe(plan, command, measure(plan, args.only))
        save(results, json_file)
    markdown_file.write_text(report.markdown(results))
    if args.readme is not None:
        report.update_readme(args.readme, results)
    print(report.table(results))
    print("\n".join(report.losses(results)))
    return 1 if any("failed" in figure for figure in results["figures"].values()) else 0


def measure(plan: Plan, names: list[str]) -> dict[str, Figure | str]:
    """All figures, or why there is none; each data set is removed when its figures are done."""
    found: dict[str, Figure | str] = {}
    ordered = [name for name in FIGURES if name in names]
    for source, group in groupby(ordered, key=lambda name: FIGURES[name][1]):
        shutil.rmtree(plan.work, ignore_errors=True)
        plan.work.mkdir(parents=True)
        prepared = False
        try:
            for name in group:
                print(f"{name} ...", file=sys.stderr, flush=True)
                try:
                    if not prepared:
                        source.prepare(plan)
                        prepared = True
                    found[name] = FIGURES[name][0].run(plan)
                except (PhaseError, RuntimeError) as why:
                    found[name] = str(why)
                    print(f"  failed: {why}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(plan.work, ignore_errors=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
