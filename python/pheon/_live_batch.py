"""`LiveBatch`: changes of a live map that others see all at once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from pheon._live_nested import as_stored, plain_copy

if TYPE_CHECKING:
    from typing import Self

    from pheon._live import LiveMap


class LiveBatch(MutableMapping[Any, Any]):
    """What a ``with d.batch() as b`` block works on: the map with the block's own changes.

    Nested lists and dicts that it hands out are plain: change one, then set it again.
    """

    __slots__ = ("_changes", "_map", "_moved", "_open")

    def __init__(self, live: LiveMap) -> None:
        self._map = live
        # A value, or None for a key to be deleted; in the order that the new keys among them get.
        self._changes: dict[Any, tuple[Any] | None] = {}
        # Keys of the map that were deleted and set again, and so go to the end.
        self._moved: set[Any] = set()
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise RuntimeError("this batch is open already; d.batch() makes another one")
        self._map.lock_acquire(None)
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._open = False
        try:
            if kind is None and self._changes:
                self._map.apply(self._steps())
        finally:
            self._changes.clear()
            self._moved.clear()
            self._map.lock_release()

    def _steps(self) -> Iterator[tuple[Any, tuple[Any] | None]]:
        # First what makes room.
        for key, change in self._changes.items():
            if change is None or key in self._moved:
                yield key, None
        for key, change in self._changes.items():
            if change is not None:
                yield key, change

    def _check(self) -> None:
        if not self._open:
            raise RuntimeError("a batch works inside its with block only")

    def __getitem__(self, key: Any) -> Any:
        self._check()
        if key in self._changes:
            change = self._changes[key]
            if change is None:
                raise KeyError(key)
            return plain_copy(change[0])
        found = self._map.plain(key)
        if found is None:
            raise KeyError(key)
        return found[0]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._check()
        value = as_stored(self._map, value)
        if self._changes.get(key, ()) is None:
            del self._changes[key]
            self._moved.add(key)
        elif key not in self._changes:
            # Here, not when the block ends, it is an error if the key is of no type that a map has.
            _ = key in self._map
        self._changes[key] = (value,)

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        if key in self._map:
            self._changes[key] = None
        else:
            del self._changes[key]

    def __contains__(self, key: object) -> bool:
        self._check()
        if key in self._changes:
            return self._changes[key] is not None
        return key in self._map

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return iter([*self._old_keys(iter(self._map)), *self._new_keys(iter(self._changes))])

    def __reversed__(self) -> Iterator[Any]:
        self._check()
        return self._backwards()

    def _backwards(self) -> Iterator[Any]:
        yield from [*self._new_keys(reversed(self._changes))]
        yield from self._old_keys(reversed(self._map))

    def _old_keys(self, keys: Iterator[Any]) -> Iterator[Any]:
        return (key for key in keys if self._changes.get(key, ()) is not None and key not in self._moved)

    def _new_keys(self, keys: Iterator[Any]) -> Iterator[Any]:
        for key in keys:
            if self._changes[key] is not None and (key in self._moved or key not in self._map):
                yield key

    def __len__(self) -> int:
        self._check()
        delta = sum((change is not None) - (key in self._map) for key, change in self._changes.items())
        return len(self._map) + delta

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
