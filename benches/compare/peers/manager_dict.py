"""multiprocessing.Manager().dict(): a dict in a server process, asked through a unix socket."""

from __future__ import annotations

from contextlib import contextmanager
from multiprocessing.managers import DictProxy, SyncManager
from typing import TYPE_CHECKING, Any

from benches.compare import data
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

AUTHKEY = b"a benchmark on a private socket"
_shared: dict[str, str] = {}


def _the_dict() -> dict[str, str]:
    return _shared


class Shared(SyncManager):
    """A manager that hands the same dict to every process that connects."""


Shared.register("the_dict", callable=_the_dict, proxytype=DictProxy)


class ManagerDict(Peer):
    title = "multiprocessing.Manager().dict()"
    has_server = True
    single_count = 20_000
    single = "proxy.get(key)"
    reader_count = 20_000
    notes = (
        "20,000 lookups a process where memory is measured; update() with 65,536 pairs a call; opening is connecting; "
        "server on the other core"
    )

    @contextmanager
    def serving(self, place: Path) -> Iterator[list[int]]:
        manager = Shared(address=str(_socket(place)), authkey=AUTHKEY)
        manager.start()
        server: Any = manager
        try:
            yield [server._process.pid]  # noqa: SLF001 - there is no public way to learn it
        finally:
            manager.shutdown()

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        proxy = _connect(place)
        proxy.clear()
        for keys, values in data.string_batches(table):
            proxy.update(dict(zip(keys, values, strict=True)))
        return {}

    def size_bytes(self, place: Path) -> int | None:
        return None

    def open(self, place: Path) -> None:
        self.map = _connect(place)

    def getter(self) -> Callable[[str], str | None]:
        return self.map.get


def _socket(place: Path) -> Path:
    return place / "manager.sock"


def _connect(place: Path) -> Any:
    import multiprocessing

    # The proxy opens further connections with the key of its own process.
    multiprocessing.current_process().authkey = AUTHKEY
    manager: Any = Shared(address=str(_socket(place)), authkey=AUTHKEY)
    manager.connect()
    return manager.the_dict()


PEER = ManagerDict()
