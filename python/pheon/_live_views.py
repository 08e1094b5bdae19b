"""``keys()``, ``values()`` and ``items()`` of live maps and snapshots: each iteration is over one moment's entries."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

from pheon._errors import SchemaError

if TYPE_CHECKING:
    from pheon._live import LiveMap
    from pheon._live_snapshot import LiveSnapshot


class LiveKeysView(KeysView[Any]):
    """The keys in the map's order."""

    __slots__ = ()
    _mapping: LiveMap | LiveSnapshot

    @property
    def mapping(self) -> LiveMap | LiveSnapshot:
        """The map, as a dict's views have it."""
        return self._mapping

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)

    def __contains__(self, key: object) -> bool:
        try:
            return key in self._mapping
        except SchemaError:
            # Set operations ask for what this map cannot have as a key.
            return False

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)

    def __repr__(self) -> str:
        return f"dict_keys({list(self)!r})"


class LiveItemsView(ItemsView[Any, Any]):
    """(key, value) tuples in the map's order."""

    __slots__ = ()
    _mapping: LiveMap | LiveSnapshot

    @property
    def mapping(self) -> LiveMap | LiveSnapshot:
        """The map, as a dict's views have it."""
        return self._mapping

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping.iter_items(False)

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping.iter_items(True)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = item
        try:
            found = self._mapping[key]
        except (KeyError, SchemaError):
            return False
        return found is value or found == value

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)

    def __repr__(self) -> str:
        return f"dict_items({list(self)!r})"


class LiveValuesView(ValuesView[Any]):
    """The values in the map's order."""

    __slots__ = ()
    _mapping: LiveMap | LiveSnapshot

    @property
    def mapping(self) -> LiveMap | LiveSnapshot:
        """The map, as a dict's views have it."""
        return self._mapping

    def __iter__(self) -> Iterator[Any]:
        return self._mapping.iter_values(False)

    def __reversed__(self) -> Iterator[Any]:
        return self._mapping.iter_values(True)

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)

    def __repr__(self) -> str:
        return f"dict_values({list(self)!r})"
