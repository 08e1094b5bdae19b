"""The report: JSON with every round, a Markdown page, and the table for the README."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from benches.compare.data import MISS_SHARE, READER_QUESTIONS, DataSet
from benches.compare.machine import describe as describe_machine

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
OPEN_MS_MAX, OPEN_PRIVATE_BYTES_MAX, READER_BYTES_MAX = 2.0, 1 << 20, 2 << 20
MIB = 2**20

Results = dict[str, Any]
# measure -> (heading, its median for a peer or None, how it is written). Less is better in all of them.
Measure = tuple[str, Callable[[Results], float | None], Callable[[float], str]]


def describe(dataset: DataSet, command: str, peers: dict[str, Results]) -> Results:
    """All that a report needs."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "machine": asdict(describe_machine()),
        "data": {name: value for name, value in asdict(dataset).items() if name != "folder"},
        "peers": peers,
    }


def save(results: Results, file: Path) -> None:
    """Writes the JSON, and a copy that stays, ``records/DATE-NAME.json``, until another run of the same day."""
    records = file.parent / "records"
    records.mkdir(parents=True, exist_ok=True)
    for place in (file, records / f"{results['date']}-{file.name}"):
        place.write_text(json.dumps(results, indent=1) + "\n")


def load(file: Path) -> Results:
    """Reads the JSON."""
    return json.loads(file.read_text())


def _build(peer: Results) -> float | None:
    return median(build["seconds"] for build in peer["build"])


def _bytes(peer: Results) -> float | None:
    return peer["bytes"]


def _open(peer: Results) -> float | None:
    return median(peer["open"]["ms"])


def _single(peer: Results) -> float | None:
    return median(peer["single"]["ns"])


def _batch(peer: Results) -> float | None:
    """The library's batch call or the loop of single lookups, whichever is faster."""
    return min(median(peer[kind]["ns"]) for kind in ("single", "batch") if kind in peer)


def _loop_wins(peer: Results) -> bool:
    return _batch(peer) == _single(peer)


def _memory(peer: Results) -> float | None:
    return peer["memory"]["beyond_bare_bytes"]


def _nanoseconds(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value:,.0f} ({value / 1e6:,.0f} ms)"


MEASURES: dict[str, Measure] = {
    "build": ("build, s", _build, lambda value: f"{value:.1f}"),
    "size": ("on disk, MiB", _bytes, lambda value: f"{value / MIB:,.0f}"),
    "open": ("open, ms", _open, lambda value: f"{value:,.2f}" if value < 100 else f"{value:,.0f}"),
    "single lookup": ("single lookup, ns", _single, _nanoseconds),
    "batch lookup": ("batch lookup, ns", _batch, _nanoseconds),
    "memory": ("memory of {processes} processes, MiB", _memory, lambda value: f"{value / MIB:,.0f}"),
}


def _measured(results: Results) -> dict[str, Results]:
    return {name: peer for name, peer in results["peers"].items() if "build" in peer}


def table(results: Results) -> str:
    """The table alone, as Markdown."""
    measured = _measured(results)
    processes = next((peer["memory"]["processes"] for peer in measured.values()), 0)
    headings = [heading.format(processes=processes) for heading, _, _ in MEASURES.values()]
    lines = ["| | " + " | ".join(headings) + " |", "| --- |" + " ---: |" * len(headings)]
    for name, peer in results["peers"].items():
        if name not in measured:
            lines.append(f"| {peer['title']} | {peer.get('missing') or 'FAILED: ' + peer['failed']} |" + " |" * 5)
            continue
        cells = []
        for _, value_of, write in MEASURES.values():
            value = value_of(peer)
            cells.append("none" if value is None else write(value))
        if _loop_wins(peer):
            cells[4] += " (loop)"
        title = f"**{peer['title']}**" if name == "pheon" else peer["title"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _facts(results: Results) -> list[str]:
    facts = results["data"]
    rows, key_bytes, value_bytes = facts["rows"], facts["key_bytes"], facts["value_bytes"]
    data = (
        f"Data: {facts['title']}; {rows:,} rows in random order, {key_bytes / rows:.1f} bytes a key, "
        f"{value_bytes / rows:.1f} a value, {(key_bytes + value_bytes) / MIB:,.0f} MiB in all. "
        f"{facts['questions']:,} lookups a round in random order, {MISS_SHARE:.0%} of them misses; the median round "
        "counts; every answer of every round was compared with a Python dict's."
    )
    if results.get("touched"):
        data += " Half of the memory was written to once before each peer: a virtual machine pays for new pages."
    where = f"{machine_words(results['machine'])} {results['date']}, `{results['command']}`."
    return [data, where]


def losses(results: Results) -> list[str]:
    """One line a measure in which a peer beats Pheon. Empty if Pheon was not measured."""
    measured = _measured(results)
    ours = measured.pop("pheon", None)
    lines: list[str] = []
    for measure, (_, value_of, write) in MEASURES.items():
        own = value_of(ours) if ours else None
        if own is None:
            continue
        better = {
            peer["title"]: value for peer in measured.values() if (value := value_of(peer)) is not None and value < own
        }
        if better:
            named = ", ".join(
                f"{title} {write(value)}" for title, value in sorted(better.items(), key=lambda item: item[1])
            )
            lines.append(f"- {measure}: Pheon {write(own)}; better: {named}")
    return lines


def markdown(results: Results) -> str:
    """The whole page."""
    parts = ["# Benchmarks", "Generated by `python -m benches.compare` (`make bench`); do not edit.", *_facts(results)]
    parts += [table(results), READING]
    if "pheon" in _measured(results):
        lost = losses(results)
        parts += ["## Where Pheon loses", "\n".join(lost) if lost else "In none of these measures."]
        parts += ["## Pheon against each peer", _ratios(results), "## Pheon alone", _pheon_alone(results)]
    parts += ["## How each peer was used", _how(results)]
    return "\n\n".join(parts) + "\n"


READING = f"""\
How to read it. *Build* starts from one unsorted Arrow table in memory and may use all cores. *Open* is one call in a
fresh process, the library already loaded. *Lookups* run in one process bound to one core, after a warm-up round; single
lookups take and give Python strings, batches take and give Arrow (or the library's own frames) where the library can,
lists otherwise; where the loop of single lookups is faster, it counts. *Memory* is the PSS of reader processes that
looked {READER_QUESTIONS:,} keys up each, and of the server if there is one, beyond what bare interpreters with the same
questions hold."""


def _ratios(results: Results) -> str:
    measured = _measured(results)
    ours = measured.pop("pheon")
    lines = ["How many times the peer's figure is Pheon's; below 1 the peer is better.", ""]
    lines += ["| | " + " | ".join(MEASURES) + " |", "| --- |" + " ---: |" * len(MEASURES)]
    for peer in measured.values():
        cells = []
        for _, value_of, _ in MEASURES.values():
            own, other = value_of(ours), value_of(peer)
            cells.append(f"{other / own:,.2f}" if own is not None and other is not None and own > 0 else "-")
        lines.append(f"| {peer['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _pheon_alone(results: Results) -> str:
    peer = results["peers"]["pheon"]
    opened = peer["open"]
    opening = (
        f"- Opening: {median(opened['ms']):.3f} ms (figure to reach: {OPEN_MS_MAX} ms), "
        f"{median(opened['private_dirty_bytes']) / 1024:,.0f} KiB of private memory (to reach: "
        f"{OPEN_PRIVATE_BYTES_MAX // 1024:,} KiB), first lookup after it {median(opened['first_lookup_ms']):.3f} ms."
    )
    lines = [opening]
    if many := peer.get("many_readers"):
        budget = peer["bytes"] + many["processes"] * READER_BYTES_MAX
        lines.append(
            f"- {many['processes']} reader processes hold {many['beyond_bare_bytes'] / MIB:,.0f} MiB beyond bare "
            f"interpreters (to reach: files + {many['processes']} x 2 MiB = {budget / MIB:,.0f} MiB)."
        )
    return "\n".join(lines)


def _how(results: Results) -> str:
    lines: list[str] = []
    for peer in results["peers"].values():
        version = peer.get("version", "not installed")
        if "build" not in peer:
            lines.append(f"- **{peer['title']}** ({version}): {peer.get('missing') or peer.get('failed')}.")
            continue
        how = peer["how"]
        words = [f"single: {how['single']}, {peer['single']['count']:,} lookups a round"]
        words.append(_batch_words(peer))
        details = peer["build"][0]["details"]
        if details:
            words.append("of the build, " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in details.items()))
        if len(peer["build"]) < len(peer["single"]["ns"]):
            words.append(f"built {len(peer['build'])} times only")
        memory = peer["memory"]
        if memory["measured_processes"] < memory["processes"]:
            words.append(
                f"memory scaled up from {memory['measured_processes']} process: {memory['processes']} do not fit"
            )
        words += [f"{name}: {median(rounds):,.0f} ns a lookup" for name, rounds in peer["extras"].items()]
        words += [how["notes"]] if how["notes"] else []
        lines.append(f"- **{peer['title']}** ({version}): " + "; ".join(words) + ".")
    return "\n".join(lines)


def _batch_words(peer: Results) -> str:
    if "batch" not in peer:
        return "no batch call: the loop of single lookups"
    words = f"batch: {peer['how']['batch']}"
    if _loop_wins(peer):
        words += f", {median(peer['batch']['ns']):,.0f} ns: slower than the loop of single lookups, which counts"
    return words


def update_readme(readme: Path, results: Results) -> None:
    """Replaces what stands between the two markers. Raises ValueError if they are not there."""
    replace_between(readme, BEGIN, END, "\n\n".join([table(results), *_facts(results)]))


def replace_between(file: Path, begin: str, end: str, block: str) -> None:
    """Puts `block` between two markers of a file. Raises ValueError if they are not there, in this order."""
    before, found_begin, rest = file.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{file}: expected the markers {begin} and {end}, in this order")
    file.write_text(f"{before}{begin}\n{block}\n{end}{after}")


def machine_words(machine: Results) -> str:
    """The machine in one sentence."""
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, last-level cache "
        f"{machine['last_level_cache']}, Linux {machine['kernel']}, {machine['python']}."
    )
