"""Fixtures that all Python tests share."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flight_server import FlightServer

import pheon


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(store_path: Path) -> Iterator[pheon.Store]:
    with pheon.open(store_path) as opened:
        yield opened


@pytest.fixture
def shm_store() -> Iterator[pheon.Store]:
    name = f"test-{uuid.uuid4().hex}"
    opened = pheon.open(f"shm://{name}")
    directory = opened._handle.path
    yield opened
    opened.close()
    shutil.rmtree(directory)


@pytest.fixture
def make_live() -> Iterator[Callable[..., pheon.LiveMap]]:
    """Makes live maps with the limits that are given; they go away with the test."""
    made: list[pheon.LiveMap] = []

    def make(**limits: int) -> pheon.LiveMap:
        made.append(pheon.LiveMap(name=f"test-{uuid.uuid4().hex}", create=True, **limits))
        return made[-1]

    yield make
    for each in made:
        pheon.LiveMap.unlink_by_name(each.name, ignore_missing=True)


@pytest.fixture
def live(make_live: Callable[..., pheon.LiveMap]) -> pheon.LiveMap:
    return make_live()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlightServer]:
    """A server of a small store."""
    path = tmp_path_factory.mktemp("served") / "store"
    with pheon.open(path) as made:
        made.put_map("words", {"quick": "fast", "lazy": "idle"})
    with FlightServer(path) as running:
        yield running


@pytest.fixture
def remote(server: FlightServer) -> Iterator[pheon.RemoteStore]:
    """Its client, which sees no files."""
    with pheon.connect(server.location, local=False) as connected:
        yield connected
