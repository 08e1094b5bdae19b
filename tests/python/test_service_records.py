"""What a server counts and logs of real calls: /metrics, the audit log, running and slow queries."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight
from service import WATCHDOG_SECONDS, Service, command, make_token, numbers, path

import pheon

SECRET_KEY = "k000123"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def alice(tokens: Path) -> str:
    return make_token(tokens, "alice", read="*", write="*", admin="*")


@pytest.fixture
def service(store: pheon.Store, store_path: Path, tokens: Path, alice: str) -> Iterator[Service]:
    store.put("t", numbers(5000), key="k", unique=True)
    options = ("--token-file", str(tokens), "--limit", "slow_query=1ms")
    with Service(store_path, *options, token=alice) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[flight.FlightClient]:
    with service.client() as connected:
        yield connected


def calls(method: str, outcome: str = "ok") -> str:
    return f'pheon_calls_total{{method="{method}",outcome="{outcome}"}}'


def by(metric: str, method: str) -> str:
    return f'{metric}{{method="{method}"}}'


def audit(service: Service, **members: object) -> dict[str, object]:
    return service.event("pheon::audit", **members)


def test_reads_are_counted_and_audited(service: Service, client: flight.FlightClient) -> None:
    info = client.get_flight_info(path("t"), service.call())
    assert client.do_get(info.endpoints[0].ticket, service.call()).read_all().num_rows == 5000
    event = audit(service, method="DoGet", outcome="ok")
    assert (event["principal"], event["dataset"], event["rows"]) == ("alice", "t", 5000)
    assert event["bytes"] > 5000 * (7 + 8)  # type: ignore[operator]
    assert str(event["peer"]).startswith("127.0.0.1:")
    assert audit(service, method="GetFlightInfo", outcome="ok")["dataset"] == "t"
    assert service.metric(calls("DoGet")) == 1
    assert service.metric(by("pheon_rows_total", "DoGet")) == 5000
    assert service.metric(by("pheon_moved_bytes_total", "DoGet")) == event["bytes"]
    assert service.metric(by("pheon_call_duration_seconds_count", "DoGet")) == 1
    assert service.metric(by("pheon_calls_running", "DoGet")) == 0


def test_writes_lookups_and_actions(service: Service, client: flight.FlightClient) -> None:
    writer, reader = client.do_put(command(put="new", key=["k"]), numbers(700).schema, service.call())
    with writer:
        writer.write_table(numbers(700), max_chunksize=100)
        writer.done_writing()
        reader.read()
    event = audit(service, method="DoPut", outcome="ok")
    assert (event["dataset"], event["rows"], event["action"]) == ("new", 700, "publish")
    keys = pa.schema([("k", pa.string())])
    writer, answers = client.do_exchange(path("t"), service.call())
    with writer:
        writer.begin(keys)
        for _ in range(3):
            writer.write_batch(pa.record_batch([pa.array([SECRET_KEY, "missing"])], schema=keys))
        writer.done_writing()
        assert answers.read_all().num_rows == 6
    event = audit(service, method="DoExchange", outcome="ok")
    assert (event["dataset"], event["rows"], event["action"]) == ("t", 6, "lookup")
    assert service.metric(by("pheon_rows_total", "DoExchange")) == 6
    list(client.do_action(flight.Action("verify", b'{"dataset": "t"}'), service.call()))
    assert audit(service, method="DoAction", outcome="ok")["action"] == "verify"
    with pytest.raises(KeyError):
        list(client.do_action(flight.Action("info", b'{"dataset": "none"}'), service.call()))
    assert audit(service, method="DoAction", outcome="not_found")["dataset"] == "none"


def test_who_is_not_let_in_and_who_may_not(service: Service, client: flight.FlightClient, tokens: Path) -> None:
    with pytest.raises(flight.FlightUnauthenticatedError):
        client.get_flight_info(path("t"), service.call("wrong-secret"))
    event = audit(service, outcome="unauthenticated")
    assert (event["level"], "principal" in event) == ("WARN", False)
    assert service.metric(calls("GetFlightInfo", "unauthenticated")) == 1
    assert not any("wrong-secret" in line for line in service.lines)


def test_a_client_that_goes_away(service: Service, store: pheon.Store) -> None:
    store.put("big", pa.table({"v": pa.array(range(30_000_000), pa.int64())}))
    client = service.client()
    info = client.get_flight_info(path("big"), service.call())
    reader = client.do_get(info.endpoints[0].ticket, service.call())
    reader.read_chunk()
    reader.cancel()
    del reader
    client.close()
    event = audit(service, method="DoGet", dataset="big")
    assert event["outcome"] == "cancelled"
    assert 0 < event["rows"] < 30_000_000  # type: ignore[operator]
    assert service.metric(calls("DoGet", "cancelled")) == 1


def test_nothing_secret_is_logged(service: Service, client: flight.FlightClient, alice: str) -> None:
    bearer = client.authenticate_basic_token("alice", alice)
    assert bearer[1].startswith(b"Bearer pheon-session_")
    issued = bearer[1].removeprefix(b"Bearer ").decode()
    assert audit(service, method="Handshake", outcome="ok")["principal"] == "alice"
    with pytest.raises(flight.FlightUnauthenticatedError):
        client.authenticate_basic_token("alice", "guessed-password")
    ticket = client.get_flight_info(command(dataset="t", keys=[SECRET_KEY]), service.call(issued)).endpoints[0].ticket
    assert client.do_get(ticket, service.call(issued)).read_all().num_rows == 1
    with pytest.raises(pa.ArrowInvalid):
        client.get_flight_info(command(dataset="t", keys=[123456789]), service.call())
    service.api("datasets/t/probe", {"key": SECRET_KEY})
    service.api("sql", {"sql": f"select * from t where k = '{SECRET_KEY}'"})
    event = audit(service, action="query")
    assert (event["principal"], event["dataset"], event["rows"]) == ("alice", "t", 1)
    assert audit(service, action="probe")["rows"] == 1
    slow = service.event("pheon::slow", principal="alice")
    assert slow["query"] == "select * from t where k = ?"
    log = "\n".join(service.lines)
    for secret in (alice, issued, "guessed-password", SECRET_KEY, "123456789", "sha256"):
        assert secret not in log, secret


LONG = "select count(*) from range(1, 400000) a, range(1, 400000) b where (a.value * b.value) % 7 = 3"


def ask_long(service: Service) -> tuple[threading.Thread, list[tuple[int, str]], list[dict[str, Any]]]:
    """Asks for LONG in a thread: this, where its answer comes, and what runs by then."""
    ended: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: ended.append(service.http("/api/sql", {"sql": LONG})))
    asking.start()
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while not (running := service.api("queries")["running"]):
        assert time.monotonic() < deadline
        assert not ended, ended
    return asking, ended, running


def test_queries_are_seen_and_cancelled(service: Service) -> None:
    asking, ended, running = ask_long(service)
    assert running[0]["text"] == LONG
    assert service.metric("pheon_queries_running") == 1
    assert service.api(f"queries/{running[0]['id']}/cancel", {}) == {"cancelled": True}
    asking.join()
    assert ended[0][0] == 409
    assert "cancelled" in ended[0][1]
    assert service.api("queries")["running"] == []
    assert service.api("queries")["slow"][0]["text"] == LONG
    assert service.metric("pheon_queries_running") == 0
    assert service.metric("pheon_queries_slow_total") >= 1
    assert service.api("queries/12345/cancel", {}) == {"cancelled": False}


def test_a_query_has_its_time(store: pheon.Store, store_path: Path) -> None:
    with Service(store_path, "--limit", "query_time_max=300ms") as service:
        status, text = service.http("/api/sql", {"sql": LONG})
        assert status == 504
        assert "query_time_max" in text


def test_what_others_ask_is_theirs(store: pheon.Store, store_path: Path, tokens: Path, alice: str) -> None:
    store.put("t", numbers(10), key="k", unique=True)
    bob = make_token(tokens, "bob", read="*", write="*", admin="*")
    options = ("--token-file", str(tokens), "--limit", "slow_query=1ms")
    with Service(store_path, *options, token=alice) as service:
        asking, ended, running = ask_long(service)
        assert service.api("queries", token=bob) == {"running": [], "slow": []}
        assert service.api(f"queries/{running[0]['id']}/cancel", {}, token=bob) == {"cancelled": False}
        assert [q["id"] for q in service.api("queries")["running"]] == [running[0]["id"]]
        assert not ended, ended
        assert service.api(f"queries/{running[0]['id']}/cancel", {}) == {"cancelled": True}
        asking.join()
        assert LONG in [q["text"] for q in service.api("queries")["slow"]]
        assert service.api("queries", token=bob) == {"running": [], "slow": []}
        status, text = service.http("/api/queries", token="wrong")
        assert status == 401
        assert "error" in json.loads(text)
