"""`MapWriter`: build a map from more data than fits in memory, piece by piece; `MapPart`: by many processes."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pheon._errors import ClosedError
from pheon._native import PartHandle, RemoteTableHandle, WriterHandle
from pheon._options import BuildOptions, build_options
from pheon._table import Table

if TYPE_CHECKING:
    from typing import Self

Unfinished: TypeAlias = Literal["error", "skip"]


class MapRows:
    """What takes the rows of a map: `MapWriter`, and `MapPart` while it is written."""

    __slots__ = ()

    def _writing(self) -> WriterHandle:
        """Where rows go."""
        raise NotImplementedError

    def put(self, key: Any, value: Any) -> None:
        """Take one pair."""
        self._writing().put(key, value)

    def update(self, pairs: Any) -> None:
        """Take the entries of a mapping, or an iterable of (key, value) pairs."""
        from pheon._map import MapFace

        if isinstance(pairs, MapFace):
            pairs = pairs.items()
        self._writing().update(pairs)

    def write(self, data: Any, *, value: str | list[str] | None = None) -> None:
        """Take Arrow data (anything with the PyCapsule interface): the key column and the value columns.

        `value` names the value columns; None: all others. Columns agree by name with what was written before; their
        values are converted to its types where that changes no value, else it is a `SchemaError`, as for a column that
        is missing or was not there before.
        """
        names = [value] if isinstance(value, str) else value
        from pheon._map import MapFace

        if isinstance(data, MapFace):
            data = data.table()
        if isinstance(data, Table) and not isinstance(data._handle, RemoteTableHandle):  # noqa: SLF001
            self._writing().write_table(data._handle, names)  # noqa: SLF001
        else:
            self._writing().write_arrow(data, names)


class MapWriter(MapRows):
    """Collects pairs and Arrow data for a new version of a map; made by `Store.map_writer`.

    Nothing is visible until the ``with`` block ends; an exception in it publishes nothing and leaves nothing (except,
    with ``resume=True``, the parts that are finished). Memory stays within `memory_limit`, however much is written.
    After the block, `version` is the new version's number.

    The columns get the types of the Arrow data that comes first, or those that the first 65,536 pairs need. What comes
    later must fit them without loss.

    Other processes help with `part`: each sorts the rows of its parts, and the end of the block merges them all.
    """

    __slots__ = ("_aborted", "_handle", "_rows", "version")

    def __init__(self, handle: WriterHandle) -> None:
        self._handle = handle
        self._aborted = False
        self._rows: int | None = None
        self.version: int | None = None

    def _writing(self) -> WriterHandle:
        return self._handle

    def part(
        self, name: str | None = None, *, memory_limit: int | str | None = None, threads: int | None = None
    ) -> MapPart:
        """Hand out a part: rows that another process may write, or this one.

        Send it there (it pickles as where it is, under fork and spawn alike), write to it in its own ``with`` block,
        and end this writer's block when all are finished. Of rows with one key, the writer's own come first, then those
        of the parts in the order of these calls; that is what `on_duplicate` goes by.

        The types of columns are those of the rows written here so far, if these have set them: a part's rows are
        converted to them. Otherwise each part finds its own types, and they must be the same in all of them.

        Args:
            name: What messages call it, and by what a build with ``resume=True`` finds it again (where it must be
                given); None: its number, from 1.
            memory_limit: As for `Store.put_map`, for the process that writes the part; None: the writer's limit divided
                by the number of CPUs, at least 64 MiB.
            threads: How many threads work there; None: one.

        Raises:
            ValueError: the name is empty, taken, or missing where it is needed.
            CorruptError: an interrupted build left this part damaged.
        """
        options = build_options(memory_limit=memory_limit, threads=threads)
        return MapPart(self._handle.part(name), options)

    @property
    def rows(self) -> int:
        """Rows taken so far, without those of parts; after the ``with`` block, `commit` or `abort`: in all."""
        return self._handle.rows if self._rows is None else self._rows

    def commit(self, *, unfinished: Unfinished = "error") -> int:
        """Publish now; the new version's number. The end of the ``with`` block does this.

        Args:
            unfinished: ``"error"``: a part that was handed out and is not finished is a `pheon.Error` that names it,
                and this writer stays as it is: finish the part, and commit again. ``"skip"``: publish without its rows;
                a process that still writes it gets a `pheon.Error` when it finishes.
        """
        if unfinished not in ("error", "skip"):
            raise ValueError(f'unfinished is {unfinished!r}; expected "error" or "skip"')
        if unfinished == "error":
            self._handle.check_parts()
        rows = self._handle.rows
        try:
            self.version = self._handle.commit(unfinished == "skip")
        finally:
            self._rows = rows
        return self.version

    def abort(self) -> None:
        """Publish nothing, also not at the end of the block, and leave nothing.

        With ``resume=True`` the parts that are finished stay.
        """
        if self._rows is None:
            with contextlib.suppress(ClosedError):
                self._rows = self._handle.rows
        self._aborted = True
        self._handle.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self.version is None and not self._aborted:
            try:
                self.commit()
            except BaseException:
                self.abort()
                raise


class MapPart(MapRows):
    """Rows of a map that any process may write; made by `MapWriter.part`.

    Its ``with`` block takes rows as `MapWriter` does; at its end the part is finished, and waits for the writer's
    commit. An exception in the block leaves no finished part: it can be entered again, in any process. One process at
    a time.
    """

    __slots__ = ("_finished_rows", "_handle", "_options", "_part")

    def __init__(self, part: PartHandle, options: BuildOptions) -> None:
        self._part = part
        self._options = options
        self._handle: WriterHandle | None = None
        self._finished_rows: int | None = None

    def _writing(self) -> WriterHandle:
        if self._handle is None:
            raise ClosedError(f"{self!r} is not being written")
        return self._handle

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._part.name

    @property
    def finished(self) -> bool:
        """Whether it is finished, by any process. Once seen to be, it is so for ever for this object.

        Raises:
            CorruptError: it is there, and damaged.
        """
        if self._finished_rows is None and self._handle is None:
            self._finished_rows = self._part.finished_rows()
        return self._finished_rows is not None

    @property
    def rows(self) -> int:
        """Rows taken so far; of a finished part: in all; else 0."""
        if self._handle is not None:
            return self._handle.rows
        return self._finished_rows or 0 if self.finished else 0

    def finish(self) -> int:
        """Finish it now; how many rows it took. The end of the ``with`` block does this."""
        handle, self._handle = self._writing(), None
        self._finished_rows = handle.commit(False)
        return self._finished_rows

    def abort(self) -> None:
        """Give it up: what was written to it is removed, and it can be entered again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.abort()

    def __enter__(self) -> Self:
        if self._handle is not None:
            raise ClosedError(f"{self!r} is being written already")
        self._handle = self._part.writer(self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._handle is not None:
            self.finish()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._handle is not None:
            raise TypeError(f"{self!r} is being written; send it to another process before it is entered")
        return _reopen_part, (*self._part.state(), self._options)

    def __repr__(self) -> str:
        return f"<pheon.MapPart {self.name!r}>"


def _reopen_part(text: str, columns: tuple[str, str], codec: str | None, options: BuildOptions) -> MapPart:
    """Unpickle a `MapPart`."""
    return MapPart(PartHandle(text, columns, codec), options)
