"""Traces of a real server, at a collector that takes OTLP over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from pyarrow import flight
from service import WATCHDOG_SECONDS, Service, numbers, path

import pheon

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Collector(grpc.GenericRpcHandler):
    """Keeps what it is sent, as bytes."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.others: list[str] = []
        self._lock = threading.Lock()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if handler_call_details.method != EXPORT:
            self.others.append(handler_call_details.method)
            return None
        return grpc.unary_unary_rpc_method_handler(self._export)

    def _export(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.taken.append(request)
        return b""

    def spans(self, name: str) -> list[dict[str, object]]:
        """Spans of a name: their fields by number, attributes by name."""
        found = []
        for request in self.taken:
            for resource in fields(request).get(1, []):
                for scope in fields(resource).get(2, []):
                    for span in fields(scope).get(2, []):
                        parts = fields(span)
                        if parts[5] == [name.encode()]:
                            attributes = dict(attribute(pair) for pair in parts.get(9, []))
                            found.append(
                                {"trace": parts[1][0].hex(), "parent": parts.get(4, [b""])[0].hex(), **attributes}
                            )
        return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message; numbers as their bytes."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 2:
            length, at = varint(data, at)
            content = data[at : at + length]
            at += length
        elif key & 7 == 0:
            number, at = varint(data, at)
            content = str(number).encode()
        else:
            length = 8 if key & 7 == 1 else 4
            content = data[at : at + length]
            at += length
        found.setdefault(key >> 3, []).append(content)
    return found


def attribute(data: bytes) -> tuple[str, object]:
    parts = fields(data)
    value = fields(parts[2][0])
    number = value.get(3)
    return parts[1][0].decode(), int(number[0]) if number else value.get(1, [b""])[0].decode()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    handler = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"http://127.0.0.1:{port}"
    server.stop(None).wait(WATCHDOG_SECONDS)


@pytest.mark.parametrize("by", ["environment", "flag"])
def test_spans_of_calls(store: pheon.Store, store_path: Path, collector: tuple[Collector, str], by: str) -> None:
    taken, endpoint = collector
    store.put("t", numbers(700), key="k")
    options = ("--otlp-endpoint", endpoint) if by == "flag" else ()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if by == "environment" else {}
    with Service(store_path, *options, **environment) as service, service.client() as client:
        parent = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
        ticket = client.get_flight_info(path("t")).endpoints[0].ticket
        assert client.do_get(ticket, flight.FlightCallOptions(headers=[parent])).read_all().num_rows == 700
        with pytest.raises(KeyError):
            client.get_flight_info(path("none"))
    # The last ones are sent when the server ends.
    [scan] = taken.spans("DoGet")
    assert (scan["trace"], scan["parent"]) == (TRACE, PARENT)
    assert (scan["pheon.dataset"], scan["pheon.rows"], scan["pheon.outcome"]) == ("t", 700, "ok")
    assert (scan["rpc.system"], scan["pheon.principal"]) == ("grpc", "everyone")
    outcomes = {str(span["pheon.dataset"]): span["pheon.outcome"] for span in taken.spans("GetFlightInfo")}
    assert outcomes == {"t": "ok", "none": "not_found"}
    assert all(span["trace"] != TRACE for span in taken.spans("GetFlightInfo"))
    assert b"pheon" in taken.taken[0], "the service's name"
    assert taken.others == []


def test_a_collector_that_is_not_there(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    with Service(store_path, "--otlp-endpoint", "http://127.0.0.1:9") as service:
        service.serves()
