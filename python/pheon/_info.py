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
    """Facts about one version of a dataset.

    `access`: how its newest segment is read, "memory" or "random" (see `pheon.open`).
    """

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
    access: str

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
    """What a dataset costs, in bytes as the kernel counts them; ``str`` of it is for people.

    The files of the newest version have `file_bytes`, of which `on_disk_bytes` are blocks on disk and `resident_bytes`
    are in the page cache, once for all processes (None if the user may neither own nor write them: the kernel does not
    tell then). `mapped_by_processes` of those whose maps this user may read.

    Of this process (or of all, see `Store.memory`): `process_pss_bytes` is its proportional share, each page divided
    among those that have it mapped, `process_private_bytes` what nobody else has mapped, `huge_bytes` what is mapped
    by 2 MiB pages. `process_page_table_bytes` estimates the page tables behind these mappings: 4 KiB for each aligned
    2 MiB of addresses in which a page is mapped; `process_page_table_total_bytes` is the kernel's count of all page
    tables, whatever they map.

    `access`: how this process would read the version if it opened it now, "memory" or "random" (see `pheon.open`).
    `older_on_disk_bytes` are blocks that only the `older_versions` need.
    """

    name: str
    version: int
    file_bytes: int
    on_disk_bytes: int
    resident_bytes: int | None
    mapped_by_processes: int | None
    process_pss_bytes: int
    process_private_bytes: int
    process_page_table_bytes: int | None
    process_page_table_total_bytes: int
    huge_bytes: int
    access: str
    older_versions: int
    older_on_disk_bytes: int

    def __str__(self) -> str:
        processes = "?" if self.mapped_by_processes is None else self.mapped_by_processes
        text = (
            f"{self.name} version {self.version}: {_size(self.on_disk_bytes)} on disk, {_size(self.resident_bytes)} of "
            f"{_size(self.file_bytes)} in memory, mapped by {processes} "
            f"process{'' if processes == 1 else 'es'}; here {_size(self.process_pss_bytes)} (PSS), "
            f"{_size(self.process_private_bytes)} private, {_size(self.process_page_table_bytes)} page tables, "
            f"{_size(self.huge_bytes)} in 2 MiB pages"
        )
        if self.older_versions:
            text += f"; {self.older_versions} older: {_size(self.older_on_disk_bytes)} more on disk"
        return text

    def __repr__(self) -> str:
        return f"<pheon.DatasetMemory {self}>"


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What `Store.warm` achieved, in bytes.

    `huge_refusal` and `lock_refusal` say in the kernel's words why not more is in 2 MiB pages, or nothing is locked.
    `resident_bytes` are in the page cache afterwards, of `file_bytes`; None as in `DatasetMemory`. `access` is "random"
    where a version that is opened now would not be taken to fit into memory (see `pheon.open`).
    """

    version: int
    file_bytes: int
    resident_before_bytes: int | None
    resident_bytes: int | None
    huge_bytes: int
    huge_refusal: str | None
    locked_bytes: int
    lock_refusal: str | None
    access: str
    seconds: float

    def __str__(self) -> str:
        text = (
            f"{_size(self.resident_bytes)} of {_size(self.file_bytes)} in memory (before: "
            f"{_size(self.resident_before_bytes)}), {_size(self.huge_bytes)} in 2 MiB pages, "
            f"{_size(self.locked_bytes)} locked, {self.seconds:.2f} s"
        )
        refusals = [refusal for refusal in (self.huge_refusal, self.lock_refusal) if refusal]
        return "; refused: ".join([text, *refusals])

    def __repr__(self) -> str:
        return f"<pheon.WarmReport {self}>"


def _size(count: int | None) -> str:
    """``1.2 GiB``."""
    if count is None:
        return "?"
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"
