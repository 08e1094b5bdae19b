"""`BatchFace`: what the batches of live maps have in common, here or at a server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


class BatchFace(MutableMapping[Any, Any]):
    """A map with the block's own changes, which nobody else sees before the block ends.

    A batch knows how to look into its map; the order of entries, and what becomes of which change, is the same for all.
    """

    __slots__ = ("_changes", "_moved", "_open")

    def __init__(self) -> None:
        # What a value becomes, or None for a key to be deleted; in the order that the new keys among them get.
        self._changes: dict[Any, tuple[Any] | None] = {}
        # Keys of the map that were deleted and set again, and so go to the end.
        self._moved: set[Any] = set()
        self._open = False

    # What each batch does in its own way -----------------------------------------------------------------------------

    @abstractmethod
    def _look_up(self, key: Any) -> tuple[Any] | None:
        """A value of the map, as `_changes` has it."""

    @abstractmethod
    def _has(self, key: Any) -> bool:
        """Whether the map has a key."""

    @abstractmethod
    def _keys(self, backwards: bool) -> Iterator[Any]:
        """The map's keys."""

    @abstractmethod
    def _count(self) -> int:
        """The map's entries."""

    @abstractmethod
    def _check_key(self, key: Any) -> None:
        """Raise if the key is of no type that a map has."""

    @abstractmethod
    def _stored(self, value: Any) -> Any:
        """A value that was given, as it stays until the block ends."""

    @abstractmethod
    def _given(self, stored: Any) -> Any:
        """Such a value, for the caller."""

    # dict ---------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self._open:
            raise RuntimeError("a batch works inside its with block only")

    def _enter(self) -> None:
        if self._open:
            raise RuntimeError("this batch is open already; d.batch() makes another one")

    def _forget(self) -> None:
        self._changes.clear()
        self._moved.clear()

    def _steps(self) -> Iterator[tuple[Any, tuple[Any] | None]]:
        # First what makes room.
        for key, change in self._changes.items():
            if change is None or key in self._moved:
                yield key, None
        for key, change in self._changes.items():
            if change is not None:
                yield key, change

    def __getitem__(self, key: Any) -> Any:
        self._check()
        found = self._changes[key] if key in self._changes else self._look_up(key)
        if found is None:
            raise KeyError(key)
        return self._given(found[0])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._check()
        value = self._stored(value)
        if self._changes.get(key, ()) is None:
            del self._changes[key]
            self._moved.add(key)
        elif key not in self._changes:
            # Here, not when the block ends, is where the mistake is.
            self._check_key(key)
        self._changes[key] = (value,)

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        if self._has(key):
            self._changes[key] = None
        else:
            del self._changes[key]

    def __contains__(self, key: object) -> bool:
        self._check()
        if key in self._changes:
            return self._changes[key] is not None
        return self._has(key)

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return iter([*self._old_keys(self._keys(False)), *self._new_keys(iter(self._changes))])

    def __reversed__(self) -> Iterator[Any]:
        self._check()
        return self._backwards()

    def _backwards(self) -> Iterator[Any]:
        there = self._keys(True)
        yield from [*self._new_keys(reversed(self._changes))]
        yield from self._old_keys(there)

    def _old_keys(self, keys: Iterator[Any]) -> Iterator[Any]:
        return (key for key in keys if self._changes.get(key, ()) is not None and key not in self._moved)

    def _new_keys(self, keys: Iterator[Any]) -> Iterator[Any]:
        for key in keys:
            if self._changes[key] is not None and (key in self._moved or not self._has(key)):
                yield key

    def __len__(self) -> int:
        self._check()
        there = self._count()
        return there + sum((change is not None) - self._has(key) for key, change in self._changes.items())

    def popitem(self) -> tuple[Any, Any]:
        """Take the last entry out and return it; `KeyError` if there is none."""
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): the live map is empty")

    def clear(self) -> None:
        """Take all entries out."""
        for key in self:
            del self[key]

    def increment(self, key: Any, by: Any = 1, default: Any = 0) -> Any:
        """Add `by` to a key's number, which is `default` if it is missing; the sum."""
        self[key] = total = self.get(key, default) + by
        return total

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self
