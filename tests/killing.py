"""What the tests that kill processes at random points have in common: how children start, how long to wait for them."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = bool(os.environ.get("PHEON_LONG"))
# Nothing here takes so long, on any machine: it guards against hanging.
START_SECONDS_MAX = 120

# Linux starts each child of this server in milliseconds, from a process that has no threads and no store open.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["__main__", "pheon"])


def check_failures(failures: Path) -> None:
    """Fails with what children have left there."""
    for path in failures.iterdir():
        pytest.fail(f"process {path.name}:\n{path.read_text()}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)
