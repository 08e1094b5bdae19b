"""The console script: the command of cargo's binary, run inside the interpreter's process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

import pheon
from pheon import _cli
from pheon._native import run_cli


def pheon_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pheon", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_build_list_get(store_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "words.csv"
    source.write_text("word,synonym\nquick,fast\nlazy,idle\n")
    built = pheon_command("build", str(store_path), "words", str(source), "--key", "word")
    assert built.returncode == 0, built.stderr
    assert pheon.open(store_path).map("words") == {"quick": "fast", "lazy": "idle"}
    listed = pheon_command("ls", str(store_path), "--json")
    assert json.loads(listed.stdout)[0]["name"] == "words"
    got = pheon_command("get", str(store_path), "words", "lazy")
    assert (got.returncode, "idle" in got.stdout) == (0, True)


def test_exit_codes(store: pheon.Store) -> None:
    store.put_map("m", {"a": 1})
    missing = pheon_command("get", store.path, "m", "nope")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "nope" in missing.stderr
    assert len(missing.stderr.strip().splitlines()) == 1
    assert pheon_command("nonsense").returncode == 2
    assert pheon_command("--help").returncode == 0


def test_the_command_runs_in_this_process(store: pheon.Store, capfd: pytest.CaptureFixture[str]) -> None:
    store.put_map("m", {"a": 1})
    assert run_cli(["pheon", "get", store.path, "m", "a"]) == 0
    assert "1" in capfd.readouterr().out


def test_ctrl_c_ends_the_command(store: pheon.Store, tmp_path: Path) -> None:
    source = tmp_path / "words.csv"
    source.write_text("key,value\na,1\n")
    with store.map_writer("m") as w:
        w.write(pa.table({"key": ["held"], "value": [1]}))
        # It waits for the lock that is held here.
        running = subprocess.Popen(
            [sys.executable, "-m", "pheon", "build", store.path, "m", str(source), "--key", "key"],
            stderr=subprocess.PIPE,
        )
        while "_native" not in Path(f"/proc/{running.pid}/maps").read_text():
            time.sleep(0.02)
        time.sleep(1)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)
        assert running.returncode in (-signal.SIGINT, 130)
    assert store.map("m") == {"held": 1}


def test_ctrl_c_has_its_default_meaning_while_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def look(arguments: list[str]) -> int:
        seen.extend([arguments, signal.getsignal(signal.SIGINT)])
        return 7

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(_cli, "run_cli", look)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pheon", "ls", "x"])
    try:
        assert _cli.main() == 7
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [["pheon", "ls", "x"], signal.SIG_DFL]
