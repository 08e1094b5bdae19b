"""What goes wrong between a client and a server: wrong hosts and tokens, deadlines, servers that end or hang."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pytest
from flight_server import FlightServer

import pheon

T = TypeVar("T")

WORDS = {"quick": "fast", "lazy": "idle"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with pheon.open(tmp_path / "store") as made:
        made.put_map("words", WORDS)
        made.put_map("secret", WORDS)
    return tmp_path / "store"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def connect(server: FlightServer, **options: object) -> pheon.RemoteStore:
    return pheon.connect(server.location, local=False, **options)  # type: ignore[arg-type]


def test_nobody_listens(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(pheon.RemoteConnectionError, match=str(port)) as raised:
        pheon.connect(f"grpc://127.0.0.1:{port}")
    assert isinstance(raised.value, ConnectionError)
    assert isinstance(raised.value, pheon.Error)
    # A name server may take longer to say no than the client waits.
    with pytest.raises((pheon.RemoteConnectionError, pheon.RemoteTimeoutError)):
        pheon.connect("grpc://no-such-host:8815")


@pytest.mark.parametrize("uri", ["host:8815", "http2://host", "grpc://", "grpc://host/path"])
def test_wrong_uris(uri: str) -> None:
    with pytest.raises(ValueError, match="grpc://host"):
        pheon.connect(uri)


def test_wrong_options(path: Path) -> None:
    for options in (
        {"token": "a", "user": "b"},
        {"tls_cert": b""},
        {"timeout": 0},
        {"timeout": -1},
        {"token": "a\nb"},
        {"tls_ca": b""},
    ):
        with pytest.raises(ValueError, match="."):
            pheon.connect("grpc://127.0.0.1:1", **options)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        pheon.connect("grpc+tls://127.0.0.1:1", tls_ca=path / "none.pem")


def test_nobody_answers(listener: socket.socket) -> None:
    with pytest.raises((pheon.RemoteTimeoutError, pheon.RemoteConnectionError)):
        pheon.connect(f"grpc://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5, connect_timeout=0.5)


def test_no_grpc(listener: socket.socket) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(pheon.RemoteError):
        pheon.connect(f"grpc://127.0.0.1:{listener.getsockname()[1]}", timeout=10)
    thread.join(30)


def test_rights(path: Path, tmp_path: Path) -> None:
    secret = "0123456789abcdef"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[token]]\nname = "alice"\nsha256 = "{digest}"\nread = ["words"]\n')
    tokens.chmod(0o600)
    with FlightServer(path, "--token-file", str(tokens)) as server:
        for options in ({}, {"token": "wrong"}, {"user": "alice", "password": "wrong"}):
            with pytest.raises(pheon.RemotePermissionError) as raised:
                connect(server, **options)
            assert isinstance(raised.value, PermissionError)
        for options in ({"token": secret}, {"user": "alice", "password": secret}):
            with connect(server, **options) as store:
                assert list(store) == ["words"]
                assert store.map("words")["lazy"] == "idle"
                assert "secret" not in store
                assert "none" not in store
                for call in (
                    lambda: store.map("secret"),
                    lambda: store.put("words", pa.table({"k": [1]})),
                    lambda: store.drop("words"),
                    lambda: store.live("new"),
                ):
                    with pytest.raises(pheon.RemotePermissionError):
                        call()
                assert secret not in repr(store)
                assert secret not in repr(store._origin)
        # Files that this process may read do not make up for a right that is missing.
        with pheon.connect(server.location, token=secret) as store:
            assert store.is_local
            with pytest.raises(pheon.RemotePermissionError):
                store.map("secret")


def test_a_read_only_server(path: Path) -> None:
    with FlightServer(path, "--read-only") as server, connect(server) as store:
        assert store.map("words")["lazy"] == "idle"
        with pytest.raises(ValueError, match="read-only"):
            store.put_map("new", {1: 1})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_tls(path: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    names += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    key.chmod(0o600)
    with FlightServer(path, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        uri = f"grpc+tls://127.0.0.1:{server.port}"
        for tls_ca in (cert, str(cert), cert.read_bytes()):
            with pheon.connect(uri, tls_ca=tls_ca, local=False) as store:
                assert store.map("words")["lazy"] == "idle"
        with pytest.raises(pheon.RemoteConnectionError):
            pheon.connect(uri)  # not a certificate that this machine trusts
        with pytest.raises(pheon.RemoteError):
            pheon.connect(f"grpc://127.0.0.1:{server.port}", timeout=10)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_client_certificates(path: Path, tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout")
    openssl(*new, "ca.key", "-x509", "-subj", "/CN=a ca", "-out", "ca.pem")
    for name, names in (("server", "subjectAltName=IP:127.0.0.1"), ("worker", "subjectAltName=DNS:worker")):
        openssl(*new, f"{name}.key", "-subj", f"/CN={name}", "-addext", names, "-out", f"{name}.csr")
        signed = ("x509", "-req", "-days", "2", "-copy_extensions", "copy", "-CA", "ca.pem", "-CAkey", "ca.key")
        openssl(*signed, "-in", f"{name}.csr", "-out", f"{name}.pem")
        (tmp_path / f"{name}.key").chmod(0o600)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[certificate]]\ncommon_name = "worker"\nread = ["words"]\n')
    tokens.chmod(0o600)
    ca = tmp_path / "ca.pem"
    options = ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")]
    options += ["--tls-client-ca", str(ca), "--token-file", str(tokens)]
    with FlightServer(path, *options) as server:
        uri = f"grpc+tls://127.0.0.1:{server.port}"
        mine = {"tls_cert": tmp_path / "worker.pem", "tls_key": tmp_path / "worker.key"}
        with pheon.connect(uri, tls_ca=ca, local=False, **mine) as store:
            assert list(store) == ["words"]
            again = pickle.loads(pickle.dumps(store.map("words")))
            assert again["lazy"] == "idle"
        with pytest.raises(pheon.RemoteError):
            pheon.connect(uri, tls_ca=ca, timeout=10)


def test_a_server_that_comes_back(path: Path) -> None:
    server = FlightServer(path)
    store = connect(server)
    words, table = store.map("words"), store.table("words")
    assert words["lazy"] == "idle"
    port = server.port
    server.kill()
    for use in (lambda: words["lazy"], table.to_pyarrow, lambda: list(store)):
        with pytest.raises(pheon.RemoteConnectionError):
            use()
    with FlightServer(path, port=port):
        assert words["lazy"] == "idle"
        assert table.to_pyarrow().num_rows == 2
        assert set(store) == {"words", "secret"}
    store.close()


def test_a_server_that_ends_while_rows_are_sent(path: Path) -> None:
    server = FlightServer(path)
    with connect(server) as store:
        writer = store.map_writer("half")
        writer.update({i: i for i in range(100_000)})
        server.kill()
        with pytest.raises(pheon.RemoteConnectionError):
            writer.commit()
    with pheon.open(path) as served:
        assert "half" not in served


def test_a_server_that_ends_while_rows_are_read(path: Path) -> None:
    with pheon.open(path) as made:
        made.put("long", pa.table({"v": ["x" * 1000] * 100_000}))
    server = FlightServer(path)
    with connect(server) as store:
        batches = store.table("long").batches()
        next(batches)
        server.kill()
        with pytest.raises(pheon.RemoteConnectionError):
            list(batches)


def in_time(call: Callable[[], T]) -> T:
    """What a call answers once a machine is quick enough for its deadline."""
    watchdog = time.monotonic() + 60
    while True:
        try:
            return call()
        except pheon.RemoteTimeoutError:
            assert time.monotonic() < watchdog


def test_deadlines(path: Path) -> None:
    with FlightServer(path) as server, in_time(lambda: connect(server, timeout=0.5)) as store:
        words = in_time(lambda: store.map("words"))
        server.pause()
        try:
            for use in (lambda: words["lazy"], lambda: list(store), lambda: len(list(words))):
                with pytest.raises(pheon.RemoteTimeoutError) as raised:
                    use()
                assert isinstance(raised.value, TimeoutError)
        finally:
            server.resume()
        assert in_time(lambda: words["lazy"]) == "idle"


WAIT = """
import os, signal, sys, threading
import pheon

store = pheon.connect(sys.argv[1], local=False)
words = store.map("words")
# Text that is interrupted while it is evaluated would end this process later.
code = compile(sys.argv[2], "call", "eval")
print("ready", flush=True)
sys.stdin.readline()
try:
    # The server does not answer, so by then the call waits.
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    eval(code)
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.readline()
print(words["lazy"], flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "words['lazy']",
        "list(words)",
        "words.range('a')",
        "store.table('words')",
        "store.put_map('half', ((i, i) for i in range(10**8)))",
        "store.sql('select 1')",
        "store.live('new')",
    ],
)
def test_ctrl_c_ends_a_call_that_waits(path: Path, call: str) -> None:
    with FlightServer(path) as server:
        command = [sys.executable, "-c", WAIT, server.location, call]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            server.pause()
            try:
                child.stdin.write("\n")
                child.stdin.flush()
                assert child.stdout.readline() == "interrupted\n"
            finally:
                server.resume()
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "idle\n"
            child.stdin.close()
            assert child.wait(60) == 0
    with pheon.open(path) as served:
        assert "half" not in served
