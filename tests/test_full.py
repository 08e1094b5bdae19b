"""No room, wherever it is needed: full file systems, and limits of inodes, descriptors and the length of files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from killing import LONG

PREFIX = ["unshare", "--mount", "--propagation", "private"]
# The image is mounted through a loop device, which only some machines have.
PROBES = {
    "shm": "mount -t tmpfs -o size=64k none /mnt",
    "names": "mount -t tmpfs -o size=64k none /mnt",
    "ext4": "truncate -s 4M image && mkfs.ext4 -q image && mount -o loop image /mnt",
}


def check_mounts(kind: str, scratch: Path) -> None:
    """Skips the test where such a file system cannot be made."""
    if kind not in PROBES:
        return
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: no mount name space of our own")
    if kind == "ext4" and shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    probe = subprocess.run(
        [*PREFIX, "sh", "-c", PROBES[kind]], check=False, capture_output=True, text=True, cwd=scratch
    )
    (scratch / "image").unlink(missing_ok=True)
    if probe.returncode != 0:
        pytest.skip(f"only who may mount can make a small file system: {probe.stderr.strip()}")


@pytest.mark.timeout(3600 if LONG else 300, method="thread")
@pytest.mark.parametrize("kind", ["shm", "descriptors", *(["ext4", "names", "sizes"] if LONG else [])])
def test_full_at_every_point(kind: str, tmp_path: Path, memory_path: Path) -> None:
    """A signal that ends the process is SIGBUS: space that was mapped before it was reserved."""
    check_mounts(kind, tmp_path)
    script = Path(__file__).with_name("full_children.py")
    # Limits are those of the process: on any file system, so on one where syncing costs nothing.
    scratch = tmp_path if kind in PROBES else memory_path
    prefix = PREFIX if kind in PROBES else []
    command = [*prefix, sys.executable, str(script), kind, str(scratch), "fine" if LONG else "short"]
    # Before the mark's time is over, so that it does not go on without anybody.
    limit = 3500 if LONG else 280
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    print(done.stdout)
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    # Names and descriptors are counted in ones, space in pages.
    least = (50 if kind in {"names", "descriptors"} else 200) if LONG else 10
    assert int(done.stdout.split()[-1]) > least, "too few attempts were refused"
