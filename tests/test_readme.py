"""The README's code runs as it stands: Python blocks in order in one program, `pheon` commands in the same folder."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

import pheon

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(README.read_text())


def python_code() -> str:
    """All Python blocks; line numbers are those of the README."""
    text = README.read_text()
    lines = [""] * len(text.splitlines())
    for match in BLOCK.finditer(text):
        if match[1] in ("python", "py"):
            first = text.count("\n", 0, match.start(2))
            code = match[2].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def commands() -> list[list[str]]:
    """The `pheon` commands of all other blocks."""
    lines = [
        line.removeprefix("$ ").strip()
        for kind, block in _blocks()
        if kind not in ("python", "py", "rust")
        for line in block.splitlines()
    ]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("pheon ")]


ADDRESS = "127.0.0.1:8815"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """`pheon serve mystore` as the README says, on a port that is free; where it listens."""
    pheon.open(folder / "mystore").close()
    command = [sys.executable, "-m", "pheon", "serve", "mystore", "--listen", "127.0.0.1:0", "--log", "warn"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            yield server.stderr.readline().rpartition("//")[2].strip()
        finally:
            server.terminate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the files that the README's commands read."""
    table = pa.table({"path": ["usr/bin/env", "usr/bin/true"], "package": ["coreutils", "coreutils"]})
    pyarrow.parquet.write_table(table, tmp_path / "packages.parquet")
    return tmp_path


@pytest.mark.timeout(150, method="thread")
def test_the_code_runs(folder: Path) -> None:
    code = python_code()
    assert "pheon.open" in code
    assert "put_map" in code
    assert ADDRESS in code
    with serving(folder) as address:
        (folder / "README.py").write_text(code.replace(ADDRESS, address))
        done = subprocess.run(
            [sys.executable, "README.py"], cwd=folder, check=False, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr

    environment = os.environ | {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}
    lines = commands()
    assert lines, "the README shows the command"
    for command in lines:
        done = subprocess.run(
            command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (command, done.stderr)
        if command[1] == "get":
            assert "coreutils" in done.stdout, (command, done.stdout)


def test_wrong_code_would_be_noticed(folder: Path) -> None:
    code = python_code().replace('m["lazy"] == "idle"', 'm["lazy"] == "busy"', 1)
    assert code != python_code()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


def test_files_that_it_names_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
