"""`RemoteStore`: the store interface over Arrow Flight, for other hosts; `pheon.connect` makes it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from pheon._adapters import arrow_keys, parameter_rows
from pheon._errors import CorruptError, Error, NotFoundError, RemoteError, RemotePermissionError
from pheon._info import DatasetMemory, GcReport, VerifyReport, VersionInfo, WarmReport
from pheon._map import Map
from pheon._native import Batch, RemoteClient, StoreHandle
from pheon._options import BuildOptions, ChangeKeywords, change_options, check_keep, check_live, check_seconds
from pheon._remote_live import RemoteLiveMap
from pheon._remote_map import RemoteMap
from pheon._remote_origin import Pem, RemoteOrigin, is_encrypted, pem, reopen_remote_store
from pheon._remote_table import RemoteTable
from pheon._reopen import Origin
from pheon._store import Store, published
from pheon._table import Table

if TYPE_CHECKING:
    from pheon._store import Codec

# Versions to keep, for gc to remove none.
_KEEP_ALL = 2**64 - 1
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class RemoteStore(Store):
    """A store at a server: a `Store` whose methods are calls. Made by `pheon.connect`.

    It connects again by itself after the connection broke, and in forked children. Calls that change something are
    not repeated by themselves: after a `RemoteConnectionError` look whether the change was made.

    On the server's own host `map` and `table` hand out what a local store does, zero-copy, if this process may read the
    store's files; `is_local` tells. Changes go to the server all the same.

    `memory_limit`, `threads`, `spill_dir` and `lock_timeout` steer builds on the store's own machine: they are refused.
    """

    __slots__ = ("_local",)
    _handle: RemoteClient
    _origin: RemoteOrigin  # type: ignore[assignment] - how to reach it is another matter here
    _local: StoreHandle | None

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self, origin: RemoteOrigin, client: RemoteClient | None = None
    ) -> None:
        self._origin = origin
        self._handle = origin.connect() if client is None else client
        # Also where nothing is local: whether the server knows the caller shows at the first call.
        facts = self._handle.store()
        self._local = _local_store(facts) if origin.local else None

    @property
    def uri(self) -> str:
        """Where the server is."""
        return self._origin.uri

    @property
    def path(self) -> str:
        """The store's path on the server's host."""
        return self._handle.store()["path"]

    @property
    def uuid(self) -> str:
        """The store's identity, 32 hexadecimal digits."""
        return self._handle.store()["uuid"]

    @property
    def read_only(self) -> bool:
        """Always False: the server decides at each change."""
        return False

    @property
    def is_local(self) -> bool:
        """Whether maps and tables are read from the store's files, on the server's own host."""
        return self._local is not None

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            # Else the server took the name's end for a version.
            return self._one("info", dataset=name)["name"] == name
        except (NotFoundError, ValueError):
            self._handle.check_open()
            return False
        except RemotePermissionError:
            # A dataset that may not be seen and one that is not there are told alike, once the server knows who asks.
            self._handle.store()
            return False

    # Opening ------------------------------------------------------------------------------------------------------

    def map(self, name: str, version: int | None = None, *, allow_pickle: bool = False) -> Map | RemoteMap:  # type: ignore[override]
        """Open a dataset as a map; None: its newest version. See `Store.map`."""
        if self._local is not None:
            local, found = self._found(name, version)
            if local is not None:
                # Else this process cannot read its files: they are not for it, or of a newer format.
                with suppress(Error, OSError):
                    return Map(local.map(name, found, allow_pickle), Origin(local.path))
        return RemoteMap(self._handle.map(name, version, allow_pickle), self._origin)

    def table(self, name: str, version: int | None = None) -> Table:
        """Open a dataset as a table; None: its newest version."""
        if self._local is not None:
            local, found = self._found(name, version)
            if local is not None:
                # As with maps.
                with suppress(Error, OSError):
                    return Table(local.table(name, found), Origin(local.path))
        return RemoteTable(self._handle.table(name, version), self._origin)

    def _found(self, name: str, version: int | None) -> tuple[StoreHandle | None, int]:
        """The store, if its files are still the server's; the version's number, if the caller may read it."""
        facts = self._info(name, version)
        if not self._is_of_local(facts):
            # Another server has come to this place, with another store: this process finds out which, and asks it.
            self._local = _local_store(self._handle.store())
            facts = self._info(name, version)
        return (self._local if self._is_of_local(facts) else None), facts["version"]

    def _info(self, name: str, version: int | None) -> dict[str, Any]:
        facts = self._one("info", dataset=name if version is None else f"{name}@{version}")
        if facts["name"] != name:
            raise NotFoundError(f"there is no dataset {name!r}")
        return facts

    def _is_of_local(self, facts: dict[str, Any]) -> bool:
        """Whether a dataset is one of the store whose files this process reads."""
        local = self._local
        if local is None:
            return False
        # Older servers do not name their store.
        is_same = facts.get("store", local.uuid) == local.uuid
        return is_same and facts["path"] == os.path.join(local.path, facts["name"])

    def live(  # type: ignore[override] - a live map of another kind
        self,
        name: str,
        *,
        create: bool | None = None,
        codec: Codec = "msgpack",
        allow_pickle: bool = False,
        max_entries: int | None = None,
        max_age: float | None = None,
        max_bytes: int | None = None,
        durable: bool = False,
    ) -> RemoteLiveMap:
        """Open a live map of the server's store; make it if it is not there, as `create` says. See `Store.live`.

        Attaching (``create=False``) asks for the right to read, everything else for that to write.
        """
        limits = check_live(name, create, codec, (max_entries, max_age, max_bytes, durable))
        opened = RemoteLiveMap(self._handle, self._origin, name, codec == "pickle", allow_pickle)
        if create is False:
            len(opened)  # NotFoundError if it is not there
            return opened
        named = zip(("max_entries", "max_age", "max_bytes"), limits, strict=False)
        given: dict[str, Any] = {option: value for option, value in named if value is not None}
        if create:
            given["create"] = True
        self._one("live-create", live=name, durable=bool(durable), **given)
        return opened

    def live_names(self) -> list[str]:
        """Names of the live maps that the caller may read, ascending."""
        return self._handle.live_names()

    def drop_live(self, name: str) -> None:
        """Remove a live map of this store."""
        self._one("live-drop", live=name)

    # Changing -----------------------------------------------------------------------------------------------------

    def _put_table(
        self, name: str, data: Table, keys: list[str], values: list[str] | None, *, unique: bool, options: BuildOptions
    ) -> int:
        return self._handle.put_arrow(name, data, keys, values, unique, data.num_rows, options)

    def _check_opening(self, name: str) -> None:
        """Fail before rows are sent if what was published could not be opened: the caller would send them again."""
        try:
            self._one("info", dataset=name)
        except RemotePermissionError as error:
            raise RemotePermissionError(
                f"{name!r} was not sent: it is opened then, which asks for the right to read as well as that to write "
                f"(map_writer opens nothing): {error}"
            ) from None
        except (NotFoundError, CorruptError, ValueError):
            # It is not there yet, or is replaced now, or sending tells what is wrong with its name.
            self._handle.check_open()

    def _publish_change(self, name: str, data: Any, options: BuildOptions) -> int:
        self._check_collecting(name, options)
        version = super()._publish_change(name, data, options)
        with published(name, version):
            self._collect(name, options)
        return version

    def delete(self, name: str, keys: Any, **change: Unpack[ChangeKeywords]) -> int:
        """Take all rows with these keys out of the newest version; how many went. See `Store.delete`."""
        options = change_options("put", **change)
        asked = arrow_keys(self._handle.table(name, None), keys)
        self._check_collecting(name, options)
        version, gone = self._handle.delete(name, asked, options)
        with published(name, version):
            self._collect(name, options)
        return gone

    def _check_collecting(self, name: str, options: BuildOptions) -> None:
        """Fail before rows are sent if old versions could not be removed then: who repeats it would append twice."""
        if options["keep"] is None and options["max_age"] is None:
            return
        try:
            self._gc(name, _KEEP_ALL, None)
        except RemotePermissionError as error:
            raise RemotePermissionError(
                f"{name!r} was not changed: keep and max_age remove old versions then, which asks for the right to "
                f"administrate: {error}"
            ) from None

    def _collect(self, name: str, options: BuildOptions) -> None:
        """Remove older versions if a change was to do so; that asks for the right to administrate."""
        keep, age = options["keep"], options["max_age"]
        if keep is not None or age is not None:
            self._gc(name, keep or 1, age)

    # Versions and care --------------------------------------------------------------------------------------------

    def _act(self, action: str, **body: Any) -> list[dict[str, Any]]:
        results = self._handle.action(action, json.dumps(body).encode())
        return [cast("dict[str, Any]", json.loads(result)) for result in results]

    def _one(self, action: str, **body: Any) -> dict[str, Any]:
        results = self._act(action, **body)
        if len(results) != 1:
            raise RemoteError(f"the action {action!r}: unexpected answer: {len(results)} results")
        return results[0]

    def versions(self, name: str) -> list[VersionInfo]:
        """All published versions of a dataset, ascending."""
        found = self._act("versions", dataset=name)
        members = ("version", "created_unix_ms", "rows", "bytes", "segments", "origin")
        return [VersionInfo.of(cast("Any", tuple(version[member] for member in members))) for version in found]

    def sql(self, statement: str, parameters: Any = None) -> Batch | int:
        """Execute one SQL statement at the server: the rows of a query as a `Batch`, of a change how many it changed.

        See `Store.sql`.
        """
        return self._handle.sql(statement, parameter_rows(parameters))

    def rollback(self, name: str, version: int) -> int:
        """Publish the content of an old version again; the new version's number."""
        return self._one("rollback", dataset=name, version=version)["version"]

    def drop(self, name: str) -> None:
        """Remove a dataset with all its versions. Who has it open locally keeps reading, over the network not."""
        self._one("drop", dataset=name)

    def compact(
        self, name: str, *, keep: int | None = None, max_age: float | timedelta | None = None, **build: Any
    ) -> int:
        """Merge a dataset's segments into one, without deleted rows; the version that holds the result."""
        options = change_options("put", keep=keep, max_age=max_age, **build)
        self._handle.check_build(options)
        version = self._one("compact", dataset=name)["version"]
        with published(name, version):
            self._collect(name, options)
        return version

    @overload
    def gc(
        self, name: None = None, *, keep: int = 1, max_age: float | timedelta | None = None
    ) -> dict[str, GcReport]: ...
    @overload
    def gc(self, name: str, *, keep: int = 1, max_age: float | timedelta | None = None) -> GcReport: ...
    def gc(
        self, name: str | None = None, *, keep: int = 1, max_age: float | timedelta | None = None
    ) -> GcReport | dict[str, GcReport]:
        """Remove old versions, of one dataset or of all, and what killed writers left. See `Store.gc`."""
        age = check_seconds(max_age, "max_age")
        kept = check_keep(keep) or 1
        if name is not None:
            return self._gc(name, kept, age)
        return {each: self._gc(each, kept, age) for each in self}

    def _gc(self, name: str, keep: int, max_age: float | None) -> GcReport:
        body = {"dataset": name, "keep": keep} | ({} if max_age is None else {"max_age": max_age})
        found = self._one("gc", **body)
        members = ("versions_removed", "segments_removed", "leftovers_removed", "bytes_freed")
        return GcReport(*(found[member] for member in members))

    def verify(self, name: str) -> VerifyReport:
        """Have the server read every byte of the newest version and check it. See `Store.verify`."""
        found = self._one("verify", dataset=name)
        members = ("version", "rows", "keys", "bytes", "problems", "problem_count")
        return VerifyReport(*(found[member] for member in members))

    def memory(self, *, all_processes: bool = True) -> dict[str, DatasetMemory]:
        """What each dataset costs on disk and in the memory of the server's host; always of all its processes."""
        reports: dict[str, DatasetMemory] = {}
        for name in self:
            found = self._one("memory", dataset=name)
            for member in ("pss_bytes", "private_bytes", "page_table_bytes", "page_table_total_bytes"):
                found[f"process_{member}"] = found.pop(member)
            reports[name] = DatasetMemory(**found)
        return reports

    def warm(self, name: str, *, lock: bool = False, huge: bool = True) -> WarmReport:
        """Bring the newest version of a dataset into the memory of the server's host. See `Store.warm`.

        Raises:
            ValueError: `lock`, or no `huge`: what stays locked is decided on the server's host.
        """
        if lock or not huge:
            raise ValueError("lock and huge are for the server's own host: use Store.warm there")
        found = self._one("warm", dataset=name)
        found.pop("name")
        return WarmReport(locked_bytes=0, lock_refusal=None, **found)

    def close(self) -> None:
        """End the connection: methods of this object, and of maps and tables that came from it, raise `ClosedError`.

        Those that are local (`is_local`) stay usable.
        """
        self._handle.close()
        if self._local is not None:
            self._local.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_remote_store, (self._origin,)

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ", local" if self.is_local else ""
        return f"<pheon.RemoteStore {self.uri!r}{state}>"


def connect(
    uri: str,
    *,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    tls_ca: Pem | None = None,
    tls_cert: Pem | None = None,
    tls_key: Pem | None = None,
    tls_server_name: str | None = None,
    timeout: float | timedelta | None = None,
    connect_timeout: float | timedelta | None = None,
    local: bool = True,
) -> RemoteStore:
    """Connect to a server that `pheon serve` runs: the store interface, over the network.

    `uri`: ``grpc://host:8815``, ``grpc+tls://host:8815`` or ``grpc+unix:///path``.

    * `token`: a secret that the server's token file knows; or `user` and `password`, which are exchanged for a token,
    * `tls_ca`: the certificates that the server's must come from; None: those that this machine trusts,
    * `tls_cert`, `tls_key`: the client's own, for servers that ask for one,
    * `tls_server_name`: the name that the server's certificate must have; None: the host of the URI,
    * `timeout`: how long a call may take and a stream may stand still, in seconds; None: for ever, as long as the
      server answers pings. `connect_timeout`: how long connecting may take; None: 10 seconds,
    * `local`: on the server's own host, read the store's files where this process may.

    Certificates and keys are paths of PEM files, or the PEM itself as bytes. Pickles of the store, and of its maps and
    tables, hold all of this, the token too: keep them as secret as it is.

    Raises:
        RemoteConnectionError: nobody listens there, or the certificate is not trusted.
        RemotePermissionError: the server does not know this token, user or certificate.
    """
    if not isinstance(uri, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"uri is a str such as 'grpc://host:8815', found {uri!r}: pheon.open opens the store of a path")
    if password is not None and user is None:
        raise ValueError("password without user: give both")
    if tls_server_name is not None and not is_encrypted(uri):
        raise ValueError(f"tls_server_name is for encrypted connections, grpc+tls://, and {uri!r} is none")
    origin = RemoteOrigin(
        uri,
        token,
        user,
        password,
        pem(tls_ca),
        pem(tls_cert),
        pem(tls_key),
        tls_server_name,
        check_seconds(timeout, "timeout"),
        check_seconds(connect_timeout, "connect_timeout"),
        bool(local),
    )
    return RemoteStore(origin)


def _local_store(facts: dict[str, Any]) -> StoreHandle | None:
    """The server's store, if it is on this host and this process may read it."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            host = file.read().strip().replace("-", "")
        if not facts["path"] or facts["host"] != host:
            return None
        opened = StoreHandle(facts["path"], True)
    except (Error, OSError):
        return None
    # The same path in another container is another store.
    return opened if opened.uuid == facts["uuid"] else None
