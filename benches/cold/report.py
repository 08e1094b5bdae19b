"""The report: JSON with every round, and a Markdown page."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from benches.cold.worker import MISS_SHARE, SCAN_ROWS
from benches.compare.machine import describe as describe_machine
from benches.compare.report import machine_words

if TYPE_CHECKING:
    from benches.cold.run import Plan

MIB = 1 << 20
Results = dict[str, Any]

TITLES = {"dropped": "Dropped from the page cache, memory enough", "limited": "Larger than memory"}
WORDS = {
    "dropped": (
        "The files' pages were dropped, then a fresh process opened them. Each figure is that of the first so many."
    ),
    "limited": (
        "What is read and made after entering the group has {limit:,.0f} MiB, page cache included. The figures are "
        "those after the first round, by which what is kept in memory has settled; of batches the median."
    ),
}


def describe(plan: Plan, command: str, engines: Results) -> Results:
    """All that a report needs."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "machine": asdict(describe_machine()),
        "rows": plan.rows,
        "limit_bytes": plan.limit_bytes,
        "engines": engines,
    }


def figures(engine: Results, part: str) -> dict[str, dict[str, float]]:
    """What was measured of one engine in one part: heading -> `us` and `read_bytes` of one lookup or scan.

    Dropped: the sums of all rounds so far. Limited: the rounds after the first.
    """
    found: dict[str, dict[str, float]] = {}
    for phase, measured in engine.get(part, {}).items():
        rounds = measured["rounds"]
        if part == "limited":
            count = rounds[-1]["count"]
            later = rounds[1:] or rounds
            found[_heading(phase, count)] = {
                member: median(one[member] for one in later) for member in ("us", "read_bytes")
            }
            continue
        total, us, read = 0, 0.0, 0.0
        for one in rounds:
            total += one["count"]
            us += one["us"] * one["count"]
            read += one["read_bytes"] * one["count"]
            found[_heading(phase, total, first=True)] = {"us": us / total, "read_bytes": read / total}
    return found


def _heading(phase: str, count: int, *, first: bool = False) -> str:
    if phase == "single":
        return ("first lookup" if count == 1 else f"first {count:,}") if first else "single lookup"
    if phase == "scan":
        return ("first scan" if count == 1 else f"first {count:,} scans") if first else "scan"
    return f"first batch of {count:,}" if first else f"batch of {count:,}"


def table(results: Results, part: str) -> str:
    """Microseconds, and KiB read from the disk, for each lookup or scan."""
    measured = {name: figures(engine, part) for name, engine in results["engines"].items()}
    headings = next((list(found) for found in measured.values() if found), [])
    lines = ["| | " + " | ".join(headings) + " |", "| --- |" + " ---: |" * len(headings)]
    for name, engine in results["engines"].items():
        title = f"**{engine['title']}**" if name == "pheon" else engine["title"]
        if not measured[name]:
            why = engine.get("missing") or "FAILED: " + engine.get("failed", "not measured")
            lines.append(f"| {title} | {why} |" + " |" * (len(headings) - 1))
            continue
        cells = [_cell(measured[name].get(heading)) for heading in headings]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{_time(found['us'])}; {_size(found['read_bytes'])}"


def _time(us: float) -> str:
    return f"{us:,.1f} us" if us < 1000 else f"{us / 1000:,.2f} ms"


def _size(count: float) -> str:
    return f"{count / 1024:,.1f} KiB" if count < MIB else f"{count / MIB:,.1f} MiB"


def losses(results: Results) -> list[str]:
    """One line a figure in which another engine is faster than Pheon. Empty if Pheon was not measured."""
    lines: list[str] = []
    for part, title in TITLES.items():
        for heading, own in figures(results["engines"].get("pheon", {}), part).items():
            others = {
                engine["title"]: there["us"]
                for name, engine in results["engines"].items()
                if name != "pheon" and (there := figures(engine, part).get(heading)) and there["us"] < own["us"]
            }
            if others:
                ordered = sorted(others.items(), key=lambda item: item[1])
                named = ", ".join(f"{other} {_time(us)}" for other, us in ordered)
                lines.append(f"- {title}, {heading}: Pheon {_time(own['us'])}; better: {named}")
    return lines


def markdown(results: Results) -> str:
    """The whole page."""
    limit = results["limit_bytes"] / MIB
    facts = (
        f"{results['rows']:,} rows of text, 21 bytes a key, 32 to 95 a value, half of them random. Keys are random, "
        f"{MISS_SHARE:.0%} of them misses; a scan reads {SCAN_ROWS:,} rows that follow each other. Each cell: the "
        "time of one lookup (a key of a batch; a scan), and what it had read from the disk. Every answer was compared."
    )
    where = f"{machine_words(results['machine'])} {results['date']}, `{results['command']}`."
    parts = ["# Benchmarks: data that is not in memory", "Generated by `python -m benches.cold`; do not edit."]
    parts += [facts, where]
    for part, title in TITLES.items():
        parts.append(f"## {title}")
        if any(engine.get(part) for engine in results["engines"].values()):
            parts += [WORDS[part].format(limit=limit), table(results, part)]
        else:
            parts.append("Not measured: no control group with a memory limit could be made.")
    lost = losses(results)
    parts += ["## Where Pheon loses", "\n".join(lost) if lost else "In none of these figures."]
    parts += ["## How each was used", "\n".join(_how(engine) for engine in results["engines"].values())]
    return "\n\n".join(parts) + "\n"


def _how(engine: Results) -> str:
    words = [engine["how"]]
    if "build" in engine:
        words.append(f"{engine['build']['bytes'] / MIB:,.0f} MiB on disk")
    for part, title in TITLES.items():
        for access in {phase["facts"]["access"] for phase in engine.get(part, {}).values() if phase["facts"]}:
            words.append(f'{title.lower()}: opened itself as "{access}"')
    return f"- **{engine['title']}** ({engine.get('version', 'not installed')}): " + "; ".join(words) + "."
