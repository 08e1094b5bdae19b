"""`MapWriter`: build a map from more data than fits in memory, piece by piece."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pheon._errors import ClosedError
from pheon._native import RemoteTableHandle, WriterHandle
from pheon._table import Table

if TYPE_CHECKING:
    from typing import Self


class MapWriter:
    """Collects pairs and Arrow data for a new version of a map; made by `Store.map_writer`.

    Nothing is visible until the ``with`` block ends; an exception in it publishes nothing and leaves nothing.
    Memory stays within `memory_limit`, however much is written. After the block, `version` is the new version's number.

    The columns get the types of the Arrow data that comes first, or those that the first 65,536 pairs need. What comes
    later must fit them without loss.
    """

    __slots__ = ("_handle", "_rows", "version")

    def __init__(self, handle: WriterHandle) -> None:
        self._handle = handle
        self._rows: int | None = None
        self.version: int | None = None

    def put(self, key: Any, value: Any) -> None:
        """Take one pair."""
        self._handle.put(key, value)

    def update(self, pairs: Any) -> None:
        """Take the entries of a mapping, or an iterable of (key, value) pairs."""
        from pheon._map import MapFace

        if isinstance(pairs, MapFace):
            pairs = pairs.items()
        self._handle.update(pairs)

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
            self._handle.write_table(data._handle, names)  # noqa: SLF001
        else:
            self._handle.write_arrow(data, names)

    @property
    def rows(self) -> int:
        """Rows taken so far; after the ``with`` block, `commit` or `abort`: rows taken in all."""
        return self._handle.rows if self._rows is None else self._rows

    def commit(self) -> int:
        """Publish now; the new version's number. The end of the ``with`` block does this."""
        rows = self._handle.rows
        try:
            self.version = self._handle.commit()
        finally:
            self._rows = rows
        return self.version

    def abort(self) -> None:
        """Publish nothing and leave nothing."""
        if self._rows is None:
            with contextlib.suppress(ClosedError):
                self._rows = self._handle.rows
        self._handle.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self.version is None:
            self.commit()
