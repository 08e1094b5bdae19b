"""The path to the reader of the format, and a folder in memory for tests that write a lot."""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where syncing costs nothing; on disk if there is no /dev/shm."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="pheon-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Dice that PHEON_SEED throws again.

    Also kept as .pytest_cache/v/seed/<test>: of a test that hangs, what it printed is lost with its process.
    """
    seed = int(os.environ.get("PHEON_SEED", random.SystemRandom().randrange(1 << 32)))
    print("PHEON_SEED =", seed)
    cache = getattr(request.config, "cache", None)
    if cache is not None:
        cache.set(f"seed/{request.node.name.replace('/', '-')}", seed)
    return random.Random(seed)


@pytest.fixture
def processes() -> Iterator[list[BaseProcess]]:
    """Whatever a failing test leaves running is ended."""
    started: list[BaseProcess] = []
    yield started
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
