"""Limits of the machine and of names: full disks, quotas, little memory, other writers, hostile names, other users."""

import errno
import multiprocessing
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children
import pyarrow as pa
import pytest

import pheon

# Nothing here takes so long, on any machine: it guards against hanging.
JOIN_SECONDS_MAX = 120
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["__main__", "pheon"])

OLD = {f"key {i}": i for i in range(500)}
NEW = {f"key {i}": f"another value {i}" for i in range(20_000)}


def _snapshot(store: Path) -> dict[str, bytes]:
    """Every file but the lock, whose content is advisory."""
    files = (path for path in store.rglob("*") if path.is_file() and path.name != "LOCK")
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def _run_script(code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs code that imports this module's names in a fresh interpreter, since limits cannot be taken back."""
    header = f"""\
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_limits import *
from test_limits import _attempts_on_a_full_disk, _snapshot
"""
    command = [*prefix, sys.executable, "-c", header + textwrap.dedent(code), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


# Full disks ----------------------------------------------------------------------------------------------------------


def _attempts_on_a_full_disk(mount: Path) -> None:
    """Fills a disk to the last page but n, for many n, and tries to publish each time."""
    store = pheon.open(mount / "store")
    store.put_map("m", OLD)
    filler = mount / "filler"
    refused = accepted = 0
    for free_pages in [*range(24), *range(24, 700, 13)]:
        before = _snapshot(mount / "store")
        _fill(filler, mount, free_pages)
        for name in ("m", "fresh"):
            error = _put(store, name)
            if error is None:
                accepted += 1
                assert len(store.map(name)) == len(NEW)
                os.truncate(filler, 0)
                if name == "m":
                    store.rollback("m", store.versions("m")[0].version)
                    store.gc("m", keep=1)
                else:
                    store.drop("fresh")
                break
            refused += 1
            assert isinstance(error, OSError)
            assert error.errno in {errno.ENOSPC, errno.EDQUOT}, repr(error)
            assert str(mount / "store") in str(error), str(error)
            assert "no space or quota" in str(error), str(error)
            assert _snapshot(mount / "store") == before, f"changed with {free_pages} pages left"
            assert list(store) == ["m"]
            assert dict(store.map("m")) == OLD
        os.truncate(filler, 0)
        assert store.verify("m").ok
        assert not list((mount / "store").rglob(".tmp-*"))
    assert refused > 20, refused
    assert accepted > 2, accepted
    # And a store that cannot even be made.
    _fill(filler, mount, 0)
    with pytest.raises(pheon.StoreFullError, match="other"):
        pheon.open(mount / "other" / "store")
    os.truncate(filler, 0)
    pheon.open(mount / "other" / "store").put_map("m", OLD)
    print("refused", refused, "accepted", accepted)


def _put(store: pheon.Store, name: str) -> pheon.StoreFullError | None:
    """Tries to publish; what the store said if it is full."""
    try:
        store.put_map(name, NEW)
    except pheon.StoreFullError as error:
        return error
    return None


def _fill(filler: Path, mount: Path, free_pages: int) -> None:
    disk = os.statvfs(mount)
    with filler.open("wb") as file:
        for _ in range(disk.f_bavail - free_pages):
            file.write(b"\1" * disk.f_bsize)


def _unshare() -> tuple[str, ...] | None:
    """How to get a mount name space of our own; None where the system does not allow it."""
    if shutil.which("unshare") is None:
        return None
    for options in (("--mount",), ("--user", "--map-root-user", "--mount")):
        command = ("unshare", *options, "sh", "-c", "mount -t tmpfs -o size=64k none /mnt")
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return ("unshare", *options)
    return None


@pytest.mark.timeout(150, method="thread")
def test_a_full_disk(tmp_path: Path) -> None:
    prefix = _unshare()
    if prefix is None:
        pytest.skip("needs a mount name space: unshare is missing or not allowed here; RLIMIT_FSIZE is tested instead")
    code = """\
        import subprocess
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", sys.argv[1]], check=True)
        _attempts_on_a_full_disk(Path(sys.argv[1]))
        """
    done = _run_script(code, str(tmp_path), prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout


@pytest.mark.timeout(150, method="thread")
def test_a_file_size_limit(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a quota: the write that crosses it fails with EFBIG."""
    code = """\
        path = Path(sys.argv[1])
        store = pheon.open(path)
        store.put_map("m", OLD)
        before = _snapshot(path)
        refused = 0
        for limit in (0, 1, 100, 1000, 4096, 10_000, 65_536, 100_000, 200_000, 400_000, 500_000, 600_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                store.put_map("m", NEW)
            except pheon.StoreFullError as error:
                refused += 1
                assert "no space or quota" in str(error), error
                assert _snapshot(path) == before, limit
            else:
                largest = max(p.stat().st_size for p in path.rglob("*") if p.is_file())
                assert largest <= limit, (largest, limit)
                break
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.put_map("m", NEW)
        assert dict(store.map("m")) == NEW and store.verify("m").ok
        print("refused", refused)
        """
    done = _run_script(code, str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 5


def test_leftovers_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    """Also those that a machine left that lost its power."""
    store = pheon.open(tmp_path / "store")
    store.put_map("m", OLD)
    before = _snapshot(tmp_path / "store")
    for name in (".tmp-" + "a" * 32, "seg-" + "b" * 32):
        (tmp_path / "store" / "m" / name).mkdir()
        (tmp_path / "store" / "m" / name / "data.arrow").write_bytes(b"half")
    (tmp_path / "store" / "m" / (".tmp-" + "c" * 32 + ".json")).write_bytes(b"{")
    assert dict(store.map("m")) == OLD
    assert store.verify("m").ok
    report = store.gc("m")
    assert report.leftovers_removed == 2
    assert report.segments_removed == 1
    assert report.bytes_freed == 9
    assert _snapshot(tmp_path / "store") == before


# Two writers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A process that is writing, and the flag that lets it finish."""
    pheon.open(tmp_path / "store").put_map("m", {"old": "value"})
    held, release = _SERVER.RawValue("b"), _SERVER.RawValue("b")
    process = _SERVER.Process(target=children.hold_the_lock, args=(tmp_path / "store", held, release), daemon=True)
    process.start()
    deadline = time.monotonic() + JOIN_SECONDS_MAX
    while not held.value:
        assert time.monotonic() < deadline, "the writer does not start"
        time.sleep(0.005)
    yield process, release
    process.kill()
    process.join()


@pytest.mark.timeout(300, method="thread")
def test_a_second_writer_times_out_and_names_the_first(tmp_path: Path, holder: tuple[Any, Any]) -> None:
    process, _ = holder
    store = pheon.open(tmp_path / "store")
    began = time.monotonic()
    with pytest.raises(pheon.LockTimeout, match=rf"\b{process.pid}\b") as caught:
        store.put_map("m", {"new": "value"}, lock_timeout=0.3)
    assert time.monotonic() - began > 0.25
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, pheon.Error)
    assert "'m'" in str(caught.value).replace('"', "'")
    # Readers take no lock, and another dataset has its own.
    assert dict(store.map("m")) == {"old": "value"}
    assert store.verify("m").ok
    store.put_map("other", {"a": 1}, lock_timeout=0.3)


@pytest.mark.timeout(300, method="thread")
def test_a_second_writer_waits_for_the_first(tmp_path: Path, holder: tuple[Any, Any]) -> None:
    process, release = holder
    store = pheon.open(tmp_path / "store")
    threading.Timer(0.3, lambda: setattr(release, "value", 1)).start()
    store.put_map("m", {"new": "value"}, lock_timeout=JOIN_SECONDS_MAX)
    process.join(JOIN_SECONDS_MAX)
    assert process.exitcode == 0
    assert [len(store.map("m", version=n)) for n in (1, 2, 3)] == [1, 200_000, 1]


@pytest.mark.timeout(300, method="thread")
def test_a_killed_writer_frees_its_lock(tmp_path: Path, holder: tuple[Any, Any]) -> None:
    process, _ = holder
    process.kill()
    process.join()
    store = pheon.open(tmp_path / "store")
    store.put_map("m", {"new": "value"}, lock_timeout=2)
    assert dict(store.map("m")) == {"new": "value"}
    assert store.map("m").version == 2


@pytest.mark.timeout(300, method="thread")
def test_a_second_thread_is_told_so(tmp_path: Path) -> None:
    store = pheon.open(tmp_path / "store")
    with store.map_writer("m") as writer:
        writer.write(pa.table({"key": ["a"], "value": ["b"]}))
        with pytest.raises(pheon.LockTimeout, match="this process"):
            store.put_map("m", {"new": "value"}, lock_timeout=0.2)
    assert dict(store.map("m")) == {"a": "b"}


@pytest.mark.timeout(300, method="thread")
def test_many_writers_publish_one_after_the_other(tmp_path: Path) -> None:
    store = pheon.open(tmp_path / "store")
    store.put_map("m", {"writer": -1})
    writers = [_SERVER.Process(target=children.publish_five_times, args=(tmp_path / "store", n)) for n in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(JOIN_SECONDS_MAX)
    assert [writer.exitcode for writer in writers] == [0] * 6
    found = [store.map("m", version=v.version)["writer"] for v in store.versions("m")]
    assert sorted(found) == sorted([-1] + [n for n in range(6) for _ in range(5)])


# Little memory -------------------------------------------------------------------------------------------------------

BIG_ROWS = 400_000


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of more than 64 MiB."""
    path = tmp_path_factory.mktemp("big") / "store"
    numbers = pa.array(range(BIG_ROWS), pa.int64())
    keys = pa.array([f"{i:08}" for i in range(BIG_ROWS)])
    texts = pa.array([f"{i:08}" * 20 for i in range(BIG_ROWS)])
    pheon.open(path).put_map("m", pa.table({"key": keys, "value": texts, "n": numbers}), key="key", value="value")
    assert sum(p.stat().st_size for p in path.rglob("*.arrow")) > 64 << 20
    return path


@pytest.mark.timeout(300, method="thread")
def test_opening_commits_no_memory(big: Path) -> None:
    """RLIMIT_DATA counts private writable memory, as overcommit_memory=2 does: files of 64 MiB open within 16 MiB."""
    code = """\
        limit = next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith("VmData")) + (16 << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        m = pheon.open(sys.argv[1], read_only=True).map("m")
        assert all(m[f"{i:08}"] == f"{i:08}" * 20 for i in range(0, 400_000, 1000))
        assert m.get_many(["00000007", "nothing"]) == ["00000007" * 20, None]
        kinds, accountable = set(), []
        for line in open("/proc/self/smaps"):
            if "-" in line.split()[0]:
                mapped = line.rstrip().endswith(".arrow")
                if mapped:
                    kinds.add(line.split()[1])
            elif line.startswith("VmFlags") and mapped:
                accountable += [flag for flag in line.split() if flag == "ac"]
        assert kinds == {"r--s"} and not accountable, (kinds, accountable)
        """
    done = _run_script(code, str(big))
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300, method="thread")
@pytest.mark.parametrize("room_mib", [0, 16, 60, 300])
def test_little_address_space(big: Path, room_mib: int) -> None:
    """RLIMIT_AS counts mappings too: with too little the error is an OSError that names the file, never a crash."""
    code = """\
        used = next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith("VmSize"))
        limit = used + (int(sys.argv[2]) << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            m = pheon.open(sys.argv[1], read_only=True).map("m")
        except OSError as error:
            print("refused", error.errno, error)
        else:
            assert m["00000007"] == "00000007" * 20
            print("opened")
        """
    done = _run_script(code, str(big), str(room_mib))
    assert done.returncode == 0, done.stderr
    if room_mib == 300:
        assert done.stdout == "opened\n"
    else:
        assert re.match(r"refused 12 .*\.arrow", done.stdout), done.stdout


# Names ---------------------------------------------------------------------------------------------------------------

BAD_NAMES = [
    "", ".", "..", "/", "../escaped", "a/b", "a/../../escaped", "/tmp/escaped", ".hidden", ".tmp-x", "-x", "a b",
    "a\0b", "a\n", "\u00e9", "a\\b", "a:b", "*", "x" * 129, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_dataset_names(tmp_path: Path, name: str) -> None:
    store = pheon.open(tmp_path / "inside" / "store")
    store.put_map("m", {"a": 1})
    before = sorted(tmp_path.rglob("*"))
    calls = [
        lambda: store.put_map(name, {"a": 1}),
        lambda: store.put(name, pa.table({"a": [1]})),
        lambda: _write_one(store, name),
        lambda: store.map(name),
        lambda: store.table(name),
        lambda: store.drop(name),
        lambda: store.gc(name),
        lambda: store.versions(name),
        lambda: store.verify(name),
        lambda: store.rollback(name, 1),
        lambda: store.compact(name),
        lambda: store.warm(name),
    ]
    for run in calls:
        # Lone surrogates are refused before the name is looked at, also with a ValueError.
        message = "surrogates" if name == "\ud800" else "A-Za-z0-9_"
        with pytest.raises(ValueError, match=message):
            run()
    assert name == "\ud800" or name not in store
    assert sorted(tmp_path.rglob("*")) == before


def _write_one(store: pheon.Store, name: str) -> None:
    with store.map_writer(name) as writer:
        writer.put("a", 1)


@pytest.mark.parametrize("name", ["a", "_", "0", "a.b-c_D", "x" * 128, "LOCK", "seg-0", "manifest-000001.json", "CON"])
def test_good_dataset_names(tmp_path: Path, name: str) -> None:
    store = pheon.open(tmp_path / "store")
    assert dict(store.put_map(name, {"a": 1})) == {"a": 1}
    assert list(store) == [name]
    assert name in store
    assert store.verify(name).ok
    store.drop(name)
    assert list(store) == []


def test_the_markers_name_is_no_dataset(tmp_path: Path) -> None:
    store = pheon.open(tmp_path / "store")
    with pytest.raises((ValueError, OSError)):
        store.put_map("pheon.json", {"a": 1})
    assert list(pheon.open(tmp_path / "store")) == []


# Memory stores -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shm_name() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    folder = _shm_folder(name)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _shm_folder(name: str) -> Path:
    return Path(f"/dev/shm/pheon-{os.geteuid()}-{name}")


def test_a_memory_store_is_private(shm_name: str) -> None:
    old_mask = os.umask(0)
    try:
        store = pheon.open(f"shm://{shm_name}")
        store.put_map("m", {"a": 1})
    finally:
        os.umask(old_mask)
    folder = _shm_folder(shm_name)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.geteuid()
    assert dict(pheon.open(f"shm://{shm_name}", read_only=True).map("m")) == {"a": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.timeout(300, method="thread")
def test_another_user_cannot_read_it(shm_name: str) -> None:
    pheon.open(f"shm://{shm_name}").put_map("m", {"a": 1})
    child = _SERVER.Process(target=children.list_as_nobody, args=(_shm_folder(shm_name),))
    child.start()
    child.join(JOIN_SECONDS_MAX)
    assert child.exitcode == 13, "13: was refused; 0: could read"


@pytest.mark.parametrize("read_only", [False, True])
def test_a_memory_folder_open_to_others_is_refused(shm_name: str, read_only: bool) -> None:
    pheon.open(f"shm://{shm_name}")
    for mode in (0o755, 0o770, 0o701):
        _shm_folder(shm_name).chmod(mode)
        with pytest.raises(PermissionError, match=f"{mode:04o}"):
            pheon.open(f"shm://{shm_name}", read_only=read_only)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_memory_folder_of_somebody_else_is_refused(shm_name: str) -> None:
    pheon.open(f"shm://{shm_name}")
    os.chown(_shm_folder(shm_name), 65534, 65534)
    with pytest.raises(PermissionError, match="65534"):
        pheon.open(f"shm://{shm_name}")


def test_a_link_in_a_memory_stores_place_is_refused(shm_name: str, tmp_path: Path) -> None:
    pheon.open(tmp_path / "elsewhere")
    _shm_folder(shm_name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        pheon.open(f"shm://{shm_name}")
    assert os.listdir(tmp_path / "elsewhere") == ["pheon.json"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".x", "-x", "a b", "x" * 129])
def test_bad_memory_store_names(name: str) -> None:
    before = set(os.listdir("/dev/shm"))
    with pytest.raises((ValueError, OSError)):
        pheon.open(f"shm://{name}")
    assert set(os.listdir("/dev/shm")) - before == set()


# Places that are no store --------------------------------------------------------------------------------------------


def test_a_missing_store_is_not_made_when_only_reading(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="store"):
        pheon.open(tmp_path / "store", read_only=True)
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"letter\.txt"):
        pheon.open(tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_read_only_store_refuses_to_write(tmp_path: Path) -> None:
    pheon.open(tmp_path / "store").put_map("m", OLD)
    before = _snapshot(tmp_path / "store")
    store = pheon.open(tmp_path / "store", read_only=True)
    for write in (
        lambda: store.put_map("m", NEW),
        lambda: store.put("t", pa.table({"a": [1]})),
        lambda: _write_one(store, "m"),
        lambda: store.drop("m"),
        lambda: store.gc("m"),
        lambda: store.rollback("m", 1),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert _snapshot(tmp_path / "store") == before


def test_limits_of_this_process_are_as_they_were() -> None:
    """The tests above limit child processes, not this one."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
