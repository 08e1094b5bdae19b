"""One step in a process of its own: ``python -m benches.tables.worker MODULE:FUNCTION ARGUMENTS --result FILE``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path

from benches.compare.oracle import WrongAnswerError
from benches.compare.phase import WRONG_ANSWER


def main() -> None:
    """The command line that `Plan.step` uses."""
    parser = argparse.ArgumentParser(prog="benches.tables.worker")
    parser.add_argument("step")
    parser.add_argument("arguments", type=json.loads)
    parser.add_argument("--result", type=Path)
    args = parser.parse_args()
    module, _, function = args.step.partition(":")
    result = getattr(import_module(module), function)(**args.arguments)
    if args.result is not None:
        args.result.write_text(json.dumps(result))


if __name__ == "__main__":
    status = 0
    try:
        main()
    except WrongAnswerError as why:
        print(f"WRONG ANSWER: {why}", file=sys.stderr)
        status = WRONG_ANSWER
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # freeing gigabytes is nobody's interest
