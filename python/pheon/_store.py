"""`Store`: a directory of datasets."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, overload

from pheon._adapters import arrow_keys, arrow_source, parameter_rows
from pheon._errors import Error
from pheon._map import Map, MapFace
from pheon._native import Batch, LiveHandle, RemoteTableHandle, StoreHandle, TableHandle
from pheon._options import (
    Access,
    BuildKeywords,
    BuildOptions,
    ChangeKeywords,
    OnDuplicate,
    StrPath,
    build_options,
    change_options,
    check_seconds,
)
from pheon._reopen import Origin, absolute, reopen_store
from pheon._table import Table
from pheon._writer import MapWriter

if TYPE_CHECKING:
    from typing import Self

    from pheon._info import DatasetMemory, GcReport, VerifyReport, VersionInfo, WarmReport
    from pheon._live import LiveMap

Codec: TypeAlias = Literal["msgpack", "pickle"]


class Store:
    """A directory of named datasets, each with immutable versions. Made by `pheon.open`.

    ``for name in store`` goes through the datasets, ``name in store`` asks for one. Publishing replaces a dataset
    for whoever opens it afterwards; who has it open stays on the old version until `refresh`.

    The same keyword arguments steer every build and change:

    * `on_duplicate` (where it is named): "error", "first" or "last" wins where a unique key occurs twice,
    * `memory_limit`: bytes, or text like "2GB"; at least 64 MiB. None: a quarter of the machine's memory,
    * `threads`: None: as many as this process has CPUs,
    * `spill_dir`: where sorted runs go that exceed the limit, in a folder of the build's own that the next build there
      removes if this one is killed. None: into the store,
    * `progress`: True draws a bar if stderr is a terminal; a callable gets a `Progress` about ten times a second,
    * `lock_timeout`: seconds to wait for another writer of the same dataset. None: 60.

    Ctrl-C stops a build with `KeyboardInterrupt`, an exception of the `progress` callback with that exception; the
    store is then as it was. One that comes in the instant in which the version becomes visible is raised too, and the
    version stays: `Store.versions` tells.
    """

    __slots__ = ("__weakref__", "_handle", "_origin")

    def __init__(self, path: StrPath, *, read_only: bool = False, access: Access = "auto") -> None:
        self._origin = Origin(absolute(path), access)
        self._handle = StoreHandle(self._origin.path, read_only, access)

    @property
    def path(self) -> str:
        """The store's absolute path, or ``shm://name``."""
        return self._origin.path

    @property
    def uuid(self) -> str:
        """The store's identity, 32 hexadecimal digits."""
        return self._handle.uuid

    @property
    def read_only(self) -> bool:
        """Whether it was opened read-only."""
        return self._handle.read_only

    @property
    def access(self) -> str:
        """How maps and tables are read that are opened from it: see `pheon.open`."""
        return self._handle.access

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle.closed

    def __iter__(self) -> Iterator[str]:
        """Names of the datasets, ascending."""
        return iter(self._handle.datasets())

    def __len__(self) -> int:
        return len(self._handle.datasets())

    def __bool__(self) -> bool:
        # An open store is something, also without datasets.
        return True

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._handle.contains(name)

    # Opening ------------------------------------------------------------------------------------------------------

    def map(self, name: str, version: int | None = None, *, allow_pickle: bool = False) -> Map:
        """Open a dataset as a map; None: its newest version.

        `allow_pickle`: decode values that were written with ``codec="pickle"``. Unpickling runs code that the data
        chooses: allow it only for data whose writer you trust.
        """
        return Map(self._handle.map(name, version, allow_pickle), self._origin)

    def table(self, name: str, version: int | None = None) -> Table:
        """Open a dataset as a table; None: its newest version."""
        return Table(self._handle.table(name, version), self._origin)

    def live(
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
    ) -> LiveMap:
        """Open a live map of this store, a dict that all processes share and change; make it if it is not there.

        It is kept with the store: on a disk it survives a reboot as of its last `LiveMap.sync` at least, with `durable`
        every write is on the disk before it is acknowledged. The other arguments are those of `LiveMap`. In a store
        that was opened read-only the map is read-only too.
        """
        from pheon._live import open_in_store

        self._handle.check_open()
        limits = (max_entries, max_age, max_bytes, durable)
        return open_in_store(self._handle.path, name, create, codec, allow_pickle, self.read_only, limits)

    def live_names(self) -> list[str]:
        """Names of the live maps of this store, ascending."""
        self._handle.check_open()
        return LiveHandle.names(None, self._handle.path)

    def drop_live(self, name: str) -> None:
        """Remove a live map of this store, as `LiveMap.unlink` does."""
        self._handle.check_open()
        if self.read_only:
            raise ValueError(f"store {self.path!r} was opened read-only")
        LiveHandle.remove(name, None, self._handle.path)

    # Building -----------------------------------------------------------------------------------------------------

    def put_map(
        self,
        name: str,
        data: Any,
        *,
        key: str | list[str] | None = None,
        value: str | list[str] | None = None,
        codec: Codec | None = None,
        on_duplicate: OnDuplicate = "error",
        **build: Unpack[BuildKeywords],
    ) -> Map:
        """Publish `data` as a map and open it.

        `data` is a mapping, an iterable of (key, value) tuples, Arrow data (anything with the PyCapsule interface),
        the path of a .parquet, .csv, .tsv, .ndjson, .arrow or .feather file, or another `Map` or `Table`. For Arrow
        data and files `key` names the key column and `value` the value columns (None: all others). A list of several
        key columns makes keys of tuples.

        Python values get the column type that holds them: str, bytes, int, float, bool, None, date, time, datetime,
        timedelta, Decimal. Lists, tuples, dicts and mixed types are stored as msgpack. ``codec="pickle"`` stores any
        object. The type is that of all entries of a mapping, but of the first 65,536 pairs of an iterable, which can be
        read only once: a later pair that does not fit is a `SchemaError`.
        """
        options = build_options(on_duplicate, **build)
        if isinstance(data, MapFace):
            data = data.table()
        self._check_opening(name)
        if not _is_tabular(data):
            if isinstance(key, list):
                raise ValueError(f"keys of Python data go into one column, got {key}; several need Arrow data or files")
            columns = (key or "key", value if isinstance(value, str) else "value")
            rows = len(data) if isinstance(data, Mapping) else _rows_hint(data)
            version = self._handle.put_pairs(name, data, columns, codec, rows, options)
        else:
            if codec is not None:
                raise ValueError("codec applies to Python values; Arrow data and files bring their own types")
            version = self._put_tabular(name, data, key, value, unique=True, options=options)
        with published(name, version):
            return self.map(name, allow_pickle=codec == "pickle")

    def map_writer(
        self,
        name: str,
        *,
        key: str = "key",
        value: str = "value",
        codec: Codec | None = None,
        on_duplicate: OnDuplicate = "error",
        resume: bool = False,
        **build: Unpack[BuildKeywords],
    ) -> MapWriter:
        """A writer that takes a map piece by piece and publishes it at the end of its ``with`` block.

        `key` and `value` name the columns of pairs; `key` also names the key column of Arrow data. The first 65,536
        pairs, or the first Arrow data if it comes before, set the column types; a later pair that does not fit is a
        `SchemaError`. ``codec="msgpack"`` takes mixed values.

        Other processes write parts of it, see `MapWriter.part`. With `resume`, a part that is finished survives
        whatever ends this build before it is published, even a power cut: call this again with the same arguments, and
        parts of the same names are `finished` already. Rows put into the writer itself are not kept. Without `resume`,
        such a build starts anew, and what was kept is removed when it takes its first rows or hands out its first part
        (as by a put that is published, by `drop`, and by `gc` when it is 7 days old or older than `max_age`).

        Raises:
            ValueError: with `resume`, the interrupted build had another key, value, codec or `on_duplicate`. It comes
                when the writer takes its first rows or hands out its first part.
        """
        options = build_options(on_duplicate, **build)
        return MapWriter(self._handle.map_writer(name, (key, value), codec, bool(resume), options))

    def put(
        self,
        name: str,
        data: Any,
        *,
        key: str | list[str] | None = None,
        unique: bool = False,
        **build: Unpack[BuildKeywords],
    ) -> Table:
        """Publish `data` as a table sorted by `key`, one column or several in their order, and open it.

        Keys may repeat unless `unique`: then a second row with one key is a `DuplicateKeyError`, now and in changes. A
        table whose keys happen not to repeat opens as a map too; `unique` keeps it one through any `upsert`. A
        categorical (dictionary-encoded) key column is stored as its plain values.

        `data` is Arrow data (pandas, polars, pyarrow, DuckDB...: anything with the PyCapsule interface), the path of
        a file, or another table. Without `key` a pandas index becomes the key, if it has a name or is no plain count;
        else rows keep their order.
        """
        options = build_options(**build)
        self._check_opening(name)
        version = self._put_tabular(name, data, key, None, unique=unique, options=options)
        with published(name, version):
            return self.table(name)

    def _check_opening(self, name: str) -> None:
        """Raise, before anything is published, if it is known that it could not be opened then."""

    def _put_tabular(
        self,
        name: str,
        data: Any,
        key: str | list[str] | None,
        value: str | list[str] | None,
        *,
        unique: bool,
        options: BuildOptions,
    ) -> int:
        """Publish what has named columns; the version."""
        values = [value] if isinstance(value, str) else value
        if isinstance(data, MapFace):
            data = data.table()
        if isinstance(data, Table):
            keys = _names(key, data.key)
            _require_key(keys, unique)
            return self._put_table(name, data, keys, values, unique=unique, options=options)
        if isinstance(data, (str, os.PathLike)):
            keys = _names(key, [])
            _require_key(keys, unique)
            os.stat(data)  # FileNotFoundError and its like, as from `open`
            return self._handle.put_files(name, [os.fspath(data)], keys, values, unique, options)
        source, keys = arrow_source(data, None if key is None else _names(key, []))
        _require_key(keys, unique)
        return self._handle.put_arrow(name, source, keys, values, unique, _rows_hint(source), options)

    def _put_table(
        self, name: str, data: Table, keys: list[str], values: list[str] | None, *, unique: bool, options: BuildOptions
    ) -> int:
        handle = data._handle  # noqa: SLF001
        if isinstance(handle, RemoteTableHandle):
            # The rows of a server come as everybody's do.
            return self._handle.put_arrow(name, data, keys, values, unique, data.num_rows, options)
        return self._handle.put_table(name, handle, keys, values, unique, options)

    # Changing -----------------------------------------------------------------------------------------------------

    def append(
        self,
        name: str,
        data: Any,
        **change: Unpack[ChangeKeywords],
    ) -> Table:
        """Add rows to a dataset and open the version that has them. What is there is not written again.

        `data` is what `put` or `put_map` takes, with the dataset's columns by name, in any order; types that convert
        without loss are taken. Rows whose keys come after all others continue the one sorted sequence; others lie in a
        segment of their own, and reading merges them, which copies the rows where they take turns.

        * `compact`: merge small segments as soon as there are many, so that there are always few,
        * `keep`, `max_age`: remove older versions afterwards, as `gc` does; both None: none.

        Ctrl-C that comes while small segments are merged is raised, and the rows stay published.

        Raises:
            NotFoundError: there is no such dataset.
            SchemaError: the columns do not fit.
            DuplicateKeyError: a key is there already, in a dataset whose keys must be unique.
        """
        return self._change(name, data, change_options("append", **change))

    def upsert(
        self,
        name: str,
        data: Any,
        *,
        on_duplicate: OnDuplicate = "last",
        **change: Unpack[ChangeKeywords],
    ) -> Table:
        """Like `append`, but rows that are there with a key of `data` are replaced.

        `on_duplicate` is about keys that `data` has twice where keys must be unique. In other tables all rows of `data`
        come in.
        """
        return self._change(name, data, change_options("upsert", on_duplicate, **change))

    def delete(self, name: str, keys: Any, **change: Unpack[ChangeKeywords]) -> int:
        """Take all rows with these keys out of the newest version; how many went. Keys that are not there are ignored.

        `keys` is many keys, as `Map.get_many` takes them. Readers of older versions are not disturbed.
        """
        options = change_options("put", **change)
        asked = arrow_keys(self._handle.table(name, None), keys)
        return self._handle.delete(name, asked, options)[1]

    def _change(self, name: str, data: Any, options: BuildOptions) -> Table:
        version = self._publish_change(name, data, options)
        with published(name, version):
            return self.table(name)

    def _publish_change(self, name: str, data: Any, options: BuildOptions) -> int:
        there = self._handle.table(name, None)
        if isinstance(data, MapFace):
            data = data.table()
        if _is_tabular(data):
            return self._put_tabular(name, data, there.key, None, unique=False, options=options)
        columns = _pair_columns(name, there)
        rows = len(data) if isinstance(data, Mapping) else _rows_hint(data)
        return self._handle.put_pairs(name, data, columns, there.codecs.get(columns[1]), rows, options)

    # Versions and care --------------------------------------------------------------------------------------------

    def versions(self, name: str) -> list[VersionInfo]:
        """All published versions of a dataset, ascending."""
        from pheon._info import VersionInfo

        return [VersionInfo.of(v) for v in self._handle.versions(name)]

    def sql(self, statement: str, parameters: Any = None) -> Batch | int:
        """Execute one SQL statement: the rows of a query as a `Batch`, of a change how many rows it changed.

        A table is a dataset; ``"name@3"``, quoted, is its version 3. `parameters` are a list or tuple of the values for
        ``?`` or ``$1`` in order, or an Arrow table of them: the statement is then executed for each of its rows, and
        for ``where key = ?`` that is one lookup. docs/sql.md tells what SQL can do.
        """
        return self._handle.sql(statement, parameter_rows(parameters))

    def rollback(self, name: str, version: int) -> int:
        """Publish the content of an old version again; the new version's number."""
        return self._handle.rollback(name, version)

    def drop(self, name: str) -> None:
        """Remove a dataset with all its versions. Who has it open keeps reading."""
        self._handle.drop(name)

    def compact(
        self,
        name: str,
        *,
        keep: int | None = None,
        max_age: float | timedelta | None = None,
        **build: Unpack[BuildKeywords],
    ) -> int:
        """Merge a dataset's segments into one, without deleted rows; the version that holds the result.

        `keep` and `max_age` remove older versions afterwards, as `gc` does; both None: none.
        """
        return self._handle.compact(name, change_options("put", keep=keep, max_age=max_age, **build))

    @overload
    def gc(
        self, name: None = None, *, keep: int = 1, max_age: float | timedelta | None = None
    ) -> dict[str, GcReport]: ...
    @overload
    def gc(self, name: str, *, keep: int = 1, max_age: float | timedelta | None = None) -> GcReport: ...
    def gc(
        self, name: str | None = None, *, keep: int = 1, max_age: float | timedelta | None = None
    ) -> GcReport | dict[str, GcReport]:
        """Remove old versions, of one dataset or of all, and what killed writers left.

        The newest `keep` versions stay. If `max_age` is given (seconds or a timedelta), so do those that were still
        current less than so long ago. What an interrupted build with ``resume=True`` has finished goes when it is older
        than `max_age`, or than 7 days. While the newest manifest is damaged, no version is removed: `CorruptError`.
        """
        from pheon._info import GcReport

        age = check_seconds(max_age, "max_age")
        if name is not None:
            return GcReport(*self._handle.gc(name, keep, age))
        self._handle.gc_unfinished(age)
        return {each: GcReport(*self._handle.gc(each, keep, age)) for each in self}

    def verify(self, name: str) -> VerifyReport:
        """Read every byte of the newest version; check it against checksums, order, index and the Arrow format.

        Of older versions, and of finished parts that an interrupted build left (`map_writer`'s resume), every byte is
        checked against checksums. What is wrong is in the report, which is false in a condition then.
        """
        from pheon._info import VerifyReport

        return VerifyReport(*self._handle.verify(name))

    def memory(self, *, all_processes: bool = False) -> dict[str, DatasetMemory]:
        """What each dataset costs on disk and in memory.

        What is said of a process is of this one or, with `all_processes`, the sum over all processes that map the files
        and whose maps this user may read.
        """
        from pheon._info import DatasetMemory

        reports = [DatasetMemory(**facts) for facts in self._handle.memory(all_processes)]
        return {report.name: report for report in reports}

    def warm(self, name: str, *, lock: bool = False, huge: bool = True) -> WarmReport:
        """Bring the newest version of a dataset into memory, so that no reader waits for the disk. Ctrl-C stops it.

        `lock`: keep it there until this store is closed or collected, the process ends, or a newer version is locked
        in its place; the system's limit is ``ulimit -l``. `huge`: ask for 2 MiB pages. What the kernel refuses is in
        the report, not an exception.
        """
        from pheon._info import WarmReport

        return WarmReport(**self._handle.warm(name, lock, huge))

    def close(self) -> None:
        """End the use of this object: its methods raise `ClosedError`, and what `warm` locked is free again.

        Open maps and tables stay usable.
        """
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_store, (self._origin.path, self.read_only, self._origin.access)

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ", read-only" if self.read_only else ""
        return f"<pheon.Store {self.path!r}{state}>"


@contextmanager
def published(name: str, version: int) -> Generator[None]:
    """What is done after a version was published: if it fails, its error tells of the version.

    Else a caller would take it that nothing has happened, and do it again.
    """
    try:
        yield
    except Error as error:
        error.published = version
        error.args = (*error.args[:-1], f"version {version} of {name!r} was published; then: {error}")
        raise


def open(path: StrPath, *, read_only: bool = False, access: Access = "auto") -> Store:  # noqa: A001 - `pheon.open` is the interface
    """Open a store; unless `read_only`, create the directory if it is not there.

    ``shm://name`` is a private directory in memory. With `read_only` a missing store is a `FileNotFoundError`.

    `access` says how maps and tables read their files: "memory", as if all of it fitted into memory, by 2 MiB pages
    and 2 MiB at a time from the disk, or "random", only the pages that are asked for, many at once for a batch of
    keys. "auto" decides when a version is opened, by its size and the memory that this process can get; `info` of a
    map or table tells.
    """
    return Store(path, read_only=read_only, access=access)


def _is_tabular(data: Any) -> bool:
    """Whether `data` has named columns: everything but mappings and iterables of pairs."""
    if isinstance(data, Mapping):
        return False
    is_arrow = hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")
    return is_arrow or isinstance(data, (str, os.PathLike, Table))


def _names(given: str | list[str] | None, otherwise: list[str]) -> list[str]:
    if given is None:
        return otherwise
    return [given] if isinstance(given, str) else list(given)


def _require_key(keys: list[str], unique: bool) -> None:
    if unique and not keys:
        raise ValueError("unique keys need a key column; name it with key=")


def _pair_columns(name: str, table: TableHandle) -> tuple[str, str]:
    """The columns that the keys and values of pairs go into."""
    key = table.key
    others = [column for column in table.column_names if column not in key]
    if len(key) != 1 or len(others) != 1:
        raise TypeError(
            f"pairs go into one key and one value column; {name!r} has the key {key} and the columns {others}: "
            "give Arrow data or a data frame"
        )
    return key[0], others[0]


def _rows_hint(data: Any) -> int | None:
    """How many rows `data` has, if it knows: for progress only."""
    rows = getattr(data, "num_rows", None)
    if rows is None:
        try:
            rows = len(data)
        except TypeError:
            return None
    return rows if isinstance(rows, int) else None
