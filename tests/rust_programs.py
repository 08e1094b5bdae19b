"""The programs of the Rust tests, for scripts that run them one test at a time."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent


class Program(NamedTuple):
    """A program that `cargo test` has built, and the folder of its package, in which its tests expect to run."""

    target: str
    path: str
    folder: str


def run(*command: str | Path, folder: str | Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | env
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=given, capture_output=True, text=True, errors="replace", check=False
    )


def checked(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        sys.exit(f"{' '.join(done.args)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def programs(messages: Iterable[dict[str, Any]]) -> Iterator[Program]:
    """Those of the messages of `cargo test --no-run --message-format=json`."""
    for made in messages:
        if made["reason"] == "compiler-artifact" and made["executable"] and made["profile"]["test"]:
            yield Program(made["target"]["name"], made["executable"], str(Path(made["manifest_path"]).parent))


def names_of(program: Program, **env: str) -> list[str]:
    """Its tests, sorted, without those that only run when they are asked for."""

    def listed(*more: str) -> set[str]:
        command = (program.path, "--list", "--format", "terse", *more)
        lines = checked(run(*command, folder=program.folder, **env)).splitlines()
        return {line.removesuffix(": test") for line in lines if line.endswith(": test")}

    return sorted(listed() - listed("--ignored"))
