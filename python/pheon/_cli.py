"""The console script ``pheon``: the same command as cargo's, in this process."""

from __future__ import annotations

import signal
import sys

from pheon._native import run_cli


def main() -> int:
    """Run the command with the process's arguments; its exit code."""
    # The interpreter's handler would only take a note, and nobody reads it while native code runs. Ending the
    # process is safe: nothing is published before a build is complete, and the next writer removes what a
    # killed one left.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_cli(["pheon", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
