"""Every bit of every file of a small store, flipped one at a time; every truncation; files that are not ours.

`verify` reports each. Everything else gives the right answer, `CorruptError`, or what docs/safety.md documents: a
damaged index or key may cause a miss, never another key's value; damage to where or what a value is stays in its row.

The work runs in a few child processes, so that a crash fails the test with the flip that caused it.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pytest
from format import ipc, reader
from format.xxh3 import xxh3_128

import pheon

LONG = bool(os.environ.get("PHEON_LONG"))
SECONDS_MAX = 3600 if LONG else 280
PROCESSES = 2
FULL_CHECK_EVERY = 23
EXPORT_EVERY = 1 if LONG else 101
TEXTS = {
    "": "nothing",
    "a": "b",
    "aa": "ü\U0001f426",
    "ab": None,
    "b": "",
    "key with 20 letters.": "z" * 70,
    "z": "last",
}
ABSENT = ["c", "aaa", "key with 20 letters,", "A"]
# A map of several segments, some of whose rows are hidden, and beside it a build that was interrupted.
CHANGED = {"a": "1", "b": "new", "c": None, "e": "5", "f": "six", "g": "7"}
GONE = ["d", "h", "never"]
# A table whose keys repeat, and one whose keys are two columns.
REPEATS = {"key": [1, 2, 2, 2, 5], "value": ["a", "b", "c", None, "e"]}
PAIRS = {"name": ["x", "x", "y"], "number": [1, 2, 1], "value": [0.5, 1.5, 2.5]}
# The same kinds of files again: `make test` takes a sample of them.
SAMPLED = ("changed", "repeats", "pairs")


@dataclass(frozen=True)
class Damage:
    """A file, where in it the damage lies, and the rows whose value, or key, it may change."""

    path: Path
    place: str
    key_rows: frozenset[int] = frozenset()
    value_rows: frozenset[int] = frozenset()
    #: Of a file of several: the keys themselves.
    keys: frozenset[str] = frozenset()


def _make(folder: Path) -> Path:
    store = pheon.open(folder / "store")
    store.put_map("texts", TEXTS)
    columns = {
        "key": pa.array([-5, 0, 7, 1 << 40], pa.int64()),
        "flag": pa.array([True, None, False, True]),
        "list": pa.array([[{"a": 1, "b": "x"}], [], None, [{"a": None, "b": "yz"}, None]]),
        "category": pa.array(["one", "two", None, "one"]).dictionary_encode(),
        "blob": pa.array([b"12", b"34", None, b"56"], pa.binary(2)),
        "point": pa.array([[1.0, 2.0], None, [0.0, -1.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
    }
    store.put("mixed", pa.table(columns), key="key")
    store.put("repeats", pa.table(REPEATS), key="key")
    store.put("pairs", pa.table(PAIRS), key=["name", "number"])
    # A second manifest over the same segment: every file of the store is then read by `verify`.
    store.rollback("texts", 1)
    store.put_map("changed", {"a": "1", "b": "old", "c": None, "d": "4", "e": "5", "h": "8"})
    for key, value in {"b": "new", "f": "six", "g": "7"}.items():
        store.upsert("changed", pa.table({"key": [key], "value": pa.array([value], pa.large_string())}), compact=False)
    store.delete("changed", ["d", "h"], compact=False)
    store.gc("changed", keep=1)
    with contextlib.suppress(ZeroDivisionError), store.map_writer("changed", resume=True) as writer:
        with writer.part("kept") as part:
            part.put("x", "not published")
        raise ZeroDivisionError
    for path in (folder / "store").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    return folder / "store"


def _published(store: Path) -> list[Path]:
    """All files but those that are locked, whose content is nobody's data."""
    locks = ("LOCK", "GATE")
    found = (path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path for path in found if path.name not in locks)


# What may be wrong ---------------------------------------------------------------------------------------------------


def _places(path: Path) -> Callable[[int], Damage]:
    """What the byte at an offset of a sound file belongs to."""
    if path.name == "pheon.json":
        return lambda at: Damage(path, "marker")
    if "resume" in path.parts:
        return lambda at: Damage(path, "kept")
    if path.suffix == ".json":
        newest = max(path.parent.glob("manifest-*.json"))
        return lambda at: Damage(path, "manifest" if path == newest else "old manifest")
    data = path.read_bytes()
    layout = ipc.layout(data)
    [block] = layout.batches
    buffers = ipc.batch(data, block).buffers
    body_end = block.body_offset + block.body_bytes

    def place(at: int) -> Damage:
        if not block.body_offset <= at < body_end:
            return Damage(path, "metadata")
        for number, buffer in enumerate(buffers):
            if buffer.offset <= at < buffer.offset + buffer.length:
                if path.name == "index.arrow":
                    return Damage(path, "index")
                if path.name.startswith("hidden-"):
                    # Read, and so checked, whenever it is opened: a row that came back would be a wrong answer.
                    return Damage(path, "metadata")
                return _in_data(path, data, buffers, number, at)
        return Damage(path, "padding")

    return place


def _in_data(path: Path, data: bytes, buffers: list[ipc.Buffer], number: int, at: int) -> Damage:
    if keys := {"mixed": 2, "repeats": 2, "pairs": 5}.get(path.parents[1].name):
        return Damage(path, "key" if number < keys else "any value")
    # Two LargeUtf8 columns of three buffers each: validity, offsets, bytes.
    column, kind = divmod(number, 3)
    inside = at - buffers[number].offset
    names = pa.ipc.open_file(pa.py_buffer(data)).read_all()["key"].to_pylist()
    every = range(len(names))
    if kind == 0:
        rows = {row for row in every if row // 8 == inside}
    elif kind == 1:
        rows = {row for row in (inside // 8 - 1, inside // 8) if row in every}
    else:
        start = buffers[3 * column + 1].offset
        offsets = [int.from_bytes(data[start + 8 * i : start + 8 * i + 8], "little") for i in range(len(names) + 1)]
        rows = {row for row in every if offsets[row] <= inside < offsets[row + 1]}
    assert rows, (path, number, at)
    if path.parents[1].name == "changed":
        return Damage(path, "key" if column == 0 else "value", keys=frozenset(names[row] for row in rows))
    if column == 0:
        return Damage(path, "key", key_rows=frozenset(rows))
    return Damage(path, "value", value_rows=frozenset(rows))


# What is right -------------------------------------------------------------------------------------------------------


class BrokenPromiseError(Exception):
    """A promise was not kept."""


def _attempt(work: Callable[[], Any]) -> Any:
    """The result, or CorruptError's class. Everything else is a broken promise."""
    try:
        return work()
    except pheon.CorruptError as error:
        if not str(error):
            raise BrokenPromiseError("CorruptError without a message") from error
        return pheon.CorruptError


def _expect(condition: bool, *what: Any) -> None:
    if not condition:
        raise BrokenPromiseError(" ".join(map(repr, what)))


def _is_sound(path: Path) -> bool:
    """Whether opening and verifying finds nothing."""

    def verify() -> bool:
        store = pheon.open(path, read_only=True)
        return all(_verified(store, name) for name in store)

    return _attempt(verify) is True


def _verified(store: pheon.Store, name: str) -> bool:
    return store.verify(name).ok


def _check_store(path: Path, damage: Damage | None) -> None:
    """Reads everything in every way."""
    place = damage.place if damage else "nothing"
    store = _attempt(lambda: pheon.open(path, read_only=True))
    if store is pheon.CorruptError:
        _expect(place == "marker", "the store does not open for damage in", place)
        return
    _expect(place != "marker", "a damaged marker was believed")
    for name, check in CHECKS.items():
        check(store, damage if damage and name in damage.path.parts else None)
        if damage is None:
            _check_exports(store, name)


def _check_exports(store: pheon.Store, name: str) -> None:
    """Every library gets the same rows, or is told."""
    table = _attempt(lambda: store.table(name))
    if table is pheon.CorruptError:
        return
    rows = _attempt(table.to_pyarrow)
    is_map = name in ("texts", "changed")
    frame, polars = _attempt(table.to_pandas), _attempt(table.to_polars)
    _expect((rows is pheon.CorruptError) == (frame is pheon.CorruptError), name, "is damaged for one of two libraries")
    if not is_map and rows is not pheon.CorruptError:
        # As text: a damaged number may be NaN.
        first = rows.column_names[0]
        _expect(repr(frame[first].tolist()) == repr(rows[first].to_pylist()), name, "as a pandas frame")
        if polars is not pheon.CorruptError:
            _expect(repr(polars.to_dicts()) == repr(rows.to_pylist()), name, "as a polars frame")
    elif rows is not pheon.CorruptError:
        expected = rows["value"].to_pylist()
        _expect([None if pandas.isna(v) else v for v in frame["value"]] == expected, name, "as a pandas frame")
        _expect(polars is not pheon.CorruptError, name, "is damaged for polars only")
        _expect(polars["value"].to_list() == expected, name, "as a polars frame")


def _check_changed(store: pheon.Store, damage: Damage | None) -> None:
    place = damage.place if damage else "nothing"
    m = _attempt(lambda: store.map("changed"))
    if m is pheon.CorruptError:
        _expect(place in ("manifest", "metadata"), "the map does not open for damage in", place)
        return
    _expect(place not in ("manifest", "metadata"), "opened although damaged in", place)
    touched = damage.keys if damage else frozenset()
    missing = object()
    asked = [*CHANGED, *GONE]
    found, values = _attempt(lambda: m.contains_many(asked)), _attempt(lambda: m.get_many(asked))
    batch: list[Any] = [pheon.CorruptError] * len(asked)
    if found is not pheon.CorruptError and values is not pheon.CorruptError:
        batch = [value if there else missing for there, value in zip(found, values, strict=True)]
    for key, of_batch in zip(asked, batch, strict=True):
        alone = _attempt(lambda key=key: m.get(key, missing))
        _expect(alone is not pheon.CorruptError or place in ("index", "key") or key in touched, key, "is refused")
        _expect(of_batch is not pheon.CorruptError or place in ("index", "key", "value"), "a batch is refused")
        for got in (alone, of_batch):
            if got is pheon.CorruptError:
                continue
            if key in GONE:
                _expect(got is missing, key, "is back:", got)
            elif got is missing:
                _expect(place in ("index", "key"), "misses", key)
            elif key in touched and place == "value":
                _expect(isinstance(got, str | None), key, "gives", got)
            else:
                _expect(got == CHANGED[key], key, "gives", got)
    for rows, expected in (
        (_attempt(lambda: pa.table(store.table("changed"))), list(CHANGED)),
        (_attempt(lambda: pa.table(m.range("b", "f"))), ["b", "c", "e"]),
    ):
        if rows is pheon.CorruptError:
            _expect(place in ("key", "value", "index"), "rows are refused for damage in", place)
            continue
        rows.validate(full=True)
        got = dict(zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True))
        _expect(place == "key" or list(got) == expected, "rows of keys", list(got))
        if place == "key":
            # Rows are read where they lie: a damaged key is another text, perhaps that of another row.
            _expect(len(rows) <= len(expected) + 1, len(rows), "rows")
            continue
        for key, value in got.items():
            _expect(key in touched or value == CHANGED[key], key, "has", value)


def _check_texts(store: pheon.Store, damage: Damage | None) -> None:
    place = damage.place if damage else "nothing"
    m = _attempt(lambda: store.map("texts"))
    if m is pheon.CorruptError:
        _expect(place in ("manifest", "metadata"), "the map does not open for damage in", place)
        return
    _expect(place not in ("manifest", "metadata"), "opened although damaged in", place)
    keys = list(TEXTS)
    changed_values = {keys[row] for row in damage.value_rows} if damage else set()
    may_miss = place in ("index", "key")

    missing = object()

    def judge(key: str, got: Any, how: str) -> None:
        if got is missing:
            _expect(key not in TEXTS or may_miss, how, "misses", key)
        elif key not in TEXTS:
            raise BrokenPromiseError(f"{how} finds {key!r}: {got!r}")
        else:
            right = got == TEXTS[key] and type(got) is type(TEXTS[key])
            _expect(right or (key in changed_values and isinstance(got, str | None)), how, key, "gives", got)

    for key in keys + ABSENT:
        got = _attempt(lambda key=key: m.get(key, missing))
        if got is not pheon.CorruptError:
            judge(key, got, "get")
        contained = _attempt(lambda key=key: key in m)
        if contained is not pheon.CorruptError:
            _expect(contained == (key in TEXTS) or (may_miss and not contained), key, "in map is", contained)
    asked = keys + ABSENT
    found = _attempt(lambda: m.contains_many(asked))
    answers = _attempt(lambda: m.get_many(asked))
    if answers is not pheon.CorruptError and found is not pheon.CorruptError:
        _expect(len(answers) == len(found) == len(asked), "a batch has another length")
        for key, there, got in zip(asked, found, answers, strict=True):
            judge(key, got if there else missing, "get_many")
    _expect(len(m) == len(TEXTS), "len is", len(m))

    rows = _attempt(lambda: pa.table(store.table("texts")))
    _check_rows(rows, keys, damage, "table")
    _check_rows(_attempt(lambda: pa.table(m.range("a", "b"))), [k for k in keys if "a" <= k < "b"], damage, "range")
    _check_rows(_attempt(lambda: pa.table(m.prefix("a"))), [k for k in keys if k.startswith("a")], damage, "prefix")
    items = _attempt(lambda: list(m.items()))
    if items is not pheon.CorruptError:
        _check_rows(pa.table({"key": [k for k, _ in items], "value": [v for _, v in items]}), keys, damage, "items")


def _check_rows(rows: Any, expected: list[str], damage: Damage | None, how: str) -> None:
    """A slice of the rows in stored order, right but for the damaged rows' own contents."""
    if rows is pheon.CorruptError:
        _expect(damage is not None and damage.place in ("key", "value", "index"), how, "fails without a reason")
        return
    rows.validate(full=True)
    every = list(TEXTS)
    changed_keys = {every[row] for row in damage.key_rows} if damage else set()
    changed_values = {every[row] for row in damage.value_rows} if damage else set()
    got = list(zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True))
    if changed_keys:
        # Binary search over a damaged key may end elsewhere, but what it hands out are rows of the file.
        _expect(len(got) <= len(every), how, "has", len(got), "rows")
        strangers = [key for key, _ in got if key not in TEXTS]
        _expect(len(strangers) <= len(changed_keys), how, "has unknown keys", strangers)
        values = {TEXTS[key] for key in changed_keys}
        for key, value in got:
            _expect(value in values if key not in TEXTS else value == TEXTS[key] or value in values, how, key, value)
        return
    _expect([key for key, _ in got] == expected, how, "has keys", [key for key, _ in got])
    for key, value in got:
        _expect(value == TEXTS[key] or key in changed_values, how, key, "gives", value)


def _check_table(name: str, key: list[str]) -> Callable[[pheon.Store, Damage | None], None]:
    """Compares a table with what was put."""
    original: list[dict[str, Any]] = []
    asked: list[Any] = []

    def learn() -> None:
        with tempfile.TemporaryDirectory() as folder:
            original.extend(pa.table(pheon.open(_make(Path(folder))).table(name)).to_pylist())
        asked.extend(dict.fromkeys(of(row) for row in original))

    def of(row: dict[str, Any]) -> Any:
        return row[key[0]] if len(key) == 1 else tuple(row[column] for column in key)

    def right(rows: pa.Table, place: str, among: list[Any], what: str) -> None:
        """These are the rows of these keys, but for values that may be damaged."""
        rows.validate(full=True)
        got, expected = rows.to_pylist(), [row for row in original if of(row) in among]
        if place == "any value":
            got, expected = [of(row) for row in got], [of(row) for row in expected]
        _expect(repr(got) == repr(expected), name, what, "are", got)

    def check(store: pheon.Store, damage: Damage | None) -> None:
        if not original:
            learn()
        place = damage.place if damage else "nothing"
        table = _attempt(lambda: store.table(name))
        if table is pheon.CorruptError:
            _expect(place in ("manifest", "metadata"), "the table does not open for damage in", place)
            return
        _expect(place not in ("manifest", "metadata"), "opened although damaged in", place)
        whole = _attempt(lambda: pa.table(table))
        if whole is pheon.CorruptError:
            _expect(place in ("key", "any value"), "the table fails for damage in", place)
        else:
            whole.validate(full=True)
            _expect(whole.num_rows == len(original), "the table has", whole.num_rows, "rows")
            whole.to_pylist()
            if place != "key":
                right(whole, place, asked, "all rows")
        missing = (8,) if len(key) == 1 else (("x", 7),)
        for one in (*asked, *missing):
            found = _attempt(lambda one=one: table.rows(one).to_pyarrow())
            if found is pheon.CorruptError:
                _expect(place in ("key", "any value", "index"), "rows are refused for damage in", place)
            elif place == "key":
                found.validate(full=True)
            elif place != "index" or found.num_rows > 0:
                right(found, place, [one], f"the rows of {one}")
        low, high = asked[1], asked[-1]
        part = _attempt(lambda: pa.table(table.range(low, high)))
        if part is not pheon.CorruptError and place != "key":
            # The index is asked where reading at random is dear.
            right(part, place, [one for one in asked if low <= one < high], "the rows of a range")

    return check


CHECKS = {
    "texts": _check_texts,
    "mixed": _check_table("mixed", ["key"]),
    "changed": _check_changed,
    "repeats": _check_table("repeats", ["key"]),
    "pairs": _check_table("pairs", ["name", "number"]),
}


# The runs ------------------------------------------------------------------------------------------------------------

Case = tuple[str, int, int]  # a file below the store, an offset, a bit


def _flips(store: Path) -> Iterator[Case]:
    for path in _published(store):
        name = path.relative_to(store).as_posix()
        for at in range(path.stat().st_size):
            if name.startswith(SAMPLED) and not LONG:
                # A sample, but all that only one of them has.
                new = "hidden" in name or "resume" in name
                yield from [(name, at, at * 5 % 8)] if new or at % 3 == 0 else []
                continue
            for bit in range(8):
                yield name, at, bit


def _run_flips(store: Path, cases: list[Case], note: Callable[[str], None]) -> None:
    places = {path.relative_to(store).as_posix(): _places(path) for path in _published(store)}
    files = {name: os.open(store / name, os.O_RDWR) for name in places}
    opened = pheon.open(store, read_only=True)
    at_random = pheon.open(store, read_only=True, access="random")
    for name, at, bit in cases:
        damage = places[name](at)
        note(f"{name}, byte {at}, bit {bit} ({damage.place})")
        good = os.pread(files[name], 1, at)
        os.pwrite(files[name], bytes([good[0] ^ 1 << bit]), at)
        if damage.place == "marker" or (at + bit) % FULL_CHECK_EVERY == 0:
            _expect(not _is_sound(store), "verify finds nothing wrong")
            _check_store(store, damage)
        else:
            # What is not damaged needs no new look each time, and a store holds nothing of its datasets.
            dataset = name.split("/")[0]
            _expect(not opened.verify(dataset).ok, "verify finds nothing wrong")
            for handle in (opened, at_random) if LONG else (at_random if bit % 2 else opened,):
                CHECKS[dataset](handle, None if damage.place == "kept" else damage)
            if (8 * at + bit) % EXPORT_EVERY == 0:
                _check_exports(opened, dataset)
        os.pwrite(files[name], good, at)


def _run_truncations(store: Path, cases: list[Case], note: Callable[[str], None]) -> None:
    for name, length, _ in cases:
        note(f"{name} cut to {length} bytes")
        path = store / name
        good = path.read_bytes()
        path.write_bytes(good[:length])
        _check_unusable(store, name)
        path.write_bytes(good)


def _check_unusable(store: Path, name: str) -> None:
    """A file that is not what was published: whatever needs it fails, the rest works."""
    _expect(not _is_sound(store), "verify finds nothing wrong")
    opened = _attempt(lambda: pheon.open(store, read_only=True))
    if name == "pheon.json":
        _expect(opened is pheon.CorruptError, "the store opened")
        return
    _expect(opened is not pheon.CorruptError, "the store does not open")
    for dataset in CHECKS:
        table = _attempt(lambda dataset=dataset: opened.table(dataset))
        needed = name.startswith(f"{dataset}/") and name != "texts/manifest-000001.json" and "/resume/" not in name
        _expect((table is pheon.CorruptError) == needed, dataset, "opened" if needed else "does not open")


RUNS = {"flips": _run_flips, "truncations": _run_truncations}


def _child(run: str, store: Path, cases: list[Case], progress: Any, failures: Any) -> None:
    where = ""

    def note(text: str) -> None:
        nonlocal where
        where = text
        encoded = text.encode()[: len(progress) - 1]
        progress[: len(encoded) + 1] = encoded + b"\0"

    faulthandler.enable()
    faulthandler.dump_traceback_later(SECONDS_MAX - 40, exit=True)
    try:
        RUNS[run](store, cases, note)
    except BaseException:  # noqa: BLE001 - reported, whatever it is
        failures.put(f"{where}\n{traceback.format_exc()}")
        failures.close()
        failures.join_thread()
        sys.exit(1)


def _run_in_children(run: str, original: Path, cases: list[Case]) -> None:
    assert _is_sound(original)
    _check_store(original, None)
    context = multiprocessing.get_context("spawn")
    children = []
    failures = context.Queue()
    for number in range(PROCESSES):
        copy = original.with_name(f"copy{number}")
        shutil.copytree(original, copy)
        progress = context.Array("c", 256, lock=False)
        work = (run, copy, cases[number::PROCESSES], progress, failures)
        child = context.Process(target=_child, args=work)
        child.start()
        children.append((child, progress))
    problems = []
    for child, progress in children:
        child.join()
        if child.exitcode != 0:
            problems.append(f"a process ended with {child.exitcode} at: {progress.value.decode(errors='replace')}")
    while problems and not failures.empty():
        problems.append(failures.get())
    assert not problems, "\n".join(problems)


@pytest.mark.timeout(SECONDS_MAX, method="thread")
def test_every_bit_flip(memory_path: Path) -> None:
    original = _make(memory_path)
    cases = list(_flips(original))
    assert len(cases) > 8 * 5000
    _run_in_children("flips", original, cases)


@pytest.mark.timeout(SECONDS_MAX, method="thread")
def test_every_truncation(memory_path: Path) -> None:
    original = _make(memory_path)
    cases = [
        (path.relative_to(original).as_posix(), length, 0)
        for path in _published(original)
        for length in range(path.stat().st_size)
        if LONG or not {*SAMPLED} & {*path.parts} or length % 17 == 0
    ]
    _run_in_children("truncations", original, cases)


@pytest.fixture
def store(memory_path: Path) -> Path:
    return _make(memory_path)


FILES = ["pheon.json", "texts/manifest-000002.json", "texts/seg-*/data.arrow", "texts/seg-*/index.arrow"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 5000, b"ARROW1\0\0" + b"\xff" * 3000 + b"ARROW1", b"{}\n", b"\xff" * 64, b"PAR1" * 100],
    ids=["empty", "zeros", "arrow magic", "json", "ones", "parquet magic"],
)
def test_files_that_are_not_ours(store: Path, name: str, content: bytes) -> None:
    [path] = store.glob(name)
    path.write_bytes(content)
    _check_unusable(store, path.relative_to(store).as_posix())


@pytest.mark.parametrize("name", FILES)
def test_files_with_something_appended(store: Path, name: str) -> None:
    [path] = store.glob(name)
    path.write_bytes(path.read_bytes() + b"\0")
    _check_unusable(store, path.relative_to(store).as_posix())


@pytest.mark.parametrize("name", FILES[2:])
def test_a_missing_file_is_named(store: Path, name: str) -> None:
    [path] = store.glob(name)
    path.unlink()
    with pytest.raises(pheon.CorruptError, match=path.name):
        pheon.open(store).map("texts")
    assert not _is_sound(store)


@pytest.mark.parametrize("name", FILES[2:])
def test_a_folder_in_a_files_place(store: Path, name: str) -> None:
    [path] = store.glob(name)
    path.unlink()
    path.mkdir()
    with pytest.raises((pheon.CorruptError, OSError), match=path.name):
        pheon.open(store).map("texts")
    assert not _is_sound(store)


def test_files_of_another_dataset(store: Path) -> None:
    """Sound files, in the wrong place."""
    [ours] = store.glob("texts/seg-*")
    [theirs] = store.glob("mixed/seg-*")
    for file in ("data.arrow", "index.arrow"):
        (ours / file).write_bytes((theirs / file).read_bytes())
    with pytest.raises(pheon.CorruptError):
        pheon.open(store).map("texts")
    assert not _is_sound(store)


def test_the_message_names_file_and_place(store: Path) -> None:
    [path] = store.glob("texts/seg-*/data.arrow")
    data = bytearray(path.read_bytes())
    [block] = ipc.layout(data).batches
    offsets = ipc.batch(data, block).buffers[4]
    data[offsets.offset + 8 + 6] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(pheon.CorruptError, match=rf"{path}.*row 0.*value") as caught:
        pheon.open(store).map("texts")[""]
    assert isinstance(caught.value, pheon.Error)
    report = pheon.open(store).verify("texts")
    assert not report.ok
    assert str(path) in report.problems[0]
    assert "buffer 4" in report.problems[0]


@pytest.mark.timeout(SECONDS_MAX, method="thread")
def test_heavy_damage_to_buffers(store: Path, rng: random.Random) -> None:
    """Not one bit but whole runs of bytes: still no crash and no undocumented error."""
    targets = []
    for path in reader.files(store):
        data = path.read_bytes()
        [block] = ipc.layout(data).batches
        targets += [(path, b) for b in ipc.batch(data, block).buffers if b.length]
    for _ in range(5000 if LONG else 500):
        path, buffer = rng.choice(targets)
        good = path.read_bytes()
        data = bytearray(good)
        start = buffer.offset + rng.randrange(buffer.length)
        stop = min(start + rng.choice((1, 2, 4, 8, 64)), buffer.offset + buffer.length)
        filling = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", None))
        data[start:stop] = rng.randbytes(stop - start) if filling is None else filling * (stop - start)
        path.write_bytes(data)
        opened = pheon.open(store, read_only=True)
        _attempt(lambda opened=opened: opened.verify("texts"))
        for name in ("texts", "mixed"):
            table = _attempt(lambda opened=opened, name=name: opened.table(name))
            for read in (
                lambda table=table: pa.table(table).validate(full=True),
                lambda table=table, name=name: table.range(*(("a", "b") if name == "texts" else (0, 8))).to_pyarrow(),
            ):
                _attempt(read)
        m = opened.map("texts")
        for key in [*TEXTS, *ABSENT]:
            _attempt(lambda m=m, key=key: m.get(key))
        _attempt(lambda m=m: m.get_many([*TEXTS, *ABSENT]))
        _attempt(lambda m=m: list(m.items()))
        path.write_bytes(good)
    assert _is_sound(store)


def test_a_newer_format_version_is_refused(store: Path) -> None:
    """Checked JSON of a version that does not exist yet: an error that says so, not a guess."""
    for path in (store / "texts/manifest-000002.json", store / "pheon.json"):
        body = path.read_bytes()[:-48].replace(b'"format_version":1', b'"format_version":3')
        path.write_bytes(body + f',"checksum":"{xxh3_128(body):032x}"}}\n'.encode())
        with pytest.raises(pheon.CorruptError, match="format_version"):
            pheon.open(store).map("texts")
