"""Which rows of a table a predicate needs: a decision as data, made from the index and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

import polars as pl

from pheon._adapters.polars_keys import EVERYTHING, KeyDomain, KeySet
from pheon._adapters.polars_predicate import Box, boxes_of

# To look a key up costs about as much as to filter this many rows; a run of rows of its own, this many.
LOOKUP_COST_ROWS = 256
RUN_COST_ROWS = 4096

# Combinations of leading keys that are looked up one by one.
PREFIXES_MAX = 1024

Run: TypeAlias = tuple[int, int]
# The ends of a range as ordinals, a value a key column; an empty end is open.
_Range: TypeAlias = tuple[tuple[Any, ...], tuple[Any, ...]]


class Rows(Protocol):
    """What the planner asks of a table."""

    @property
    def key(self) -> list[str]:
        """Names of the key columns."""
        ...

    @property
    def bounds(self) -> tuple[int, int]:
        """First row within the version, and rows."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows."""
        ...

    def range(self, start: Any, stop: Any) -> Self:
        """Rows with ``start <= key < stop``; tuples for several key columns."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What is read for a predicate."""

    # What the predicate says about the key columns; ``[{}]``: nothing.
    boxes: list[Box]
    # Rows to read, first inclusive and last exclusive, ascending and apart: all that the predicate keeps are there.
    runs: list[Run]

    @property
    def rows(self) -> int:
        """How many rows are read."""
        return sum(stop - start for start, stop in self.runs)


def decide(table: Rows, predicate: pl.Expr | None, domains: Mapping[str, KeyDomain]) -> Decision:
    """The rows of `table` that `predicate` may keep, by what it says about the key columns in `domains`."""
    everything = [(0, table.num_rows)] if table.num_rows else []
    if predicate is None or not everything:
        return Decision([{}], everything)
    boxes = boxes_of(predicate, domains)
    if any(not box for box in boxes):
        return Decision(boxes, everything)
    ranges = [r for box in boxes for r in _ranges(table.key, domains, box)]
    if len(ranges) > 1 and len(ranges) * LOOKUP_COST_ROWS > table.num_rows:
        ranges = [_hull(ranges)]
    kinds = [domains.get(name) for name in table.key]
    return Decision(boxes, _joined(_located(table, kinds, ranges)))


def _ranges(key: Sequence[str], domains: Mapping[str, KeyDomain], box: Box) -> list[_Range]:
    """A box as ranges of the key: equality on leading columns, then intervals on the next one."""
    prefixes: list[tuple[Any, ...]] = [()]
    for i, name in enumerate(key):
        keys = box.get(name, EVERYTHING)
        if keys == EVERYTHING:
            break
        domain = domains[name]
        points = _points(keys, domain, PREFIXES_MAX // len(prefixes)) if i + 1 < len(key) else None
        if points is None:
            return [_range(prefix, interval, domains, key) for prefix in prefixes for interval in keys.intervals]
        prefixes = [(*prefix, point) for prefix in prefixes for point in points]
    return [(prefix, _after(prefix, domains, key)) for prefix in prefixes]


def _points(keys: KeySet, domain: KeyDomain, most: int) -> list[Any] | None:
    found: list[Any] = []
    for interval in keys.intervals:
        points = domain.points(interval, most - len(found))
        # A prefix must be the key itself; one that is rounded may only end a range.
        if points is None or not all(domain.exact(p) for p in points):
            return None
        found += points
    return found if len(found) <= most else None


def _range(
    prefix: tuple[Any, ...], interval: tuple[Any, Any], domains: Mapping[str, KeyDomain], key: Sequence[str]
) -> _Range:
    low, high = interval
    start = prefix if low is None else (*prefix, low)
    return start, _after(prefix, domains, key) if high is None else (*prefix, high)


def _after(prefix: tuple[Any, ...], domains: Mapping[str, KeyDomain], key: Sequence[str]) -> tuple[Any, ...]:
    """The end of the rows whose key begins with `prefix`."""
    return (*prefix[:-1], domains[key[len(prefix) - 1]].after(prefix[-1])) if prefix else ()


def _hull(ranges: list[_Range]) -> _Range:
    """One range around all."""
    starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
    return min(starts), max(stops) if all(stops) else ()


def _located(table: Rows, kinds: Sequence[KeyDomain | None], ranges: list[_Range]) -> list[Run]:
    """Where the rows of each range lie in `table`."""
    # A table at a server is asked for all at once.
    at_once: Any = getattr(table, "ranges", None)
    if at_once is not None and len(ranges) > 1:
        ends = [(_end(start, kinds, up=False), _end(stop, kinds, up=True)) for start, stop in ranges]
        try:
            found: list[tuple[int, int]] = at_once(ends)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            base = table.bounds[0]
            return [(first - base, first - base + rows) for first, rows in found]
    return [_locate(table, kinds, r) for r in ranges]


def _locate(table: Rows, kinds: Sequence[KeyDomain | None], bounds: _Range) -> Run:
    """Where the rows of a range lie in `table`."""
    start, stop = _end(bounds[0], kinds, up=False), _end(bounds[1], kinds, up=True)
    try:
        first, rows = table.range(start, stop).bounds
    except (TypeError, ValueError, OverflowError):
        # No key of this column, though its type says so: the index cannot help.
        return 0, table.num_rows
    base = table.bounds[0]
    return first - base, first - base + rows


def _end(ordinals: tuple[Any, ...], kinds: Sequence[KeyDomain | None], *, up: bool) -> Any:
    """An end of a range as `Table.range` takes it: a value for one key column, a tuple for several; None: open."""
    found: list[Any] = []
    for kind, ordinal in zip(kinds, ordinals, strict=False):
        value = None if kind is None else kind.key(ordinal, up)
        if value is None:
            # What is left of a start is a smaller start. A stop has no such shorter form: it is open.
            if up:
                return None
            break
        found.append(value)
    if not found:
        return None
    return found[0] if len(kinds) == 1 else tuple(found)


def _joined(runs: list[Run]) -> list[Run]:
    """Runs in row order; those that touch, or lie so near that a gap costs less than a further run, are one."""
    joined: list[Run] = []
    for start, stop in sorted(run for run in runs if run[0] < run[1]):
        if joined and start - joined[-1][1] < RUN_COST_ROWS:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined
