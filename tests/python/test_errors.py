"""Every error: its class, what it derives from, and what its message tells."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest
from store_files import leftovers

import pheon

HIERARCHY = {
    pheon.NotFoundError: KeyError,
    pheon.DuplicateKeyError: pheon.Error,
    pheon.SchemaError: TypeError,
    pheon.CorruptError: pheon.Error,
    pheon.LockTimeout: TimeoutError,
    pheon.CopyRequiredError: pheon.Error,
    pheon.ClosedError: ValueError,
    pheon.StoreFullError: OSError,
}


@pytest.mark.parametrize("error", HIERARCHY)
def test_bases(error: type[Exception]) -> None:
    assert issubclass(error, pheon.Error)
    assert issubclass(error, HIERARCHY[error])
    assert str(error("what happened")) == "what happened"
    copy = pickle.loads(pickle.dumps(error("what happened")))
    assert (type(copy), str(copy)) == (error, "what happened")


def test_a_missing_key_is_a_plain_key_error(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": 1})
    with pytest.raises(KeyError) as raised:
        m["b"]
    assert type(raised.value) is KeyError


def test_missing_datasets_and_versions(store: pheon.Store) -> None:
    store.put_map("m", {"a": 1})
    for call in (
        lambda: store.map("nope"),
        lambda: store.table("nope"),
        lambda: store.versions("nope"),
        lambda: store.drop("nope"),
        lambda: store.rollback("nope", 1),
        lambda: store.gc("nope"),
        lambda: store.compact("nope"),
        lambda: store.warm("nope"),
    ):
        with pytest.raises(pheon.NotFoundError, match="nope"):
            call()
    with pytest.raises(pheon.NotFoundError, match="version 7") as raised:
        store.map("m", 7)
    # Not KeyError's repr of the message.
    assert not str(raised.value).startswith(("'", '"\\'))
    with pytest.raises(pheon.NotFoundError, match="7"):
        store.rollback("m", 7)


def test_a_missing_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        pheon.open(tmp_path / "nope", read_only=True)
    assert "nope" in str(raised.value)
    assert not (tmp_path / "nope").exists()
    with pytest.raises(FileNotFoundError):
        pheon.open("shm://pheon-test-that-nobody-made", read_only=True)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "ü", "x" * 129, "a\0b", "a\nb"])
def test_names_that_are_none(store: pheon.Store, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    calls = [
        lambda: store.put_map(name, {"a": 1}),
        lambda: store.put(name, pa.table({"a": [1]})),
        lambda: store.map_writer(name),
        lambda: store.map(name),
        lambda: store.table(name),
        lambda: store.drop(name),
        lambda: store.gc(name),
        lambda: store.versions(name),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="dataset name"):
            call()
    assert name not in store
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "_", "A.b-c_9", "9", "x" * 128])
def test_names_at_the_edge(store: pheon.Store, name: str) -> None:
    store.put_map(name, {"a": 1})
    assert name in store


def test_read_only(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {"a": 1})
    reader = pheon.open(store_path, read_only=True)
    assert reader.read_only
    for call in (
        lambda: reader.put_map("m", {"a": 2}),
        lambda: reader.put_map("m", pa.table({"k": ["a"]}), key="k"),
        lambda: reader.put("t", pa.table({"k": ["a"]})),
        lambda: reader.map_writer("m"),
        lambda: reader.drop("m"),
        lambda: reader.rollback("m", 1),
        lambda: reader.gc(),
        lambda: reader.compact("m"),
    ):
        with pytest.raises(ValueError, match="read-only"):
            call()
    assert reader.map("m") == {"a": 1}
    assert reader.verify("m")


def test_closed(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": 1})
    t = m.table()
    assert not store.closed
    store.close()
    store.close()
    assert store.closed
    for call in (
        lambda: list(store),
        lambda: "m" in store,
        lambda: store.map("m"),
        lambda: store.put_map("m", {}),
        lambda: store.map_writer("m"),
        lambda: store.put("t", pa.table({"a": [1]})),
        lambda: store.versions("m"),
        lambda: store.memory(),
    ):
        with pytest.raises(pheon.ClosedError, match="closed"):
            call()
    assert m["a"] == 1
    assert m.refresh() is False
    assert len(t) == 1
    assert "closed" in repr(store)
    with pheon.open(store.path) as again:
        assert "m" in again
    assert again.closed


def test_a_directory_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((ValueError, OSError)):
        pheon.open(tmp_path)
    with pytest.raises(OSError, match="file"):
        pheon.open(tmp_path / "file")
    with pytest.raises(ValueError, match="shm|name"):
        pheon.open("shm://../etc")


def test_permission_denied_is_an_os_error(store: pheon.Store, store_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root is denied nothing")
    store.put_map("m", {"a": 1})
    store_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError) as raised:
            store.put_map("n", {"a": 1})
        assert raised.value.errno == 13
    finally:
        store_path.chmod(0o700)


def test_missing_and_bad_input_files(store: pheon.Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nope"):
        store.put_map("m", tmp_path / "nope.parquet", key="k")
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"not parquet at all")
    with pytest.raises(pheon.Error, match="bad.parquet"):
        store.put_map("m", bad, key="k")
    unknown = tmp_path / "data.xyz"
    unknown.write_text("x")
    with pytest.raises((pheon.Error, ValueError), match="data.xyz"):
        store.put_map("m", unknown, key="k")
    assert list(store) == []


def segment_file(store_path: Path, name: str) -> Path:
    (found,) = store_path.glob(f"*/seg-*/{name}")
    return found


def damage(path: Path, offset: int, data: bytes) -> None:
    path.chmod(0o600)
    with path.open("r+b") as f:
        f.seek(offset)
        f.write(data)


def test_truncated_files(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {f"{i}": i for i in range(5000)})
    for name in ("data.arrow", "index.arrow"):
        path = segment_file(store_path, name)
        whole = path.read_bytes()
        for size in (0, 10, len(whole) // 2, len(whole) - 1):
            path.chmod(0o600)
            path.write_bytes(whole[:size])
            with pytest.raises(pheon.CorruptError, match=name):
                store.map("m")["5"]
        path.write_bytes(whole)
    assert store.map("m")["5"] == 5
    manifest = next(store_path.glob("m/manifest-*.json"))
    damage(manifest, 20, b"X")
    with pytest.raises(pheon.CorruptError, match="manifest"):
        store.map("m")
    marker = store_path / "pheon.json"
    damage(marker, 5, b"X")
    with pytest.raises(pheon.CorruptError, match=r"pheon\.json"):
        pheon.open(store_path)


def test_flipped_text_is_an_error_not_a_crash(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {"key": "x" * 100})
    path = segment_file(store_path, "data.arrow")
    at = path.read_bytes().index(b"x" * 100)
    damage(path, at + 50, b"\xff")
    m = store.map("m")
    for read in (
        lambda: m["key"],
        lambda: m.get("key"),
        lambda: m.get_many(["key"]),
        lambda: m.get_many(pa.array(["key"])),
        lambda: dict(m),
        lambda: m.table().to_pyarrow(),
        lambda: m.table()["value"],
        lambda: m.table()[0],
    ):
        with pytest.raises(pheon.CorruptError, match="UTF-8|utf-8|valid"):
            read()
    report = store.verify("m")
    assert not report
    assert report.problem_count >= 1
    assert "data.arrow" in report.problems[0]


def test_lock_timeout_names_the_holder(store: pheon.Store, store_path: Path) -> None:
    code = f"""
        import sys, pheon, pyarrow as pa
        with pheon.open({str(store_path)!r}).map_writer("m") as w:
            w.write(pa.table({{"key": ["a"], "value": [1]}}))
            print("holding", flush=True)
            sys.stdin.read()
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(pheon.LockTimeout, match=f"process {holder.pid}"):
            store.put_map("m", {"b": 2}, lock_timeout=0.2)
        with pytest.raises(TimeoutError):
            store.put_map("m", iter([("b", 2)]), lock_timeout=0)
    finally:
        holder.communicate("done", timeout=60)
    assert holder.returncode == 0
    assert store.map("m") == {"a": 1}
    assert store.put_map("m", {"b": 2}, lock_timeout=0.2) == {"b": 2}


def test_a_second_writer_in_this_process_times_out_too(store: pheon.Store) -> None:
    with store.map_writer("m") as w:
        w.write(pa.table({"key": ["a"], "value": [1]}))
        with pytest.raises(pheon.LockTimeout, match="m"):
            store.put_map("m", {"b": 2}, lock_timeout=0.1)
        store.put_map("other", {"b": 2}, lock_timeout=0.1)


def test_file_size_limit_is_store_full(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {"old": "value"})
    code = f"""
        import resource, signal, pheon
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            pheon.open({str(store_path)!r}).put_map("m", {{i: "x" * 100 for i in range(100_000)}})
        except pheon.StoreFullError as e:
            assert isinstance(e, OSError)
            assert e.errno in (27, 28), e.errno
            assert e.__cause__ is not None
            print(e)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=120
    )
    assert "no space or quota" in done.stdout
    assert store.map("m") == {"old": "value"}
    assert leftovers(store_path) == []


@pytest.mark.skipif(shutil.which("prlimit") is None and not hasattr(resource, "RLIMIT_AS"), reason="no RLIMIT_AS here")
def test_opening_needs_no_committed_memory(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", dict.fromkeys(range(200000), "x" * 200))
    code = f"""
        import resource, pheon
        m = pheon.open({str(store_path)!r}, read_only=True).map("m")
        resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))
        again = pheon.open({str(store_path)!r}, read_only=True).map("m")
        print(again[7] == m[7] == "x" * 200)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "True\n"


def test_causes_are_chained(store: pheon.Store, tmp_path: Path) -> None:
    target = tmp_path / "not a directory"
    target.write_text("x")
    with pytest.raises(OSError, match="not a directory") as raised:
        pheon.open(target / "store")
    assert raised.value.errno == 20
    assert isinstance(raised.value.__cause__, OSError)
