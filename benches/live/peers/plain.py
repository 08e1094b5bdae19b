"""A dict: the ceiling, in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.live.peers.base import Peer

if TYPE_CHECKING:
    from benches.live import data


class Plain(Peer):
    title = "dict (one process, not shared)"
    shared = False
    how = "the ceiling: what Python itself takes"

    def create(self, handle: Any, entries: dict[str, data.Value]) -> None:
        self.map = {**entries}

    def attach(self, handle: Any, *, writers: int = 0) -> None:
        raise NotImplementedError(self.title)

    def add_nested(self) -> None:
        self.map["nested"]["n"] += 1
