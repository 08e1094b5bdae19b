"""Sizes of a run, and the programs and folders that it uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
# Disk that a build needs a row at most, bytes: sorted runs, the entries of the index, the finished files.
BUILD_BYTES_A_ROW = {"str": 140, "int": 60}
DISK_SHARE_MAX = 0.85
# Files of the larger runs need more than 16 bits of anything: small runs would not tell.
SMALLEST = 1_000_000


@dataclass(frozen=True)
class Build:
    """A map to build: kind of its keys and values, order of its rows."""

    kind: str
    order: str
    rows: int
    memory_limit: int


@dataclass(frozen=True)
class Plan:
    """What is measured, and where."""

    binaries: Path
    work: Path
    builds: list[Build]
    engine_rows: int
    large_rows: int
    readers: list[int]
    reader_rows: int
    reader_seconds: float
    small: Build = field(default_factory=lambda: Build("str", "random", 10_000_000, 200 * 2**20))
    touch_memory: bool = False

    def run_program(self, name: str, *arguments: str) -> list[dict[str, Any]]:
        """Runs one of the programs of ``benches/engine``: the JSON objects that it printed.

        Raises:
            RuntimeError: it failed, or an answer was wrong; its messages are on standard error.
        """
        program = [self.binaries / name, *arguments]
        env = {**os.environ, "PHEON_BENCH_DIR": str(self.work)}
        done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False, env=env)
        if done.returncode != 0:
            raise RuntimeError(f"{name} {' '.join(arguments)} ended with exit status {done.returncode}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def fitting(build: Build, folder: Path) -> Build:
    """The same build with as many rows as the disk has room for."""
    room = shutil.disk_usage(folder).free * DISK_SHARE_MAX
    rows = min(build.rows, max(SMALLEST, int(room / BUILD_BYTES_A_ROW[build.kind])))
    return Build(build.kind, build.order, rows, build.memory_limit)
