"""Memory of processes as the kernel accounts for it: PSS counts a page shared by n processes as 1/n for each."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_SECONDS_MAX = 900
SAFE_SHARE = 0.8
TOUCH = """
with open("/proc/meminfo") as file:
    kib = dict((line.split(":")[0], int(line.split()[1])) for line in file)
b"x" * (kib["MemAvailable"] * 1024 // 2)
"""


@dataclass(frozen=True)
class Readers:
    """What `count` reader processes (and the peer's server) hold together. `measured` of them ran at once."""

    count: int
    measured: int
    pss_bytes: int
    server_pss_bytes: int


def rollup(pid: int | str = "self") -> dict[str, int]:
    """/proc/<pid>/smaps_rollup: field -> bytes."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount, _ = line.split()
        fields[name.rstrip(":")] = int(amount) * 1024
    return fields


def pss_bytes(pid: int | str = "self") -> int:
    """A process's proportional set size, bytes."""
    return rollup(pid)["Pss"]


def available_bytes() -> int:
    """Memory that programs can still get, bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def touch_half() -> None:
    """Write to half of the available memory once, in a process of its own.

    In a virtual machine a page costs several times as much when it is used for the first time as later: the host must
    find it. Who pays for that depends on what ran before, so it is paid beforehand.
    """
    subprocess.run([sys.executable, "-c", TOUCH], check=False)  # it may be killed where less is allowed


@contextmanager
def waiting(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has said "ready" and now waits, holding what it holds, until its standard input is closed."""
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"a reader process failed: it said {line!r}; its messages are above")
        yield process
        process.stdin.close()
        process.wait(timeout=READY_SECONDS_MAX)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def measure(worker: list[str], env: dict[str, str], count: int, servers: list[int]) -> Readers:
    """Starts `count` readers one after the other (their peak must not add up), then measures all of them at once.

    Where they do not fit into memory, fewer run and the sum is scaled: nothing that they hold can be shared then.
    """
    with ExitStack() as running:
        processes: list[subprocess.Popen[str]] = []
        at_start = available_bytes()
        for number in range(count):
            command = [sys.executable, "-m", "benches.compare.worker", "read", *worker, "--reader", str(number)]
            processes.append(running.enter_context(waiting(command, env)))
            if number == 0:
                used = at_start - available_bytes()
                if used * count > at_start * SAFE_SHARE:
                    break
        measured = len(processes)
        total = sum(pss_bytes(process.pid) for process in processes) * count // measured
        return Readers(count, measured, total, sum(pss_bytes(pid) for pid in servers))
