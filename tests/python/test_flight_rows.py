"""Rows by number, ranges of keys as numbers, and all rows of many keys, with the stock pyarrow client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from flight_server import FlightServer
from pyarrow import flight

import pheon

ROWS = pa.table({"k": [1, 2, 2, 2, 5, 9], "v": ["a", "b", "c", "d", "e", "f"]})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flight.FlightClient]:
    path: Path = tmp_path_factory.mktemp("served") / "store"
    with pheon.open(path) as store:
        store.put("t", ROWS, key="k")
        store.put_map("words", {"a": 1, "ab": 2, "b": 3})
        store.put("pairs", pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"]}), key=["a", "b"])
    with FlightServer(path) as running, flight.connect(running.location) as connected:
        yield connected


def act(client: flight.FlightClient, kind: str, **body: object) -> list[dict[str, object]]:
    action = flight.Action(kind, json.dumps(body).encode())
    return [json.loads(result.body.to_pybytes()) for result in client.do_action(action)]


def rows(client: flight.FlightClient, **command: object) -> list[str]:
    descriptor = flight.FlightDescriptor.for_command(json.dumps(command))
    info = client.get_flight_info(descriptor)
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.num_rows == info.total_records
    return table["v"].to_pylist()


def number(value: int) -> str:
    return value.to_bytes(8, "little", signed=True).hex()


def test_runs_of_rows(client: flight.FlightClient) -> None:
    assert rows(client, dataset="t", rows=[[4, 2], [0, 1]]) == ["e", "f", "a"]
    assert rows(client, dataset="t", rows=[[4, 200], [100, 1]]) == ["e", "f"]
    assert rows(client, dataset="t", rows=[[0, 3], [4, 1]], offset=1, limit=2, columns=["v"]) == ["b", "c"]
    assert rows(client, dataset="t", rows=[]) == []
    for wrong in ({"rows": [[0, 1]], "keys": [1]}, {"rows": [[0]]}, {"rows": [[-1, 1]]}):
        with pytest.raises(pa.ArrowInvalid):
            rows(client, dataset="t", **wrong)


def test_locate(client: flight.FlightClient) -> None:
    def located(dataset: str, *spans: object) -> object:
        [found] = act(client, "locate", dataset=dataset, spans=spans)
        assert found["version"] == 1
        return found["rows"]

    assert located("t", {"key": number(2)}, {"key": number(3)}, {}) == [[1, 3], [0, 0], [0, 6]]
    assert located("t", {"from": {"included": number(2)}, "to": {"excluded": number(9)}}) == [[1, 4]]
    assert located("t", {"from": {"excluded": number(2)}}, {"to": {"included": number(-5)}}) == [[4, 2], [0, 0]]
    assert located("words@1", {"prefix": b"a".hex()}, {"key": b"b".hex()}) == [[0, 2], [2, 1]]
    assert located("pairs", {"prefix": "8000000000000001"}) == [[0, 2]]
    for wrong in ({"key": "0"}, {"key": "00"}, {"key": number(2), "prefix": ""}, {"middle": ""}):
        with pytest.raises(pa.ArrowInvalid):
            located("t", wrong)


def test_all_rows_of_many_keys(client: flight.FlightClient) -> None:
    def found(keys: list[int], **command: object) -> dict[str, list[object]]:
        descriptor = flight.FlightDescriptor.for_command(json.dumps({"lookup": "t", "rows": True, **command}))
        writer, reader = client.do_exchange(descriptor)
        with writer:
            writer.begin(pa.schema([("k", pa.int64())]))
            writer.write_batch(pa.record_batch([pa.array(keys, pa.int64())], ["k"]))
            answer = reader.read_chunk().data
            writer.done_writing()
        return answer.to_pydict()

    assert found([9, 2, 7]) == {"position": [0, 1, 1, 1], "k": [9, 2, 2, 2], "v": ["f", "b", "c", "d"]}
    assert found([2, 1], within=[2, 2], columns=["v"]) == {"position": [0, 0], "v": ["c", "d"]}
    assert found([]) == {"position": [], "k": [], "v": []}


def test_live_maps_are_made(client: flight.FlightClient) -> None:
    assert act(client, "live-create", live="made") == [{"made": True}]
    assert act(client, "live-create", live="made") == [{"made": False}]
    assert act(client, "live-create", live="made", create=False) == [{"made": False}]
    with pytest.raises((pa.ArrowException, flight.FlightError)):
        act(client, "live-create", live="made", create=True)
    with pytest.raises((pa.ArrowException, flight.FlightError, KeyError)):
        act(client, "live-create", live="other", create=False)
