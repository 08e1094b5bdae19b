"""`Store.memory` and `Store.warm`: what the kernel says, in this process and in others."""

from __future__ import annotations

import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import pheon

NOBODY = 65534
ROWS = 1_500_000  # two columns of 12 MB


@pytest.fixture(params=["disk", "memory"])
def big(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[pheon.Store]:
    """A store with a keyless table of some 2 MiB pages."""
    path = str(tmp_path / "store") if request.param == "disk" else f"shm://test-{uuid.uuid4().hex}"
    with pheon.open(path) as store:
        store.put("t", pa.table({"a": range(ROWS), "b": [0.5] * ROWS}))
        place = folder(store)
        yield store
    if request.param == "memory":
        shutil.rmtree(place)


def folder(store: pheon.Store) -> str:
    return os.path.dirname(store.table("t").info().path)


def kernel_bytes(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def child(code: str, *args: str, user: int | None = None) -> str:
    """What a Python process prints; `user`: whose rights it takes first, if this process may give them."""
    code = textwrap.dedent(code)
    if user is not None:
        # Loaded before the rights are given up, and open to itself in /proc again (PR_SET_DUMPABLE) afterwards.
        start = "import ctypes, os, resource, pheon; [getattr(pheon, name) for name in pheon.__all__]"
        start += f"; os.setgroups([]); os.setgid({user}); os.setuid({user})"
        code = f"{start}; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n{code}"
    done = subprocess.run([sys.executable, "-c", code, *args], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_memory_of_an_open_table(big: pheon.Store) -> None:
    before = big.memory()["t"]
    assert before.name == "t"
    assert before.mapped_by_processes == 0
    assert before.process_pss_bytes == before.process_private_bytes == before.process_page_table_bytes == 0
    assert 16 * ROWS <= before.on_disk_bytes <= before.file_bytes + (1 << 16)  # less where files have holes
    assert before.file_bytes > 16 * ROWS
    table = big.table("t")
    assert pa.table(table).num_rows == ROWS
    now = big.memory()["t"]
    assert now.mapped_by_processes == 1
    assert 0 < now.process_private_bytes <= now.process_pss_bytes <= now.file_bytes + 4096
    tables = now.process_page_table_bytes
    assert tables is not None
    assert tables <= now.process_page_table_total_bytes
    assert tables + now.huge_bytes > 0
    assert re.search(r"t version 1: \d+\.\d MiB on disk, .* mapped by 1 process; here .*PSS", str(now))
    assert str(now) in repr(now)


def test_two_processes_share(big: pheon.Store) -> None:
    table = big.table("t")
    assert big.warm("t").file_bytes > 0
    assert sum(pa.table(table)["b"].to_pylist()[:10]) == 5
    alone = big.memory()["t"]
    code = """
        import sys, pheon
        store = pheon.open(sys.argv[1])
        table = store.table("t")
        import pyarrow as pa, pyarrow.compute as pc
        assert pc.sum(pa.table(table)["b"]).as_py() > 0
        one, all = store.memory()["t"], store.memory(all_processes=True)["t"]
        assert one.process_pss_bytes < all.process_pss_bytes <= all.file_bytes + 4096, (one, all)
        assert one.process_page_table_total_bytes < all.process_page_table_total_bytes, (one, all)
        print(one.mapped_by_processes, all.mapped_by_processes)
    """
    assert child(code, big.path).split() == ["2", "2"]
    assert big.memory()["t"].mapped_by_processes == alone.mapped_by_processes == 1


def test_warm_after_the_cache_was_dropped(tmp_path: Path) -> None:
    store = pheon.open(tmp_path / "store")
    store.put("t", pa.table({"a": range(ROWS)}))
    for path in (tmp_path / "store").rglob("*.arrow"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    report = store.warm("t", huge=False)
    assert report.resident_before_bytes is not None
    assert report.resident_before_bytes < report.file_bytes / 2
    assert report.resident_bytes == report.file_bytes
    assert report.huge_refusal is None
    assert report.seconds > 0
    assert "in memory (before: " in str(report)
    assert store.warm("t", huge=False).resident_before_bytes == report.file_bytes


def test_large_pages_are_told_honestly(big: pheon.Store) -> None:
    report = big.warm("t")
    assert report.huge_bytes % (2 << 20) == 0
    assert report.huge_bytes <= report.file_bytes
    # All whole pieces of 2 MiB, or a reason.
    assert report.huge_refusal is not None or report.huge_bytes > report.file_bytes - (4 << 20)


def test_lock_until_closed(tmp_path: Path) -> None:
    store = pheon.open(tmp_path / "store")
    store.put_map("m", {str(i): i for i in range(1000)})
    before = kernel_bytes("VmLck")
    report = store.warm("m", lock=True)
    if os.geteuid() != 0 and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == 0:
        assert report.lock_refusal is not None
        return
    assert report.lock_refusal is None
    assert report.locked_bytes == report.file_bytes
    assert kernel_bytes("VmLck") >= before + report.file_bytes
    store.close()
    assert kernel_bytes("VmLck") == before


REFUSED = """
    import resource, sys, pheon
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[2]), int(sys.argv[2])))
    store = pheon.open(sys.argv[1])
    store.put_map("m", {str(i): i for i in range(20_000)})
    report = store.warm("m", lock=True)
    assert report.locked_bytes == 0, report
    assert report.lock_refusal is not None and f"RLIMIT_MEMLOCK is {sys.argv[2]} bytes" in report.lock_refusal, report
    assert report.lock_refusal in str(report), report
    assert "VmLck:\\t       0 kB" in open("/proc/self/status").read()
    assert store.map("m")["7"] == 7
"""


@pytest.mark.parametrize("limit", [0, 64 << 10])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_refused_lock_is_a_report(limit: int, place: str) -> None:
    user = NOBODY if os.geteuid() == 0 else None  # root may lock beyond every limit
    folder = Path(f"/dev/shm/test-{uuid.uuid4().hex}" if place == "memory" else f"/tmp/test-{uuid.uuid4().hex}")
    folder.mkdir()
    try:
        folder.chmod(0o777)
        child(REFUSED, str(folder / "store"), str(limit), user=user)
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's rights")
def test_another_user_is_not_told_what_is_resident() -> None:
    folder = Path(f"/dev/shm/test-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o755)
    try:
        store = pheon.open(folder / "store")
        store.put_map("m", {"a": 1})
        for path in (folder / "store").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o444)
        (folder / "store").chmod(0o755)
        code = """
            import sys, pheon
            store = pheon.open(sys.argv[1], read_only=True)
            memory, warm = store.memory()["m"], store.warm("m")
            assert memory.resident_bytes is None and memory.file_bytes > 0, memory
            assert warm.resident_bytes is None and warm.resident_before_bytes is None, warm
            print(memory)
        """
        assert "? of" in child(code, str(folder / "store"), user=NOBODY)
        assert store.memory()["m"].resident_bytes == store.memory()["m"].file_bytes
    finally:
        shutil.rmtree(folder)


def test_access_is_decided_at_opening_or_by_the_caller(tmp_path: Path) -> None:
    store = pheon.open(tmp_path / "store")
    numbers = {f"key {i}": f"value {i}" for i in range(5_000)}
    assert store.put_map("m", numbers).info().access == "memory"  # it fits
    assert store.access == "auto"
    random = pheon.open(tmp_path / "store", access="random")
    m = random.map("m")
    assert (random.access, m.info().access) == ("random", "random")
    assert pickle.loads(pickle.dumps(m)).info().access == "random"
    assert pickle.loads(pickle.dumps(random)).access == "random"
    assert dict(m) == numbers
    assert m.get_many([*numbers, "absent"]) == [*numbers.values(), None]
    assert m.range("key 10", "key 100").num_rows == 1  # "key 10" itself; "key 100" is the stop
    assert m.range("key 1000", "key 2").num_rows == sum("key 1000" <= key < "key 2" for key in numbers)
    assert m.range("absent", "key 3").num_rows == sum(key < "key 3" for key in numbers)
    assert m.prefix("key 49").num_rows == 111
    assert random.memory()["m"].access == "random"
    assert random.warm("m").access == "random"
    assert store.warm("m").access == "memory"
    with pytest.raises(ValueError, match='access: expected "auto", "memory" or "random", got "fast"'):
        pheon.open(tmp_path / "store", access="fast")  # type: ignore[arg-type]
