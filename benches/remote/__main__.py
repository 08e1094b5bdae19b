"""`python -m benches.remote`: measures a server beside its peers, and writes the report."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benches.compare.arguments import some_of
from benches.compare.report import load, save
from benches.remote import idle, lookup, prepared, report, scan, single
from benches.remote.plan import QUICK, Run, Sizes

if TYPE_CHECKING:
    from types import ModuleType

    from benches.live.plan import Figure

FIGURES: dict[str, ModuleType] = {
    "scan": scan,
    "lookup": lookup,
    "single": single,
    "idle": idle,
    "prepared": prepared,
}
REPEAT = 3


def main() -> int:
    """Exit status: 0 done, 1 a figure failed or an answer was wrong, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m benches.remote", description=__doc__)
    parser.add_argument("--pheon", default="target/release/pheon", help="built with SQL; default: %(default)s")
    parser.add_argument("--only", type=some_of(FIGURES), default=list(FIGURES), help=f"of {','.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: whether it works")
    parser.add_argument("--repeat", type=int, help=f"rounds; the best counts; default: {REPEAT}")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks-remote"), help="writes OUTPUT.md, .json")
    parser.add_argument("--readme", type=Path, help="puts the table between this file's bench-remote markers, too")
    parser.add_argument("--report-only", action="store_true", help="writes the report from an existing OUTPUT.json")
    args = parser.parse_args()
    json_file, markdown_file = (args.output.with_suffix(suffix) for suffix in (".json", ".md"))
    if args.report_only:
        results = load(json_file)
    else:
        repeat = args.repeat or (1 if args.quick else REPEAT)
        command = shlex.join(["python", "-m", "benches.remote", *sys.argv[1:]])
        with TemporaryDirectory(prefix="pheon-bench-") as folder:
            run = Run(args.pheon, QUICK if args.quick else Sizes(), repeat, Path(folder))
            results = report.describe(run, command, measure(run, args.only))
        save(results, json_file)
    markdown_file.write_text(report.markdown(results))
    if args.readme is not None:
        report.update_readme(args.readme, results)
    print(report.table(results))
    print("\n".join([*report.losses(results), *report.failed(results)]))
    return int(any("failed" in figure for figure in results["figures"].values()))


def measure(run: Run, names: list[str]) -> dict[str, Figure | str]:
    """All figures, or why there is none."""
    found: dict[str, Figure | str] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = FIGURES[name].run(run)
        except Exception as why:  # noqa: BLE001 - the others are measured, and the report says so
            found[name] = f"{type(why).__name__}: {why}"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
