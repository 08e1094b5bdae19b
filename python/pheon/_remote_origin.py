"""How to reach a server again: what pickles of everything that came from it hold."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from pheon._native import RemoteClient

if TYPE_CHECKING:
    from pheon._remote import RemoteStore
    from pheon._remote_live import RemoteLiveMap
    from pheon._remote_map import RemoteMap
    from pheon._remote_table import RemoteTable

Pem: TypeAlias = str | os.PathLike[str] | bytes
"""A file with PEM, or its content as bytes."""

# URIs of these schemes are encrypted.
_TLS_SCHEMES = ("grpc+tls://", "grpcs://", "https://")


class ConnectOptions(TypedDict):
    """What the native client takes; `None`: its default."""

    token: str | None
    user: str | None
    password: str | None
    tls_ca: bytes | None
    tls_cert: bytes | None
    tls_key: bytes | None
    tls_server_name: str | None
    timeout: float | None
    connect_timeout: float | None


@dataclass(frozen=True, slots=True)
class RemoteOrigin:
    """A server's URI and how to connect to it. Secrets are not in its repr, but in its pickle."""

    uri: str
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_ca: str | bytes | None = field(default=None, repr=False)
    tls_cert: str | bytes | None = field(default=None, repr=False)
    tls_key: str | bytes | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    timeout: float | None = None
    connect_timeout: float | None = None
    local: bool = True

    def connect(self) -> RemoteClient:
        """A connection of its own."""
        roots = _content(self.tls_ca)
        if roots is None and is_encrypted(self.uri):
            roots = _system_roots()
        options: ConnectOptions = {
            "token": self.token,
            "user": self.user,
            "password": self.password,
            "tls_ca": roots,
            "tls_cert": _content(self.tls_cert),
            "tls_key": _content(self.tls_key),
            "tls_server_name": self.tls_server_name,
            "timeout": self.timeout,
            "connect_timeout": self.connect_timeout,
        }
        return RemoteClient(self.uri, options)


def is_encrypted(uri: str) -> bool:
    """Whether connections to a URI use TLS."""
    return uri.startswith(_TLS_SCHEMES)


def pem(given: Pem | None) -> str | bytes | None:
    """A path that means the same in any process of this machine, or the content."""
    if given is None or isinstance(given, bytes):
        return given
    return str(Path(given).absolute())


def _content(given: str | bytes | None) -> bytes | None:
    return Path(given).read_bytes() if isinstance(given, str) else given


def _system_roots() -> bytes | None:
    """The certificates that this machine trusts, in PEM: those of OpenSSL's file, else of its folder."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.openssl_cafile):
        if path and os.path.isfile(path):
            return Path(path).read_bytes()
    for path in (paths.capath, paths.openssl_capath):
        if path and os.path.isdir(path):
            found = b"\n".join(_certificates(Path(path)))
            if found:
                return found
    return None


def _certificates(folder: Path) -> Iterator[bytes]:
    """The content of the files with certificates in a folder, each once: there are links to most."""
    for file in sorted({entry.resolve() for entry in folder.iterdir()}):
        # What cannot be read, or is something else, is nobody's root.
        with suppress(OSError):
            content = file.read_bytes()
            if b"-----BEGIN CERTIFICATE-----" in content:
                yield content


@lru_cache(maxsize=16)
def _shared(origin: RemoteOrigin) -> RemoteClient:
    """The connection of all maps and tables that were unpickled; it goes on in forked children by itself."""
    return origin.connect()


def reopen_remote_store(origin: RemoteOrigin) -> RemoteStore:
    """Unpickle a `RemoteStore`: connect again."""
    from pheon._remote import RemoteStore

    return RemoteStore(origin)


def reopen_remote_map(origin: RemoteOrigin, name: str, version: int, allow_pickle: bool) -> RemoteMap:
    """Unpickle a `RemoteMap`, on the version that it was on."""
    from pheon._remote_map import RemoteMap

    return RemoteMap(_shared(origin).map(name, version, allow_pickle), origin)


def reopen_remote_table(
    origin: RemoteOrigin, name: str, version: int, rows: tuple[int, int], columns: list[str] | None
) -> RemoteTable:
    """Unpickle a `RemoteTable`, with the rows (the first, and how many) and columns that it had."""
    from pheon._remote_table import RemoteTable

    handle = _shared(origin).table(name, version).slice(*rows)
    return RemoteTable(handle if columns is None else handle.select(columns), origin)


def reopen_remote_live(origin: RemoteOrigin, name: str, pickles: bool, allow_pickle: bool) -> RemoteLiveMap:
    """Unpickle a `RemoteLiveMap`."""
    from pheon._remote_live import RemoteLiveMap

    return RemoteLiveMap(_shared(origin), origin, name, pickles, allow_pickle)
