"""UltraDict and its maintained fork UltraDict2: a dict in each process, changes streamed through shared memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from benches.live import data
from benches.live.peers.base import MEMORY, MissingError, Peer, Place

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

DUMP_NAME = slice(20, 275)  # of the control file, both versions: the file of the last dump of the whole dict
NESTED_BYTES = 1 << 20


class UltraDict2(Peer):
    title = "UltraDict2"
    distribution = "UltraDict2"
    module: ClassVar[str] = "UltraDict2"
    memory_divide = 10
    how = (
        "shared_lock=True, which processes that are not forked need; buffer_size so large that no measured write dumps "
        "the whole dict (the default of 10,000 bytes dumps it every hundred writes or so); maps that are not measured "
        "while they are made are made with one dump; nested dicts with recurse=True"
    )

    def version(self) -> str:
        found = super().version()
        try:
            self.load()
        except ImportError as why:
            raise MissingError(f"{self.title} {found} cannot be imported: {why}") from why
        return found

    def load(self) -> None:
        self.kind = import_module(self.module).UltraDict

    def create(self, handle: Place, entries: dict[str, data.Value]) -> None:
        self.load()
        self.map = self.kind(
            entries,
            name=handle.name,
            create=True,
            shared_lock=True,
            buffer_size=handle.writes_bytes,
            auto_unlink=False,
        )

    def fill(self, handle: Place, place: Place) -> None:
        self.create(handle, {})
        for part in data.filling(place.size, place.shape):
            self.map.data.update(part)
        self.map.dump()

    def attach(self, handle: Place, *, writers: int = 0) -> None:
        self.load()
        self.map = self.kind(name=handle.name, create=False, shared_lock=True, auto_unlink=False)

    def close(self) -> None:
        self.map.close()

    def unlink(self) -> None:
        for each in (self.map, getattr(self, "outer", None)):
            if each is not None:
                each.close(unlink=True)

    def fetch(self, keys: list[str]) -> list[Any]:
        self.map.apply_update()
        return [self.map.data.get(key) for key in keys]

    def lock(self) -> AbstractContextManager[Any]:
        return self.map.lock

    def nest(self, handle: Place) -> None:
        self.outer = self.kind(
            name=f"{handle.name}-outer", create=True, shared_lock=True, buffer_size=NESTED_BYTES, recurse=True
        )
        self.outer["nested"] = {"n": 0}

    def add_nested(self) -> None:
        self.outer["nested"]["n"] += 1

    def nested(self) -> int:
        return self.outer["nested"]["n"]


class UltraDict(UltraDict2):
    title = "UltraDict"
    distribution = "UltraDict"
    module = "UltraDict"
    how = "like UltraDict2"


def dump_names(name: str) -> list[str]:
    """Files in /dev/shm that hold dumps of this map; their names are in its control file."""
    try:
        said = (MEMORY / name).read_bytes()[DUMP_NAME]
    except (FileNotFoundError, IsADirectoryError):
        return []
    found = said.decode("ascii", "replace").strip("\0 ")
    return [found] if found.startswith(("psm_", name)) else []
