"""keyvi: a finite state automaton in a mapped file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.compare import data
from benches.compare.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa


class Keyvi(Peer):
    title = "keyvi"
    distribution = "keyvi"
    single = "dictionary.get(key).value"
    modules = ("keyvi.dictionary",)
    notes = "StringDictionaryCompiler with memory_limit_mb=1024"

    def build(self, table: pa.Table, place: Path) -> dict[str, float]:
        from keyvi.compiler import StringDictionaryCompiler

        temporary = place / "temporary"
        temporary.mkdir()
        compiler = StringDictionaryCompiler({"memory_limit_mb": "1024", "temporary_path": str(temporary)})
        add = compiler.add
        for keys, values in data.string_batches(table):
            for key, value in zip(keys, values, strict=True):
                add(key, value)
        compiler.compile()
        compiler.write_to_file(str(place / "map.kv"))
        return {}

    def size_bytes(self, place: Path) -> int | None:
        return (place / "map.kv").stat().st_size

    def open(self, place: Path) -> None:
        from keyvi.dictionary import Dictionary

        self.map = Dictionary(str(place / "map.kv"))

    def getter(self) -> Callable[[str], str | None]:
        lookup = self.map.get

        def get(key: str) -> str | None:
            match = lookup(key)
            return None if match is None else match.value

        return get


PEER = Keyvi()
