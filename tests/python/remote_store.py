"""A store at a real server, for tests of its client: the `store` fixture of other test modules, over the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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


def adopt(mine: dict[str, Any], modules: tuple[ModuleType, ...], local_only: dict[str, str]) -> None:
    """Takes the tests of `modules`, and the fixtures that they need besides the store, into a module's globals.

    `local_only` names tests that cannot hold over the network, each with the reason.
    """
    left = set(local_only)
    for module in modules:
        for name, item in vars(module).items():
            if name in local_only:
                left.discard(name)
            elif name.startswith("test_") and callable(item):
                mine[f"{name}__{module.__name__.removeprefix('test_')}"] = item
            elif type(item).__name__ == "FixtureFunctionDefinition":
                assert name not in mine, f"two modules have a fixture {name!r}"
                mine[name] = item
    assert not left, f"there are no tests {left}"
