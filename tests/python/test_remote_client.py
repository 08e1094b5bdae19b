"""What a client of a server makes sure of by itself: whose files it reads, rights before rows, limits, options."""

from __future__ import annotations

import math
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from flight_server import FlightServer
from service import make_token

import pheon
from pheon import _remote, _remote_live, _remote_origin

# Whose files -----------------------------------------------------------------------------------------------------


def test_another_store_at_the_same_port(tmp_path: Path) -> None:
    for name, price in (("a", 1), ("b", 2)):
        with pheon.open(tmp_path / name) as made:
            made.put_map("prices", {"x": price})
    server = FlightServer(tmp_path / "a")
    with pheon.connect(server.location) as store:
        assert store.is_local
        assert store.map("prices", 1)["x"] == 1
        server.stop()
        with FlightServer(tmp_path / "b", port=server.port):
            assert store.map("prices", 1)["x"] == 2
            assert list(store.table("prices")) == [{"key": "x", "value": 2}]
            assert isinstance(store.map("prices"), pheon.Map), "and read from the new one's files"
        # A copy has the same identity, and goes its own way.
        shutil.copytree(tmp_path / "b", tmp_path / "copy")
        with pheon.open(tmp_path / "copy") as made:
            made.drop("prices")
            made.put_map("prices", {"x": 3})
        with FlightServer(tmp_path / "copy", port=server.port):
            assert store.map("prices", 1)["x"] == 3
            assert next(iter(store.table("prices", 1)))["value"] == 3


class NewerFormat:
    """A store whose files this process cannot read."""

    def __init__(self, path: str, _read_only: bool = True) -> None:
        self.path = path
        with pheon.open(path, read_only=True) as there:
            self.uuid = there.uuid

    def map(self, *_: object) -> object:
        raise pheon.CorruptError("format version 99")

    def table(self, *_: object) -> object:
        raise pheon.CorruptError("format version 99")

    def close(self) -> None:
        pass


def test_files_that_cannot_be_read_come_over_the_network(server: FlightServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "StoreHandle", NewerFormat)
    with pheon.connect(server.location) as store:
        assert store.is_local
        assert isinstance(store.map("words"), pheon.RemoteMap)
        assert isinstance(store.table("words"), pheon.RemoteTable)

    def refused(*_: object) -> object:
        raise pheon.CorruptError("format version 99")

    monkeypatch.setattr(_remote, "StoreHandle", refused)
    with pheon.connect(server.location) as store:
        assert not store.is_local
        assert store.map("words")["lazy"] == "idle"


# Rights before rows ----------------------------------------------------------------------------------------------


def test_who_may_not_remove_old_versions_appends_nothing(tmp_path: Path) -> None:
    with pheon.open(tmp_path / "store") as made:
        made.put("t", pa.table({"k": [1]}), key="k")
        made.put_map("m", {"a": 1})
    tokens = tmp_path / "tokens.toml"
    secret = make_token(tokens, "writer", read="*", write="*")
    with (
        FlightServer(tmp_path / "store", "--token-file", str(tokens)) as server,
        pheon.connect(server.location, token=secret, local=False) as store,
    ):
        for change in (
            lambda: store.append("t", pa.table({"k": [2]}), keep=3),
            lambda: store.append("t", pa.table({"k": [2]}), max_age=60),
            lambda: store.upsert("m", {"a": 2}, keep=1),
            lambda: store.delete("t", [1], keep=1),
        ):
            with pytest.raises(pheon.RemotePermissionError, match="not changed.*administrate") as raised:
                change()
            assert raised.value.published is None
        assert len(store.versions("t")) == len(store.versions("m")) == 1
        assert store.append("t", pa.table({"k": [2]})).version == 2


def test_who_may_not_read_publishes_by_a_writer(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    pheon.open(tmp_path / "store").close()
    secret = make_token(tokens, "writer", write="*")
    with (
        FlightServer(tmp_path / "store", "--token-file", str(tokens)) as server,
        pheon.connect(server.location, token=secret, local=False) as store,
    ):
        for publish in (
            lambda: store.put_map("m", {"a": 1}),
            lambda: store.put("m", pa.table({"k": [1]}), key="k"),
        ):
            with pytest.raises(pheon.RemotePermissionError, match="not sent.*read.*map_writer"):
                publish()
        with store.map_writer("n") as writer:
            writer.put("a", 1)
    with pheon.open(tmp_path / "store", read_only=True) as served:
        assert list(served) == ["n"]


def test_an_error_after_publishing_names_the_version(
    remote: pheon.RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.put("late", pa.table({"k": [1]}), key="k")

    def broken(*_: object, **__: object) -> Any:
        raise pheon.RemoteConnectionError("the connection broke")

    with monkeypatch.context() as patched:
        patched.setattr(pheon.RemoteStore, "_collect", broken)
        with pytest.raises(pheon.RemoteConnectionError, match="version 2 of 'late' was published.*broke") as raised:
            remote.append("late", pa.table({"k": [2]}))
        assert raised.value.published == 2
        with pytest.raises(pheon.RemoteConnectionError, match="version 3") as raised:
            remote.delete("late", [2])
        assert raised.value.published == 3
    with monkeypatch.context() as patched:
        patched.setattr(pheon.RemoteStore, "table", broken)
        patched.setattr(pheon.RemoteStore, "map", broken)
        for number, change in enumerate(
            (
                lambda: remote.append("late", pa.table({"k": [2]})),
                lambda: remote.put("late", pa.table({"k": [1]}), key="k"),
                lambda: remote.put_map("late", {1: 1}),
            ),
            4,
        ):
            with pytest.raises(pheon.RemoteConnectionError, match=f"version {number} of 'late'") as raised:
                change()
            assert raised.value.published == number
    assert len(remote.versions("late")) == 6


# SQL -------------------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_a_store(remote: pheon.RemoteStore) -> None:
    query = "select value from words where key = ?"
    for parameters in (["lazy"], ("lazy",), pa.table({"k": ["lazy"]})):
        answer = remote.sql(query, parameters)
        assert isinstance(answer, pheon.Batch)
        assert answer.to_pylist() == [{"value": "idle"}]
    with pytest.raises(TypeError, match="list or tuple"):
        remote.sql(query, "lazy")


# Live maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_entries": 0}, ValueError, "max_entries is at least 1"),
        ({"max_bytes": 0}, ValueError, "max_bytes is at least 1"),
        ({"max_age": 0}, ValueError, "max_age is more than 0"),
        ({"max_entries": True}, TypeError, "max_entries is an int"),
        ({"create": "no"}, TypeError, "create is None, True or False"),
        ({"codec": "json"}, ValueError, "codec is"),
    ],
)
def test_options_of_live_maps_are_checked(
    remote: pheon.RemoteStore, tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    for store in (remote, pheon.open(tmp_path / "here")):
        with pytest.raises(error, match=match):
            store.live("unlimited", **options)
        assert "unlimited" not in store.live_names()


def test_freeze_is_that_of_a_live_map(remote: pheon.RemoteStore, tmp_path: Path) -> None:
    live = remote.live("frozen-live")
    live["a"] = 1
    with pytest.raises(TypeError, match="codec"):
        live.freeze("frozen", codec="pickle")
    with pytest.raises(TypeError, match="allow_pickle"):
        live.freeze("frozen", allow_pickle=True)
    here = live.freeze("frozen", store=str(tmp_path / "here"))
    assert isinstance(here, pheon.Map)
    assert dict(here) == {"a": 1}
    there = live.freeze("frozen")
    assert there["a"] == 1
    remote.close()
    with pytest.raises(pheon.ClosedError):
        there["a"]  # it came over the map's own connection
    with pheon.connect(remote.uri, local=False) as again:
        again.drop_live("frozen-live")


def test_nan_equals_itself_as_it_is_stored(remote: pheon.RemoteStore) -> None:
    live = remote.live("nan")
    live["f"] = [1, math.nan]
    assert live == {"f": [1, math.nan]}
    assert live != {"f": [2, math.nan]}
    assert live != {"g": [1, math.nan]}
    remote.drop_live("nan")


def test_too_much_at_once_is_not_sent(remote: pheon.RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    live = remote.live("large")
    with pytest.raises(pheon.RemoteError, match="a server takes at most .* at once: send fewer"):
        live.update(dict.fromkeys(range(65), b"x" * (1 << 20)))
    monkeypatch.setattr(_remote_live, "_OPERATIONS_MAX", 3)
    with pytest.raises(pheon.RemoteError, match="4 operations; a server takes at most 3"):
        live.update(dict.fromkeys(range(4), 1))
    with pytest.raises(pheon.RemoteError, match="4 operations"), live.batch() as batch:
        batch.update(dict.fromkeys(range(4), 1))
    assert len(live) == 0
    live.update(dict.fromkeys(range(3), 1))
    assert len(live) == 3
    remote.drop_live("large")


def test_clearing_is_one_step_however_many_entries(remote: pheon.RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    live = remote.live("many")
    live.update({number: number for number in range(100)})
    sent: list[list[Any]] = []
    transact = pheon.RemoteLiveMap.transact

    def counted(self: pheon.RemoteLiveMap, operations: list[Any]) -> list[Any]:
        sent.append(operations)
        return transact(self, operations)

    monkeypatch.setattr(pheon.RemoteLiveMap, "transact", counted)
    with live.batch() as batch:
        batch.clear()
        assert len(batch) == 0
        batch["a"] = 1
    assert [[operation[0] for operation in operations] for operations in sent] == [["clear", "set"]]
    sent.clear()
    live.update({number: number for number in range(100)})
    sent.clear()
    with live.batch() as batch:
        for key in list(batch):
            if key != "a":
                del batch[key]
        assert dict(batch) == {"a": 1}
    assert len(sent) == 1, "it has asked once for all entries"
    assert live == {"a": 1}
    remote.drop_live("many")


def test_what_a_batch_has_seen_otherwise_is_told_when_it_looks_again(remote: pheon.RemoteStore) -> None:
    live = remote.live("seen")
    live["a"] = 1
    with pytest.raises(pheon.RemoteError, match="somebody else"), live.batch() as batch:
        assert batch["a"] == 1
        live["a"] = 2
        list(batch)
    assert live == {"a": 2}
    remote.drop_live("seen")


# Connecting ------------------------------------------------------------------------------------------------------


def test_options_that_would_be_ignored() -> None:
    with pytest.raises(ValueError, match="password without user"):
        pheon.connect("grpc://127.0.0.1:1", password="x")
    with pytest.raises(ValueError, match="tls_server_name"):
        pheon.connect("grpc://127.0.0.1:1", tls_server_name="x")
    with pytest.raises(TypeError, match=r"uri is a str.*pheon\.open"):
        pheon.connect(Path("x"))  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_the_certificates_of_a_folder_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    names += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command, *names], check=True, capture_output=True)
    (tmp_path / "key.pem").chmod(0o600)
    folder = tmp_path / "certs"
    folder.mkdir()
    shutil.copy(tmp_path / "cert.pem", folder / "mine.pem")
    (folder / "0123abcd.0").symlink_to("mine.pem")
    (folder / "gone.pem").symlink_to("nowhere.pem")
    (folder / "README").write_text("no certificate")
    (folder / "java").mkdir()
    paths = ssl.DefaultVerifyPaths(None, str(folder), "SSL_CERT_FILE", "/nowhere", "SSL_CERT_DIR", "/nowhere")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    roots = _remote_origin._system_roots()
    assert roots is not None
    assert roots.count(b"BEGIN CERTIFICATE") == 1
    with pheon.open(tmp_path / "store") as made:
        made.put_map("words", {"lazy": "idle"})
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with (
        FlightServer(tmp_path / "store", *options) as server,
        pheon.connect(f"grpc+tls://127.0.0.1:{server.port}", local=False) as store,
    ):
        assert store.map("words")["lazy"] == "idle"
