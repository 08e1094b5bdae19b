"""What clients send that is damaged, lies, or unpacks to too much: an error, and the server goes on."""

from __future__ import annotations

import json
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pytest
from raw_flight import command_descriptor, field, flight_data, ingest_descriptor, messages, path_descriptor, send
from service import Service, numbers

import pheon

LIMIT = 1 << 20
# What a client may be told for what it has done wrong.
ITS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("intake")
    with pheon.open(folder / "store") as store:
        store.put("t", numbers(100), key="k", unique=True)
    with Service(folder / "store", "--limit", f"decompressed_bytes_max={LIMIT}") as running:
        yield running
        running.serves()


DESCRIPTORS = {
    "DoPut": path_descriptor("made"),
    "DoExchange": path_descriptor("t"),
    "ingest": ingest_descriptor("made"),
}


def refused(service: Service, way: str, data: list[tuple[bytes, bytes]]) -> tuple[grpc.StatusCode, str]:
    method = "DoPut" if way == "ingest" else way
    stream = [flight_data(*message, DESCRIPTORS[way] if i == 0 else None) for i, message in enumerate(data)]
    code, details, _ = send(service.port, method, stream)
    assert code in ITS_FAULT, (code, details)
    service.serves()
    with pheon.open(service_store(service), read_only=True) as store:
        assert "made" not in store, "nothing is published"
    return code, details


def service_store(service: Service) -> Path:
    return Path(service.api("me")["path"])


def zeros(rows: int) -> pa.Table:
    return pa.table({"k": np.zeros(rows, "i8")})


class Peak:
    """The most memory that a server has while the block runs, as far as looking often tells."""

    def __init__(self, service: Service) -> None:
        self.bytes = 0
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.0005):
            self.bytes = max(self.bytes, self._service.resident_bytes())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


WAYS = pytest.mark.parametrize("way", ["DoPut", "DoExchange", "ingest"])


@WAYS
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_bomb(service: Service, way: str, codec: str) -> None:
    bomb = messages(zeros(LIMIT), codec)
    assert sum(len(body) for _, body in bomb) < LIMIT // 8
    before = service.resident_bytes()
    code, details = refused(service, way, bomb)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMIT) in details
    assert service.resident_bytes() < before + 4 * LIMIT


@WAYS
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("says", [2**60, -2, 2**63 - 1, 7, 7999, 8001])
def test_a_buffer_that_lies_about_its_length(service: Service, way: str, says: int, codec: str) -> None:
    schema, (header, body) = messages(zeros(1000), codec)
    lying = struct.pack("<q", says) + body[8:]
    refused(service, way, [schema, (header, lying)])


@WAYS
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_bomb_that_says_it_is_small(service: Service, way: str, codec: str) -> None:
    # As many rows as may have nothing: what is said of them is not what gives it away.
    rows, width = 1 << 20, 64
    keys = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(bytes(rows * width))])
    schema, (header, body) = messages(pa.table({"k": keys}), codec)
    assert len(body) < LIMIT
    before = service.resident_bytes()
    peak = Peak(service)
    with peak:
        for _ in range(3):
            refused(service, way, [schema, (header, struct.pack("<q", 8) + body[8:])])
    assert peak.bytes < before + 16 * LIMIT


@WAYS
def test_dictionaries_add_up(service: Service, way: str) -> None:
    texts = pa.array(["x" * (LIMIT // 3)])
    columns = {f"c{i}": pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), texts) for i in range(8)}
    code, details = refused(service, way, messages(pa.table(columns)))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details


@pytest.mark.parametrize("way", ["DoExchange", "ingest"])
def test_rows_that_refer_to_one_long_value(service: Service, way: str) -> None:
    texts = pa.array(["x" * 100_000])
    keys = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int8()), texts)
    code, _ = refused(service, way, messages(pa.table({"k": keys})))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("way", ["DoPut", "DoExchange"])
def test_runs(service: Service, way: str) -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2**31 - 1], pa.int32()), pa.array(["x" * 1000]))
    code, _ = refused(service, way, messages(pa.table({"k": runs})))
    assert code in ITS_FAULT


@WAYS
@pytest.mark.parametrize("text", ["", None], ids=["empty", "null"])
def test_runs_of_nothing(service: Service, way: str, text: str | None) -> None:
    """A run of values without bytes becomes as many offsets."""
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2**20], pa.int32()), pa.array([text], pa.string()))
    code, details = refused(service, way, messages(pa.table({"k": runs, "v": pa.nulls(2**20)})))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details


@WAYS
def test_rows_of_nothing(service: Service, way: str) -> None:
    code, details = refused(service, way, messages(pa.table({"k": pa.nulls(2**31 - 1)})))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert str(2**31 - 1) in details


@pytest.mark.parametrize("keys", [pa.nulls(1 << 20), pa.array([True] * (1 << 20))], ids=["nulls", "truths"])
def test_many_keys_of_few_bytes(service: Service, keys: pa.Array) -> None:
    """A lookup needs memory for each key, whatever it came in."""
    data = messages(pa.table({"k": keys}), "zstd")
    assert sum(len(header) + len(body) for header, body in data) < 10_000
    code, details = refused(service, "DoExchange", data)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details
    assert str(LIMIT) in details


@WAYS
def test_truncated_bodies(service: Service, way: str) -> None:
    schema, (header, body) = messages(numbers(1000))
    for length in (0, 1, 7, 64, len(body) // 2, len(body) - 64):
        code, _ = refused(service, way, [schema, (header, body[:length])])
        assert code == grpc.StatusCode.INVALID_ARGUMENT, length


@WAYS
def test_headers_that_are_none(service: Service, way: str) -> None:
    schema, (header, body) = messages(numbers(10))
    for wrong in (b"\x00" * 40, b"\xff" * 40, b"x", header[: len(header) // 2], header + header):
        if wrong != header + header:
            refused(service, way, [schema, (wrong, body)])
        if len(wrong) > 1:
            refused(service, way, [(wrong[:-1], b"")])


@WAYS
def test_rows_before_a_schema_and_two_schemas(service: Service, way: str) -> None:
    schema, rows = messages(numbers(10))
    refused(service, way, [rows])
    if way == "DoPut":
        refused(service, way, [schema, schema])


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_damaged_headers_and_bodies(service: Service, compression: str | None) -> None:
    """Every number of the header changed: offsets, lengths, counts; negative, huge and a little wrong."""
    chance = random.Random(5)
    schema, (header, body) = messages(numbers(50), compression)
    ways = {way: DESCRIPTORS[way] for way in ("DoPut", "DoExchange")}
    for at in range(0, len(header) - 8, 4):
        value = chance.choice([-1, -(2**31), 2**31 - 1, 2**40, -(2**63), 2**63 - 1, 1, 8, 64])
        width = chance.choice(["<q", "<i"])
        number = struct.pack(width, value if width == "<q" else max(min(value, 2**31 - 1), -(2**31)))
        damaged = header[:at] + number + header[at + len(number) :]
        way = chance.choice(list(ways))
        stream = [flight_data(*schema, ways[way]), flight_data(damaged, body)]
        # What happens to be right is right: only the server's life counts, and that it says something.
        code, details, _ = send(service.port, way, stream)
        assert code in ITS_FAULT | {grpc.StatusCode.OK, grpc.StatusCode.ALREADY_EXISTS}, (at, value, code, details)
    for _ in range(100):
        at = chance.randrange(len(body))
        damaged = body[:at] + bytes([body[at] ^ chance.randrange(1, 256)]) + body[at + 1 :]
        code, details, _ = send(
            service.port, "DoExchange", [flight_data(*schema, ways["DoExchange"]), flight_data(header, damaged)]
        )
        assert code in ITS_FAULT | {grpc.StatusCode.OK}, (at, code, details)
    service.serves()
    with pheon.open(service_store(service)) as store:
        if "made" in store:
            store.drop("made")


def test_wrong_schemas(service: Service) -> None:
    for wrong in (
        pa.table({"k": [1.5]}),
        pa.table({"k": [[1, 2]]}),
        pa.table({"a": ["x"], "b": ["y"]}),
    ):
        code, _ = refused(service, "DoExchange", messages(wrong))
        assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_messages_that_are_no_protobuf(service: Service) -> None:
    for nonsense in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", field(1, b"\xff\xff"), b"\x00"):
        for method in ("DoPut", "DoExchange", "Handshake"):
            code, _, _ = send(service.port, method, [nonsense])
            assert code != grpc.StatusCode.OK
    service.serves()


def test_commands_that_are_none(service: Service) -> None:
    schema, rows = messages(numbers(10))
    commands = [b"", b"{", b"{}", json.dumps({"put": "../x"}).encode(), b"\x0a\xff", b'{"put": "t", "mode": "burn"}']
    for text in [*commands, b"[" * 10_000, b'{"put": ' + b"[" * 100_000]:
        stream = [flight_data(*schema, command_descriptor(text)), flight_data(*rows)]
        for method in ("DoPut", "DoExchange"):
            code, _, _ = send(service.port, method, stream)
            assert code not in {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, (
                text[:40],
                code,
            )
    service.serves()
