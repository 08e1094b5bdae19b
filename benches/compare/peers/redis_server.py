"""Redis on a unix socket: a server of our own, no port, nothing saved while it is measured."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benches.compare import data
from benches.compare.peers.base import MissingError, Peer, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

START_SECONDS_MAX = 10.0


class Redis(Peer):
    title = "Redis (unix socket)"
    distribution = "redis"
    has_server = True
    single_count = 50_000
    single = "GET"
    batch = "MGET of 1000"
    modules = ("redis",)
    notes = "MSET of 1000 into a running server; bytes are its RDB file; opening connects; server on the other core"

    def version(self) -> str:
        program = shutil.which("redis-server")
        if program is None:
            raise MissingError("the program redis-server is not installed")
        words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
        number = next(word.removeprefix("v=") for word in words if word.startswith("v="))
        return f"{number}, redis-py {super().version()}"

    @contextmanager
    def serving(self, place: Path) -> Iterator[list[int]]:
        command = ["redis-server", "--port", "0", "--unixsocket", str(_socket(place)), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(place), "--daemonize", "no"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = _client(place)
            _wait_for(client, server)
            yield [server.pid]
        finally:
            server.terminate()
            server.wait(timeout=60)

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        client = _client(place)
        client.flushall()
        for keys, values in data.string_batches(table, rows=1000):
            client.mset(dict(zip(keys, values, strict=True)))
        return {}

    def size_bytes(self, place: Path) -> int | None:
        _client(place).save()
        return (place / "dump.rdb").stat().st_size

    def open(self, place: Path) -> None:
        self.client = _client(place)
        self.client.ping()

    def getter(self) -> Callable[[str], str | None]:
        return self.client.get

    def lookup_batch(self, keys: list[str]) -> list[str | None]:
        found: list[str | None] = []
        for part in slices(keys):
            found += self.client.mget(part)
        return found

    def lookup_all(self, keys: list[str]) -> list[str | None] | None:
        return self.lookup_batch(keys)


def _socket(place: Path) -> Path:
    return place / "redis.sock"


def _client(place: Path) -> Any:
    import redis

    return redis.Redis(unix_socket_path=str(_socket(place)), decode_responses=True, socket_timeout=600)


def _wait_for(client: Any, server: subprocess.Popen[bytes]) -> None:
    import redis

    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


PEER = Redis()
