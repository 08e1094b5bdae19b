"""Clients that give up in the midst of sending rows: nothing of them is published, however their streams end."""

from __future__ import annotations

import json
import queue
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from raw_flight import SERVICE, command_descriptor, flight_data, ingest_descriptor, messages
from service import WATCHDOG_SECONDS, Service, numbers

import pheon

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
NO_ERROR, INTERNAL_ERROR, CANCEL = 0, 2, 8
ROWS = 100
# How long the store is looked at for what must not happen.
WATCHED_SECONDS = 0.6


@pytest.fixture
def service(store: pheon.Store, store_path: Path) -> Iterator[Service]:
    store.put("t", numbers(ROWS), key="k", unique=True)
    with Service(store_path) as running:
        yield running


def put_descriptor(mode: str) -> bytes:
    return command_descriptor(json.dumps({"put": "t", "mode": mode}).encode())


# What each way would do with the rows that came so far.
WAYS: dict[str, tuple[bytes, pa.Table]] = {
    "delete": (put_descriptor("delete"), numbers(ROWS // 2).select(["k"])),
    "publish": (put_descriptor("publish"), numbers(5, ROWS)),
    "append": (put_descriptor("append"), numbers(5, ROWS)),
    "upsert": (put_descriptor("upsert"), numbers(5, ROWS)),
    "ingest": (ingest_descriptor("t"), numbers(5, ROWS)),
}


def sent(way: str) -> list[bytes]:
    """Schema and rows, as messages."""
    descriptor, rows = WAYS[way]
    return [flight_data(*data, descriptor if i == 0 else None) for i, data in enumerate(messages(rows))]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def begun(service: Service, way: str, more: bytes = b"") -> socket.socket:
    """A connection whose stream 1 has sent its rows, and not ended."""
    headers = b""
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", SERVICE.encode() + b"DoPut"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ):
        headers += b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
    data = b"".join(b"\x00" + struct.pack(">I", len(message)) + message for message in sent(way)) + more
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=WATCHDOG_SECONDS)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, headers) + frame(DATA, 0, 1, data))
    return connection


def arrived(service: Service) -> None:
    """Waits until the server has begun with the call, and has what was sent."""
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while service.metric('pheon_calls_running{method="DoPut"}') < 1:
        assert time.monotonic() < deadline
    time.sleep(0.2)


def unchanged(service: Service, store: pheon.Store) -> None:
    until = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < until:
        assert store.map("t").version == 1
        assert len(store.map("t")) == ROWS
        time.sleep(0.02)
    service.serves()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("reason", "more"),
    [(NO_ERROR, b""), (CANCEL, b""), (CANCEL, b"\x00\x00\x00"), (INTERNAL_ERROR, b"\x00\x00\x00")],
)
def test_streams_that_are_reset(service: Service, store: pheon.Store, way: str, reason: int, more: bytes) -> None:
    """Between two messages, and within one."""
    with begun(service, way, more) as connection:
        arrived(service)
        connection.sendall(frame(RST_STREAM, 0, 1, struct.pack(">I", reason)))
        unchanged(service, store)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reason", [NO_ERROR, CANCEL])
def test_streams_that_are_reset_at_once(service: Service, store: pheon.Store, way: str, reason: int) -> None:
    for _ in range(10):
        with begun(service, way) as connection:
            connection.sendall(frame(RST_STREAM, 0, 1, struct.pack(">I", reason)))
    unchanged(service, store)


@pytest.mark.parametrize("way", WAYS)
def test_connections_that_end(service: Service, store: pheon.Store, way: str) -> None:
    with begun(service, way):
        arrived(service)
    unchanged(service, store)


def stalled(
    service: Service, store: pheon.Store, way: str, timeout: float | None, then: Callable[[grpc.Call], None]
) -> None:
    """Has gRPC's own client send rows and be silent, and then do something."""
    waiting: queue.Queue[bytes | None] = queue.Queue()
    for message in sent(way):
        waiting.put(message)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.stream_stream(SERVICE + "DoPut")(iter(waiting.get, None), timeout=timeout)
        arrived(service)
        then(call)
        with pytest.raises(grpc.RpcError):
            list(call)
        unchanged(service, store)
        waiting.put(None)


@pytest.mark.parametrize("way", WAYS)
def test_calls_that_are_cancelled(service: Service, store: pheon.Store, way: str) -> None:
    stalled(service, store, way, None, lambda call: call.cancel())


@pytest.mark.parametrize("way", WAYS)
def test_deadlines_that_pass(service: Service, store: pheon.Store, way: str) -> None:
    stalled(service, store, way, 0.5, lambda _: None)


@pytest.mark.parametrize("way", WAYS)
def test_streams_that_end_as_they_should(service: Service, store: pheon.Store, way: str) -> None:
    with begun(service, way) as connection:
        arrived(service)
        connection.sendall(frame(DATA, 1, 1, b""))
        deadline = time.monotonic() + WATCHDOG_SECONDS
        while store.map("t").version == 1:
            assert time.monotonic() < deadline
    assert len(store.map("t")) == {"delete": ROWS // 2, "publish": 5}.get(way, ROWS + 5)
