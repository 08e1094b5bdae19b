"""What one client may take of a server that others use too: threads, memory, time, room in logs."""

from __future__ import annotations

import json
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight
from raw_flight import SERVICE, command_descriptor, field, flight_data, ingest_descriptor, messages, send
from service import WATCHDOG_SECONDS, Service, command, make_token, numbers, path

import pheon

MIB = 1 << 20
WRONG = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
LONG_SQL = "with recursive r(n) as (select 1 union all select n + 1 from r where n < {}) select max(n) from r"


def put_command(mode: str, name: str = "t") -> bytes:
    return command_descriptor(json.dumps({"put": name, "mode": mode}).encode())


class Silent:
    """Calls that have begun to send rows, and say no more."""

    def __init__(self, service: Service) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{service.port}")
        self.calls: list[grpc.Call] = []
        self._queues: list[queue.Queue[bytes | None]] = []

    def begin(self, descriptor: bytes, rows: pa.Table) -> grpc.Call:
        waiting: queue.Queue[bytes | None] = queue.Queue()
        for i, data in enumerate(messages(rows)):
            waiting.put(flight_data(*data, descriptor if i == 0 else None))
        self._queues.append(waiting)
        self.calls.append(self.channel.stream_stream(SERVICE + "DoPut")(iter(waiting.get, None)))
        return self.calls[-1]

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        for call in self.calls:
            call.cancel()
        for waiting in self._queues:
            waiting.put(None)
        self.channel.close()


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_silent_writers_leave_threads_for_readers(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(5000), key="k", unique=True)
    with Service(store_path, "--limit", "writers_max=4") as service, Silent(service) as silent:
        for i in range(6):
            silent.begin(ingest_descriptor(f"made{i}") if i % 2 else put_command("append"), numbers(5, 5000))
        eventually(lambda: sum(call.done() for call in silent.calls) == 2)
        refused = [call for call in silent.calls if call.done()]
        assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("writers_max" in call.details() for call in refused)
        began = time.monotonic()
        with pheon.connect(service.location, local=False) as remote:
            assert remote.map("t")["k000007"] == 7
            assert len(remote.map("t").get_many([f"k{i:06}" for i in range(5000)])) == 5000
            assert remote.table("t").to_pyarrow().num_rows == 5000
        assert service.api("datasets")[0]["name"] == "t"
        assert time.monotonic() - began < 5
        # A place that is given up is there for the next.
        for call in silent.calls:
            call.cancel()
        eventually(lambda: service.metric('pheon_calls_running{method="DoPut"}') == 0)
        with service.client() as client:
            writer, _ = client.do_put(command(put="other"), numbers(1).schema)
            writer.write_table(numbers(1))
            writer.close()
    assert len(store.table("other")) == 1
    assert store.map("t").version == 1


def test_who_waits_for_a_lock_keeps_nobody_from_reading(store: pheon.Store, store_path: Path) -> None:
    live = store.live("counters", create=True)
    live["a"] = 1
    store.put("t", numbers(10), key="k", unique=True)
    with (
        Service(store_path, "--limit", "actions_max=2") as service,
        pheon.connect(service.location, local=False) as remote,
    ):
        far = remote.live("counters")
        assert far["a"] == 1
        with live.lock(timeout=10):
            changing = [threading.Thread(target=far.increment, args=("a",)) for _ in range(20)]
            for thread in changing:
                thread.start()
            eventually(lambda: service.metric('pheon_calls_running{method="DoAction"}') >= len(changing))
            began = time.monotonic()
            assert far["a"] == 1
            assert remote.map("t")["k000007"] == 7
            assert time.monotonic() - began < 2
        for thread in changing:
            thread.join()
        assert far["a"] == 21


@pytest.fixture
def wide(store: pheon.Store, store_path: Path) -> Iterator[Service]:
    """A map of one long value among short ones, and a table of which one key has many rows."""
    values = ["x" * MIB if i == 5 else "short" for i in range(100)]
    store.put("wide", pa.table({"k": list(range(100)), "v": values}), key="k", unique=True)
    texts = {"n": pa.array(range(100), pa.int64()), "m": ["y"] * 100}
    store.put("two", pa.table({"k": list(range(100)), "v": values, **texts}), key="k", unique=True)
    store.put("many", pa.table({"k": ["a"] * 20_000 + ["b"], "v": list(range(20_001))}), key="k")
    live = store.live("live", create=True)
    live["long"] = "x" * MIB
    with Service(store_path, "--limit", f"answer_bytes_max={8 * MIB}") as running:
        yield running
        running.serves("wide")


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({"lookup": "wide"}, pa.array([5] * 1_000, pa.int64())),
        ({"lookup": "wide"}, pa.array([5] * 10_000, pa.int64())),
        ({"lookup": "two", "found": True}, pa.array([5] * 1_000, pa.int64())),
        ({"lookup": "wide", "rows": True}, pa.array([5] * 1_000, pa.int64())),
        ({"lookup": "many", "rows": True}, pa.array(["a"] * 1_000)),
        ({"lookup_live": "live"}, pa.array(["long"] * 1_000)),
        # Keys that are nowhere: of their answers there is little but nulls, in all columns.
        ({"lookup": "two"}, pa.nulls(MIB)),
        ({"lookup": "two"}, pa.array(range(100, 500_100), pa.int64())),
        ({"lookup": "wide"}, pa.array(range(100, 2 * MIB), pa.int64())),
        ({"lookup_live": "live"}, pa.array([True] * (2 * MIB))),
    ],
)
def test_answers_that_would_be_too_large(wide: Service, asked: dict[str, object], keys: pa.Array) -> None:
    before = wide.resident_bytes()
    stream = messages(pa.table({"k": keys}))
    descriptor = command_descriptor(json.dumps(asked).encode())
    data = [flight_data(*message, descriptor if i == 0 else None) for i, message in enumerate(stream)]
    code, details, _ = send(wide.port, "DoExchange", data)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details
    assert str(8 * MIB) in details
    assert wide.resident_bytes() < before + 64 * MIB


@pytest.mark.parametrize("rows", [False, True])
def test_columns_that_are_asked_for_twice(wide: Service, rows: bool) -> None:
    asked = {"lookup": "two", "columns": ["n", "v"] + ["n"] * 10_000, "rows": rows}
    descriptor = command_descriptor(json.dumps(asked).encode())
    data = [flight_data(*message, descriptor) for message in messages(pa.table({"k": [1]}))]
    code, details, _ = send(wide.port, "DoExchange", data)
    assert code == grpc.StatusCode.INVALID_ARGUMENT, details
    assert '"n" is asked for twice' in details


def test_clients_ask_for_less_at_a_time(wide: Service) -> None:
    with pheon.connect(wide.location, local=False) as remote:
        assert [len(value) for value in remote.map("wide").get_many([5] * 100)] == [MIB] * 100
        found = remote.table("many").lookup(["b"] + ["a"] * 100)
        assert found.num_rows == 1 + 100 * 20_000


def test_reading_many_long_entries_at_once(wide: Service) -> None:
    def text(value: str) -> bytes:
        return bytes([0xA0 + len(value)]) + value.encode()

    key = b"\xa4long"
    one = b"\x92" + text("get") + b"\xc4" + bytes([len(key)]) + key
    count = 10_000
    body = b"\x92" + text("live") + b"\xdd" + count.to_bytes(4, "big") + one * count
    before = wide.resident_bytes()
    code, details, _ = send(wide.port, "DoAction", [field(1, b"live") + field(2, body)])
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details
    assert str(8 * MIB) in details
    assert wide.resident_bytes() < before + 64 * MIB


@pytest.mark.parametrize("chosen", [{"rows": [[5, 1]] * 2_000}, {"keys": [5] * 2_000}])
def test_a_long_row_that_is_asked_for_again_and_again(wide: Service, chosen: dict[str, object]) -> None:
    """Is sent as often, a message at a time."""
    before = wide.resident_bytes()
    with wide.client() as client:
        info = client.get_flight_info(command(dataset="wide", **chosen))
        assert info.total_records == 2_000
        reader = client.do_get(info.endpoints[0].ticket)
        rows = 0
        while rows < 20:
            chunk = reader.read_chunk().data
            assert chunk.nbytes < 5 * MIB
            rows += chunk.num_rows
            assert wide.resident_bytes() < before + 128 * MIB
        reader.cancel()


def test_long_rows_come_whole(store: pheon.Store, store_path: Path) -> None:
    """Rows of very different lengths, picked and all, from one segment and from several."""
    rows = [(f"k{i:03}", "x" * (3 * MIB if i % 50 == 7 else i)) for i in range(200)]
    table = pa.table({"k": [k for k, _ in rows], "v": [v for _, v in rows]})
    store.put("one", table, key="k", unique=True)
    store.put("some", table.take(list(range(0, 200, 2))), key="k", unique=True)
    store.upsert("some", table.take(list(range(1, 200, 2))))
    with Service(store_path) as service, service.client() as client:
        for name in ("one", "some"):
            for chosen in ({}, {"rows": [[0, 100], [7, 1], [100, 100]]}, {"keys": ["k007", "k100"]}):
                ticket = client.get_flight_info(command(dataset=name, **chosen)).endpoints[0].ticket
                found = client.do_get(ticket).read_all()
                expected = table
                if "rows" in chosen:
                    expected = pa.concat_tables([table.slice(0, 100), table.slice(7, 1), table.slice(100)])
                elif "keys" in chosen:
                    expected = table.take([7, 100])
                assert found["k"].to_pylist() == expected["k"].to_pylist()
                assert found["v"].to_pylist() == expected["v"].to_pylist()


def test_keys_of_an_endless_deletion(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(10), key="k", unique=True)
    with Service(store_path, "--limit", "delete_bytes_max=1MiB") as service:
        schema, rows = messages(numbers(10_000).select(["k"]))
        data = [flight_data(*schema, put_command("delete")), *[flight_data(*rows)] * 100]
        code, details, _ = send(service.port, "DoPut", data)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "delete_bytes_max" in details
        assert len(store.map("t")) == 10


@pytest.mark.parametrize("keys", [pa.nulls(MIB), pa.array([True] * MIB)], ids=["nulls", "truths"])
def test_keys_of_few_bytes_in_an_endless_deletion(store: pheon.Store, store_path: Path, keys: pa.Array) -> None:
    """They are counted as what they become."""
    store.put("t", pa.table({"k": [True, False]}), key="k", unique=True)
    with Service(store_path, "--limit", "delete_bytes_max=32MiB") as service:
        schema, rows = messages(pa.table({"k": keys}))
        assert len(rows[1]) <= MIB // 8
        before = service.resident_bytes()
        data = [flight_data(*schema, put_command("delete")), *[flight_data(*rows)] * 20]
        code, details, _ = send(service.port, "DoPut", data)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details
        assert "delete_bytes_max" in details
        assert service.resident_bytes() < before + 64 * MIB
    assert len(store.map("t")) == 2


def test_handshakes_are_short(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    alice = make_token(tokens, "alice", read="*")
    store.put("t", numbers(1))
    options = ("--token-file", str(tokens), "--limit", "handshake_timeout=1s")
    with Service(store_path, *options, token=alice) as service:
        code, details, _ = send(service.port, "Handshake", [field(2, bytes(MIB))])
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, details
        assert send(service.port, "Handshake", [field(2, bytes(1000))])[0] == grpc.StatusCode.UNAUTHENTICATED
        waiting: queue.Queue[bytes | None] = queue.Queue()
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            began = time.monotonic()
            call = channel.stream_stream(SERVICE + "Handshake")(iter(waiting.get, None), timeout=30)
            assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - began < 15
            waiting.put(None)
        service.serves()


def test_long_names_are_cut(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    long = "n" * 1_000_000
    with Service(store_path) as service:
        for method, message in (
            ("DoAction", field(1, b"info") + field(2, json.dumps({"dataset": long}).encode())),
            ("GetFlightInfo", command_descriptor(json.dumps({"dataset": long}).encode())),
            ("GetFlightInfo", command_descriptor(json.dumps({long: 1}).encode())),
            ("DoAction", field(1, long.encode())),
        ):
            code, details, _ = send(service.port, method, [message])
            assert code in WRONG, (code, details[:200])
            assert 50 < len(details) < 8192
        event = service.event("pheon::audit", action="info")
        assert event["dataset"] == "n" * 128
        assert all(len(line) < 2000 for line in service.lines)
        service.serves()


def test_reading_several_entries_is_one_moment(store: pheon.Store, store_path: Path) -> None:
    live = store.live("pair", create=True)
    names = [f"k{i}" for i in range(200)]
    live.update(dict.fromkeys(names, 0))
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            live.update(dict.fromkeys(names, n))

    changing = threading.Thread(target=change)
    with Service(store_path) as service, pheon.connect(service.location, local=False) as remote:
        far = remote.live("pair")
        changing.start()
        try:
            until = time.monotonic() + 3
            seen = set()
            while time.monotonic() < until:
                values = set(far.get_many(names))
                assert len(values) == 1, values
                seen |= values
        finally:
            stop.set()
            changing.join()
        assert len(seen) > 1, "it did not change meanwhile"


def test_verify_is_administration(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    alice, root = make_token(tokens, "alice", read="*"), make_token(tokens, "root", admin="*")
    store.put("t", numbers(1))
    action = flight.Action("verify", b'{"dataset": "t"}')
    for options in ((), ("--read-only",)):
        with (
            Service(store_path, "--token-file", str(tokens), *options, token=alice) as service,
            service.client() as client,
        ):
            with pytest.raises(flight.FlightUnauthorizedError, match="may not administrate"):
                list(client.do_action(action, service.call(alice)))
            [report] = client.do_action(action, service.call(root))
            assert json.loads(report.body.to_pybytes())["ok"] is True


def test_sighup_at_the_start(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    for _ in range(5):
        with Service(store_path) as service:
            service.process.send_signal(signal.SIGHUP)
            service.serves()


def test_a_page_that_waits_for_its_answer_is_not_idle(store: pheon.Store, store_path: Path) -> None:
    with Service(store_path, "--limit", "idle_timeout=300ms") as service:
        began = time.monotonic()
        [[found]] = service.api("sql", {"sql": LONG_SQL.format(3000)})["rows"]
        assert str(found) == "3000"
        assert time.monotonic() - began > 0.6, "too short to tell"


def test_sigterm_waits_for_the_page(store: pheon.Store, store_path: Path) -> None:
    service = Service(store_path, "--limit", "drain_timeout=50s")
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(service.http("/api/sql", {"sql": LONG_SQL.format(5000)})))
    asking.start()
    eventually(lambda: service.metric("pheon_queries_running") == 1)
    began = time.monotonic()
    assert service.stop() == 0
    asking.join()
    assert answers[0][0] == 200
    assert time.monotonic() - began < 45


def test_sigterm_ends_what_only_watches(store: pheon.Store, store_path: Path) -> None:
    """Health's Watch, reflection, and an exchange that has not begun to ask."""
    store.put("t", numbers(1), key="k", unique=True)
    service = Service(store_path, "--limit", "drain_timeout=50s")
    silent: queue.Queue[bytes | None] = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert next(watch) == b"\x08\x01"
        reflection = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        calls = [
            watch,
            reflection(iter(silent.get, None)),
            channel.stream_stream(SERVICE + "DoExchange")(iter(silent.get, None)),
        ]
        eventually(lambda: service.metric('pheon_calls_running{method="DoExchange"}') == 1)
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 15
        for call in calls:
            with pytest.raises(grpc.RpcError) as ended:
                list(call)
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE, ended.value
        silent.put(None)
        silent.put(None)


def test_a_login_that_has_expired_is_renewed_for_writes(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    secret = make_token(tokens, "alice", read="*", write="*", admin="*")
    options = ("--token-file", str(tokens), "--limit", "token_age_max=1s")
    with (
        Service(store_path, *options, token=secret) as service,
        pheon.connect(service.location, user="alice", password=secret, local=False) as remote,
    ):
        for n in range(2):
            time.sleep(2)
            assert remote.put("made", numbers(10), key="k", unique=True).version == n + 1
        time.sleep(2)
        assert remote.delete("made", ["k000003"]) is not None
        assert len(remote.map("made")) == 9


def test_facts_name_the_store(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    with Service(store_path) as service, service.client() as client:
        [facts] = client.do_action(flight.Action("info", b'{"dataset": "t"}'))
        assert json.loads(facts.body.to_pybytes())["store"] == store.uuid
        client.get_flight_info(path("t"))
