"""A control group with a limit to its memory, page cache included, and dropping files from the page cache."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
REMOVALS_MAX = 50


@contextmanager
def group(limit_bytes: int) -> Iterator[Path | None]:
    """A new group inside this process's own, or None where none may be made."""
    made = _make(limit_bytes)
    try:
        yield made
    finally:
        if made is not None:
            _remove(made)


def enter(made: Path) -> None:
    """Puts this process into the group: what it brings into memory from now on counts there."""
    (made / "cgroup.procs").write_text(str(os.getpid()))


def _make(limit_bytes: int) -> Path | None:
    for own, file in _own_groups():
        made = own / f"pheon-bench-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            if not (made / file).exists():  # a group of version 2 without the memory controller
                raise FileNotFoundError(file)
            (made / file).write_text(str(limit_bytes))
            with suppress(OSError):
                (made / "memory.swap.max").write_text("0")
            return made
        except OSError:
            _remove(made)
    return None


def _own_groups() -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            own = ROOT / path.lstrip("/")
            found += [(own, "memory.max"), (own.parent, "memory.max")]
        elif "memory" in controllers.split(","):
            own = ROOT / "memory" / path.lstrip("/")
            found.append((own if own.exists() else ROOT / "memory", "memory.limit_in_bytes"))
    return found


def _remove(made: Path) -> None:
    for _ in range(REMOVALS_MAX):
        try:
            made.rmdir()
        except OSError:
            sleep(0.1)  # its last process is still ending
        else:
            return


def drop(place: Path) -> int:
    """Writes the files under a folder to the disk and drops them from the page cache; their bytes."""
    size = 0
    for folder, _, names in os.walk(place):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                size += os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
    return size


def read_bytes() -> int:
    """What this process has had read from a disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no read_bytes")
