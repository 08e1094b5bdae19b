"""Tokens, TLS, reloading and stopping, with stock clients against a real server."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import threading
import tomllib
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pytest
from certificates import Certificates
from flight_server import COMMAND
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pyarrow import flight
from service import WATCHDOG_SECONDS, Service, make_token, numbers, path

import pheon

FLIGHT = "arrow.flight.protocol.FlightService"


def names(client: flight.FlightClient, options: flight.FlightCallOptions) -> list[str]:
    return [info.descriptor.path[0].decode() for info in client.list_flights(options=options)]


def test_tokens_are_made_and_have_rights(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("t", numbers(10))
    store.put("secret", numbers(10))
    tokens = tmp_path / "tokens.toml"
    alice = make_token(tokens, "alice", read="t")
    admin = make_token(tokens, "root", read="*", write="*", admin="*")
    entry = tomllib.loads(tokens.read_text())["token"][0]
    assert (entry["name"], entry["read"], entry["write"]) == ("alice", ["t"], [])
    assert alice not in tokens.read_text()
    with Service(store_path, "--token-file", str(tokens), token=alice) as service, service.client() as client:
        assert names(client, service.call()) == ["t"]
        assert names(client, service.call(admin)) == ["secret", "t"]
        for forbidden in ("secret", "none"):
            with pytest.raises(flight.FlightUnauthorizedError):
                client.get_flight_info(path(forbidden), service.call())
        assert [d["name"] for d in service.api("datasets")] == ["t"]
        assert [service.http(f"/api/datasets/{name}")[0] for name in ("secret", "none")] == [404, 404]
        status, text = service.http("/api/sql", {"sql": "select * from secret"})
        assert status == 403, text
        ticket = client.get_flight_info(path("secret"), service.call(admin)).endpoints[0].ticket
        with pytest.raises(flight.FlightUnauthorizedError):
            client.do_get(ticket, service.call()).read_all()


def test_the_token_verb() -> None:
    made = subprocess.run([*COMMAND, "token", "bob", "--read", "*"], capture_output=True, text=True, check=True)
    assert tomllib.loads(made.stdout)["token"][0]["name"] == "bob"
    secret = made.stderr.rsplit(" ", 1)[1].strip()
    assert len(secret) > 40
    assert secret not in made.stdout
    again = subprocess.run([*COMMAND, "token", "bob", "--read", "*"], capture_output=True, text=True, check=True)
    assert secret not in again.stderr
    for wrong in (["bob"], ["bob", "--read", "a*b"], ["", "--read", "*"], ["bob", "--read", "*", "--expires", "soon"]):
        refused = subprocess.run([*COMMAND, "token", *wrong], capture_output=True, text=True, check=False)
        assert (refused.returncode, refused.stdout) == (2, ""), wrong


def test_the_handshake_of_stock_clients(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("t", numbers(10))
    tokens = tmp_path / "tokens.toml"
    alice = make_token(tokens, "alice", read="*")
    with Service(store_path, "--token-file", str(tokens)) as service, service.client() as client:
        bearer = client.authenticate_basic_token("alice", alice)
        assert names(client, flight.FlightCallOptions(headers=[bearer])) == ["t"]
        for name, secret in (("alice", "x"), ("bob", alice), ("", "")):
            with pytest.raises(flight.FlightUnauthenticatedError):
                client.authenticate_basic_token(name, secret)
        with pytest.raises(flight.FlightUnauthenticatedError):
            names(client, flight.FlightCallOptions())


def test_sighup_reads_tokens_again(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("t", numbers(10))
    tokens = tmp_path / "tokens.toml"
    alice = make_token(tokens, "alice", read="*")
    with Service(store_path, "--token-file", str(tokens), token=alice) as service, service.client() as client:
        issued = client.authenticate_basic_token("alice", alice)
        good = tokens.read_text()
        tokens.write_text("this is no token file")
        service.process.send_signal(signal.SIGHUP)
        event = service.event("pheon::server", message="token file not read")
        assert event["level"] == "ERROR"
        assert names(client, service.call()) == ["t"], "what was there stays"
        tokens.write_text("")
        bob = make_token(tokens, "bob", read="*")
        service.process.send_signal(signal.SIGHUP)
        service.event("pheon::server", message="token file read")
        assert names(client, service.call(bob)) == ["t"]
        for gone in (service.call(), flight.FlightCallOptions(headers=[issued])):
            with pytest.raises(flight.FlightUnauthenticatedError):
                names(client, gone)
        assert good != tokens.read_text()


def test_mutual_tls(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("t", numbers(10))
    made = Certificates(tmp_path)
    made.make("worker", "worker-1")
    made.make("stranger", "worker-2")
    tokens = tmp_path / "tokens.toml"
    tokens.touch(mode=0o600)
    tokens.write_text('[[certificate]]\ncommon_name = "worker-1"\nread = ["t"]\n')
    options = (*made.options, "--tls-client-ca", made.path("ca.pem"), "--token-file", str(tokens))
    ca = made.read("ca.pem")
    with Service(store_path, *options) as service:
        assert service.location.startswith("grpc+tls://")

        def client(name: str | None) -> flight.FlightClient:
            own = (
                {}
                if name is None
                else {"cert_chain": made.read(f"{name}.pem"), "private_key": made.read(f"{name}.key")}
            )
            return service.client(tls_root_certs=ca, **own)

        with client("worker") as known:
            assert names(known, service.call()) == ["t"]
            assert known.do_get(known.get_flight_info(path("t")).endpoints[0].ticket).read_all().num_rows == 10
        assert service.event("pheon::audit", method="DoGet")["principal"] == "worker-1"
        with client("stranger") as unknown, pytest.raises(flight.FlightUnauthenticatedError):
            names(unknown, service.call())
        with client(None) as nobody, pytest.raises((flight.FlightUnavailableError, flight.FlightTimedOutError)):
            names(nobody, service.call())


def served_certificate(port: int, ca: str) -> bytes:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


def test_sighup_reads_certificates_again(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("t", numbers(10))
    made = Certificates(tmp_path)
    with Service(store_path, *made.options) as service:
        first = served_certificate(service.port, made.path("ca.pem"))
        made.make("server", "localhost")
        assert served_certificate(service.port, made.path("ca.pem")) == first
        with service.client(tls_root_certs=made.read("ca.pem")) as client:
            assert names(client, service.call()) == ["t"]
            service.process.send_signal(signal.SIGHUP)
            service.event("pheon::server", message="certificates read")
            assert names(client, service.call()) == ["t"], "an open connection goes on"
        assert served_certificate(service.port, made.path("ca.pem")) != first
        (tmp_path / "server.pem").write_text("nothing")
        service.process.send_signal(signal.SIGHUP)
        service.event("pheon::server", message="certificates not read")
        assert served_certificate(service.port, made.path("ca.pem")) != first


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_plaintext_for_other_hosts_is_refused(store: pheon.Store, store_path: Path, option: str) -> None:
    store.put("t", numbers(1))
    command = [*COMMAND, "serve", str(store_path), "--listen", "127.0.0.1:0", option, "0.0.0.0:0"]
    if option == "--listen":
        command = [*COMMAND, "serve", str(store_path), "--listen", "0.0.0.0:0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=False)
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    assert "0.0.0.0" in refused.stderr
    with Service(store_path, option, "0.0.0.0:0", "--insecure") as service:
        assert any("without TLS" in line for line in service.lines)


def health(port: int, service: str = "") -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(channel).Check(asked, timeout=WATCHDOG_SECONDS).status


def test_health_and_reflection_of_stock_clients(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    alice = make_token(tokens, "alice", read="*")
    store.put("t", numbers(1))
    serving = health_pb2.HealthCheckResponse.SERVING
    with Service(store_path, "--token-file", str(tokens), token=alice) as service:
        assert health(service.port) == serving, "without credentials"
        assert health(service.port, FLIGHT) == serving
        with pytest.raises(grpc.RpcError) as unknown:
            health(service.port, "nothing")
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as plain:
            with pytest.raises(grpc.RpcError) as refused:
                ProtoReflectionDescriptorDatabase(plain).get_services()
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(plain, Bearer(alice)))
            assert set(database.get_services()) >= {"grpc.health.v1.Health", FLIGHT}
            file = database.FindFileContainingSymbol("grpc.health.v1.Health")
            assert [method.name for method in file.service[0].method][:1] == ["Check"]
            [described] = database.FindFileContainingSymbol(FLIGHT).service
            assert {method.name for method in described.method} >= {"DoGet", "DoExchange", "PollFlightInfo"}
            assert [r["name"] for r in service.api("datasets")] == ["t"]


class Bearer(grpc.StreamStreamClientInterceptor):
    """Adds a token to calls."""

    def __init__(self, token: str) -> None:
        self.token = token

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=[("authorization", f"Bearer {self.token}")]), requests)


def test_probes_of_operators(store: pheon.Store, store_path: Path) -> None:
    store.put("t", numbers(1))
    with Service(store_path) as service:
        assert service.http("/healthz") == (200, "ok\n")
        assert service.http("/readyz") == (200, "ready\n")
        assert service.http("/metrics")[1].endswith("# EOF\n")


def put_big(store: pheon.Store) -> int:
    """Publishes what no buffers on the way to a client hold; its rows."""
    rows = 40_000_000
    store.put("big", pa.table({"v": np.arange(rows)}))
    return rows


def test_sigterm_lets_calls_end_and_lets_idle_ones_go(store: pheon.Store, store_path: Path) -> None:
    """A scan that is being read ends as it should; exchanges that nobody uses end; new calls are refused."""
    rows = put_big(store)
    store.put("t", numbers(100), key="k", unique=True)
    keys = pa.schema([("k", pa.string())])
    # Far more than it takes: who waited for idle streams would need all of it.
    service = Service(store_path, "--limit", "drain_timeout=1h")
    with service.client() as client, service.client() as other:
        reader = client.do_get(client.get_flight_info(path("big")).endpoints[0].ticket)
        got = reader.read_chunk().data.num_rows
        writer, answers = other.do_exchange(path("t"))
        writer.begin(keys)
        writer.write_batch(pa.record_batch([pa.array(["k000007"])], schema=keys))
        assert answers.read_chunk().data["v"].to_pylist() == [7]
        service.process.send_signal(signal.SIGTERM)
        service.event("pheon::server", message="stopping: calls that have begun may end")
        with pytest.raises(flight.FlightUnavailableError, match="stops"):
            answers.read_chunk()
        assert service.http("/readyz")[0] == 503
        refused = (flight.FlightUnavailableError, flight.FlightTimedOutError)
        with service.client() as late, pytest.raises(refused):
            late.get_flight_info(path("t"), service.call())
        for chunk in reader:
            got += chunk.data.num_rows
        assert got == rows
        assert service.wait() == 0


def test_sigterm_ends_in_time(store: pheon.Store, store_path: Path) -> None:
    put_big(store)
    service = Service(store_path, "--limit", "drain_timeout=500ms")
    with service.client() as client:
        reader = client.do_get(client.get_flight_info(path("big")).endpoints[0].ticket)
        reader.read_chunk()
        ended = threading.Event()

        def stop() -> None:
            assert service.stop() == 0
            ended.set()

        stopping = threading.Thread(target=stop)
        stopping.start()
        stopping.join()
        assert ended.is_set()
        with pytest.raises((flight.FlightError, pa.ArrowException)):
            reader.read_all()


def test_the_example_configuration(store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    """deploy/pheon.toml, with its paths replaced, runs a server."""
    store.put("t", numbers(1))
    made = Certificates(tmp_path)
    tokens = tmp_path / "tokens.toml"
    alice = make_token(tokens, "alice", read="*")
    text = (Path(__file__).parents[2] / "deploy" / "pheon.toml").read_text()
    for there, here in (
        ("/var/lib/pheon/store", str(store_path)),
        ("/etc/pheon/server.pem", made.path("server.pem")),
        ("/etc/pheon/server.key", made.path("server.key")),
        ("/etc/pheon/tokens.toml", str(tokens)),
    ):
        assert there in text
        text = text.replace(there, here)
    config = tmp_path / "pheon.toml"
    config.write_text(text)
    with Service(store_path, "--config", str(config), token=alice) as service:
        with service.client(tls_root_certs=made.read("ca.pem")) as client:
            assert names(client, service.call()) == ["t"]
            with pytest.raises(flight.FlightError):
                client.do_put(path("t"), numbers(1).schema, service.call())[0].close()
        assert json.loads(service.lines[-1])["target"]
