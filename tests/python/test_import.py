"""What `import pheon` loads, and what comes when it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pheon

# Reads a map and a table; then uses what is loaded later. What was there before, the environment wanted.
READER = """
import json, sys
before = set(sys.modules)
import pheon
store = pheon.open(sys.argv[1], read_only=True)
m, t = store.map("m"), store.table("m")
assert m["b"] == 2 and m.get_many(["a", "x"]) == [1, None] and list(m) == ["a", "b"] and len(t) == 2
early = sorted(set(sys.modules) - before)
assert pheon.LiveMap.__module__ == "pheon._live" and callable(pheon.connect)
assert pheon.LiveMap is sys.modules["pheon._live"].LiveMap
assert m.info().rows == 2 and repr(t) and t.zero_copy_report()
print(json.dumps(early))
"""
LATER = ("_display", "_info", "_live", "_remote", "_zero_copy")
NAMES = """
import pheon
assert "LiveMap" not in vars(pheon)
assert set(pheon.__all__) <= set(dir(pheon)), set(pheon.__all__) - set(dir(pheon))
"""
STAR = """
from pheon import *
assert LiveMap.__name__ == "LiveMap" and connect.__name__ == "connect"
"""


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_readers_load_only_what_they_need(tmp_path: Path) -> None:
    pheon.open(tmp_path / "s").put_map("m", {"a": 1, "b": 2})
    loaded = set(json.loads(run(READER, str(tmp_path / "s"))))
    assert "pheon._map" in loaded
    assert not loaded & {
        "ssl",
        "inspect",
        "dataclasses",
        "fractions",
        "asyncio",
        "pyarrow",
        "numpy",
        "pandas",
        "polars",
    }
    assert not [name for name in loaded if name.startswith(tuple(f"pheon.{module}" for module in LATER))]


@pytest.mark.parametrize("program", [NAMES, STAR], ids=["dir", "star"])
def test_names_that_come_later_are_listed(program: str) -> None:
    run(program)


def test_every_name_is_there() -> None:
    for name in pheon.__all__:
        assert getattr(pheon, name) is not None, name
    with pytest.raises(AttributeError, match="module 'pheon' has no attribute 'nothing'"):
        pheon.nothing  # type: ignore[attr-defined]  # noqa: B018
