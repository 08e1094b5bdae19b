"""One file a peer, one class in it. The order here is the order in the report."""

from __future__ import annotations

from importlib import import_module

from benches.compare.peers.base import Peer

# name -> module in this folder; each module defines PEER, an instance of Peer.
MODULES = {
    "pheon": "pheon_map",
    "dict": "python_dict",
    "lmdb": "lmdb_map",
    "keyvi": "keyvi_dictionary",
    "marisa": "marisa_trie_map",
    "rocksdict": "rocks",
    "redis": "redis_server",
    "manager": "manager_dict",
    "polars": "polars_join",
    "duckdb": "duckdb_join",
    "pyarrow": "arrow_index_in",
}


def find(name: str) -> Peer:
    """The peer of that name. Its library is loaded only when it is used."""
    if name == "bare":
        return Bare()
    peer = import_module(f"benches.compare.peers.{MODULES[name]}").PEER
    assert isinstance(peer, Peer)
    return peer


class Bare(Peer):
    """No map at all: what an interpreter with this harness and its questions costs by itself."""

    title = "bare interpreter"

    def build(self, table: object, place: object) -> dict[str, float]:
        raise NotImplementedError("nothing is built")

    def open(self, place: object) -> None:
        pass

    def lookup_all(self, keys: list[str]) -> list[str | None] | None:
        return None
