"""Every numbered example runs, and checks what it shows; the demo does so on a small part of its data."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"))


def run(script: Path, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples() -> None:
    assert len(NUMBERED) >= 6


@pytest.mark.parametrize("script", NUMBERED, ids=lambda script: script.stem)
def test_example(script: Path) -> None:
    assert run(script)


def test_demo(tmp_path: Path) -> None:
    # Lines of text files are on every machine; fetching Debian's index is no job of a test.
    arguments = ["--data", "lines", "--entries", "20000", "--workers", "2", "--lookups", "5000"]
    printed = run(EXAMPLES / "demo.py", "--folder", str(tmp_path), *arguments)
    assert "answers  30,000 compared with a Python dict's: all right" in printed
