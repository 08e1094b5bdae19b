"""What a store tells about datasets, versions, checks and memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _instant(unix_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=unix_ms)


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Facts about one version of a dataset."""

    name: str
    version: int
    path: str
    created: datetime
    origin: str
    rows: int
    key: list[str]
    unique: bool
    columns: dict[str, str]
    segments: int
    hidden_rows: int
    data_bytes: int
    index_bytes: int
    index_keys: int

    @classmethod
    def of(cls, facts: dict[str, Any]) -> DatasetInfo:
        """From the engine's dict."""
        return cls(created=_instant(facts.pop("created_unix_ms")), **facts)


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One published version. Versions may share files, so their bytes do not add up."""

    version: int
    created: datetime
    rows: int
    bytes: int
    segments: int
    origin: str

    @classmethod
    def of(cls, facts: tuple[int, int, int, int, int, str]) -> VersionInfo:
        """From the engine's tuple."""
        version, created_unix_ms, rows, size, segments, origin = facts
        return cls(version, _instant(created_unix_ms), rows, size, segments, origin)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `Store.verify` found. True in a condition if nothing is wrong."""

    version: int
    rows: int
    keys: int
    bytes: int
    problems: list[str]
    problem_count: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class GcReport:
    """What `Store.gc` removed from one dataset."""

    versions_removed: list[int]
    segments_removed: int
    leftovers_removed: int
    bytes_freed: int


@dataclass(frozen=True, slots=True)
class DatasetMemory:
    """What the newest version of a dataset costs. Bytes as the kernel counts them."""

    version: int
    file_bytes: int
    on_disk_bytes: int
    resident_bytes: int
    process_pss_bytes: int
    process_private_bytes: int
    huge_bytes: int
    mapped_by_processes: int | None


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What `Store.warm` achieved; `huge_refusal` says why not more is in 2 MiB pages."""

    file_bytes: int
    resident_bytes: int
    huge_bytes: int
    huge_refusal: str | None
