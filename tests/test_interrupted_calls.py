"""Signals interrupt system calls (EINTR): whatever POSIX lets be interrupted is made again, and nobody notices.

strace makes every second call of a process, or those of STEPS, return EINTR without doing anything. Skipped where there
is none, or where it may not be attached to another process.
"""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CALLS = ("fsync", "msync", "fchmod", "fallocate", "pwrite64", "openat", "getdents64", "read")
# Not made everywhere.
PERHAPS = ("fdatasync", "ftruncate", "pread64")
# What takes several calls is done again as a whole: to list a folder, or to remove one. That must come to an end.
STEPS = {"getdents64": 20}
WAIT_SECONDS_MAX = 120

CODE = """\
import os, sys
import pheon

path = sys.argv[1]
store = pheon.open(path)
store.put_map("warm", {"a": 1})
store.append("warm", {"b": 2})
live = store.live("warm")
live["a"] = b"1"
live.sync()


def interrupted(name):
    try:
        with store.map_writer(name, resume=True) as writer:
            with writer.part("part 0") as part:
                part.put("x", 1)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def parts(name):
    interrupted(name)
    with store.map_writer(name, resume=True) as writer:
        assert writer.part("part 0").finished
        with writer.part("part 1") as part:
            part.put("y", 2)
    assert dict(store.map(name).items()) == {"x": 1, "y": 2}


parts("warm-parts")
print("ready", flush=True)
sys.stdin.readline()

store = pheon.open(path)
content = {f"key {i}": i for i in range(5000)}
store.put_map("m", content)
store.append("m", {"more": 1})
store.upsert("m", {"more": 2, "key 7": -7})
store.delete("m", ["key 8"])
version = store.put_map("m", {"other": 1}).version
store.rollback("m", version - 1)
store.compact("m", keep=1)
parts("parts")
store.gc("m")
live = store.live("live", durable=True)
for i in range(30):
    live[f"key {i}"] = bytes(5000)
live.sync()
# A larger index, more chunks, and chunks that are dropped.
plain = store.live("plain")
plain.update({f"key {i}": i for i in range(2000)})
for i in range(40):
    plain["large"] = bytes(500_000)
plain.sync()
assert len(plain) == 2001 and plain.info()["chunks"] < 20
content |= {"more": 2, "key 7": -7}
del content["key 8"]
assert dict(store.map("m").items()) == content
assert len(live) == 30
assert store.verify("m").ok
store.drop("warm")
live.unlink()
print("done", flush=True)
"""


@pytest.mark.timeout(WAIT_SECONDS_MAX * 2)
def test_interrupted_calls_are_made_again(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("interrupting system calls needs strace")
    command = [sys.executable, "-c", textwrap.dedent(CODE), str(tmp_path / "store")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log, errors = tmp_path / "strace", tmp_path / "strace-errors"
    with child, errors.open("w") as told:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.communicate(timeout=WAIT_SECONDS_MAX)
            calls = [*CALLS, *PERHAPS]
            inject = [f"--inject={call}:error=EINTR:when=1+{STEPS.get(call, 2)}" for call in calls]
            tracer = subprocess.Popen(
                [strace, "-f", "-o", str(log), f"--trace={','.join(calls)}", *inject, "-p", str(child.pid)], stderr=told
            )
            while "attached" not in (text := errors.read_text()):
                if tracer.poll() is not None:
                    pytest.skip(f"strace may not be attached here: {text}")
            out, err = child.communicate("go\n", timeout=WAIT_SECONDS_MAX)
            tracer.wait(timeout=WAIT_SECONDS_MAX)
        finally:
            child.kill()
    assert out == "done\n", err
    lines = log.read_text().splitlines()
    interrupted = {call: sum(f"{call}(" in line and "INJECTED" in line for line in lines) for call in calls}
    print(interrupted)
    assert all(interrupted[call] > 2 for call in CALLS), interrupted
