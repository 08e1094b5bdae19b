"""The layout of an Arrow IPC file, read from its bytes: which messages it holds and where each buffer lies.

Written from the Arrow columnar format's description and its FlatBuffers schemas (Message.fbs, File.fbs), so that rules
about bytes can be checked without a library that might be forgiving.
"""

import struct
from dataclasses import dataclass

MAGIC = b"ARROW1"
_METADATA_V5 = 4
_CONTINUATION = b"\xff\xff\xff\xff"
_HEADER_DICTIONARY_BATCH = 2
_HEADER_RECORD_BATCH = 3


@dataclass(frozen=True)
class Block:
    """A message as the footer names it: offsets and lengths in bytes, from the start of the file."""

    offset: int
    metadata_bytes: int
    body_bytes: int

    @property
    def body_offset(self) -> int:
        return self.offset + self.metadata_bytes


@dataclass(frozen=True)
class Node:
    rows: int
    nulls: int


@dataclass(frozen=True)
class Buffer:
    """`offset` counts from the start of the file."""

    offset: int
    length: int


@dataclass(frozen=True)
class Batch:
    rows: int
    compressed: bool
    nodes: list[Node]
    buffers: list[Buffer]


@dataclass(frozen=True)
class Layout:
    """What the footer says of a file."""

    version: int
    big_endian: bool
    fields: list[str]
    dictionaries: list[Block]
    batches: list[Block]
    footer_offset: int

    @property
    def is_v5(self) -> bool:
        return self.version == _METADATA_V5


def layout(data: bytes) -> Layout:
    """Parses the footer. Raises ValueError if the file is not framed as an Arrow IPC file."""
    if not data.startswith(MAGIC + b"\0\0") or not data.endswith(MAGIC):
        raise ValueError("no ARROW1 at both ends")
    trailer = len(data) - len(MAGIC) - 4
    footer_offset = trailer - struct.unpack_from("<i", data, trailer)[0]
    footer = _Table.root(data, footer_offset)
    schema = footer.table(1)
    if schema is None:
        raise ValueError("the footer has no schema")
    return Layout(
        version=footer.integer(0, "<h"),
        big_endian=schema.integer(0, "<h") != 0,
        fields=[field.text(0) for field in schema.tables(1)],
        dictionaries=[Block(o, m, b) for o, m, b in footer.structs(2, "<qi4xq")],
        batches=[Block(o, m, b) for o, m, b in footer.structs(3, "<qi4xq")],
        footer_offset=footer_offset,
    )


def batch(data: bytes, block: Block, *, dictionary: bool = False) -> Batch:
    """Parses the record batch, or the dictionary batch, that `block` names."""
    if data[block.offset : block.offset + 4] != _CONTINUATION:
        raise ValueError(f"no continuation marker at {block.offset}")
    message = _Table.root(data, block.offset + 8)
    wanted = _HEADER_DICTIONARY_BATCH if dictionary else _HEADER_RECORD_BATCH
    if message.integer(1, "<B") != wanted:
        raise ValueError(f"the message at {block.offset} has header type {message.integer(1, '<B')}")
    if message.integer(3, "<q") != block.body_bytes:
        raise ValueError(f"the message at {block.offset} and the footer disagree on the body's length")
    header = message.table(2)
    found = header.table(1) if dictionary and header is not None else header
    if found is None:
        raise ValueError(f"the message at {block.offset} has no batch")
    return Batch(
        rows=found.integer(0, "<q"),
        compressed=found.table(3) is not None,
        nodes=[Node(rows, nulls) for rows, nulls in found.structs(1, "<qq")],
        buffers=[Buffer(block.body_offset + o, n) for o, n in found.structs(2, "<qq")],
    )


class _Table:
    """A FlatBuffers table; fields are named by their number in the schema."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]
        self._vtable_bytes = struct.unpack_from("<H", data, self._vtable)[0]

    @classmethod
    def root(cls, data: bytes, at: int) -> "_Table":
        return cls(data, at + struct.unpack_from("<I", data, at)[0])

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        if slot >= self._vtable_bytes:
            return None
        relative = struct.unpack_from("<H", self._data, self._vtable + slot)[0]
        return self._at + relative if relative else None

    def _target(self, at: int) -> int:
        return at + struct.unpack_from("<I", self._data, at)[0]

    def integer(self, number: int, form: str) -> int:
        at = self._field(number)
        return 0 if at is None else struct.unpack_from(form, self._data, at)[0]

    def table(self, number: int) -> "_Table | None":
        at = self._field(number)
        return None if at is None else _Table(self._data, self._target(at))

    def text(self, number: int) -> str:
        at = self._field(number)
        if at is None:
            return ""
        start = self._target(at)
        length = struct.unpack_from("<I", self._data, start)[0]
        return self._data[start + 4 : start + 4 + length].decode()

    def _vector(self, number: int) -> tuple[int, int]:
        at = self._field(number)
        if at is None:
            return 0, 0
        start = self._target(at)
        return start + 4, struct.unpack_from("<I", self._data, start)[0]

    def structs(self, number: int, form: str) -> list[tuple[int, ...]]:
        start, count = self._vector(number)
        size = struct.calcsize(form)
        return [struct.unpack_from(form, self._data, start + i * size) for i in range(count)]

    def tables(self, number: int) -> list["_Table"]:
        start, count = self._vector(number)
        return [_Table(self._data, self._target(start + 4 * i)) for i in range(count)]
