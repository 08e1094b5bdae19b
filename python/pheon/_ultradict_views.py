"""``keys()``, ``values()`` and ``items()`` of an `UltraDict`: set-like views that hold nothing."""

# A view reads its dict from the inside.
# ruff: noqa: SLF001

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pheon.ultradict import UltraDict


class UltraKeysView(KeysView[Any]):
    """The keys, in the order in which they were first written."""

    __slots__ = ()
    _mapping: UltraDict

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)

    def __repr__(self) -> str:
        return f"dict_keys({list(self)!r})"


class UltraItemsView(ItemsView[Any, Any]):
    """(key, value) tuples, in the order in which the keys were first written."""

    __slots__ = ()
    _mapping: UltraDict

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._pairs()

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return reversed(list(self))

    def __repr__(self) -> str:
        return f"dict_items({list(self)!r})"


class UltraValuesView(ValuesView[Any]):
    """The values, in the order in which their keys were first written."""

    __slots__ = ()
    _mapping: UltraDict

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._pairs())

    def __reversed__(self) -> Iterator[Any]:
        return reversed(list(self))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)

    def __repr__(self) -> str:
        return f"dict_values({list(self)!r})"
