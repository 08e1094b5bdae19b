"""`RemoteMap`: a read-only mapping on one version of a dataset at a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pheon._map import MapFace
from pheon._native import RemoteMapHandle
from pheon._remote_origin import RemoteOrigin, reopen_remote_map
from pheon._remote_table import RemoteTable

if TYPE_CHECKING:
    from typing import Self


class RemoteMap(MapFace, RemoteMapHandle):
    """A `Map` whose entries are at a server, with its methods, order and errors. From `RemoteStore.map`.

    ``m[key]`` is one question to the server; so is ``m.get_many(keys)``, or a few at once if there are many keys: ask
    for many keys at a time. Iteration takes the entries as they come, without holding them. A map stays on its version
    until `refresh`; it is gone when the server removes that version, and when the connection is closed.

    Pickling a map pickles how to connect and open it again, the token with it.
    """

    __slots__ = ("__weakref__", "_origin")
    _origin: RemoteOrigin

    def __new__(cls, handle: RemoteMapHandle, origin: RemoteOrigin) -> Self:
        self = super().__new__(cls, handle)
        self._origin = origin
        return self

    def table(self) -> RemoteTable:
        """All entries as a table."""
        return RemoteTable(self.table_handle(), self._origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_remote_map, (self._origin, self.name, self.version, self.allow_pickle)

    def _first_items(self, count: int) -> list[tuple[Any, Any]]:
        return self.head(count)
