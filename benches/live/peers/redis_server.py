"""Redis on a unix socket: a server of our own, no port, nothing saved."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.live import data
from benches.live.peers.base import MissingError, Peer, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

START_SECONDS_MAX = 10.0
LOCK_PAUSE_SECONDS = 0.001
CHANGES = "changes"


class Redis(Peer):
    title = "Redis (unix socket)"
    distribution = "redis"
    how = (
        "GET, SET and MSET, without hiredis; the lock is redis-py's, which polls, every "
        f"{LOCK_PAUSE_SECONDS * 1e3:.0f} ms here; nested numbers are fields of a hash (HINCRBY); waiting is publish "
        "and subscribe"
    )
    native_increment = "INCRBY"
    waiting = "subscribe"
    modules = ("redis",)
    memory_reads = 10_000
    _server: int | None = None

    def version(self) -> str:
        program = shutil.which("redis-server")
        if program is None:
            raise MissingError("the program redis-server is not installed")
        words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
        number = next(word.removeprefix("v=") for word in words if word.startswith("v="))
        return f"{number}, redis-py {super().version()}"

    @contextmanager
    def serving(self, place: Place) -> Iterator[Any]:
        command = ["redis-server", "--port", "0", "--unixsocket", str(_socket(place)), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--dir", place.folder, "--daemonize", "no"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_for(_client(place), server)
            self._server = server.pid
            yield place
        finally:
            server.terminate()
            server.wait(timeout=60)

    @property
    def servers(self) -> list[int]:
        return [] if self._server is None else [self._server]

    def create(self, handle: Place, entries: dict[str, data.Value]) -> None:
        self.attach(handle)
        pairs = list(entries.items())
        for first in range(0, len(pairs), data.BATCH):
            self.update(dict(pairs[first : first + data.BATCH]))

    def attach(self, handle: Place, *, writers: int = 0) -> None:
        self.map = _client(handle)
        self.map.ping()
        # Redis has strings only.
        self._decode: Callable[[Any], Any] = int if handle.shape == data.INT else _same
        self._subscription: Any = None

    def close(self) -> None:
        self.map.close()

    def read(self, keys: list[str]) -> list[Any]:
        get, decode = self.map.get, self._decode
        if decode is _same:
            return [get(key) for key in keys]
        return [decode(get(key)) for key in keys]

    def fetch(self, keys: list[str]) -> list[Any]:
        found: list[Any] = []
        for first in range(0, len(keys), data.BATCH):
            found += self.map.mget(keys[first : first + data.BATCH])
        return [None if value is None else self._decode(value) for value in found]

    def count(self) -> int:
        return self.map.dbsize()

    def write(self, pairs: Iterable[data.Pair]) -> None:
        put = self.map.set
        for key, value in pairs:
            put(key, value)

    def update(self, entries: dict[str, data.Value]) -> None:
        self.map.mset(entries)

    def lock(self) -> AbstractContextManager[Any]:
        return self.map.lock("lock", sleep=LOCK_PAUSE_SECONDS)

    def add(self, key: str, amount: int) -> None:
        with self.lock():
            self.map.set(key, int(self.map.get(key)) + amount)

    def increment(self, key: str, amount: int) -> None:
        self.map.incrby(key, amount)

    def nest(self, handle: Place) -> None:
        self.map.hset("nested", "n", 0)

    def add_nested(self) -> None:
        self.map.hincrby("nested", "n", 1)

    def nested(self) -> int:
        return int(self.map.hget("nested", "n"))

    def notify(self, key: str, value: int) -> None:
        self.map.set(key, value)
        self.map.publish(CHANGES, key)

    def wait(self, timeout: float) -> None:
        if self._subscription is None:
            self._subscription = self.map.pubsub(ignore_subscribe_messages=True)
            self._subscription.subscribe(CHANGES)
        self._subscription.get_message(timeout=timeout)


def _same(value: Any) -> Any:
    return value


def _socket(place: Place) -> Path:
    return Path(place.folder) / "redis.sock"


def _client(place: Place) -> Any:
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
