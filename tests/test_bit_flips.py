"""Every bit of every file of a small store, flipped one at a time; every truncation; files that are not ours.

`verify` reports each. Everything else gives the right answer, `CorruptError`, or what docs/safety.md documents: a
damaged index or key may cause a miss, never another key's value; damage to where or what a value is stays in its row
and column. What a flip may touch is told from the format alone, bit by bit, and all else must be as it was.

The work runs in a few child processes, so that a crash fails the test with the flip that caused it.
"""

import contextlib
import faulthandler
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pytest
from format import ipc, reader
from format.xxh3 import xxh3_64, xxh3_128

import pheon

LONG = bool(os.environ.get("PHEON_LONG"))
SECONDS_MAX = 3600 if LONG else 280
PROCESSES = 2
FULL_CHECK_EVERY = 23
EXPORT_EVERY = 1 if LONG else 101
BUCKET_BYTES = 64
TEXTS = {
    "": "nothing",
    "a": "b",
    "aa": "ü\U0001f426",
    "ab": None,
    "b": "",
    "key with 20 letters.": "z" * 70,
    "z": "last",
}
# A map of several segments, some of whose rows are hidden, and beside it a build that was interrupted.
CHANGED = {"a": "1", "b": "new", "c": None, "e": "5", "f": "six", "g": "7"}
ABSENT = {"texts": ["c", "aaa", "key with 20 letters,", "A"], "changed": ["d", "h", "never"]}
# A table whose keys repeat, and one whose keys are two columns.
REPEATS = {"key": [1, 2, 2, 5, 6], "value": ["a", "b", None, "d", "e"]}
PAIRS = {"name": ["x", "x", "y"], "number": [1, 2, 1], "value": [0.5, 1.5, 2.5]}
# A table whose index has two buckets, one of which sent keys to the other.
CROWDED = {"key": list(range(37, 54)), "value": [f"v{i}" for i in range(17)]}
MIXED = {
    "key": pa.array([-5, 0, 7, 1 << 40], pa.int64()),
    "flag": pa.array([True, None, False, True]),
    "list": pa.array([[{"a": 1, "b": "x"}], [], None, [{"a": None, "b": "yz"}, None]]),
    "category": pa.array(["one", "two", None, "one"]).dictionary_encode(),
    "blob": pa.array([b"12", b"34", None, b"56"], pa.binary(2)),
    "point": pa.array([[1.0, 2.0], None, [0.0, -1.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
}
# What each dataset shows, in order.
SHOWN = {
    "texts": pa.table({"key": list(TEXTS), "value": list(TEXTS.values())}),
    "changed": pa.table({"key": list(CHANGED), "value": list(CHANGED.values())}),
    "mixed": pa.table(MIXED),
    "repeats": pa.table(REPEATS),
    "pairs": pa.table(PAIRS),
    "crowded": pa.table(CROWDED),
}
# The same kinds of files again: `make test` takes a sample of them.
SAMPLED = ("changed", "repeats", "pairs", "crowded")


@dataclass(frozen=True)
class Damage:
    """A file, where in it the damage lies, and what it may change."""

    path: Path
    place: str
    segment: "Segment | None" = None
    #: Rows of the segment: whose value in this column may be another; of a key, that may be missed; of an index, that
    #: it may not lead to.
    rows: frozenset[int] = frozenset()
    column: str = ""
    #: The keys of these rows, and of those that the version shows.
    keys: frozenset[Any] = frozenset()
    shown: frozenset[Any] = frozenset()


NOTHING = Damage(Path(), "nothing")


def _make(folder: Path) -> Path:
    store = pheon.open(folder / "store")
    store.put_map("texts", TEXTS)
    store.put("mixed", pa.table(MIXED), key="key")
    store.put("repeats", pa.table(REPEATS), key="key")
    store.put("pairs", pa.table(PAIRS), key=["name", "number"])
    store.put("crowded", pa.table(CROWDED), key="key")
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


class Dataset:
    """What a sound dataset holds, read without Pheon."""

    def __init__(self, name: str, version: reader.Version) -> None:
        self.name = name
        self.version = version
        self.key = version.key_names
        self.segments = [Segment(self, segment) for segment in version.segments]
        self.shown: list[dict[str, Any]] = version.table().to_pylist()
        self.keys = list(dict.fromkeys(self.key_of(row) for row in self.shown))

    def key_of(self, row: dict[str, Any]) -> Any:
        return row[self.key[0]] if len(self.key) == 1 else tuple(row[column] for column in self.key)


class Segment:
    """A segment of it."""

    def __init__(self, dataset: Dataset, segment: reader.Segment) -> None:
        assert segment.index is not None
        self.folder = segment.data.path.parent
        self.hidden = segment.hidden
        self.data, self.index = segment.data, segment.index
        self.key_columns = segment.key_columns
        self.rows: list[dict[str, Any]] = segment.data.table.to_pylist()
        # As text: a damaged number may be NaN.
        self.texts = [repr(row) for row in self.rows]
        self.keys = [dataset.key_of(row) for row in self.rows]

    def damage(self, path: Path, place: str, rows: set[int], column: str = "") -> Damage:
        keys = frozenset(self.keys[row] for row in rows)
        shown = frozenset(self.keys[row] for row in rows - self.hidden)
        return Damage(path, place, self, frozenset(rows), column, keys, shown)


def _read(store: Path) -> dict[str, Dataset]:
    opened = reader.Store(store)
    return {name: Dataset(name, opened.open(name)) for name in opened.datasets()}


def _places(path: Path, store: Path, datasets: dict[str, Dataset]) -> Callable[[int, int], Damage]:
    """What a bit of a byte of a sound file belongs to."""
    if path.name == "pheon.json":
        return lambda at, bit: Damage(path, "marker")
    if "resume" in path.parts:
        return lambda at, bit: Damage(path, "kept")
    if path.suffix == ".json":
        newest = max(path.parent.glob("manifest-*.json"))
        return lambda at, bit: Damage(path, "manifest" if path == newest else "old manifest")
    data = path.read_bytes()
    [block] = ipc.layout(data).batches
    buffers = ipc.batch(data, block).buffers
    body_end = block.body_offset + block.body_bytes
    dataset = datasets[path.relative_to(store).parts[0]]
    segment = next((segment for segment in dataset.segments if segment.folder == path.parent), None)
    columns = list(_buffers_of(segment)) if segment else []

    def place(at: int, bit: int) -> Damage:
        if not block.body_offset <= at < body_end:
            return Damage(path, "metadata")
        for number, buffer in enumerate(buffers):
            if buffer.offset <= at < buffer.offset + buffer.length:
                if segment is None:
                    # Hidden rows are read, and so checked, whenever it is opened: one that came back would be wrong.
                    return Damage(path, "metadata")
                inside = 8 * (at - buffer.offset) + bit
                if path.name == "index.arrow":
                    return segment.damage(path, "index", _led_to(segment, inside))
                column, owners = columns[number]
                return segment.damage(path, "key" if column in dataset.key else "value", owners(inside), column)
        return Damage(path, "padding")

    return place


Owners = Callable[[int], set[int]]


def _buffers_of(segment: Segment) -> Iterator[tuple[str, Owners]]:
    """For each buffer of the data file its column, and the rows that a bit of it belongs to."""
    file = segment.data
    contents = (file.bytes[buffer.offset : buffer.offset + buffer.length] for buffer in file.batch.buffers)
    for field in file.table.schema:
        for owners in _owners(field.type, contents, lambda value: {value} & {*range(len(segment.rows))}):
            yield field.name, owners
    assert next(contents, None) is None


def _owners(kind: pa.DataType, contents: Iterator[bytes], rows: Owners) -> Iterator[Owners]:
    """For each buffer of a column the rows that a bit belongs to; `rows` has those of a value."""
    next(contents)  # Validity, a bit a value.
    yield rows
    if pa.types.is_large_string(kind) or pa.types.is_list(kind):
        width = 64 if pa.types.is_large_string(kind) else 32
        offsets = memoryview(next(contents)).cast("q" if width == 64 else "i").tolist()
        yield lambda bit: rows(bit // width - 1) | rows(bit // width)

        def inner(child: int) -> set[int]:
            values = (i for i, (start, end) in enumerate(itertools.pairwise(offsets)) if start <= child < end)
            return {row for value in values for row in rows(value)}

        if pa.types.is_list(kind):
            yield from _owners(kind.value_type, contents, inner)
        else:
            next(contents)
            yield lambda bit: inner(bit // 8)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _owners(field.type, contents, rows)
    elif pa.types.is_fixed_size_list(kind):
        yield from _owners(kind.value_type, contents, lambda value: rows(value // kind.list_size))
    else:
        width = (kind.index_type if pa.types.is_dictionary(kind) else kind).bit_width
        next(contents)
        yield lambda bit: rows(bit // width)


def _led_to(segment: Segment, inside: int) -> set[int]:
    """The rows that a bit of the index leads to: those of one key, or of the keys that an overflow bit sends on.

    A flip in an empty slot, or one that sets an overflow bit, hides nothing: it makes a lookup look at more.
    """
    number, bit = divmod(inside, 8 * BUCKET_BYTES)
    _, overflow, slots = segment.index.bucket(number)
    if 160 <= bit < 192:
        led = {row for row in range(len(segment.rows)) if _overflow(segment, row) == (number, bit - 160)}
        assert bool(led) == bool(overflow >> bit - 160 & 1)
    else:
        slot = bit // 16 if bit < 160 else (bit - 192) // 32
        led = {slots[slot]}
    keys = {segment.keys[row] for row in led if row < len(segment.rows)}
    return {row for row, key in enumerate(segment.keys) if key in keys}


def _overflow(segment: Segment, row: int) -> tuple[int, int] | None:
    """Bucket and bit that send a lookup of a row's key on to the other bucket."""
    row = segment.keys.index(segment.keys[row])
    h = xxh3_64(reader.hashed_bytes(segment.key_columns, row), segment.index.seed)
    primary, _, _, bit = segment.index.places(h)
    return None if row in segment.index.bucket(primary)[2] else (primary, bit)


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


def _expect(condition: object, *what: Any) -> None:
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


def _check_store(path: Path, datasets: dict[str, Dataset], damage: Damage) -> None:
    """Reads everything in every way."""
    store = _attempt(lambda: pheon.open(path, read_only=True))
    if store is pheon.CorruptError:
        _expect(damage.place == "marker", "the store does not open for damage in", damage.place)
        return
    _expect(damage.place != "marker", "a damaged marker was believed")
    for name, check in CHECKS.items():
        here = damage if path / name in damage.path.parents else NOTHING
        check(store, datasets[name], here)
        if damage is NOTHING:
            _check_exports(store, datasets[name], NOTHING)


def _opened(damage: Damage, work: Callable[[], Any]) -> Any:
    """A map or table, or None: what all reads need must be sound, and nothing else."""
    opened = _attempt(work)
    needed = damage.place in ("manifest", "metadata")
    _expect((opened is pheon.CorruptError) == needed, "opened" if needed else "not opened", "damaged in", damage.place)
    return None if needed else opened


def _check_exports(store: pheon.Store, dataset: Dataset, damage: Damage) -> None:
    """Every library gets the rows that are right, all columns of them, or is told."""
    table = _opened(damage, lambda: store.table(dataset.name))
    if table is None:
        return
    rows, frame, polars = _attempt(table.to_pyarrow), _attempt(table.to_pandas), _attempt(table.to_polars)
    _check_rows(rows, dataset, damage, "to_pyarrow")
    told = {name: got is pheon.CorruptError for name, got in (("arrow", rows), ("pandas", frame), ("polars", polars))}
    _expect(len({*told.values()}) == 1, dataset.name, "is damaged for some libraries:", told)
    if rows is pheon.CorruptError:
        return
    _expect(list(frame.columns) == rows.column_names, "pandas has the columns", list(frame.columns))
    for name in rows.column_names:
        got, expected = ([_plain(value) for value in values] for values in (frame[name], rows[name].to_pylist()))
        _expect(repr(got) == repr(expected), dataset.name, "column", name, "as a pandas frame:", got)
    _expect(repr(polars.to_dicts()) == repr(rows.to_pylist()), dataset.name, "as a polars frame")


def _plain(value: Any) -> Any:
    """A pandas value as pyarrow has it; None also for what stands for a missing one."""
    return None if pandas.api.types.is_scalar(value) and pandas.isna(value) else value


def _is_row(got: dict[str, Any], segment: Segment, row: int, damage: Damage) -> bool:
    """Whether this is a row as it was, but for the one column that the damage may have changed in it."""
    if segment is damage.segment and row in damage.rows and damage.column in got:
        got = got | {damage.column: segment.rows[row][damage.column]}
    return repr(got) == segment.texts[row]


def _are_rows(got: list[dict[str, Any]], dataset: Dataset, spans: list[range], damage: Damage) -> bool:
    """Whether these are the rows of a span of each segment that are shown, each once and in order."""
    shown = [
        [(segment, row) for row in span if row not in segment.hidden]
        for segment, span in zip(dataset.segments, spans, strict=True)
    ]
    if len(got) != sum(map(len, shown)):
        return False
    if damage.place == "key":
        return _is_merged(got, shown, damage)
    # Sorting is stable: rows of equal keys by age.
    ordered = sorted(itertools.chain(*shown), key=lambda place: place[0].keys[place[1]])
    return all(_is_row(one, *place, damage) for one, place in zip(got, ordered, strict=True))


def _is_merged(got: list[dict[str, Any]], lists: list[list[tuple[Segment, int]]], damage: Damage) -> bool:
    """Whether these are the rows of several segments, in any order between them: a damaged key may be another's."""
    if not got:
        return not any(lists)
    return any(
        some
        and _is_row(got[0], *some[0], damage)
        and _is_merged(got[1:], [*lists[:i], some[1:], *lists[i + 1 :]], damage)
        for i, some in enumerate(lists)
    )


@dataclass(frozen=True)
class Piece:
    """Rows between two bounds: those whose keys are not before the first, but before the second."""

    before_first: Callable[[Any], bool]
    before_second: Callable[[Any], bool]
    #: The keys that an index may be asked for on the way.
    asked: frozenset[Any]


def _range(low: Any, high: Any) -> Piece:
    return Piece(lambda key: key < low, lambda key: key < high, frozenset((low, high)))


PREFIX_A = Piece(lambda key: key < "a", lambda key: key < "b", frozenset("a"))


def _spans(dataset: Dataset, damage: Damage, piece: Piece) -> Iterator[list[range]]:
    """The rows of each segment that a search for the bounds may give.

    A bisection ends between a row that is before the bound and one that is not. Where it ends wrongly, one of the two
    is damaged: next to a damaged row. In the segments that are not damaged it ends where it should.
    """
    choices = []
    for segment in dataset.segments:
        start = sum(map(piece.before_first, segment.keys))
        end = sum(map(piece.before_second, segment.keys))
        is_hit = damage.place == "key" and segment is damage.segment
        near = {row + side for row in damage.rows for side in (0, 1)} if is_hit else set[int]()
        choices.append([range(a, b) for a in {start, *near} for b in {end, *near}])
    yield from map(list, itertools.product(*choices))


def _check_rows(rows: Any, dataset: Dataset, damage: Damage, how: str, piece: Piece | None = None) -> None:
    """The rows of a piece, or all."""
    if rows is pheon.CorruptError:
        is_led_wrong = damage.place == "index" and piece and damage.keys & piece.asked
        reason = (damage.place in ("key", "value") and damage.rows) or is_led_wrong
        _expect(reason, dataset.name, how, "fails without a reason")
        return
    rows.validate(full=True)
    got = rows.to_pylist()
    whole = [range(len(segment.rows)) for segment in dataset.segments]
    may_be = _spans(dataset, damage, piece) if piece else [whole]
    _expect(any(_are_rows(got, dataset, spans, damage) for spans in may_be), dataset.name, how, "has", got)


def _check_map(store: pheon.Store, dataset: Dataset, damage: Damage) -> None:
    m = _opened(damage, lambda: store.map(dataset.name))
    if m is None:
        return
    values = {row["key"]: row["value"] for row in dataset.shown}
    # A newer row is found before a hidden one is looked for.
    hit = {key for key in damage.keys if key in damage.shown or key not in values}
    is_value = damage.place == "value"
    missing = object()

    def judge(key: str, got: Any, how: str) -> None:
        if got is missing:
            _expect(key not in values or (key in hit and not is_value), how, "misses", key)
        elif key not in values:
            raise BrokenPromiseError(f"{how} finds {key!r}: {got!r}")
        else:
            right = got == values[key] and type(got) is type(values[key])
            _expect(right or (is_value and key in hit and isinstance(got, str | None)), how, key, "gives", got)

    asked = [*values, *ABSENT[dataset.name]]
    for key in asked:
        got = _attempt(lambda key=key: m.get(key, missing))
        contained = _attempt(lambda key=key: key in m)
        if got is pheon.CorruptError:
            _expect(key in hit, key, "is refused")
        else:
            judge(key, got, "get")
        if contained is pheon.CorruptError:
            _expect(key in hit and not is_value, key, "is refused by in")
        else:
            may_miss = key in hit and not is_value
            _expect(contained == (key in values) or (may_miss and not contained), key, "in map is", contained)
    found, answers = _attempt(lambda: m.contains_many(asked)), _attempt(lambda: m.get_many(asked))
    _expect(found is not pheon.CorruptError or (hit and not is_value), "contains_many is refused")
    _expect(answers is not pheon.CorruptError or hit, "get_many is refused")
    if answers is not pheon.CorruptError and found is not pheon.CorruptError:
        _expect(len(answers) == len(found) == len(asked), "a batch has another length")
        for key, there, got in zip(asked, found, answers, strict=True):
            judge(key, got if there else missing, "get_many")
    _expect(len(m) == len(values), "len is", len(m))

    _check_rows(_attempt(lambda: pa.table(store.table(dataset.name))), dataset, damage, "table")
    low, high = ("a", "b") if dataset.name == "texts" else ("b", "f")
    rows = _attempt(lambda: pa.table(m.range(low, high)))
    _check_rows(rows, dataset, damage, "range", _range(low, high))
    rows = _attempt(lambda: pa.table(m.prefix("a")))
    _check_rows(rows, dataset, damage, "prefix", PREFIX_A)
    items = _attempt(lambda: list(m.items()))
    if items is not pheon.CorruptError:
        items = pa.table({"key": [k for k, _ in items], "value": [v for _, v in items]})
    _check_rows(items, dataset, damage, "items")


def _check_table(store: pheon.Store, dataset: Dataset, damage: Damage) -> None:
    table = _opened(damage, lambda: store.table(dataset.name))
    if table is None:
        return
    _check_rows(_attempt(lambda: pa.table(table)), dataset, damage, "table")
    [segment] = dataset.segments
    missing = 8 if len(dataset.key) == 1 else ("x", 7)
    for one in (*dataset.keys, missing):
        found = _attempt(lambda one=one: table.rows(one).to_pyarrow())
        is_hit = one in damage.keys
        if found is pheon.CorruptError:
            # Of some types a column is checked as a whole.
            _expect(is_hit or (damage.place == "value" and damage.rows), "the rows of", one, "are refused")
            continue
        found.validate(full=True)
        got = found.to_pylist()
        span = [row for row, key in enumerate(segment.keys) if key == one]
        may_be = [span]
        if is_hit and damage.place == "index":
            may_be.append([])
        elif is_hit and damage.place == "key":
            # Of a key that repeats, those that lie together may still be found.
            may_be += [span[a:b] for a in range(len(span)) for b in range(a, len(span))]
        right = any(
            len(got) == len(rows) and all(_is_row(g, segment, row, damage) for g, row in zip(got, rows, strict=True))
            for rows in may_be
        )
        _expect(right, dataset.name, "the rows of", one, "are", got)
    low, high = dataset.keys[1], dataset.keys[-1]
    rows = _attempt(lambda: pa.table(table.range(low, high)))
    _check_rows(rows, dataset, damage, "range", _range(low, high))


CHECKS: dict[str, Callable[[pheon.Store, Dataset, Damage], None]] = {
    "texts": _check_map,
    "mixed": _check_table,
    "changed": _check_map,
    "repeats": _check_table,
    "pairs": _check_table,
    "crowded": _check_table,
}


# The runs ------------------------------------------------------------------------------------------------------------

Case = tuple[str, int, int]  # a file below the store, an offset, a bit


def _flips(store: Path) -> Iterator[Case]:
    buckets = {
        path: ipc.layout(path.read_bytes()).batches[0].body_offset for path in store.glob("crowded/*/index.arrow")
    }
    for path in _published(store):
        name = path.relative_to(store).as_posix()
        for at in range(path.stat().st_size):
            if name.startswith(SAMPLED) and not LONG and not 0 <= at - buckets.get(path, at + 1) < 2 * BUCKET_BYTES:
                # A sample, but all that only one of them has.
                new = "hidden" in name or "resume" in name
                yield from [(name, at, at * 5 % 8)] if new or at % 3 == 0 else []
                continue
            for bit in range(8):
                yield name, at, bit


def _run_flips(store: Path, cases: list[Case], note: Callable[[str], None]) -> None:
    datasets = _read(store)
    places = {path.relative_to(store).as_posix(): _places(path, store, datasets) for path in _published(store)}
    files = {name: os.open(store / name, os.O_RDWR) for name in places}
    opened = pheon.open(store, read_only=True)
    at_random = pheon.open(store, read_only=True, access="random")
    for name, at, bit in cases:
        damage = places[name](at, bit)
        note(f"{name}, byte {at}, bit {bit} ({damage.place})")
        good = os.pread(files[name], 1, at)
        os.pwrite(files[name], bytes([good[0] ^ 1 << bit]), at)
        if damage.place == "marker" or (at + bit) % FULL_CHECK_EVERY == 0:
            _expect(not _is_sound(store), "verify finds nothing wrong")
            _check_store(store, datasets, damage)
        else:
            # What is not damaged needs no new look each time, and a store holds nothing of its datasets.
            dataset = datasets[name.split("/")[0]]
            _expect(not opened.verify(dataset.name).ok, "verify finds nothing wrong")
            for handle in (opened, at_random) if LONG else (at_random if bit % 2 else opened,):
                CHECKS[dataset.name](handle, dataset, damage)
            if (8 * at + bit) % EXPORT_EVERY == 0:
                _check_exports(opened, dataset, damage)
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
    datasets = _read(original)
    for name, shown in SHOWN.items():
        assert datasets[name].version.table().to_pylist() == shown.to_pylist()
    _check_store(original, datasets, NOTHING)
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
        asked = [*TEXTS, *ABSENT["texts"]]
        for key in asked:
            _attempt(lambda m=m, key=key: m.get(key))
        _attempt(lambda m=m, asked=asked: m.get_many(asked))
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
