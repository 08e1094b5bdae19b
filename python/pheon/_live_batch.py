"""`LiveBatch`: changes of a live map that others see all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pheon._live_batch_face import BatchFace
from pheon._live_nested import as_stored, plain_copy

if TYPE_CHECKING:
    from typing import Self

    from pheon._live import LiveMap


class LiveBatch(BatchFace):
    """What a ``with d.batch() as b`` block works on: the map with the block's own changes.

    Nested lists and dicts that it hands out are plain: change one, then set it again.
    """

    __slots__ = ("_map",)

    def __init__(self, live: LiveMap) -> None:
        super().__init__()
        self._map = live

    def __enter__(self) -> Self:
        self._enter()
        self._map.lock_acquire(None)
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._open = False
        try:
            if kind is None and self._changes:
                self._map.apply(self._steps())
        finally:
            self._forget()
            self._map.lock_release()

    def _look_up(self, key: Any) -> tuple[Any] | None:
        found = self._map.plain(key)
        return None if found is None else (found[0],)

    def _has(self, key: Any) -> bool:
        return key in self._map

    def _keys(self, backwards: bool) -> Iterator[Any]:
        return reversed(self._map) if backwards else iter(self._map)

    def _count(self) -> int:
        return len(self._map)

    def _check_key(self, key: Any) -> None:
        _ = key in self._map

    def _stored(self, value: Any) -> Any:
        return as_stored(self._map, value)

    def _given(self, stored: Any) -> Any:
        return plain_copy(stored)
