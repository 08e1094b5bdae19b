"""The peers by name."""

from __future__ import annotations

from importlib import import_module

from benches.live.peers.base import Peer

# name -> module and class
PEERS = {
    "pheon": "benches.live.peers.pheon_live:Pheon",
    "ultradict2": "benches.live.peers.ultra:UltraDict2",
    "ultradict": "benches.live.peers.ultra:UltraDict",
    "manager": "benches.live.peers.manager:Manager",
    "redis": "benches.live.peers.redis_server:Redis",
    "shared-memory-dict": "benches.live.peers.shm_dict:SharedMemoryDict",
    "dict": "benches.live.peers.plain:Plain",
}


def find(name: str) -> Peer:
    """A new adapter of a peer; a name with a colon is a module and a class."""
    module, _, kind = PEERS.get(name, name).partition(":")
    return getattr(import_module(module), kind)()
