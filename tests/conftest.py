"""What all tests share: the path to the reader of the format, and a watchdog against hangs."""

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

WATCHDOG_SECONDS_DEFAULT = 300


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "watchdog(seconds): ends the run with all stacks if the test takes longer")


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs ends the run with the stacks of all its threads instead of blocking it for ever."""
    marker = request.node.get_closest_marker("watchdog")
    seconds = marker.args[0] if marker else WATCHDOG_SECONDS_DEFAULT
    # pytest replaces sys.stderr by something without a descriptor.
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
