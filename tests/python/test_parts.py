"""`MapWriter.part`: rows that other processes sort and one commit merges; builds that are interrupted and taken up."""

from __future__ import annotations

import datetime
import decimal
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_children
import part_children
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from part_children import fill
from store_files import leftovers

import pheon

JOIN_SECONDS_MAX = 120


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


def run(context: Any, target: Any, *args: Any) -> Any:
    process = context.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def tell(context: Any, part: pheon.MapPart, pairs: Any) -> tuple[str, str] | None:
    """What became of writing a part in another process."""
    ours, theirs = context.Pipe()
    process = run(context, part_children.fill_and_tell, part, pairs, theirs)
    theirs.close()
    told = ours.recv()
    process.join(JOIN_SECONDS_MAX)
    assert process.exitcode == 0
    return told


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_many_processes_write_one_map(store: pheon.Store, context: Any, store_path: Path) -> None:
    with store.map_writer("m", on_duplicate="last") as w:
        w.put("own", "own")
        w.put("key 5", "own")
        parts = [w.part() for _ in range(3)]
        assert [part.name for part in parts] == ["1", "2", "3"]
        assert not any(part.finished for part in parts)
        rows = [{f"key {i}": f"{n}" for i in range(n, 3000, n + 1)} for n in range(3)]
        processes = [run(context, fill, part, pairs) for part, pairs in zip(parts, rows, strict=True)]
        for process in processes:
            process.join(JOIN_SECONDS_MAX)
            assert process.exitcode == 0
        assert all(part.finished for part in parts)
        assert [part.rows for part in parts] == [len(pairs) for pairs in rows]
        assert w.rows == 2
        assert "m" not in store
    assert dict(store.map("m")) == {"own": "own", "key 5": "own"} | rows[0] | rows[1] | rows[2]
    assert store.verify("m").ok
    assert leftovers(store_path) == []
    assert all(part.finished for part in parts)


def test_a_part_takes_what_a_writer_takes(store: pheon.Store) -> None:
    other = store.put_map("other", {"from map": 8})
    with store.map_writer("m") as w:
        part = w.part("all", memory_limit="64MiB", threads=2)
        assert repr(part) == "<pheon.MapPart 'all'>"
        assert part.rows == 0
        with pytest.raises(pheon.ClosedError, match="'all'.*not being written"):
            part.put("a", 1)
        with part:
            part.put("a", 1)
            part.update({"b": 2})
            part.update([("c", 3)])
            part.write(pa.table({"key": ["d"], "value": [4]}))
            part.write(other)
            part.update(other.items() and [])
            assert part.rows == 5
            assert not part.finished
            with pytest.raises(TypeError, match="before it is entered"):
                pickle.dumps(part)
            with pytest.raises(pheon.ClosedError, match="already"):
                part.__enter__()
        assert part.finished
        assert pickle.loads(pickle.dumps(part)).rows == 5
        with pytest.raises(pheon.Error, match="finished already"), part:
            pass
    assert store.map("m") == {"a": 1, "b": 2, "c": 3, "d": 4, "from map": 8}


@pytest.mark.parametrize(
    ("values", "codec"),
    [
        ([1, -2], None),
        ([1.5, None], None),
        (["x", None], None),
        ([b"x", b""], None),
        ([True, None], None),
        ([None, None], None),
        ([datetime.date(2026, 1, 2), None], None),
        ([datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)] * 2, None),
        ([datetime.timedelta(seconds=5), None], None),
        ([decimal.Decimal("1.25"), None], None),
        ([{"a": [1, (2, 3)]}, ["text"]], None),
        ([1, "mixed"], "msgpack"),
        ([{1, 2}, frozenset("x")], "pickle"),
    ],
    ids=str,
)
def test_every_kind_of_value(store: pheon.Store, values: list[Any], codec: Any) -> None:
    with store.map_writer("m", codec=codec) as w:
        parts = [pickle.loads(pickle.dumps(w.part())) for _ in values]
        for number, value in enumerate(values):
            fill(parts[number], {number: value})
            assert value is None or parts[number].finished
    assert dict(store.map("m", allow_pickle=codec == "pickle")) == dict(enumerate(values))


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "b"],
        [b"a", b"\0"],
        [-1, 2**40],
        [2**63, 2**64 - 1],
        [True, False],
        [datetime.date(2026, 1, 2), datetime.date(1999, 1, 2)],
        [datetime.datetime(2026, 1, 2), datetime.datetime(1999, 1, 2, 3, 4, 5, 6)],
        [datetime.time(1, 2), datetime.time(0)],
        [decimal.Decimal("1.25"), decimal.Decimal("-0.05")],
    ],
    ids=str,
)
def test_every_kind_of_key(store: pheon.Store, keys: list[Any]) -> None:
    with store.map_writer("m") as w:
        for number, key in enumerate(keys):
            fill(w.part(), {key: number})
    m = store.map("m")
    assert dict(m) == {key: number for number, key in enumerate(keys)}
    assert list(m) == sorted(keys)


def test_dictionaries_and_nested_columns(store: pheon.Store) -> None:
    def rows(*numbers: int) -> pa.Table:
        words = pa.array([f"word {n % 3}" for n in numbers]).dictionary_encode()
        item = pa.struct({"n": pa.int64(), "t": pa.string()})
        nested = pa.array([[{"n": n, "t": f"{n}"}] * (n % 3) for n in numbers], pa.list_(item))
        return pa.table({"key": list(numbers), "word": words, "nested": nested})

    with store.map_writer("m") as w:
        for part, numbers in ((w.part(), (1, 5, 2)), (w.part(), (9, 3)), (w.part(), (4,))):
            with part:
                part.write(rows(*numbers))
    got = pa.table(store.table("m"))
    assert pa.types.is_dictionary(got.schema.field("word").type)
    assert got.to_pylist() == rows(1, 2, 3, 4, 5, 9).to_pylist()


def test_the_order_of_repeated_keys(store: pheon.Store) -> None:
    for on_duplicate, want in (("first", "own"), ("last", "2")):
        with store.map_writer("m", on_duplicate=on_duplicate) as w:
            first, second = w.part(), w.part()
            fill(second, {"k": "2"})
            fill(first, {"k": "1"})
            w.put("k", "own")
        assert store.map("m")["k"] == want
    with (
        pytest.raises(pheon.DuplicateKeyError, match=r"row 1 of part \"x\" and in row 0 of part \"y\""),
        store.map_writer("m") as w,
    ):
        fill(w.part("x"), {"a": 1, "k": 1})
        fill(w.part("y"), {"k": 2})
    with (
        pytest.raises(pheon.DuplicateKeyError, match=r"row 0 of the writer's own rows and in row 0 of part \"x\""),
        store.map_writer("m") as w,
    ):
        w.put("k", 0)
        fill(w.part("x"), {"k": 1})
    with store.map_writer("m") as w:
        part = w.part("x")
        with pytest.raises(pheon.DuplicateKeyError, match=r"row 0 of part \"x\" and in row 1 of part \"x\""), part:
            part.update([("k", 1), ("k", 2)])
        fill(part, {"k": 3})
    assert store.map("m") == {"k": 3}


def test_types_are_the_parts_own_or_those_of_rows_before(store: pheon.Store) -> None:
    with (
        pytest.raises(pheon.SchemaError, match=r'part "b".*"value".*LargeUtf8.*part "a".*Int64'),
        store.map_writer("m") as w,
    ):
        fill(w.part("a"), {"x": 1})
        fill(w.part("b"), {"y": "text"})
    with pytest.raises(pheon.SchemaError, match=r'part "b".*encoded by msgpack.*part "a"'), store.map_writer("m") as w:
        fill(w.part("a"), {"x": b"bytes"})
        fill(w.part("b"), {"y": [1]})
    # A part that has seen nothing but None fits everywhere.
    with store.map_writer("m") as w:
        w.put("own", None)
        for number, value in enumerate((None, 7, None)):
            fill(w.part(), {f"{number}": value})
    assert store.map("m") == {"own": None, "0": None, "1": 7, "2": None}
    # Arrow data that came before sets the types of later parts, and converts what fits.
    with store.map_writer("m") as w:
        w.write(pa.table({"key": ["a"], "value": pa.array([1], pa.int16())}))
        part = w.part("late")
        with part:
            part.put("b", 2)
            part.write(pa.table({"value": pa.array([3], pa.int64()), "key": ["c"]}))
        wrong = w.part("wrong")
        with pytest.raises(pheon.SchemaError, match="Int16"), wrong:
            wrong.put("d", 2**20)
        fill(wrong, {"d": 4})
    assert store.map("m") == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert store.map("m").table().schema == {"key": "LargeUtf8", "value": "Int16"}
    # The writer's own few pairs take the types of its parts.
    with pytest.raises(pheon.SchemaError, match="value is str"), store.map_writer("m") as w:
        w.put("a", "text")
        fill(w.part(), {"b": 1})


def test_empty_parts_and_nothing_but_parts(store: pheon.Store) -> None:
    with store.map_writer("m") as w:
        fill(w.part(), {})
        fill(w.part(), {1: 2})
    assert store.map("m") == {1: 2}
    with store.map_writer("m") as w:
        fill(w.part(), {})
    assert store.map("m") == {}


# Unfinished parts ----------------------------------------------------------------------------------------------------


def test_an_unfinished_part_is_named_and_nothing_is_published(store: pheon.Store, store_path: Path) -> None:
    with (
        pytest.raises(pheon.Error, match=r'"m": part "late" was never begun; nothing was published'),
        store.map_writer("m") as w,
    ):
        w.put("a", 1)
        w.part("late")
    assert list(store) == []
    assert leftovers(store_path) == []
    with store.map_writer("m") as w:
        part = w.part("given up")
        with pytest.raises(ZeroDivisionError), part:
            part.put("a", 1)
            raise ZeroDivisionError
        assert not part.finished
        with pytest.raises(pheon.Error, match="failed or was given up"):
            w.commit()
        # The writer is as it was.
        fill(part, {"a": 2})
        assert w.commit() == 1
    assert store.map("m") == {"a": 2}


def test_a_part_may_be_left_out(store: pheon.Store) -> None:
    with store.map_writer("m") as w:
        fill(w.part(), {"a": 1})
        late = w.part()
        with pytest.raises(pheon.Error, match="is over"), late:
            late.put("b", 2)
            with pytest.raises(ValueError, match="unfinished"):
                w.commit(unfinished="maybe")  # type: ignore[arg-type] - that is what is tested
            assert w.commit(unfinished="skip") == 1
    assert store.map("m") == {"a": 1}
    assert not late.finished
    with pytest.raises(pheon.Error, match="is over"), late:
        pass


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_killed_part_is_told_and_can_be_written_by_another(store: pheon.Store, context: Any) -> None:
    held = context.RawValue("b")
    with store.map_writer("m") as w:
        part = w.part("held")
        process = run(context, part_children.hold, part, held)
        while not held.value:
            assert process.exitcode is None
        with pytest.raises(pheon.Error, match=rf"being written by process {process.pid}"), part:
            pass
        with pytest.raises(pheon.Error, match=rf"still being written, by process {process.pid}"):
            w.commit()
        process.kill()
        process.join(JOIN_SECONDS_MAX)
        with pytest.raises(pheon.Error, match='part "held" was never finished: the process that wrote it ended'):
            w.commit()
        assert tell(context, part, {"a": 1}) is None
    assert store.map("m") == {"a": 1}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_errors_of_other_processes(store: pheon.Store, context: Any) -> None:
    with store.map_writer("m") as w:
        part = w.part("p")
        told = tell(context, part, [("a", 1), (None, 2)])
        assert told is not None
        assert told[0] == "SchemaError"
        assert "row 1" in told[1]
        assert tell(context, part, {"a": 1}) is None
        told = tell(context, part, {"a": 1})
        assert told is not None
        assert told[0] == "Error"
        assert "finished already" in told[1]
    told = tell(context, part, {"a": 1})
    assert told is not None
    assert "is over" in told[1]


def test_a_forked_child_has_no_part_of_its_parent(store: pheon.Store) -> None:
    code = f"""
import os, pheon
store = pheon.open({str(store._handle.path)!r})
with store.map_writer("m") as w:
    part = w.part()
    with part:
        part.update((i, i) for i in range(70_000))
        if (child := os.fork()) == 0:
            try:
                part.update((i, i) for i in range(70_000, 200_000))
            except pheon.Error as error:
                os._exit(17 if "forked" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
        part.update((i, i) for i in range(70_000, 80_000))
"""
    # A process of its own: this one has threads.
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=JOIN_SECONDS_MAX)
    assert len(store.map("m")) == 80_000


def test_threads_write_parts_too(store: pheon.Store) -> None:
    with store.map_writer("m") as w:
        parts = [w.part() for _ in range(4)]
        rows = [dict.fromkeys(range(n, 40000, 4), n) for n in range(4)]
        threads = [threading.Thread(target=fill, args=pair) for pair in zip(parts, rows, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN_SECONDS_MAX)
    assert len(store.map("m")) == 40_000
    assert store.verify("m").ok


def test_what_is_refused(store: pheon.Store) -> None:
    with store.map_writer("m") as w:
        w.part("x")
        for name in ("x", ""):
            with pytest.raises(ValueError, match="part"):
                w.part(name)
        with pytest.raises(ValueError, match="memory_limit"):
            w.part(memory_limit="much")
        tiny = w.part(memory_limit=1)
        with pytest.raises(ValueError, match="64 MiB"), tiny:
            pass
        w.abort()
    with pytest.raises(pheon.ClosedError):
        w.part()
    with store.map_writer("m", resume=True) as w:
        with pytest.raises(ValueError, match="needs a name"):
            w.part()
        w.abort()
    assert list(store) == []


def test_a_part_that_is_forgotten_is_given_up(store: pheon.Store, store_path: Path) -> None:
    with store.map_writer("m") as w:
        part = w.part()
        part.__enter__()
        part.put("a", 1)
        del part
        gc.collect()
        with pytest.raises(pheon.Error, match="given up"):
            w.commit()
        w.abort()
    assert leftovers(store_path) == []


# Compared with a dict -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.none() | st.text(max_size=3)), max_size=120),
    cuts=st.lists(st.integers(0, 120), max_size=5),
    on_duplicate=st.sampled_from(["error", "first", "last"]),
    order=st.randoms(use_true_random=False),
)
def test_random_splits_agree_with_a_dict(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str | None]],
    cuts: list[int],
    on_duplicate: Any,
    order: Any,
) -> None:
    store = pheon.open(tmp_path_factory.mktemp("random") / "store")
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [rows[a:b] for a, b in itertools.pairwise(edges)]
    want: dict[int, str | None] = {}
    repeats = False
    for key, value in rows:
        repeats |= key in want
        if on_duplicate != "first" or key not in want:
            want[key] = value
    w = store.map_writer("m", on_duplicate=on_duplicate)
    try:
        parts = [w.part() for _ in pieces[1:]]
        jobs = [(w, pieces[0]), *zip(parts, pieces[1:], strict=True)]
        order.shuffle(jobs)
        for taker, piece in jobs:
            if isinstance(taker, pheon.MapPart):
                fill(pickle.loads(pickle.dumps(taker)), piece)
            else:
                taker.update(piece)
        w.commit()
    except pheon.DuplicateKeyError:
        assert on_duplicate == "error"
        assert repeats
        w.abort()
    else:
        assert on_duplicate != "error" or not repeats
        m = store.map("m")
        assert dict(m) == want
        assert list(m) == sorted(want)


# Interrupted builds ---------------------------------------------------------------------------------------------------


def test_an_interrupted_build_is_taken_up(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {"old": 0})
    with pytest.raises(ZeroDivisionError), store.map_writer("m", resume=True) as w:
        fill(w.part("shard-001"), {"a": 1})
        w.put("own", 1)
        raise ZeroDivisionError
    assert store.map("m") == {"old": 0}
    assert store.gc("m").leftovers_removed == 0
    with store.map_writer("m", resume=True) as w:
        parts = [w.part("shard-001"), w.part("shard-002")]
        assert [part.finished for part in parts] == [True, False]
        assert parts[0].rows == 1
        fill(parts[1], {"b": 2})
    assert store.map("m") == {"a": 1, "b": 2}
    assert leftovers(store_path) == []
    with store.map_writer("m", resume=True) as w:
        assert not w.part("shard-001").finished
        w.abort()
    assert leftovers(store_path) == []


def test_without_resume_nothing_is_left(store: pheon.Store, store_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.map_writer("m") as w:
        fill(w.part("shard-001"), {"a": 1})
        raise ZeroDivisionError
    assert leftovers(store_path) == []
    with store.map_writer("m", resume=True) as w:
        assert not w.part("shard-001").finished
        w.abort()


def _interrupt(store: pheon.Store) -> None:
    with pytest.raises(ZeroDivisionError), store.map_writer("m", resume=True) as w:
        fill(w.part("shard"), {"a": 1})
        raise ZeroDivisionError


def test_other_options_are_refused(store: pheon.Store) -> None:
    _interrupt(store)
    for options, said in (
        ({"on_duplicate": "last"}, 'on_duplicate "error", this one has "last"'),
        ({"codec": "msgpack"}, "codec none, this one has msgpack"),
        ({"key": "k"}, 'the key ["key"], this one has ["k"]'),
        ({"value": "v"}, "value value, this one has v"),
    ):
        with (
            pytest.raises(ValueError, match="interrupted build had") as caught,
            store.map_writer("m", resume=True, **options) as w,
        ):  # type: ignore[arg-type] - checked at run time
            w.part("shard")
        assert said in str(caught.value)
    with pytest.raises(pheon.SchemaError, match="shard"), store.map_writer("m", resume=True) as w:
        w.part("shard")
        fill(w.part("other"), {"b": "text"})
    with store.map_writer("m", resume=True) as w:
        assert w.part("shard").finished


def test_what_is_kept_can_be_removed(store: pheon.Store, store_path: Path) -> None:
    kept = store_path / "m" / "resume"
    _interrupt(store)
    assert kept.is_dir()
    store.drop("m")
    assert not (store_path / "m").exists()
    _interrupt(store)
    store.gc(max_age=0)
    assert not kept.exists()
    _interrupt(store)
    with store.map_writer("m") as w:
        assert not w.part("shard").finished
        w.abort()
    assert not kept.exists()
    _interrupt(store)
    store.put_map("m", {"new": 1})
    assert not kept.exists()


def test_a_damaged_part_is_an_error(store: pheon.Store, store_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.map_writer("m", resume=True) as w:
        fill(w.part("shard"), {f"key {i}": "x" for i in range(1000)})
        raise ZeroDivisionError
    (run_file,) = (store_path / "m" / "resume").glob("part-*/.pheon-run-*")
    content = bytearray(run_file.read_bytes())
    content[len(content) // 2] ^= 1
    run_file.write_bytes(content)
    with pytest.raises(pheon.CorruptError, match='part "shard".*checksum'), store.map_writer("m", resume=True) as w:
        w.part("shard")
    (document,) = (store_path / "m" / "resume").glob("part-*/part.json")
    document.chmod(0o600)
    document.write_text(document.read_text().replace('"rows":1000', '"rows":1001'))
    with store.map_writer("m", resume=True) as w:
        with pytest.raises(pheon.CorruptError, match='part "shard".*remove'):
            w.part("shard")
        w.abort()
    assert list(store) == []


def test_full_disk(store: pheon.Store, store_path: Path) -> None:
    code = f"""
import resource, signal, pheon
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = pheon.open({str(store_path)!r})
with store.map_writer("m") as w:
    part = w.part("large")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        with part:
            part.update((f"{{i}}", "x" * 50) for i in range(20_000))
    except pheon.StoreFullError as error:
        print(error)
    assert not part.finished
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with part:
        part.put("small", "x")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no space or quota left" in done.stdout
    assert store.map("m") == {"small": "x"}
    assert leftovers(store_path) == []


@pytest.fixture
def interrupted_child(store_path: Path) -> Iterator[subprocess.Popen[str]]:
    code = f"""
import pheon
with pheon.open({str(store_path)!r}).map_writer("m") as w:
    part = w.part("p")
    with part:
        print("begun", flush=True)
        part.update((f"{{i}}", i) for i in range(10**9))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_ctrl_c_in_a_part(store: pheon.Store, store_path: Path, interrupted_child: subprocess.Popen[str]) -> None:
    assert interrupted_child.stdout is not None
    assert interrupted_child.stdout.readline() == "begun\n"
    interrupted_child.send_signal(signal.SIGINT)
    assert interrupted_child.wait(JOIN_SECONDS_MAX) == -signal.SIGINT
    assert list(store) == []
    assert leftovers(store_path) == []


def test_a_read_only_store_has_no_parts(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {"a": 1})
    with pytest.raises(ValueError, match="read-only"):
        pheon.open(store_path, read_only=True).map_writer("m", resume=True)
    assert os.listdir(store_path / "m")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_writer_is_of_the_process_that_made_it(tmp_path: Path) -> None:
    """A forked child has a copy of it, and not its lock."""
    store = pheon.open(tmp_path / "store")
    store.put_map("m", {"a": 1})
    pairs = {f"key {i}": i for i in range(100_000)}
    with store.map_writer("m") as writer:
        writer.update(pairs)
        with pytest.raises(ValueError, match="belongs to the process that was forked"):
            model_children.in_a_fork(writer.commit)
        assert [info.version for info in store.versions("m")] == [1]
    assert dict(store.map("m")) == pairs
    assert leftovers(tmp_path / "store") == []
