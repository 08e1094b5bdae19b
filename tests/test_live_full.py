"""A full /dev/shm: writes say so, reads go on, nothing is lost, and no signal ends a process."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import pheon

other = pheon.LiveMap({"filler": "x" * 1_000_000}, name="other")
d = pheon.LiveMap({"first": [0]}, name="full")
written = {"first": [0]}
failures = 0
for i in range(2000):
    try:
        d[i] = "x" * 5000
        written[i] = "x" * 5000
    except pheon.StoreFullError as error:
        assert error.errno == 28, error
        failures += 1
        if failures == 20:
            break
assert failures == 20
assert d == written, "what was acknowledged is there, and nothing else"
try:
    d.update({f"batch {i}": "x" * 100_000 for i in range(50)})
    raise SystemExit("a batch larger than the disk was accepted")
except pheon.StoreFullError:
    pass
assert d == written
assert pheon.LiveMap(name="full", create=False)[5] == "x" * 5000
try:
    pheon.LiveMap({"a": "x" * 100_000}, name="third", create=True)
    raise SystemExit("a third map was made")
except pheon.StoreFullError:
    pass
assert pheon.LiveMap.list_names() == ["full", "other"]
other.unlink()
del other
d["there is room again"] = 1
d.update({i: "y" for i in range(500)})
assert d[0] == "y" and d["first"] == [0]
print("survived")
"""


def test_writes_fail_and_reads_go_on() -> None:
    script = f"mount -t tmpfs -o size=6m none /dev/shm && exec {sys.executable} -c '{SCRIPT}'"
    try:
        probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m none /dev/shm"]
        subprocess.run(probe, check=True, timeout=60, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only who may mount can make /dev/shm small: {error}")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr[-3000:]
