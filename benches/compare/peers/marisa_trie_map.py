"""marisa-trie: a compressed trie in a mapped file, values within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.compare import data
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa


class Marisa(Peer):
    title = "marisa-trie"
    distribution = "marisa-trie"
    single = "trie.get(key)[0].decode()"
    modules = ("marisa_trie",)
    notes = "BytesTrie, mapped"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        from marisa_trie import BytesTrie

        def pairs() -> Iterator[tuple[str, bytes]]:
            for keys, values in data.string_batches(table):
                for key, value in zip(keys, values, strict=True):
                    yield key, value.encode()

        BytesTrie(pairs()).save(str(place / "map.marisa"))
        return {}

    def open(self, place: Path) -> None:
        from marisa_trie import BytesTrie

        self.map = BytesTrie().mmap(str(place / "map.marisa"))

    def getter(self) -> Callable[[str], str | None]:
        lookup = self.map.get

        def get(key: str) -> str | None:
            values = lookup(key)
            return None if values is None else values[0].decode()

        return get


PEER = Marisa()
