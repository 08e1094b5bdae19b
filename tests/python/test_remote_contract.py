"""What holds for a store of this machine holds for one at a server: the tests of maps and tables, run over Flight.

A test that cannot hold there is named in `LOCAL_ONLY`, with the reason.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import test_composite_keys
import test_lazy
import test_loc
import test_map
from remote_store import shared_server, store, store_path

__all__ = ["shared_server", "store", "store_path"]

MODULES: tuple[ModuleType, ...] = (test_map, test_composite_keys, test_loc, test_lazy)

LOCAL_ONLY: dict[str, str] = {}


def _adopt() -> None:
    """Takes the tests, and the fixtures that they need besides the store, into this module."""
    mine = globals()
    for module in MODULES:
        for name, item in vars(module).items():
            is_fixture = type(item).__name__ == "FixtureFunctionDefinition"
            if name.startswith("test_") and callable(item) and name not in LOCAL_ONLY:
                adopted = f"{name}__{module.__name__.removeprefix('test_')}"
                mine[adopted] = item
            elif is_fixture and name not in mine:
                mine[name] = item


def _unknown() -> list[str]:
    return [name for name in LOCAL_ONLY if not any(hasattr(module, name) for module in MODULES)]


_adopt()


def test_the_exceptions_exist() -> None:
    assert _unknown() == []
    assert all(reason for reason in LOCAL_ONLY.values())


_: Any = None
