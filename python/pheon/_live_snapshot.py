"""`LiveSnapshot`: a live map at one moment."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, cast

from pheon._live_nested import plain_copy
from pheon._live_views import LiveItemsView, LiveKeysView, LiveValuesView
from pheon._native import SnapshotHandle

if TYPE_CHECKING:
    from typing import Self


class LiveSnapshot(SnapshotHandle):
    """The entries of a live map at one moment, whatever happens to it afterwards: a read-only `Mapping`.

    Taking one copies 8 bytes for each slot of the map's table and takes no lock. Lists and dicts in it are plain.
    """

    __slots__ = ("__weakref__",)

    def keys(self) -> KeysView[Any]:
        """A set-like view of the keys."""
        return LiveKeysView(self)

    def values(self) -> ValuesView[Any]:
        """A view of the values."""
        return LiveValuesView(self)

    def items(self) -> ItemsView[Any, Any]:
        """A set-like view of the (key, value) tuples."""
        return LiveItemsView(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == plain_copy(cast("Mapping[Any, Any]", other))

    __hash__ = None  # type: ignore[assignment] - compares by content

    def __copy__(self) -> Self:
        return self  # it never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a snapshot is of this process; pickle dict(snapshot), or the live map itself")

    def __repr__(self) -> str:
        return f"LiveSnapshot({dict(self.items())!r})"


Mapping.register(LiveSnapshot)  # type: ignore[attr-defined] - every ABC has it; the stub shows a Protocol
