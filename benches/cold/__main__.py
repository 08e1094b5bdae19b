"""`python -m benches.cold`: lookups and scans that wait for the disk, beside LMDB and RocksDB; writes the report."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benches.cold import report
from benches.cold.engines import ENGINES
from benches.cold.run import MIB, Plan, run
from benches.compare.arguments import some_of
from benches.compare.report import load, save

QUICK_ROWS, QUICK_SCALE = 500_000, 0.1


def main() -> int:
    """Exit status: 0 done, 1 an engine failed or answered wrongly, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m benches.cold", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("target/bench-cold"), help="folder on a disk, for the files")
    parser.add_argument("--rows", type=int, default=10_000_000, help="default: %(default)s")
    parser.add_argument("--limit-mb", type=int, help="memory within the limit, MiB; default: a quarter of Pheon's data")
    parser.add_argument("--engines", type=some_of(ENGINES), default=list(ENGINES), help="comma-separated; default: all")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows and a tenth of the questions")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks-cold"), help="writes OUTPUT.md, .json")
    parser.add_argument("--report-only", action="store_true", help="writes the report from an existing OUTPUT.json")
    args = parser.parse_args()
    json_file, markdown_file = (args.output.with_suffix(suffix) for suffix in (".json", ".md"))
    if args.report_only:
        results = load(json_file)
    else:
        rows = min(args.rows, QUICK_ROWS) if args.quick else args.rows
        limit_bytes = (args.limit_mb or max(rows * ROW_BYTES // 4 // MIB, LIMIT_MIB_MIN)) * MIB
        scale = QUICK_SCALE if args.quick else 1.0
        plan = Plan((args.cache / "work").resolve(), rows, limit_bytes, args.engines, scale)
        command = shlex.join(["python", "-m", "benches.cold", *sys.argv[1:]])
        results = report.describe(plan, command, run(plan))
        save(results, json_file)
    markdown_file.write_text(report.markdown(results))
    print(report.markdown(results))
    return 1 if any("failed" in engine for engine in results["engines"].values()) else 0


ROW_BYTES = 108  # of a row in Pheon's files, about
LIMIT_MIB_MIN = 48  # an interpreter has to fit, too


if __name__ == "__main__":
    sys.exit(main())
