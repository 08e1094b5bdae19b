"""What holds for a store of this machine holds for one at a server: the tests of maps and tables, run over Flight.

A test that cannot hold there is named in `LOCAL_ONLY`, with the reason.
"""

from __future__ import annotations

from types import ModuleType

import test_composite_keys
import test_lazy
import test_loc
import test_map
from remote_store import shared_server, store, store_path

__all__ = ["shared_server", "store", "store_path"]

MODULES: tuple[ModuleType, ...] = (test_map, test_composite_keys, test_loc, test_lazy)

LOCAL_ONLY = {
    "test_numbers_share_the_mapping": "what comes over the network is a copy",
    "test_it_stays_on_its_version_when_the_store_closes": "closing ends the connection",
}


def _adopt() -> None:
    """Takes the tests, and the fixtures that they need besides the store, into this module."""
    mine = globals()
    for module in MODULES:
        for name, item in vars(module).items():
            if name.startswith("test_") and callable(item) and name not in LOCAL_ONLY:
                mine[f"{name}__{module.__name__.removeprefix('test_')}"] = item
            elif type(item).__name__ == "FixtureFunctionDefinition":
                assert name not in mine, f"two modules have a fixture {name!r}"
                mine[name] = item


_adopt()


def test_the_exceptions_exist() -> None:
    unknown = [name for name in LOCAL_ONLY if not any(hasattr(module, name) for module in MODULES)]
    assert unknown == []
