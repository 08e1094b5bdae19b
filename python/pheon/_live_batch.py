"""`LiveBatch`: changes of a live map that others see all at once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from pheon._live_nested import plain_copy

if TYPE_CHECKING:
    from typing import Self

    from pheon._live import LiveMap


class LiveBatch(MutableMapping[Any, Any]):
    """What a ``with d.batch() as b`` block works on: the map with the block's own changes.

    Nested lists and dicts that it hands out are plain: change one, then set it again.
    """

    __slots__ = ("_changes", "_map", "_open")

    def __init__(self, live: LiveMap) -> None:
        self._map = live
        # In order of the last change: the order in which they are applied does not matter, one a key.
        self._changes: dict[Any, tuple[Any] | None] = {}
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise RuntimeError("this batch is open already; d.batch() makes another one")
        self._map.lock_acquire(None)
        self._changes.clear()
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._open = False
        try:
            if kind is None and self._changes:
                self._map.apply(self._changes.items())
        finally:
            self._changes.clear()
            self._map.lock_release()

    def _check(self) -> None:
        if not self._open:
            raise RuntimeError("a batch works inside its with block only")

    def __getitem__(self, key: Any) -> Any:
        self._check()
        if key in self._changes:
            change = self._changes[key]
            if change is None:
                raise KeyError(key)
            return change[0]
        found = self._map.plain(key)
        if found is None:
            raise KeyError(key)
        return found[0]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._check()
        self._changes[key] = (plain_copy(value),)

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self._changes[key] = None

    def __contains__(self, key: object) -> bool:
        self._check()
        if key in self._changes:
            return self._changes[key] is not None
        return key in self._map

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return iter(list(self._keys()))

    def _keys(self) -> Iterator[Any]:
        for key in self._map:
            if self._changes.get(key, ()) is not None:
                yield key
        for key, change in self._changes.items():
            if change is not None and key not in self._map:
                yield key

    def __len__(self) -> int:
        self._check()
        delta = sum((change is not None) - (key in self._map) for key, change in self._changes.items())
        return len(self._map) + delta

    def increment(self, key: Any, by: Any = 1, default: Any = 0) -> Any:
        """Add `by` to a key's number, which is `default` if it is missing; the sum."""
        self[key] = total = self.get(key, default) + by
        return total
