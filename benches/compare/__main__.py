"""`python -m benches.compare`: measures all peers and writes the report."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benches.compare import data, peers, report
from benches.compare.arguments import some_of
from benches.compare.run import Plan, run


def main() -> int:
    """Exit status: 0 done, 1 a peer failed or answered wrongly, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m benches.compare", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("target/bench-compare"), help="folder for data and maps")
    parser.add_argument("--rows", type=int, help="at most so many rows; default: the whole file index")
    parser.add_argument("--questions", type=int, default=500_000, help="lookups a round; default: %(default)s")
    names = list(peers.MODULES)
    parser.add_argument("--peers", type=some_of(names), default=names, help="comma-separated; default: all")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median counts; default: %(default)s")
    parser.add_argument("--processes", type=int, default=8, help="readers in the memory column; default: %(default)s")
    parser.add_argument("--readers", type=int, default=32, help="readers in Pheon's own memory test; 0: none")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="writes OUTPUT.md, .json")
    parser.add_argument("--readme", type=Path, help="puts the table between this file's bench markers, too")
    parser.add_argument("--report-only", action="store_true", help="writes the report from an existing OUTPUT.json")
    args = parser.parse_args()
    if max(args.processes, args.readers) > data.READERS_MAX:
        parser.error(f"at most {data.READERS_MAX} readers")
    json_file, markdown_file = (args.output.with_suffix(suffix) for suffix in (".json", ".md"))
    if args.report_only:
        results = report.load(json_file)
    else:
        dataset = data.prepare(args.cache, args.rows, args.questions)
        work = args.cache.resolve() / "work"
        touch_memory = args.rows is None
        plan = Plan(dataset, work, args.peers, args.repeat, args.processes, args.readers, touch_memory)
        command = shlex.join(["python", "-m", "benches.compare", *sys.argv[1:]])
        results = report.describe(dataset, command, run(plan))
        results["touched"] = touch_memory
        report.save(results, json_file)
    markdown_file.write_text(report.markdown(results))
    if args.readme is not None:
        report.update_readme(args.readme, results)
    print(report.table(results))
    return 1 if any("failed" in peer for peer in results["peers"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
