"""The machine, in words that a reader of a report needs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Processor, cores that this process may use, memory, kernel, Python."""

    processor: str
    cores: int
    memory_gib: float
    last_level_cache: str
    kernel: str
    python: str


def describe() -> Machine:
    """This machine."""
    return Machine(
        processor=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        last_level_cache=_last_level_cache(),
        kernel=platform.release().split("-")[0],
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def _field(file: Path, name: str) -> str | None:
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return None


def _last_level_cache() -> str:
    levels = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return levels[-1].read_text().strip() if levels else "unknown"
