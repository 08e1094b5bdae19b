"""`RemoteTable`: a version of a dataset at a server, or a slice of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pheon._native import Batch, RemoteTableHandle, TableHandle
from pheon._remote_origin import RemoteOrigin, reopen_remote_table
from pheon._table import Table

if TYPE_CHECKING:
    from pheon._table import Table as _Table


class RemoteTable(Table):
    """A `Table` whose rows are at a server: the same methods, the same answers. From `RemoteStore.table`.

    It holds no rows. ``t[10:20]``, `range`, `prefix`, `rows` and `select` ask at most where rows lie; rows come when
    they are used, and only those, of only the columns chosen: ``t.range(a, b)[["price"]].to_pandas()``. What came is a
    copy, so nothing is zero-copy. `lazy` sends to the server what a query says about keys, columns and rows.
    `batches` gives the rows as they come, for tables that do not fit.

    Pickling a table pickles how to connect and open it again, the token with it.
    """

    __slots__ = ()
    _handle: RemoteTableHandle
    _origin: RemoteOrigin  # type: ignore[assignment] - how to reopen it is another matter here

    def __init__(self, handle: RemoteTableHandle, origin: RemoteOrigin) -> None:
        super().__init__(handle, origin)  # type: ignore[arg-type] - as above

    @property
    def _copied(self) -> str | None:
        return "its rows come over the network"

    @property
    def num_chunks(self) -> int:
        """In how many pieces the rows come. To know it takes all of them."""
        return max(1, sum(1 for _ in self.batches()))

    def batches(self) -> Iterator[Batch]:
        """The rows as they come, a few megabytes at a time; those that were taken are let go of."""
        return self._handle.batches()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as dicts."""
        return (row for batch in self._handle.batches() for row in batch.to_pylist())

    def _pieces(self, pieces: list[tuple[int, int]], columns: list[str]) -> Batch | None:
        return self._handle.select(columns).gather(pieces)

    def _derived(self, handle: TableHandle) -> _Table:
        assert isinstance(handle, RemoteTableHandle)  # noqa: S101 - what its own methods return
        return RemoteTable(handle, self._origin)

    def __reduce__(self) -> tuple[Any, ...]:
        handle = self._handle
        return reopen_remote_table, (self._origin, self.name, self.version, handle.bounds, handle.selected)
