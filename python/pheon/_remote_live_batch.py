"""`RemoteLiveBatch`: changes of a live map at a server that others see all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pheon._errors import RemoteError
from pheon._live_batch_face import BatchFace
from pheon._native import live_encode_key

if TYPE_CHECKING:
    from typing import Self

    from pheon._remote_live import RemoteLiveMap


class RemoteLiveBatch(BatchFace):
    """What a ``with d.batch() as b`` block works on: the map with the block's own changes.

    Nested lists and dicts that it hands out are plain: change one, then set it again.
    """

    __slots__ = ("_cleared", "_map", "_moment", "_seen")

    def __init__(self, live: RemoteLiveMap) -> None:
        super().__init__()
        self._map = live
        # What was read, in its encoding; None: it was not there. It must be so when the block ends.
        self._seen: dict[Any, bytes | None] = {}
        # All entries, in their encoding, once the block has gone through them: it need not ask for them again.
        self._moment: dict[Any, bytes] | None = None
        self._cleared = False

    def __enter__(self) -> Self:
        self._enter()
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._open = False
        try:
            if kind is None and (self._changes or self._cleared):
                self._send()
        finally:
            self._forget()
            self._seen.clear()
            self._moment, self._cleared = None, False

    def _send(self) -> None:
        seen = list(self._seen.items())
        checks = [("expect", key, value) for key, value in seen]
        cleared = [("clear",)] if self._cleared else []
        steps = [("delete", key) if change is None else ("set", key, change[0]) for key, change in self._steps()]
        found = self._map.transact([*checks, *cleared, *steps])
        self._check_same(key for (key, _), (same, _) in zip(seen, found, strict=False) if not same)

    def _check_same(self, changed: Iterable[Any]) -> None:
        for key in changed:
            raise RemoteError(
                f"batch of {self._map.name!r}: the entry {key!r} was changed by somebody else after this block read "
                "it, so nothing was changed: make the block again"
            )

    def _now(self, key: Any) -> bytes | None:
        """A value of the map, which is then one that the block has read."""
        if self._cleared:
            self._check_key(key)
            return None
        if key not in self._seen:
            self._seen[key] = self._map.written(key) if self._moment is None else self._moment.get(key)
        return self._seen[key]

    def _all(self) -> dict[Any, bytes]:
        if self._moment is None:
            moment = {} if self._cleared else self._map.moment()
            self._check_same(key for key, value in self._seen.items() if not self._cleared and moment.get(key) != value)
            self._moment = moment
        return self._moment

    def _look_up(self, key: Any) -> tuple[Any] | None:
        value = self._now(key)
        return None if value is None else (value,)

    def _has(self, key: Any) -> bool:
        return self._now(key) is not None

    def _keys(self, backwards: bool) -> Iterator[Any]:
        there = list(self._all())
        return reversed(there) if backwards else iter(there)

    def _count(self) -> int:
        return len(self._all())

    def _check_key(self, key: Any) -> None:
        live_encode_key(key, self._map.pickles[0])

    def _stored(self, value: Any) -> bytes:
        return self._map.encoded(value)

    def _given(self, stored: bytes) -> Any:
        return self._map.decoded(stored)

    def clear(self) -> None:
        """Take all entries out, also those that others have set when the block ends."""
        self._check()
        # One step at the server, however many entries there are.
        self._forget()
        self._moment, self._cleared = {}, True
