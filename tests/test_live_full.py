"""A full file system under live maps: writes say so, reads go on, nothing is lost, and no signal ends a process."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import pheon

if sys.argv[1] == "/dev/shm":
    open_map, list_names = (lambda name, create=None: pheon.LiveMap(name=name, create=create)), pheon.LiveMap.list_names
else:
    store = pheon.open(sys.argv[1] + "/store")
    open_map, list_names = store.live, store.live_names
other = open_map("other")
other["filler"] = "x" * 1_000_000
d = open_map("full")
d["first"] = [0]
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
assert open_map("full", create=False)[5] == "x" * 5000
try:
    open_map("third", create=True)["a"] = "x" * 100_000
    raise SystemExit("a third map was made")
except pheon.StoreFullError:
    pass
if "third" in list_names():
    open_map("third").unlink()
assert list_names() == ["full", "other"]
assert d == written
other.unlink()
del other
d["there is room again"] = 1
d.update({i: "y" for i in range(500)})
assert d[0] == "y" and d["first"] == [0]
print("survived")
"""


@pytest.mark.parametrize("kind", ["memory", "store"])
def test_writes_fail_and_reads_go_on(kind: str, tmp_path: Path) -> None:
    folder = "/dev/shm" if kind == "memory" else str(tmp_path)
    script = f"mount -t tmpfs -o size=6m none {folder} && exec {sys.executable} -c '{SCRIPT}' {folder}"
    try:
        probe = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size=1m none {folder}"]
        subprocess.run(probe, check=True, timeout=60, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only who may mount can make a small file system: {error}")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr[-3000:]
