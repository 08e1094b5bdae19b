"""Servers of our own, on loopback, each on a port that was free; they end with their block."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benches.live.peers.base import MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS_MAX = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, and its process."""

    port: int
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """Of user and system, since it started."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def private_bytes(self) -> int:
        """Resident memory without what lies in files that others share too."""
        resident, shared = Path(f"/proc/{self.pid}/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * PAGE_BYTES

    @property
    def connections(self) -> int:
        """Sockets it has open, without that which listens."""
        sockets = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                sockets += os.readlink(entry).startswith("socket:")
        return sockets - 1


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise MissingError(f"the Python module {module} is not installed")


@contextmanager
def _running(command: list[str], port: int, *, user: str | None = None) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, user=user, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError as why:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not listen on port {port}") from why
                time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def pheon(command: str, store: Path) -> Iterator[Server]:
    """`pheon serve`."""
    port = free_port()
    with _running(
        [*shlex.split(command), "serve", str(store), "--listen", f"127.0.0.1:{port}", "--log", "warn"], port
    ) as server:
        yield server


@contextmanager
def arrow(file: Path) -> Iterator[Server]:
    """The C++ Flight server of pyarrow, over a mapped Arrow file."""
    port = free_port()
    with _running([sys.executable, "-m", "benches.remote.arrow_server", str(file), str(port)], port) as server:
        yield server


@contextmanager
def redis(folder: Path) -> Iterator[Server]:
    """Redis over TCP; nothing is saved.

    Raises:
        MissingError: it is not installed.
    """
    if shutil.which("redis-server") is None:
        raise MissingError("the program redis-server is not installed")
    _require("redis")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _running([*command, "--dir", str(folder), "--daemonize", "no"], port) as server:
        yield server


@contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """PostgreSQL with a cluster of its own; it does not run as root.

    Raises:
        MissingError: it is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise MissingError("the PostgreSQL server is not installed")
    _require("adbc_driver_postgresql")
    bin_folder, cluster = found[-1].parent, folder / "cluster"
    user = "postgres" if os.geteuid() == 0 else None
    cluster.mkdir()
    if user is not None:
        shutil.chown(cluster, user)
        for above in (folder, folder.parent):  # the last one is a temporary folder, for its owner only
            above.chmod(0o755)
    make = [str(bin_folder / "initdb"), "-D", str(cluster), "-A", "trust", "-U", "bench", "--no-sync"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, user=user, cwd="/")
    port = free_port()
    command = [str(found[-1]), "-D", str(cluster), "-p", str(port), "-h", "127.0.0.1", "-k", str(cluster)]
    with _running([*command, "-c", "shared_buffers=1GB", "-c", "fsync=off"], port, user=user) as server:
        yield server
