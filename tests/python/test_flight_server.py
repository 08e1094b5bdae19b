"""Plain Flight with the stock pyarrow client, against a real server."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from flight_server import FlightServer
from pyarrow import flight

import pheon


@pytest.fixture
def server(store: pheon.Store, store_path: Path) -> Iterator[FlightServer]:
    with FlightServer(store_path) as running:
        yield running


@pytest.fixture
def client(server: FlightServer) -> Iterator[flight.FlightClient]:
    with flight.connect(server.location) as connected:
        yield connected


def command(**members: object) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(json.dumps(members))


def path(*parts: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_path(*parts)


def get(client: flight.FlightClient, descriptor: flight.FlightDescriptor) -> pa.Table:
    info = client.get_flight_info(descriptor)
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema, check_metadata=True), "the advertised schema is that of the stream"
    assert client.get_schema(descriptor).schema.equals(info.schema, check_metadata=True)
    if info.total_records >= 0:
        assert info.total_records == table.num_rows
    return table


def put(client: flight.FlightClient, descriptor: flight.FlightDescriptor, table: pa.Table) -> dict[str, object]:
    writer, reader = client.do_put(descriptor, table.schema)
    with writer:
        writer.write_table(table, max_chunksize=1000)
        writer.done_writing()
        result = reader.read()
    return json.loads(result.to_pybytes())


def numbers(rows: int, first: int = 0) -> pa.Table:
    keys = [f"k{i:06}" for i in range(first, first + rows)]
    return pa.table({"k": pa.array(keys, pa.large_string()), "v": pa.array(range(first, first + rows), pa.int64())})


def act(client: flight.FlightClient, kind: str, **body: object) -> list[dict[str, object]]:
    action = flight.Action(kind, json.dumps(body).encode())
    return [json.loads(result.body.to_pybytes()) for result in client.do_action(action)]


def test_list_info_and_get(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put("prices", numbers(5000), key="k")
    store.put("other", numbers(3))
    names = [info.descriptor.path for info in client.list_flights()]
    assert names == [[b"other"], [b"prices"]]
    assert [info.descriptor.path for info in client.list_flights(b"pr")] == [[b"prices"]]
    assert get(client, path("prices")) == numbers(5000)
    store.put("prices", numbers(7), key="k")
    assert get(client, path("prices")).num_rows == 7
    assert get(client, path("prices@1")).num_rows == 5000
    for missing in (path("none"), path("prices@9"), path("../store"), path("live", "none")):
        with pytest.raises((flight.FlightError, pa.ArrowException, KeyError)):
            client.get_flight_info(missing)


def test_columns_ranges_keys_and_limits(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put("t", numbers(1000), key="k")
    assert get(client, command(dataset="t", columns=["v"])).column_names == ["v"]
    assert get(client, command(dataset="t", columns=["v", "k"], limit=2)).column_names == ["v", "k"]
    ranged = get(client, command(dataset="t", **{"from": "k000010", "to": "k000020"}))
    assert ranged["v"].to_pylist() == list(range(10, 20))
    assert get(client, command(dataset="t", prefix="k00001", offset=3, limit=4))["v"].to_pylist() == [13, 14, 15, 16]
    picked = get(client, command(dataset="t", keys=["k000500", "none", "k000001", "k000500"]))
    assert picked["v"].to_pylist() == [500, 1, 500]
    assert get(client, command(dataset="t", keys=["k000005", "k000006"], offset=1))["v"].to_pylist() == [6]
    assert get(client, command(dataset="t", keys=[])).num_rows == 0


def test_keys_of_several_columns(client: flight.FlightClient, store: pheon.Store) -> None:
    rows = pa.table({"a": [1, 1, 2, 2], "b": ["x", "y", "x", "y"], "v": [1.0, 2.0, 3.0, 4.0]})
    store.put("t", rows, key=["a", "b"])
    assert get(client, command(dataset="t", keys=[[2, "x"], [1, "y"]]))["v"].to_pylist() == [3.0, 2.0]
    assert get(client, command(dataset="t", prefix=[2]))["v"].to_pylist() == [3.0, 4.0]
    assert get(client, command(dataset="t", **{"from": [1, "y"], "to": [2, "y"]}))["v"].to_pylist() == [2.0, 3.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset": "t", "nonsense": 1},
        {"dataset": "t", "columns": ["nothing"]},
        {"dataset": "t", "keys": [1]},
        {"dataset": "t", "keys": ["a"], "from": "b"},
        {"dataset": "t", "keys": [["a", "b"]]},
        {},
    ],
)
def test_wrong_commands(client: flight.FlightClient, store: pheon.Store, wrong: dict[str, object]) -> None:
    store.put("t", numbers(10), key="k")
    with pytest.raises(pa.ArrowInvalid):
        client.get_flight_info(command(**wrong))
    assert get(client, path("t")).num_rows == 10, "the server goes on"


def test_tickets_of_others_are_refused(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put("t", numbers(10))
    ticket = client.get_flight_info(path("t")).endpoints[0].ticket.ticket
    for wrong in (b"", b"t", b'{"dataset": "t"}', ticket[:-1], ticket[:-1] + bytes([ticket[-1] ^ 1])):
        # What does not begin as a ticket of a scan is taken for one of Flight SQL.
        with pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError)):
            client.do_get(flight.Ticket(wrong)).read_all()


def every_type() -> pa.Table:
    n = 700
    ids = list(range(n))

    def some(values: list[object]) -> list[object]:
        return [None if i % 7 == 3 else value for i, value in enumerate(values)]

    day = datetime.date(2024, 1, 1)
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.int64()),
        "text": pa.array(some([f"text {i} é" * (i % 5) for i in ids]), pa.large_string()),
        "bytes": pa.array(some([bytes([i % 256]) * (i % 3) for i in ids]), pa.large_binary()),
        "fixed": pa.array(some([i.to_bytes(4, "little") for i in ids]), pa.binary(4)),
        "truth": pa.array(some([i % 2 == 0 for i in ids])),
        "byte": pa.array(some([i % 100 for i in ids]), pa.int8()),
        "word": pa.array(some(ids), pa.uint32()),
        "float": pa.array(some([i / 3 for i in ids]), pa.float32()),
        "day": pa.array(some([day + datetime.timedelta(i) for i in ids]), pa.date32()),
        "ts": pa.array(some([i * 10**9 for i in ids]), pa.timestamp("ns", "UTC")),
        "decimal": pa.array(some([decimal.Decimal(i) / 4 for i in ids]), pa.decimal128(20, 4)),
        "list": pa.array(some([list(range(i % 4)) for i in ids]), pa.large_list(pa.int32())),
        "struct": pa.array(some([{"a": i, "b": f"b{i}"} for i in ids])),
        "dictionary": pa.array(some([f"d{i % 5}" for i in ids])).dictionary_encode(),
        "null": pa.nulls(n),
        "fixed_list": pa.array(some([[i, i + 1] for i in ids]), pa.list_(pa.float64(), 2)),
    }
    return pa.table(columns)


def test_every_type_at_odd_offsets(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put("t", every_type(), key="id")
    whole = store.table("t").to_pyarrow()
    streamed = get(client, path("t"))
    streamed.validate(full=True)
    assert streamed.to_pylist() == whole.to_pylist()
    for offset, limit in ((1, 1), (3, 13), (9, 100), (693, 100)):
        part = get(client, command(dataset="t", offset=offset, limit=limit))
        part.validate(full=True)
        assert part.to_pylist() == whole.slice(offset, limit).to_pylist(), (offset, limit)


def test_put_in_all_modes(client: flight.FlightClient, store: pheon.Store) -> None:
    assert put(client, path("plain"), numbers(2500)) == {"dataset": "plain", "version": 1, "rows": 2500}
    made = put(client, command(put="m", key=["k"], value=["v"]), numbers(10))
    assert made == {"dataset": "m", "version": 1, "rows": 10}
    assert store.map("m")["k000003"] == 3
    assert put(client, command(put="m", mode="append"), numbers(5, 10))["version"] == 2
    changed = numbers(2, 14).set_column(1, "v", pa.array([140, 150], pa.int64()))
    put(client, command(put="m", mode="upsert"), changed)
    assert put(client, command(put="m", mode="delete"), numbers(3).select(["k"]))["rows"] == 3
    expected = {f"k{i:06}": i for i in range(3, 14)} | {"k000014": 140, "k000015": 150}
    assert dict(store.map("m").items()) == expected
    put(client, path("m"), numbers(1))
    assert dict(store.map("m").items()) == {"k000000": 0}, "a dataset stays a map"


def test_put_that_fails_publishes_nothing(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put_map("m", {"a": 1})
    twice = pa.table({"key": pa.array(["b", "b"], pa.large_string()), "value": pa.array([1, 2], pa.int64())})
    with pytest.raises(pa.ArrowException):
        put(client, path("m"), twice)
    with pytest.raises(pa.ArrowException):
        put(client, command(put="new", mode="append"), twice)
    with pytest.raises(pa.ArrowException):
        put(client, path("../evil"), twice)
    assert [v.version for v in store.versions("m")] == [1]
    assert list(store) == ["m"]


BROKEN_PUT = """
import sys, pyarrow as pa, pyarrow.flight as flight
rows = pa.table({"v": list(range(100000))})
writer, _ = flight.connect(sys.argv[1]).do_put(flight.FlightDescriptor.for_path("broken"), rows.schema)
writer.write_table(rows)
print("written", flush=True)
sys.stdin.read()
"""


def test_killed_client_publishes_nothing(server: FlightServer, client: flight.FlightClient, store: pheon.Store) -> None:
    arguments = [sys.executable, "-c", BROKEN_PUT, server.location]
    child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    # The next writer gets the dataset's lock, so the broken one has given up.
    assert put(client, path("broken"), pa.table({"v": [1]})) == {"dataset": "broken", "version": 1, "rows": 1}
    assert store.table("broken").to_pyarrow()["v"].to_pylist() == [1]


def test_lookups_are_aligned_and_pipelined(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put("m", numbers(5000), key="k", unique=True)
    keys = pa.schema([("k", pa.string())])
    writer, reader = client.do_exchange(path("m"))
    asked = [[f"k{i * 37 % 9000:06}" for i in range(start, start + 500)] for start in range(0, 10000, 500)]
    with writer:
        writer.begin(keys)
        for number, batch in enumerate(asked):
            texts = [*batch, None]
            writer.write_with_metadata(pa.record_batch([pa.array(texts)], schema=keys), str(number).encode())
        writer.done_writing()
        for number, batch in enumerate(asked):
            chunk = reader.read_chunk()
            assert chunk.app_metadata.to_pybytes() == str(number).encode()
            found = [int(key[1:]) if int(key[1:]) < 5000 else None for key in batch]
            assert chunk.data.column("v").to_pylist() == [*found, None]
        with pytest.raises(StopIteration):
            reader.read_chunk()


def test_lookup_tells_what_was_found(client: flight.FlightClient, store: pheon.Store) -> None:
    rows = pa.table({"k": [1, 2], "a": pa.array([None, "x"]), "b": [1.5, 2.5]})
    store.put("m", rows, key="k", unique=True)
    writer, reader = client.do_exchange(command(lookup="m", columns=["b", "a"], found=True))
    with writer:
        writer.begin(pa.schema([("any", pa.int16())]))
        writer.write_batch(pa.record_batch([pa.array([2, 1, 3], pa.int16())], names=["any"]))
        writer.done_writing()
        answer = reader.read_all().to_pydict()
    assert answer == {"b": [2.5, 1.5, None], "a": ["x", None, None], "found": [True, True, False]}


def test_many_streams_while_versions_are_published(
    server: FlightServer, client: flight.FlightClient, store: pheon.Store
) -> None:
    store.put("t", pa.table({"v": pa.array([1] * 200_000)}))
    sums: list[tuple[int, int]] = []

    def scan() -> None:
        with flight.connect(server.location) as own:
            for _ in range(5):
                table = get(own, path("t"))
                sums.append((table.num_rows, len(set(table["v"].to_pylist()))))

    threads = [threading.Thread(target=scan) for _ in range(8)]
    for thread in threads:
        thread.start()
    for version in range(2, 6):
        store.put("t", pa.table({"v": pa.array([version] * 200_000)}))
    for thread in threads:
        thread.join()
    assert sums == [(200_000, 1)] * 40, "each stream is of one version"


def test_actions(client: flight.FlightClient, store: pheon.Store) -> None:
    store.put("t", numbers(100), key="k")
    store.append("t", numbers(10, 100))
    kinds = {kind.type for kind in client.list_actions()}
    assert {"store", "info", "versions", "gc", "drop", "live", "CancelFlightInfo"} <= kinds
    [facts] = act(client, "store")
    assert facts["uuid"] == store.uuid
    [info] = act(client, "info", dataset="t")
    assert (info["rows"], info["version"], info["key"]) == (110, 2, ["k"])
    assert [v["version"] for v in act(client, "versions", dataset="t")] == [1, 2]
    [newest] = act(client, "refresh", dataset="t")
    assert newest == {"version": 2, "created_unix_ms": info["created_unix_ms"]}
    assert act(client, "verify", dataset="t")[0]["ok"] is True
    assert act(client, "rollback", dataset="t", version=1) == [{"version": 3}]
    assert act(client, "compact", dataset="t") == [{"version": 3}]
    assert act(client, "memory", dataset="t")[0]["version"] == 3
    assert act(client, "warm", dataset="t")[0]["version"] == 3
    assert act(client, "gc", dataset="t", keep=1)[0]["versions_removed"] == [1, 2]
    assert act(client, "drop", dataset="t") == [{}]
    assert act(client, "datasets") == []
    for kind, body in (("info", {}), ("info", {"dataset": "none"}), ("gc", {"dataset": "t"}), ("nothing", {})):
        with pytest.raises((pa.ArrowException, flight.FlightError, KeyError, NotImplementedError)):
            act(client, kind, **body)


def test_read_only_server(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(10))
    with FlightServer(store_path, "--read-only") as running, flight.connect(running.location) as client:
        assert get(client, path("t")).num_rows == 10
        for refused in (lambda: put(client, path("t"), numbers(1)), lambda: act(client, "drop", dataset="t")):
            with pytest.raises((pa.ArrowException, flight.FlightError)):
                refused()
    assert store.table("t").version == 1


def test_commands_of_nobody_are_refused(client: flight.FlightClient) -> None:
    for wrong in (b"\x0a\x00", b"\x0a\x03abc", b"\xff"):
        with pytest.raises(pa.ArrowInvalid, match="Flight SQL|Decode"):
            client.get_flight_info(flight.FlightDescriptor.for_command(wrong))
