"""A published file that is cut while it is read: what docs/safety.md says of it, and no more harm than that."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pheon

ROWS = 30_000
LAST = f"key {ROWS - 1:08}"


@pytest.fixture
def store(memory_path: Path) -> pheon.Store:
    opened = pheon.open(memory_path / "store")
    keys = pa.array([f"key {i:08}" for i in range(ROWS)])
    for name in ("cut", "whole"):
        opened.put(name, pa.table({"k": keys, "v": pa.array(range(ROWS))}), key="k", unique=True)
    return opened


def files(store: pheon.Store, name: str) -> list[Path]:
    found = sorted(Path(store.path, name).glob("seg-*/*.arrow"))
    for path in found:
        path.chmod(0o600)
    return found


def read_on(store: pheon.Store, told: Any) -> None:
    m, other = store.map("cut"), store.map("whole")
    told.send("mapped")
    told.recv()
    assert other[LAST] == ROWS - 1
    told.send(m[LAST])


def test_a_reader_ends_by_the_signal_and_others_go_on(store: pheon.Store) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=read_on, args=(store, theirs))
    child.start()
    theirs.close()
    whole = store.map("whole")
    assert ours.recv() == "mapped"
    for path in files(store, "cut"):
        os.truncate(path, 4096)
    ours.send("go on")
    with pytest.raises((EOFError, ConnectionResetError)):
        ours.recv()
    child.join()
    assert child.exitcode == -signal.SIGBUS
    assert whole.get_many(["key 00000000", LAST]) == [0, ROWS - 1]
    with pytest.raises(pheon.CorruptError, match=r"expected \d+ bytes, found 4096"):
        store.map("cut")
    assert not store.verify("cut").ok
    assert store.verify("whole").ok


def test_a_refresh_that_goes_on_with_a_cut_file_is_told(store: pheon.Store) -> None:
    m = store.map("cut")
    assert not m.refresh()
    [data, _] = files(store, "cut")
    good = data.read_bytes()
    store.append("cut", {"key 99999999": 1}, compact=False)
    os.truncate(data, 4096)
    with pytest.raises(pheon.CorruptError, match=r"data\.arrow.*found 4096"):
        m.refresh()
    # It stays on what it was, for those who know better; restored, it goes on.
    data.write_bytes(good)
    assert m.refresh()
    assert m["key 99999999"] == 1


def test_the_command_says_why_it_ends(store: pheon.Store) -> None:
    command = [sys.executable, "-m", "pheon", "scan", str(store.path), "cut"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as scan:
        assert scan.stdout is not None
        assert scan.stderr is not None
        assert b"key 00000" in scan.stdout.read(100)
        for path in files(store, "cut"):
            os.truncate(path, 4096)
        rest = scan.stdout.read()
        told = scan.stderr.read()
    assert scan.returncode == -signal.SIGBUS
    assert b"pheon: SIGBUS: a file that was being read was truncated" in told
    assert LAST.encode() not in rest


def test_python_says_where_if_it_is_asked_to(store: pheon.Store) -> None:
    program = f"""
        import os, pathlib, pheon
        m = pheon.open({store.path!r}, read_only=True).map("cut")
        for path in pathlib.Path({store.path!r}).glob("cut/seg-*/*.arrow"):
            path.chmod(0o600)
            os.truncate(path, 4096)
        m[{LAST!r}]  # this line
    """
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGBUS
    assert b"Fatal Python error: Bus error" in ended.stderr
    assert b'File "<string>", line 7' in ended.stderr
