"""Builds that outgrow their memory."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benches.scale.plan import Build, Plan, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable

# In a virtual machine a page costs several times as much when it is used for the first time as later: the host must
# find it. Which build pays for that depends on what ran before, so it is paid beforehand.
TOUCH = """
with open("/proc/meminfo") as file:
    kib = dict((line.split(":")[0], int(line.split()[1])) for line in file)
b"x" * (kib["MemAvailable"] * 1024 // 2)
"""


def run(plan: Plan, builds: Iterable[Build]) -> list[dict[str, Any]]:
    """What `scale` of ``benches/engine`` says of each build; the map is removed again."""
    found: list[dict[str, Any]] = []
    for wanted in builds:
        build = fitting(wanted, plan.work)
        arguments = {
            "--rows": build.rows,
            "--kind": build.kind,
            "--order": build.order,
            "--memory-limit": build.memory_limit,
            "--dir": plan.work,
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        if plan.touch_memory:
            subprocess.run([sys.executable, "-c", TOUCH], check=True)
        (measured,) = plan.run_program("scale", *words)
        found.append({**measured, "wanted_rows": wanted.rows})
    return found
