"""A store at a real server, for tests of its client: the `store` fixture of other test modules, over the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flight_server import FlightServer

import pheon


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FlightServer, Path]]:
    """One server for all tests of a module."""
    path = tmp_path_factory.mktemp("served") / "store"
    pheon.open(path).close()
    with FlightServer(path) as running:
        yield running, path


@pytest.fixture
def store_path(shared_server: tuple[FlightServer, Path]) -> Path:
    """Where the server's store is on this machine."""
    return shared_server[1]


@pytest.fixture
def store(shared_server: tuple[FlightServer, Path]) -> Iterator[pheon.RemoteStore]:
    """The server's store, empty, and never read from its files."""
    server, path = shared_server
    with pheon.open(path) as served:
        for name in served:
            served.drop(name)
    with pheon.connect(server.location, local=False) as connected:
        yield connected
