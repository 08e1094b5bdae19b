"""Clients that mean no good. After each of them the server serves a new one, and has not grown."""

from __future__ import annotations

import resource
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from certificates import Certificates
from pyarrow import flight
from raw_flight import SERVICE, flight_data, messages, path_descriptor, send
from service import WATCHDOG_SECONDS, Service, numbers, path

import pheon

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 1, 3, 4, 6, 8, 9
# POST, http, and a literal path and authority.
REQUEST = b"\x83\x86\x44\x02/x\x41\x01x"
IDLE_CONNECTIONS = 1000
IDLE_BYTES_MAX = 100 * 10**6


@pytest.fixture
def service(store: pheon.Store, store_path: Path) -> Iterator[Service]:
    store.put("t", numbers(100), key="k", unique=True)
    with Service(store_path) as running:
        yield running


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def connected(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=WATCHDOG_SECONDS)


def send_all(connection: socket.socket, data: bytes) -> None:
    """As much as the server takes before it has enough."""
    try:
        connection.sendall(data)
    except OSError:
        return


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_a_reader_that_never_reads(store: pheon.Store, store_path: Path, service: Service) -> None:
    store.put("big", pa.table({"v": pa.array(range(40_000_000), pa.int64())}))
    service.serves()
    before = service.resident_bytes()
    clients = [service.client() for _ in range(8)]
    readers = []
    for client in clients:
        ticket = client.get_flight_info(path("big")).endpoints[0].ticket
        readers.append(client.do_get(ticket))
    until(lambda: service.metric('pheon_calls_running{method="DoGet"}') >= len(readers))
    # 320 MB are asked for 8 times; what has been sent lies in buffers of the kernel and of the client.
    grown = service.resident_bytes() - before
    assert grown < 128 * 2**20, grown
    service.serves()
    for reader, client in zip(readers, clients, strict=True):
        reader.cancel()
        client.close()


def test_many_idle_connections(service: Service) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * IDLE_CONNECTIONS:
        pytest.skip(f"this process may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * IDLE_CONNECTIONS), hard))
    service.serves()
    before = service.resident_bytes()
    # The preface and settings, as every client sends them: the server has HTTP/2's state of each. At once, since the
    # server waits for them only so long.
    idle = []
    for _ in range(IDLE_CONNECTIONS):
        idle.append(connected(service))
        idle[-1].sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
    for connection in idle:
        assert connection.recv(9)[3] == SETTINGS
    assert service.metric("pheon_connections") >= IDLE_CONNECTIONS
    grown = service.resident_bytes() - before
    print(f"{IDLE_CONNECTIONS} idle connections: {grown / 1e6:.1f} MB")
    assert grown < IDLE_BYTES_MAX
    service.serves()
    for connection in idle:
        connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_there_is_room_for(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    with Service(store_path, "--limit", "connections_max=20", "--limit", "handshake_timeout=30s") as service:
        silent = [connected(service) for _ in range(200)]
        service.serves()
        until(lambda: service.metric("pheon_connections") <= 20)
        for connection in silent:
            connection.close()


def test_rapid_resets(service: Service) -> None:
    for _ in range(5):
        with connected(service) as connection:
            data = PREFACE + frame(SETTINGS, 0, 0, b"")
            for n in range(20_000):
                data += frame(HEADERS, 4, 2 * n + 1, REQUEST)
                data += frame(RST_STREAM, 0, 2 * n + 1, struct.pack(">I", 8))
            send_all(connection, data)
        service.serves()


def test_floods_of_pings_settings_and_continuations(service: Service) -> None:
    floods = [
        frame(PING, 0, 0, b"12345678") * 100_000,
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 100_000,
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 100_000,
        # A header block that never ends.
        frame(HEADERS, 0, 1, REQUEST) + frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f" + b"x" * 127) * 100_000,
        frame(HEADERS, 0, 1, REQUEST) + frame(CONTINUATION, 0, 1, b"") * 100_000,
    ]
    before = service.resident_bytes()
    for flood in floods:
        with connected(service) as connection:
            send_all(connection, PREFACE + frame(SETTINGS, 0, 0, b"") + flood)
            service.serves()
    assert service.resident_bytes() - before < 64 * 2**20


def test_metadata_bombs(service: Service) -> None:
    options = [("grpc.max_metadata_size", 64 << 20), ("grpc.absolute_max_metadata_size", 64 << 20)]
    for metadata in ([("x", "y" * (1 << 20))], [(f"x{i}", "y" * 100) for i in range(10_000)]):
        with grpc.insecure_channel(f"127.0.0.1:{service.port}", options) as channel:
            call = channel.unary_unary(SERVICE + "GetFlightInfo")
            with pytest.raises(grpc.RpcError):
                call(path_descriptor("t"), metadata=metadata, timeout=WATCHDOG_SECONDS)
        service.serves()
    # One entry of the table of headers, referred to many times.
    with connected(service) as connection:
        bomb = b"\x40\x01x\x7f\xc1\x1e" + b"y" * 4000 + b"\xbe" * 4000
        send_all(connection, PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, REQUEST + bomb))
        service.serves()


def test_oversized_messages(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    with Service(store_path, "--limit", "message_bytes_max=1MiB") as service:
        schema, *_ = messages(numbers(1))
        data = [flight_data(*schema, path_descriptor("made")), flight_data(b"x", bytes(2 << 20))]
        code, _, _ = send(service.port, "DoPut", data)
        assert code == grpc.StatusCode.OUT_OF_RANGE
        # One that says that it is large, and never comes.
        with connected(service) as connection:
            send_all(connection, PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, REQUEST))
            send_all(connection, frame(0, 0, 1, b"\x00\xff\xff\xff\xff"))
            service.serves()
        service.serves()


def test_a_stream_that_never_ends_is_cut(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    with Service(store_path, "--limit", "stall_timeout=2s") as service, service.client() as client:
        writer, _ = client.do_put(path("made"), numbers(1).schema)
        # Already the rows may come too late.
        with pytest.raises((flight.FlightError, pa.ArrowException, StopIteration)):
            writer.write_table(numbers(1))
            until(lambda: service.metric('pheon_connections_closed_total{reason="stalled"}'))
            writer.close()
        assert "made" not in store
        service.serves()


def test_half_open_tls(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("t", numbers(1))
    made = Certificates(tmp_path)
    with Service(store_path, *made.options, "--limit", "handshake_timeout=5s") as service:
        silent = [connected(service) for _ in range(50)]
        begun = [connected(service) for _ in range(50)]
        for connection in begun:
            # The beginning of a ClientHello.
            send_all(connection, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        context = ssl.create_default_context(cafile=made.path("ca.pem"))
        context.set_alpn_protocols(["h2"])
        quiet = [context.wrap_socket(connected(service), server_hostname="localhost") for _ in range(20)]

        def serves() -> None:
            with service.client(tls_root_certs=made.read("ca.pem")) as client:
                client.get_flight_info(path("t"), service.call())

        serves()
        for connection in [*silent, *begun, *quiet]:
            # The server ends it: some with a word of TLS, some without.
            try:
                while connection.recv(4096):
                    pass
            except OSError:
                pass
            connection.close()
        serves()
