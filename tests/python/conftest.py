"""Fixtures that all Python tests share."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def live() -> Iterator[pheon.LiveMap]:
    made = pheon.LiveMap(name=f"test-{uuid.uuid4().hex}", create=True)
    yield made
    pheon.LiveMap.unlink_by_name(made.name, ignore_missing=True)
