"""A reader of Pheon stores written from docs/format.md alone: plain Python, pyarrow for the columns, nothing of Pheon.

It checks everything that the page promises before it answers, and it is slow.
"""

import itertools
import json
import re
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from . import ipc
from .xxh3 import xxh3_64, xxh3_128

_CHECKSUM_BYTES = 48
_DATASET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MANIFEST_NAME = re.compile(r"manifest-(\d{6,})\.json")
_SEGMENT_ID = re.compile(r"[0-9a-f]{32}")
_HUGE = 2 << 20
_LINE = 64
_SLOTS = 10
_EMPTY = 0xFFFFFFFF
_BUCKETS_A_BLOCK_MAX = 32768
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())


class FormatError(Exception):
    """A file is not as docs/format.md says."""


def _require(condition: bool, path: Path, what: str) -> None:
    if not condition:
        raise FormatError(f"{path}: {what}")


def document(path: Path, newest: int) -> dict[str, Any]:
    """Section 2: a JSON object that ends in its checksum, of format version `newest` at most."""
    data = path.read_bytes()
    body, tail = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    expected = f',"checksum":"{xxh3_128(body):032x}"}}\n'.encode()
    _require(tail == expected, path, f"expected to end in {expected!r}, found {tail!r}")
    content = json.loads(data)
    compact = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    _require(data == compact, path, "it is not one line without spaces")
    _require(1 <= content["format_version"] <= newest, path, f"format_version is {content['format_version']}")
    return content


class Store:
    """Section 1: a directory of datasets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        marker = document(path / "pheon.json", 1)
        _require(marker["pheon"] == "store", path, "the marker is not a store's")
        _require(re.fullmatch("[0-9a-f]{32}", marker["uuid"]) is not None, path, "the uuid is not 32 hex digits")

    def datasets(self) -> list[str]:
        folders = (entry.name for entry in self.path.iterdir() if entry.is_dir())
        return sorted(name for name in folders if _DATASET_NAME.fullmatch(name))

    def versions(self, name: str) -> list[int]:
        matches = (_MANIFEST_NAME.fullmatch(entry.name) for entry in (self.path / name).iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def open(self, name: str, version: int | None = None) -> "Version":
        return Version(self.path / name, self.versions(name)[-1] if version is None else version)


class Version:
    """One version of a dataset, all of it checked."""

    def __init__(self, folder: Path, version: int) -> None:
        path = folder / f"manifest-{version:06}.json"
        manifest = document(path, 2)
        _require(manifest["pheon"] == "manifest" and manifest["version"] == version, path, "it is another manifest")
        records = manifest["segments"]
        _require(len(records) >= 1, path, "it names no segment")
        newer = len(manifest["key"]) > 1 or len(records) != 1 or any("hidden" in record for record in records)
        _require(manifest["format_version"] == (2 if newer else 1), path, "it is of another format version")
        _require(len(set(manifest["key"])) == len(manifest["key"]), path, "the key names a column twice")
        self.path = path
        self.manifest = manifest
        self.unique: bool = manifest["unique"]
        self.key_names: list[str] = manifest["key"]
        self.segments = [Segment(folder, manifest, record) for record in records]
        self.rows = sum(segment.rows - len(segment.hidden) for segment in self.segments)
        _require(manifest["rows"] == self.rows, path, "rows is not the segments' sum")
        schemas = [segment.data.table.schema for segment in self.segments]
        same = all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
        _require(same, path, "its segments have different schemas")

    @property
    def only(self) -> "Segment":
        """The segment of a version that has one."""
        [segment] = self.segments
        return segment

    @property
    def data(self) -> "ArrowFile":
        """The data file of the only segment."""
        return self.only.data

    @property
    def index(self) -> "Index | None":
        """The index of the only segment."""
        return self.only.index

    def order(self) -> list[tuple[int, int]]:
        """Section 3.4: segment and row of every row that is shown, in order."""
        shown = [
            (number, row)
            for number, segment in enumerate(self.segments)
            for row in range(segment.rows)
            if row not in segment.hidden
        ]
        if self.key_names:
            shown.sort(key=lambda place: (self.segments[place[0]].sort_key(place[1]), place))
        return shown

    def table(self) -> pa.Table:
        """The rows that are shown, in order."""
        starts = [0]
        for segment in self.segments:
            starts.append(starts[-1] + segment.rows)
        stored = pa.concat_tables([segment.data.table for segment in self.segments])
        return stored.take(pa.array([starts[number] + row for number, row in self.order()], pa.int64()))

    def find(self, key: Any) -> int | None:
        """The first row of a key in the only segment."""
        return self.only.find(key)

    def rows_of(self, wanted: list[pa.Array], row: int) -> range:
        """See `Segment.rows_of`."""
        return self.only.rows_of(wanted, row)

    @property
    def keys(self) -> pa.Array:
        """The only key column of the only segment."""
        return self.only.keys

    @property
    def key_columns(self) -> list[pa.Array]:
        """The key columns of the only segment."""
        return self.only.key_columns

    def get(self, key: Any) -> dict[str, Any] | None:
        """The row of a key as a dictionary, without the key itself. Every segment is asked; hidden rows are none."""
        found = [(segment, row) for segment in self.segments if (row := segment.find(key)) is not None]
        shown = [(segment, row) for segment, row in found if row not in segment.hidden]
        _require(len(shown) <= 1 or not self.unique, self.path, f"{key!r} is shown by {len(shown)} segments")
        if not shown:
            return None
        segment, row = shown[0]
        values = segment.data.table.slice(row, 1).to_pylist()[0]
        return {name: value for name, value in values.items() if name not in self.key_names}

    def check_order_and_index(self) -> None:
        """Every segment by itself; and no key that is shown twice if they are unique."""
        for segment in self.segments:
            segment.check_order_and_index()
        if self.unique:
            keys = [self.segments[number].sort_key(row) for number, row in self.order()]
            _require(len(set(keys)) == len(keys), self.path, "a key is shown twice")


class Segment:
    """Section 3: a data file, its index, and the rows of it that a version does not show."""

    def __init__(self, folder: Path, manifest: dict[str, Any], segment: dict[str, Any]) -> None:
        path = folder / f"seg-{segment['id']}"
        _require(_SEGMENT_ID.fullmatch(segment["id"]) is not None, path, "a segment's id is not 32 hex digits")
        self.unique: bool = manifest["unique"]
        self.key_names: list[str] = manifest["key"]
        self.rows: int = segment["rows"]
        self.data = ArrowFile(path / "data.arrow", segment["data"])
        _require(self.data.table.num_rows == self.rows, self.data.path, "its rows are not the manifest's")
        metadata = self.data.table.schema.metadata or {}
        _require(
            json.loads(metadata[b"pheon.key"]) == self.key_names, self.data.path, "pheon.key is not the manifest's"
        )
        _require(metadata[b"pheon.unique"] == str(self.unique).lower().encode(), self.data.path, "pheon.unique differs")
        _require((segment["index"] is None) == (not self.key_names), path, "an index without a key, or none with one")
        self.index = Index(ArrowFile(path / "index.arrow", segment["index"])) if segment["index"] else None
        self.hidden: frozenset[int] = frozenset()
        if "hidden" in segment:
            self._read_hidden(folder, segment["hidden"])

    def _read_hidden(self, folder: Path, record: dict[str, Any]) -> None:
        path = folder / f"hidden-{record['id']}.arrow"
        _require(_SEGMENT_ID.fullmatch(record["id"]) is not None, path, "its id is not 32 hex digits")
        file = ArrowFile(path, record["file"])
        expected = pa.schema([pa.field("row", pa.uint32(), nullable=False)])
        _require(file.table.schema.equals(expected), path, f"its schema is {file.table.schema}")
        rows = file.table["row"].to_pylist()
        _require(len(rows) == record["rows"], path, f"it has {len(rows)} rows, not {record['rows']}")
        ascending = all(a < b for a, b in itertools.pairwise(rows))
        _require(bool(rows) and ascending and rows[-1] < self.rows, path, "its rows do not ascend within the segment")
        self.hidden = frozenset(rows)
        if self.key_names:
            keys = [self.sort_key(row) for row in range(self.rows)]
            split = {keys[row] for row in rows} & {keys[row] for row in range(self.rows) if row not in self.hidden}
            _require(not split, path, f"it hides some rows of the keys {split}, and shows others")

    def sort_key(self, row: int) -> tuple[Any, ...]:
        """What orders rows."""
        return tuple(sort_value(column, row) for column in self.key_columns)

    @cached_property
    def key_columns(self) -> list[pa.Array]:
        """The key columns in the key's order."""
        schema = self.data.table.schema
        return [
            self.data.table.column(name).chunk(0) if self.rows else pa.array([], schema.field(name).type)
            for name in self.key_names
        ]

    @property
    def keys(self) -> pa.Array:
        """The only key column."""
        [keys] = self.key_columns
        return keys

    def find(self, key: Any) -> int | None:
        """The first row of a key, through the index; a key of several columns is a tuple."""
        assert self.index is not None
        parts = (key,) if len(self.key_columns) == 1 else key
        columns = [pa.array([part], c.type) for part, c in zip(parts, self.key_columns, strict=True)]
        return self.index.find(hashed_bytes(columns, 0), lambda row: hashed_bytes(self.key_columns, row))

    def rows_of(self, wanted: list[pa.Array], row: int) -> range:
        """The rows whose first key columns have the values of a row of these columns: their key bytes begin alike."""
        assert len(self.key_columns) > 1
        prefix = b"".join(part_bytes(column, row) for column in wanted)
        rows = [row for row in range(self.rows) if hashed_bytes(self.key_columns, row).startswith(prefix)]
        found = range(rows[0], rows[-1] + 1) if rows else range(0)
        _require(rows == list(found), self.data.path, f"rows with the same {len(wanted)} key values are not adjacent")
        return found

    def check_order_and_index(self) -> None:
        """Section 3.1: rows ascend by key. Section 3.3: each key is found at its first row, nothing else is indexed."""
        assert self.index is not None
        previous = None
        distinct = 0
        for row in range(self.rows):
            nulls = [name for name, c in zip(self.key_names, self.key_columns, strict=True) if not c[row].is_valid]
            _require(not nulls, self.data.path, f"row {row} is null in the key columns {nulls}")
            order = self.sort_key(row)
            if previous is None or previous < order:
                distinct += 1
                found = self.index.find(
                    hashed_bytes(self.key_columns, row), lambda r: hashed_bytes(self.key_columns, r)
                )
                _require(found == row, self.index.file.path, f"the key of row {row} is found at {found}")
            else:
                _require(previous == order, self.data.path, f"row {row} is less than the one before")
                _require(not self.unique, self.data.path, f"the key of row {row} occurs twice")
            previous = order
        _require(
            distinct == self.index.keys, self.index.file.path, f"pheon.keys is {self.index.keys}, found {distinct}"
        )
        self.index.check_slots(self.rows)


class ArrowFile:
    """Sections 2 and 3: an Arrow file whose buffers are where, and what, the manifest says."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        data = path.read_bytes()
        _require(len(data) == record["size_bytes"], path, f"it has {len(data)} bytes, not {record['size_bytes']}")
        start, end = record["body_offset"], record["body_offset"] + record["body_bytes"]
        found = f"{xxh3_128(data[:start] + data[end:]):032x}"
        _require(found == record["metadata_xxh3_128"], path, f"the metadata's checksum is {found}")

        layout = ipc.layout(data)
        _require(layout.is_v5, path, f"metadata version {layout.version}")
        _require(not layout.big_endian, path, "it is big-endian")
        _require(len(layout.batches) == 1, path, f"{len(layout.batches)} record batches")
        [block] = layout.batches
        _require(all(d.offset < block.offset for d in layout.dictionaries), path, "a dictionary comes after the batch")
        _require((block.body_offset, block.body_bytes) == (start, end - start), path, "the body is elsewhere")
        _require(start % _LINE == 0, path, f"the body begins at {start}")
        batch = ipc.batch(data, block)
        _require(not batch.compressed, path, "it is compressed")
        listed = [(b["offset"], b["length"]) for b in record["buffers"]]
        _require([(b.offset, b.length) for b in batch.buffers] == listed, path, "the manifest lists other buffers")

        reached = start
        for i, buffer in enumerate(record["buffers"]):
            at, length = buffer["offset"], buffer["length"]
            found = f"{xxh3_64(data[at : at + length]):016x}"
            _require(found == buffer["xxh3_64"], path, f"buffer {i}: checksum {found}, expected {buffer['xxh3_64']}")
            if length == 0:
                continue
            alignment = _HUGE if length >= _HUGE else _LINE
            _require(at % alignment == 0, path, f"buffer {i} of {length} bytes begins at {at}")
            _require(reached <= at and at + length <= end, path, f"buffer {i} overlaps another or leaves the body")
            _require(not any(data[reached:at]), path, f"the gap before buffer {i} is not zero")
            reached = at + length
        _require(not any(data[reached:end]), path, "the gap after the last buffer is not zero")

        self.layout = layout
        self.batch = batch
        self.bytes = data
        self.table: pa.Table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class Index:
    """Section 3.3: the hash-bucket index."""

    def __init__(self, file: ArrowFile) -> None:
        self.file = file
        schema = file.table.schema
        _require(schema.names == ["bucket"], file.path, f"its columns are {schema.names}")
        _require(schema.field(0).type == pa.binary(_LINE), file.path, f"its column is {schema.field(0).type}")
        _require(not schema.field(0).nullable, file.path, "its column is nullable")
        metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        _require(metadata["pheon.index"] == "bucket64", file.path, "it is another kind of index")
        _require(metadata["pheon.hash"] == "xxh3-64", file.path, "it uses another hash")
        self.seed = int(metadata["pheon.seed"])
        self.keys = int(metadata["pheon.keys"])
        self.blocks = int(metadata["pheon.blocks"])
        self.buckets_per_block = int(metadata["pheon.buckets_per_block"])
        _require(self.blocks >= 1, file.path, f"{self.blocks} blocks")
        _require(
            1 <= self.buckets_per_block <= _BUCKETS_A_BLOCK_MAX, file.path, f"{self.buckets_per_block} buckets a block"
        )
        self.buckets = self.blocks * self.buckets_per_block
        _require(file.table.num_rows == self.buckets, file.path, f"it has {file.table.num_rows} buckets")
        buffer = file.batch.buffers[1]
        _require(buffer.length == self.buckets * _LINE, file.path, f"its buckets take {buffer.length} bytes")
        self._lines = file.bytes[buffer.offset : buffer.offset + buffer.length]

    def bucket(self, number: int) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """Fingerprints, overflow bits and rows of a bucket."""
        fields = struct.unpack_from("<10HI10I", self._lines, number * _LINE)
        return fields[:_SLOTS], fields[_SLOTS], fields[_SLOTS + 1 :]

    def places(self, h: int) -> tuple[int, int, int, int]:
        """Primary bucket, secondary bucket, fingerprint and overflow bit of a hash."""
        primary = h * self.buckets >> 64
        block, p = divmod(primary, self.buckets_per_block)
        spread = h >> 16 & 0xFFFF
        step = p + 1 + (spread * (self.buckets_per_block - 1) >> 16)
        return primary, block * self.buckets_per_block + step % self.buckets_per_block, h & 0xFFFF, spread & 31

    def find(self, wanted: bytes, stored: Any) -> int | None:
        """The row of a key given by the bytes that are hashed; `stored(row)` gives those of a row."""
        primary, secondary, fingerprint, bit = self.places(xxh3_64(wanted, self.seed))
        for number in (primary, secondary):
            fingerprints, overflow, rows = self.bucket(number)
            for slot in range(_SLOTS):
                hit = rows[slot] != _EMPTY and fingerprints[slot] == fingerprint
                if hit and stored(rows[slot]) == wanted:
                    return rows[slot]
            if number == primary and not overflow >> bit & 1:
                return None
        return None

    def check_slots(self, rows_in_data: int) -> None:
        """Slots fill upwards, empty ones have fingerprint 0, and each row stands in one slot at most."""
        seen: set[int] = set()
        for number in range(self.buckets):
            fingerprints, _, rows = self.bucket(number)
            used = sum(row != _EMPTY for row in rows)
            _require(all(row != _EMPTY for row in rows[:used]), self.file.path, f"bucket {number} has a gap")
            _require(not any(fingerprints[used:]), self.file.path, f"bucket {number}: an empty slot has a fingerprint")
            for row in rows[:used]:
                _require(row < rows_in_data and row not in seen, self.file.path, f"bucket {number} names row {row}")
                seen.add(row)
        _require(len(seen) == self.keys, self.file.path, f"{len(seen)} entries for {self.keys} keys")


def key_bytes(keys: pa.Array, row: int) -> bytes:
    """Section 3.2: the bytes of a row's key that are hashed. The same for all types: equal bytes, equal keys."""
    kind = keys.type
    values: Any = keys.buffers()[1:]
    at = keys.offset + row
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        start, end = struct.unpack_from("<qq", values[0], 8 * at)
        return b"" if start == end else values[1][start:end].to_pybytes()
    if pa.types.is_boolean(kind):
        return struct.pack("<Q", values[0][at // 8] >> at % 8 & 1)
    width = kind.bit_width // 8
    raw = values[0][at * width : (at + 1) * width].to_pybytes()
    if pa.types.is_decimal(kind):
        return _extend(raw, max(16, width), signed=True)
    if _is_fixed_binary(kind):
        return raw
    return _extend(raw, 8, signed=kind not in _UNSIGNED)


def hashed_bytes(columns: list[pa.Array], row: int) -> bytes:
    """Section 3.2: what is hashed of a row's key of one or of several columns."""
    if len(columns) == 1:
        return key_bytes(columns[0], row)
    return b"".join(part_bytes(column, row) for column in columns)


def part_bytes(keys: pa.Array, row: int) -> bytes:
    """Section 3.2: one column's part of the key bytes of several columns."""
    kind = keys.type
    raw = key_bytes(keys, row)
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return raw.replace(b"\0", b"\0\xff") + b"\0\0"
    if _is_fixed_binary(kind):
        return raw
    if pa.types.is_boolean(kind):
        return raw[:1]
    signed = kind not in _UNSIGNED
    width = kind.bit_width // 8
    value = int.from_bytes(raw, "little", signed=signed)
    # Flipping the sign bit adds half of the range.
    return (value + (1 << (8 * width - 1) if signed else 0)).to_bytes(width, "big")


def sort_value(keys: pa.Array, row: int) -> Any:
    """Section 3.1: what orders rows."""
    raw = key_bytes(keys, row)
    kind = keys.type
    is_bytes = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) or _is_fixed_binary(kind)
    return raw if is_bytes else int.from_bytes(raw, "little", signed=kind not in _UNSIGNED)


def _is_fixed_binary(kind: pa.DataType) -> bool:
    # pyarrow derives its decimals from it.
    return pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)


def _extend(raw: bytes, width: int, *, signed: bool) -> bytes:
    return int.from_bytes(raw, "little", signed=signed).to_bytes(width, "little", signed=signed)


def files(store: Path) -> Iterator[Path]:
    """Every published Arrow file below a store."""
    yield from sorted([*store.glob("*/seg-*/*.arrow"), *store.glob("*/hidden-*.arrow")])
