"""The power goes while a store on a real ext4 or xfs is written: what was acknowledged is there after the next mount.

A file system in a file is mounted through a loop device, a process writes at random, and the kernel is told to shut the
file system down without writing anything more, journal included: ext4's and xfs' own test for power cuts. Seeds are
printed and PHEON_SEED repeats a run as far as time allows; PHEON_POWER_CUTS says how many cuts there are for each file
system. Needs root.
"""

import errno
import fcntl
import gc
import itertools
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import power_children as children
import pytest
from killing import LONG, SERVER, START_SECONDS_MAX

import pheon

CUTS = int(os.environ.get("PHEON_POWER_CUTS", "100" if LONG else "2"))
LIFETIME_SECONDS_MAX = 0.6
# _IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN.
SHUTDOWN = 0x8004587D
# The journal is written first, or nothing at all.
LOG_FLUSH, NO_LOG_FLUSH = 1, 2
IMAGE_BYTES = {"ext4": 128 << 20, "xfs": 320 << 20}
BOOT_OFFSET = 32


def _run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, timeout=START_SECONDS_MAX)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


class Disk:
    """A file system in a file."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.image, self.mount_point = kind, folder / "image", folder / "mount"
        self.mount_point.mkdir()
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES[kind])
        _run(f"mkfs.{kind}", "-q", self.image)

    def mount(self) -> None:
        _run("mount", "-t", self.kind, "-o", "loop", self.image, self.mount_point)

    def cut(self, flush: int) -> None:
        descriptor = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, flush.to_bytes(4, "little"))
        finally:
            os.close(descriptor)

    def _is_mounted(self) -> bool:
        # Not `os.path.ismount`: a file system that was shut down answers nothing.
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        return str(self.mount_point) in {line.split()[1] for line in mounts}

    def unmount(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._is_mounted():
            try:
                # Not `-l`: a file system that is still in use is not gone.
                _run("umount", self.mount_point)
            except RuntimeError:
                assert time.monotonic() < deadline, "the file system stays busy"
                time.sleep(0.05)
        # Where another process has a copy of all mounts, the file system is still the one that was shut down.
        while _run("losetup", "--associated", self.image):
            assert time.monotonic() < deadline, "another process holds the file system"
            time.sleep(0.05)


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    kind = request.param
    if os.geteuid() != 0:
        pytest.skip("power cuts need root, who may mount")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"power cuts on {kind} need mkfs.{kind}")
    try:
        made = Disk(kind, tmp_path)
        made.mount()
    except RuntimeError as error:
        pytest.skip(f"power cuts need a loop device and {kind}: {error}")
    try:
        yield made
    finally:
        made.unmount()


def _boot(store: Path) -> None:
    """Live maps are of an earlier boot."""
    for control in store.glob(".live/*/CTRL"):
        with control.open("r+b") as file:
            file.seek(BOOT_OFFSET)
            file.write(b"\t" * 16)


def _next(store: pheon.Store, number: int) -> None:
    """The next writer clears away what the cut left."""
    if "m" in store:
        store.compact("m", keep=1)
        store.gc("m", keep=1)
        names = sorted(path.name for path in Path(store.path, "m").iterdir())
        assert len(names) == 3, f"cut {number} left {names}"
        assert names[0] == "LOCK"
    else:
        # Of one that was being dropped something may be left: whoever collects another one takes it away.
        store.put_map("other", {"a": 1})
        store.gc("other")
        store.drop("other")
    assert [path.name for path in Path(store.path).glob(".tmp-*")] == []
    assert [path.name for path in Path(store.path).glob(".live/.tmp-*")] == []


@pytest.mark.timeout(280 + 10 * CUTS, method="thread")
def test_power_cuts(disk: Disk, tmp_path: Path, rng: random.Random) -> None:
    path = disk.mount_point / "store"
    state: children.State = (None, {}, {})
    done_in_all = cut_in_the_midst = older = 0
    for number in itertools.count():
        # A slow disk takes more of them until enough was acknowledged.
        if number >= CUTS and done_in_all >= CUTS:
            break
        assert number < 10 * CUTS, "too few steps were acknowledged"
        seed = rng.getrandbits(32)
        log = tmp_path / "told"
        told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        child = SERVER.Process(target=_child, args=(path, seed, state, str(log)), daemon=True)
        child.start()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not log.read_bytes():
            assert child.is_alive(), f"cut {number}: the writer ended with {child.exitcode}"
            assert time.monotonic() < deadline, "the writer does not start"
            time.sleep(0.001)
        time.sleep(rng.random() * LIFETIME_SECONDS_MAX)
        assert child.is_alive(), f"cut {number}: the writer ended with {child.exitcode} after {log.read_text()[-40:]!r}"
        disk.cut(rng.choice((LOG_FLUSH, NO_LOG_FLUSH, NO_LOG_FLUSH)))
        # It may be waiting for pages that will never come.
        child.kill()
        child.join()
        os.close(told)
        # What was opened to look at the disk is closed.
        gc.collect()
        disk.unmount()
        disk.mount()
        _boot(path)

        lines = log.read_text().split("\n")[1:-1]
        done = [int(line.split()[1]) for line in lines if line.startswith("done")]
        begun = [int(line.split()[1]) for line in lines if line.startswith("begin")]
        steps = list(zip(range(len(begun)), children.plan(seed, state), strict=False))
        states = [state, *(after for _, (_, _, after, _) in steps)]
        acknowledged = len(done)
        durable_from = max([0, *(i + 1 for i, (_, _, _, synced) in steps[:acknowledged] if synced)])
        allowed = states[acknowledged : acknowledged + 2]
        what = f"cut {number}, seed {seed}, {acknowledged} steps done, then {[s[0] for _, s in steps[acknowledged:]]}"

        store = pheon.open(path)
        rows, live, durable = children.found(store)
        assert any(rows == after[0] for after in allowed), f"{what}: {_difference(rows, allowed[0][0])}"
        assert any(durable == after[2] for after in allowed), f"{what}: {_difference(durable, allowed[0][2])}"
        assert any(live == after[1] for after in states[durable_from : acknowledged + 2]), what
        there = {info.version for info in store.versions("m")} if "m" in store else set()
        listed = [[int(word) for word in line.split()[2:]] for line in lines if line.startswith("done")]
        # Only these take versions away.
        if listed and not {step for _, (step, *_) in steps[acknowledged:]} & {"gc", "compact", "drop"}:
            assert set(listed[-1]) <= there, f"{what}: versions {listed[-1]} were there, now {sorted(there)}"
        # Which step made a version, and so what it must hold.
        made: dict[int, children.Rows | None] = {}
        for after, versions in zip(states[1:], listed, strict=False):
            if not versions:
                made.clear()
            elif versions[-1] not in made:
                made[versions[-1]] = after[0]
        for version in there:
            rows_then = dict(store.map("m", version=version).items())
            assert version not in made or rows_then == made[version], f"{what}: version {version}"
            older += version in made and version != max(there)
        if rows is not None:
            report = store.verify("m")
            assert report.ok, f"{what}: {report.problems}"
        _next(store, number)
        state = (rows, live, durable)
        done_in_all += acknowledged
        cut_in_the_midst += len(begun) > acknowledged
    print(
        f"{disk.kind}: {number} cuts, {cut_in_the_midst} in the midst of a step, {done_in_all} acknowledged steps, "
        f"{older} older versions compared"
    )
    assert min(cut_in_the_midst, older) > 0 or not LONG


def _child(path: Path, seed: int, state: children.State, log: str) -> None:
    children.write(path, seed, state, os.open(log, os.O_WRONLY | os.O_APPEND))


def _difference(one: dict | None, other: dict | None) -> str:
    if one is None or other is None:
        return f"found {one and len(one)} entries, expected {other and len(other)}"
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return f"{len(one)} entries, expected {len(other)}, {len(keys)} differ: {sorted(keys)[:5]}"


def test_the_shutdown_takes_what_was_not_synced(disk: Disk) -> None:
    """Else nothing here tests anything."""
    synced, lost = disk.mount_point / "synced", disk.mount_point / "lost"
    with synced.open("wb") as file:
        file.write(b"x" * 10_000)
        os.fsync(file.fileno())
    folder = os.open(disk.mount_point, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    lost.write_bytes(b"x" * 10_000)
    disk.cut(NO_LOG_FLUSH)
    with pytest.raises(OSError, match="Input/output") as failed:
        (disk.mount_point / "more").write_bytes(b"x")
    assert failed.value.errno == errno.EIO
    disk.unmount()
    disk.mount()
    assert synced.read_bytes() == b"x" * 10_000
    assert not lost.exists()
