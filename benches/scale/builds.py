"""Builds that outgrow their memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.compare.memory import touch_half
from benches.scale.plan import Build, Plan, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable


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
            touch_half()
        (measured,) = plan.run_program("scale", *words)
        found.append({**measured, "wanted_rows": wanted.rows})
    return found
