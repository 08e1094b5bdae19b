"""The report on live maps: what was measured as JSON, a Markdown page, and the table for the README."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benches.compare.machine import describe as describe_machine
from benches.compare.report import machine_words, replace_between
from benches.live.peers.plain import Plain
from benches.live.plan import PHEON, Figure, Plan
from benches.tables.report import number

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- bench-live:begin -->", "<!-- bench-live:end -->"
CEILING = Plain.title
PREFIXES = ((1e6, " M"), (1e4, " k"))  # of rates

Results = dict[str, Any]


def describe(plan: Plan, command: str, peers: dict[str, Results], figures: dict[str, Figure | str]) -> Results:
    """All that a report needs. In `figures` a text stands for a figure that failed, and says why."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "machine": asdict(describe_machine()),
        "peers": peers,
        "sizes": asdict(plan.sizes),
        "repeat": plan.repeat,
        "limit": plan.limit,
        "figures": {
            name: {"failed": figure} if isinstance(figure, str) else asdict(figure) for name, figure in figures.items()
        },
    }


def best(measure: Results) -> dict[str, float]:
    """The best round of each."""
    choose = max if measure["more"] else min
    return {who: choose(rounds) for who, rounds in measure["rounds"].items() if rounds}


def ratio_of(measure: Results, own: float, other: float) -> float | None:
    """How many times better Pheon is than somebody; below 1 it is worse."""
    above, below = (own, other) if measure["more"] else (other, own)
    return above / below if below else None


def _better(measure: Results, one: float, other: float) -> bool:
    return one > other if measure["more"] else one < other


def rival(measure: Results) -> tuple[str, float] | None:
    """The best of the others that processes can share, and its figure. Pheon in another form is no other."""
    others = {who: each for who, each in best(measure).items() if not who.startswith(PHEON) and who != CEILING}
    if not others:
        return None
    who = (max if measure["more"] else min)(others, key=lambda each: others[each])
    return who, others[who]


def goal(measure: Results) -> tuple[str, bool] | None:
    """The goal in words and whether Pheon reached it; None: there is none."""
    if measure["goal"] is None:
        return None
    own = best(measure).get(PHEON)
    reached = own is not None and not _better(measure, measure["goal"], own)
    return f"{'>=' if measure['more'] else '<='} {amount_words(measure, measure['goal'])}", reached


def amount_words(measure: Results, amount: float, *, unit: bool = True) -> str:
    """An amount with its unit, large rates shortened."""
    if measure["more"] and "/s" in measure["unit"]:
        for size, prefix in PREFIXES:
            if amount >= size:
                return f"{number(amount / (1e3 if prefix == ' k' else size))}{prefix}{measure['unit'] if unit else ''}"
    return f"{number(amount)} {measure['unit'] if unit else ''}".strip()


def measured(results: Results) -> dict[str, Results]:
    """The figures that are there."""
    return {name: figure for name, figure in results["figures"].items() if "failed" not in figure}


def failed(results: Results) -> list[str]:
    """One line a figure that failed, a measure that somebody has not, and a peer that is not there."""
    lines = [
        f"- {name} FAILED: {figure['failed']}" for name, figure in results["figures"].items() if "failed" in figure
    ]
    for figure in measured(results).values():
        whys: dict[tuple[str, str], list[str]] = {}
        for measure in figure["measures"]:
            for who, why in measure["failed"].items():
                whys.setdefault((who, why), []).append(measure["name"])
        for (who, why), names in whys.items():
            lines.append(f"- {figure['title']}, {who} FAILED: {why} ({'; '.join(names)})")
    lines += [f"- {peer['title']}: {peer['missing']}" for peer in results["peers"].values() if "missing" in peer]
    return lines


def pheon_failed(results: Results) -> bool:
    """Whether a figure is missing, or Pheon's part of it."""
    figures = results["figures"].values()
    return any("failed" in figure for figure in figures) or any(
        PHEON in measure["failed"] for figure in measured(results).values() for measure in figure["measures"]
    )


def table(results: Results) -> str:
    """The measures that have a goal, as Markdown."""
    lines = [
        f"| | Pheon | best other | ratio | {CEILING} | goal | |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for figure in measured(results).values():
        for measure in figure["measures"]:
            aim = goal(measure)
            if aim is None or not (measure["rounds"] or measure["failed"]):
                continue
            amounts, other = best(measure), rival(measure)
            own, ceiling = amounts.get(PHEON), amounts.get(CEILING)
            ratio = ratio_of(measure, own, other[1]) if own is not None and other else None
            cells = [
                f"{figure['title']}: {measure['name']}",
                "-" if own is None else f"**{amount_words(measure, own)}**",
                f"{amount_words(measure, other[1])} ({other[0]})" if other else "-",
                "-" if ratio is None else f"{number(ratio)} x",
                "-" if ceiling is None else amount_words(measure, ceiling),
                aim[0],
                "-" if own is None and PHEON not in measure["failed"] else "reached" if aim[1] else "MISSED",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def losses(results: Results) -> list[str]:
    """One line a measure in which somebody beats Pheon, one a goal that was missed, one a figure that is not there."""
    lines: list[str] = []
    for figure in measured(results).values():
        for measure in figure["measures"]:
            amounts = best(measure)
            own = amounts.get(PHEON)
            if own is None:
                continue
            better = {
                who: amount
                for who, amount in amounts.items()
                if not who.startswith(PHEON) and _better(measure, amount, own)
            }
            head = f"- {figure['title']}, {measure['name']}: Pheon {amount_words(measure, own)}"
            if better:
                ordered = sorted(better.items(), key=lambda item: item[1], reverse=measure["more"])
                lines.append(f"{head}; better: " + ", ".join(f"{who} {amount_words(measure, a)}" for who, a in ordered))
            aim = goal(measure)
            if aim is not None and not aim[1]:
                lines.append(f"{head}; goal missed: {aim[0]}")
    return lines


def _facts(results: Results) -> str:
    versions = ", ".join(
        f"{peer['title']} {peer['version']}" for peer in results["peers"].values() if "version" in peer
    )
    return (
        f"{machine_words(results['machine'])} {versions}. {results['date']}, `{results['command']}`; the best of "
        f"{results['repeat']} rounds, each in processes of its own, {results['limit']:.0f} s at most; every answer was "
        "compared by value, and what several processes wrote, by another one."
    )


def section(figure: Results, titles: list[str]) -> list[str]:
    """The parts of a figure's section of the page."""
    shown = [title for title in titles if any(title in measure["rounds"] for measure in figure["measures"])]
    lines = ["| | " + " | ".join(f"**{title}**" if title == PHEON else title for title in shown) + " |"]
    lines.append("| --- |" + " ---: |" * len(shown))
    for measure in figure["measures"]:
        amounts = best(measure)
        cells = []
        for title in shown:
            if title in amounts:
                cells.append(amount_words(measure, amounts[title], unit=False))
            elif title in measure["failed"]:
                cells.append("too slow" if measure["failed"][title].startswith("too slow") else "FAILED")
            else:
                cells.append("-")
        lines.append(f"| {measure['name']}, {measure['unit']} | " + " | ".join(cells) + " |")
    notes = "\n".join(f"- {note}" for note in figure["notes"])
    return [f"## {figure['title']}", figure["data"], "\n".join(lines), notes]


def markdown(results: Results) -> str:
    """The whole page."""
    parts = ["# Benchmarks of live maps", "Generated by `python -m benches.live` (`make bench`); do not edit."]
    parts += [_facts(results), table(results)]
    lost = losses(results)
    parts += ["## Where Pheon loses or misses a goal", "\n".join(lost) if lost else "In none of these measures."]
    if wrong := failed(results):
        parts += ["## What failed, was too slow, or is not there", "\n".join(wrong)]
    titles = [peer["title"] for peer in results["peers"].values()]
    for figure in measured(results).values():
        parts += section(figure, titles)
    how = [f"- **{peer['title']}**: {peer['how']}." for peer in results["peers"].values()]
    parts += ["## How each was used", "\n".join(how)]
    return "\n\n".join(part for part in parts if part) + "\n"


def update_readme(readme: Path, results: Results) -> None:
    """Replaces what stands between the two markers. Raises ValueError if they are not there."""
    wrong = "\n".join(line for line in failed(results) if "FAILED" in line)
    replace_between(readme, BEGIN, END, "\n\n".join(part for part in (table(results), wrong, _facts(results)) if part))
