"""Runs one phase of a measurement in a process of its own and reads what it reports."""

from __future__ import annotations

import json
import subprocess
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PHASE_SECONDS_MAX = 3600
WRONG_ANSWER = 3  # exit status of a worker that compared an answer and found it wrong


class PhaseError(Exception):
    """A phase failed; the message says which and how."""


def run_phase(phase: str, worker: list[str], answer: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """What ``python -m WORKER... --result ANSWER`` leaves in its JSON file. `phase` is for messages.

    Raises:
        PhaseError: the process failed, gave a wrong answer or took too long.
    """
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", *worker, "--result", str(answer)]
    start = monotonic()
    try:
        status = subprocess.run(command, env=environment, timeout=PHASE_SECONDS_MAX, check=False).returncode
    except subprocess.TimeoutExpired as why:
        raise PhaseError(f"{phase} took more than {PHASE_SECONDS_MAX} s") from why
    if status == WRONG_ANSWER:
        raise PhaseError(f"WRONG ANSWERS in phase {phase}; the first one is on standard error")
    if status != 0:
        raise PhaseError(f"{phase} ended with exit status {status} after {monotonic() - start:.0f} s")
    return json.loads(answer.read_text())
