"""``keys()``, ``values()`` and ``items()`` of a map: set-like views, as a dict's, that hold nothing."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pheon._map import MapFace


class MapKeysView(KeysView[Any]):
    """The keys in ascending order."""

    __slots__ = ()
    _mapping: MapFace

    @property
    def mapping(self) -> MapFace:
        """The map, as a dict's views have it."""
        return self._mapping

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)

    def __contains__(self, key: object) -> bool:
        return contains_key(self._mapping, key)


class MapItemsView(ItemsView[Any, Any]):
    """(key, value) tuples in ascending order of keys."""

    __slots__ = ()
    _mapping: MapFace

    @property
    def mapping(self) -> MapFace:
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
        except (KeyError, TypeError):
            return False
        return found is value or found == value


class MapValuesView(ValuesView[Any]):
    """The values in ascending order of keys."""

    __slots__ = ()
    _mapping: MapFace

    @property
    def mapping(self) -> MapFace:
        """The map, as a dict's views have it."""
        return self._mapping

    def __iter__(self) -> Iterator[Any]:
        return self._mapping.iter_values(False)

    def __reversed__(self) -> Iterator[Any]:
        return self._mapping.iter_values(True)

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


def contains_key(mapping: MapFace, key: object) -> bool:
    """``key in mapping``, where a key of another type is simply not there: set operations mix types."""
    try:
        return key in mapping
    except TypeError:
        return False
