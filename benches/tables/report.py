"""The report on tables: what was measured as JSON, a Markdown page, and the table for the README."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benches.compare.machine import describe as describe_machine
from benches.compare.report import machine_words, replace_between
from benches.tables.plan import PHEON, Figure, Plan

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- bench-tables:begin -->", "<!-- bench-tables:end -->"
LIBRARIES = ("pheon", "numpy", "pandas", "polars", "pyarrow")

Results = dict[str, Any]


def describe(plan: Plan, command: str, figures: dict[str, Figure | str]) -> Results:
    """All that a report needs. In `figures` a text stands for a figure that failed, and says why."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "machine": asdict(describe_machine()),
        "versions": {library: _version(library) for library in LIBRARIES},
        "sizes": asdict(plan.sizes),
        "repeat": plan.repeat,
        "figures": {
            name: {"failed": figure} if isinstance(figure, str) else asdict(figure) for name, figure in figures.items()
        },
    }


def _version(library: str) -> str:
    if library == "pheon":  # where it runs from a source tree nothing is installed under its name
        import pheon

        return pheon.__version__
    return version(library)


def number(amount: float) -> str:
    """Three digits that count; counts as they are."""
    if isinstance(amount, int):
        return f"{amount:,}"
    digits = 0 if abs(amount) >= 100 else 1 if abs(amount) >= 10 else 2 if abs(amount) >= 0.1 or amount == 0 else 4
    return f"{amount:,.{digits}f}"


def best(measure: Results) -> dict[str, float]:
    """The best round of each."""
    return {who: min(rounds) for who, rounds in measure["rounds"].items() if rounds}


def rival(measure: Results) -> tuple[str, float] | None:
    """The best of the others, and its figure."""
    others = {who: amount for who, amount in best(measure).items() if who != PHEON}
    if not others:
        return None
    who = min(others, key=lambda each: others[each])
    return who, others[who]


def speedup(measure: Results) -> float | None:
    """How many times the rival's figure is Pheon's; below 1 the rival is better. None where there is none to divide."""
    other, own = rival(measure), best(measure).get(PHEON)
    return other[1] / own if other is not None and own else None


def goal(measure: Results) -> tuple[str, bool] | None:
    """The goal in words and whether it is reached; None: there is none."""
    if measure["at_most"] is not None:
        return f"<= {number(measure['at_most'])} {measure['unit']}".strip(), best(measure)[PHEON] <= measure["at_most"]
    if measure["speedup_min"] is not None:
        times = speedup(measure)
        return f">= {number(measure['speedup_min'])} x", times is not None and times >= measure["speedup_min"]
    return None


def _measured(results: Results) -> dict[str, Results]:
    return {name: figure for name, figure in results["figures"].items() if "failed" not in figure}


def _failed(results: Results) -> list[str]:
    return [f"- {name} FAILED: {figure['failed']}" for name, figure in results["figures"].items() if "failed" in figure]


def _amount(measure: Results, amount: float) -> str:
    return f"{number(amount)} {measure['unit']}".strip()


def table(results: Results) -> str:
    """The measures that have a goal, as Markdown."""
    lines = ["| | Pheon | best other | ratio | goal | |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for figure in _measured(results).values():
        for measure in figure["measures"]:
            aim = goal(measure)
            if aim is None:
                continue
            other, times = rival(measure), speedup(measure)
            cells = [
                f"{figure['title']}: {measure['name']}",
                f"**{_amount(measure, best(measure)[PHEON])}**",
                f"{_amount(measure, other[1])} ({other[0]})" if other else "-",
                "-" if times is None else f"{number(times)} x",
                aim[0],
                "reached" if aim[1] else "MISSED",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(["", *_failed(results)] if _failed(results) else [])])


def losses(results: Results) -> list[str]:
    """One line a measure in which somebody beats Pheon, and one a goal that was missed."""
    lines: list[str] = []
    for figure in _measured(results).values():
        for measure in figure["measures"]:
            amounts = best(measure)
            own = amounts.get(PHEON)
            if own is None:
                continue
            better = sorted((amount, who) for who, amount in amounts.items() if amount < own)
            head = f"- {figure['title']}, {measure['name']}: Pheon {_amount(measure, own)}"
            if better:
                lines.append(f"{head}; better: " + ", ".join(f"{who} {_amount(measure, a)}" for a, who in better))
            aim = goal(measure)
            if aim is not None and not aim[1]:
                lines.append(f"{head}; goal missed: {aim[0]}")
    return lines


def _facts(results: Results) -> str:
    versions = ", ".join(f"{library} {number}" for library, number in results["versions"].items())
    return (
        f"{machine_words(results['machine'])} {versions}. {results['date']}, `{results['command']}`; the best of "
        f"{results['repeat']} rounds, each in a process of its own; every answer was compared by value."
    )


def _section(figure: Results) -> list[str]:
    lines = ["| | | best | rounds |", "| --- | --- | ---: | --- |"]
    for measure in figure["measures"]:
        name = measure["name"]
        for who, amount in best(measure).items():
            rounds = measure["rounds"][who]
            shown = ", ".join(number(each) for each in rounds) if len(rounds) > 1 else ""
            title = f"**{who}**" if who == PHEON else who
            lines.append(f"| {name} | {title} | {_amount(measure, amount)} | {shown} |")
            name = ""
    return [
        f"## {figure['title']}",
        figure["data"],
        "\n".join(lines),
        "\n".join(f"- {note}" for note in figure["notes"]),
    ]


def markdown(results: Results) -> str:
    """The whole page."""
    parts = ["# Benchmarks of tables", "Generated by `python -m benches.tables` (`make bench`); do not edit."]
    parts += [_facts(results), table(results)]
    lost = losses(results)
    parts += ["## Where Pheon loses or misses a goal", "\n".join(lost) if lost else "In none of these measures."]
    for figure in _measured(results).values():
        parts += _section(figure)
    return "\n\n".join(part for part in parts if part) + "\n"


def update_readme(readme: Path, results: Results) -> None:
    """Replaces what stands between the two markers. Raises ValueError if they are not there."""
    replace_between(readme, BEGIN, END, "\n\n".join([table(results), _facts(results)]))
