"""Pheon's live map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.live.peers.base import MissingError, Peer, Place

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from benches.live import data


class Pheon(Peer):
    title = "Pheon"
    how = "LiveMap(..., name=...)"
    native_increment = "d.increment(key, 1)"
    waiting = "d.wait()"
    modules = ("pheon", "pheon._live")

    def version(self) -> str:
        try:
            import pheon
        except ImportError as why:
            raise MissingError("the Python package pheon is not installed") from why
        if not hasattr(pheon, "LiveMap"):
            raise MissingError(f"pheon {pheon.__version__} has no LiveMap")
        return pheon.__version__  # where it runs from a source tree nothing is installed under its name

    def create(self, handle: Place, entries: dict[str, data.Value]) -> None:
        import pheon

        self.map = pheon.LiveMap(entries, name=handle.name, create=True)

    def attach(self, handle: Place, *, writers: int = 0) -> None:
        import pheon

        self.map = pheon.LiveMap(name=handle.name, create=False)

    def close(self) -> None:
        self.map.close()

    def unlink(self) -> None:
        self.map.unlink()

    def fetch(self, keys: list[str]) -> list[Any]:
        return self.map.get_many(keys)

    def lock(self) -> AbstractContextManager[Any]:
        return self.map.lock

    def increment(self, key: str, amount: int) -> None:
        self.map.increment(key, amount)

    def add_nested(self) -> None:
        self.map["nested"]["n"] += 1

    def wait(self, timeout: float) -> None:
        self.map.wait(timeout=timeout)
