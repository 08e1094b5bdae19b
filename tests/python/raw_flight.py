"""Flight messages made by hand, and sent as they are: what no well-behaved client sends."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator

import grpc
import pyarrow as pa

SERVICE = "/arrow.flight.protocol.FlightService/"


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def path_descriptor(name: str) -> bytes:
    return varint(1 << 3) + varint(1) + field(3, name.encode())


def command_descriptor(command: bytes) -> bytes:
    return varint(1 << 3) + varint(2) + field(2, command)


def ingest_descriptor(table: str) -> bytes:
    """Flight SQL's CommandStatementIngest: make it, or add to it."""
    options = varint(1 << 3) + varint(1) + varint(2 << 3) + varint(2)
    ingest = field(1, options) + field(2, table.encode())
    name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementIngest"
    return command_descriptor(field(1, name) + field(2, ingest))


def flight_data(header: bytes = b"", body: bytes = b"", descriptor: bytes | None = None) -> bytes:
    start = b"" if descriptor is None else field(1, descriptor)
    return start + field(2, header) + field(1000, body)


def messages(table: pa.Table, compression: str | None = None) -> list[tuple[bytes, bytes]]:
    """Header and body of each message of an IPC stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return list(split(sink.getvalue().to_pybytes()))


def split(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    reader = pa.ipc.MessageReader.open_stream(stream)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        marker, length = struct.unpack_from("<Ii", stream, at)
        assert marker == 0xFFFFFFFF
        header = stream[at + 8 : at + 8 + length]
        body = message.body.to_pybytes() if message.body is not None else b""
        at += 8 + length + len(body)
        yield header, body


def send(
    port: int, method: str, data: Iterable[bytes], *, token: str | None = None, timeout: float = 60
) -> tuple[grpc.StatusCode, str, list[bytes]]:
    """Sends messages in a connection of its own; the status, what it says, and the answers."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.stream_stream(SERVICE + method)(iter(data), metadata=metadata, timeout=timeout)
        answers: list[bytes] = []
        with contextlib.suppress(grpc.RpcError):
            answers.extend(call)
        return call.code(), call.details() or "", answers
