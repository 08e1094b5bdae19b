"""A model of size, build time, memory and lookup rate, calibrated on a small run and checked against the large ones.

docs/scale.md says what it states and where it stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OFFSET_BYTES = 8
BUCKET_BYTES = 64
KEYS_A_BUCKET = 9
LINE_BYTES = 64
PAGE_BYTES = 4096
TABLE_ENTRY_BYTES = 8
# Written a row whatever its strings: offsets and number in a run, entry of the index, offsets and bucket. Halved:
# strings are written twice, and the model counts them once.
FIXED_WRITTEN = (20 + 12 + 16 + 7) / 2
# What a reader process holds of its own beyond a bare interpreter, bytes: measured 0.4 to 1.4 MiB.
READER_PRIVATE_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Shape:
    """A map of strings: entries, mean bytes of a key and of a value."""

    rows: int
    key_bytes: float
    value_bytes: float

    @property
    def data_bytes(self) -> float:
        """Of `data.arrow`: two columns of 64-bit offsets and the bytes."""
        return self.rows * (self.key_bytes + self.value_bytes + 2 * OFFSET_BYTES)

    @property
    def index_bytes(self) -> float:
        """Of `index.arrow`: nine keys a bucket of 64 bytes."""
        return self.rows / KEYS_A_BUCKET * BUCKET_BYTES

    @property
    def file_bytes(self) -> float:
        """Both."""
        return self.data_bytes + self.index_bytes

    @property
    def lines_a_hit(self) -> float:
        """Cache lines that a hit reads: bucket, two pairs of offsets (one in eight in two lines), key, value."""

        def span(length: float) -> float:
            return 1 + max(length - 1, 0) / LINE_BYTES if length > 0 else 0.0

        return 1.09 + 2 * 1.125 + span(self.key_bytes) + span(self.value_bytes)


@dataclass(frozen=True)
class Costs:
    """What a run of a small map on a machine has shown."""

    build_ns_a_row: float
    """Wall time of a row of `build_bytes_a_row`, sorted runs and merge included."""
    build_bytes_a_row: float
    """Bytes of keys and values in such a row."""
    written_a_row: float
    """Bytes written for such a row: runs, entries of the index, the finished files."""
    line_ns: float
    """A line that is known beforehand."""
    own_ns: float
    """What a hit in a batch costs beside its lines, for each of them."""

    @staticmethod
    def of(small: dict[str, Any], engine: dict[str, Any]) -> Costs:
        """From a build and from lookups (hits, short strings) as the report has them."""
        return Costs(
            build_ns_a_row=1e9 / small["rows_per_second"],
            build_bytes_a_row=40.0,
            written_a_row=small["written_bytes"] / small["rows"],
            line_ns=engine["bound_ns"] / engine["lines"],
            own_ns=(engine["get_many_ns"] - engine["bound_ns"]) / engine["lines"],
        )


def build_seconds(shape: Shape, costs: Costs) -> float:
    """Time to build from unsorted rows when the disk keeps up: rows cost what they cost, one merge pass or none more.

    Up to 128 runs are merged at once; a run holds about half the memory limit, so that one pass is enough for 64 times
    the limit. Half of a row's cost is taken to grow with its bytes (copies), half not (comparing, hashing, placing).
    """
    growth = (shape.key_bytes + shape.value_bytes) / costs.build_bytes_a_row
    return shape.rows * costs.build_ns_a_row * (0.5 + 0.5 * growth) / 1e9


def hit_ns(lines: float, costs: Costs) -> float:
    """A hit of a batch on one core that reads so many lines."""
    return lines * (costs.line_ns + costs.own_ns)


def page_tables_bytes(shape: Shape, processes: int, *, huge: bool) -> float:
    """Page tables of processes that touched everything: 1/512 of the files each; a 512th of that with 2 MiB pages."""
    each = shape.file_bytes / PAGE_BYTES * TABLE_ENTRY_BYTES
    return processes * (each / 512 if huge else each)


def memory_bytes(shape: Shape, processes: int, *, huge: bool) -> float:
    """The files once, what each reader holds of its own, and page tables."""
    return shape.file_bytes + processes * READER_PRIVATE_BYTES + page_tables_bytes(shape, processes, huge=huge)


def disk_peak_bytes(shape: Shape, costs: Costs) -> float:
    """While building: all that is written is there at once at worst."""
    growth = (shape.key_bytes + shape.value_bytes + FIXED_WRITTEN) / (costs.build_bytes_a_row + FIXED_WRITTEN)
    return shape.rows * costs.written_a_row * growth


def error(predicted: float, measured: float) -> float:
    """How far off a prediction was, as a share of what was measured."""
    return predicted / measured - 1
