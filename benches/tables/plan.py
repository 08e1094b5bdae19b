"""What is measured at which size, and what a figure gives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from benches.compare.phase import run_phase

if TYPE_CHECKING:
    from pathlib import Path

PHEON = "Pheon"
MIB = 2**20
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}

Step = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """Rows, questions and repetitions of a run. The defaults are the full sizes."""

    float_rows: int = 10_000_000
    float_columns: int = 50
    key_rows: int = 10_000_000
    key_questions: int = 100_000
    lazy_rows: int = 100_000_000
    appends: int = 1_000
    append_rows: int = 10_000

    def divided(self, by: int) -> Sizes:
        """Smaller by this factor; the number of columns and the rows of one append stay."""
        kept = ("float_columns", "append_rows")
        smaller = {each.name: max(getattr(self, each.name) // by, 20) for each in fields(self) if each.name not in kept}
        return Sizes(float_columns=self.float_columns, append_rows=self.append_rows, **smaller)


@dataclass(frozen=True)
class Plan:
    """Where a run puts its files, its sizes, and how often it measures."""

    work: Path
    sizes: Sizes
    repeat: int
    processes: int

    def step(self, step: Step, *, one_thread: bool = False, **arguments: Any) -> dict[str, Any]:
        """Runs a function of a module of this package in a process of its own; what it returned.

        Raises:
            PhaseError: it failed, or an answer was wrong.
        """
        return run_phase(
            name_of(step), worker(step, **arguments), self.work / "result.json", environment(one_thread=one_thread)
        )

    def rounds(self, step: Step, **arguments: Any) -> Rounds:
        """Runs a step `repeat` times: what each run returned, by name."""
        found: Rounds = {}
        for _ in range(self.repeat):
            for name, value in self.step(step, **arguments).items():
                found.setdefault(name, []).append(value)
        return found


Rounds = dict[str, list[float]]


def name_of(step: Step) -> str:
    """``module:function``."""
    return f"{step.__module__}:{step.__name__}"


def worker(step: Step, **arguments: Any) -> list[str]:
    """What stands behind ``python -m`` to run a step."""
    return ["benches.tables.worker", name_of(step), json.dumps(arguments)]


def environment(*, one_thread: bool = False) -> dict[str, str]:
    """For a step's process."""
    return {**os.environ, **(ONE_THREAD if one_thread else {})}


@dataclass
class Measure:
    """One thing measured for Pheon and others: less is better, the best round counts.

    `at_most` is a goal for Pheon's own figure; `speedup_min` one for how many times the best of the others' is Pheon's.
    """

    name: str
    unit: str
    rounds: dict[str, list[float]]
    at_most: float | None = None
    speedup_min: float | None = None


@dataclass
class Figure:
    """The measures of one figure, with a sentence on the data and what else a reader must know."""

    title: str
    data: str
    measures: list[Measure]
    notes: list[str] = field(default_factory=list)
