"""`RemoteLiveBatch`: changes of a live map at a server that others see all at once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from pheon._errors import RemoteError
from pheon._native import live_encode_key

if TYPE_CHECKING:
    from typing import Self

    from pheon._remote_live import RemoteLiveMap


class RemoteLiveBatch(MutableMapping[Any, Any]):
    """What a ``with d.batch() as b`` block works on: the map with the block's own changes.

    Nested lists and dicts that it hands out are plain: change one, then set it again.
    """

    __slots__ = ("_changes", "_map", "_open", "_seen")

    def __init__(self, live: RemoteLiveMap) -> None:
        self._map = live
        # The encoding of a value, or None for a key to be deleted.
        self._changes: dict[Any, bytes | None] = {}
        # What was read, in its encoding; None: it was not there.
        self._seen: dict[Any, bytes | None] = {}
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise RuntimeError("this batch is open already; d.batch() makes another one")
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._open = False
        try:
            if kind is None and self._changes:
                self._send()
        finally:
            self._changes.clear()
            self._seen.clear()

    def _send(self) -> None:
        checks = [("expect", key, value) for key, value in self._seen.items()]
        changes = [("delete", key) if value is None else ("set", key, value) for key, value in self._changes.items()]
        found = self._map.transact([*checks, *changes])
        changed = [key for (key, _), (same, _) in zip(self._seen.items(), found, strict=False) if not same]
        if changed:
            raise RemoteError(
                f"batch of {self._map.name!r}: the entry {changed[0]!r} was changed by somebody else after this block "
                "read it, so nothing was changed: make the block again"
            )

    def _check(self) -> None:
        if not self._open:
            raise RuntimeError("a batch works inside its with block only")

    def _now(self, key: Any) -> bytes | None:
        self._check()
        if key in self._changes:
            return self._changes[key]
        if key not in self._seen:
            self._seen[key] = self._map.written(key)
        return self._seen[key]

    def __getitem__(self, key: Any) -> Any:
        value = self._now(key)
        if value is None:
            raise KeyError(key)
        return self._map.decoded(value)

    def __contains__(self, key: object) -> bool:
        return self._now(key) is not None

    def __setitem__(self, key: Any, value: Any) -> None:
        self._check()
        # Here, not when the block ends, it is an error if the key is of no type that a map has.
        live_encode_key(key, self._map.pickles[0])
        self._changes[key] = self._map.encoded(value)

    def __delitem__(self, key: Any) -> None:
        if self._now(key) is None:
            raise KeyError(key)
        self._changes[key] = None

    def __iter__(self) -> Iterator[Any]:
        self._check()
        there = list(self._map)
        kept = [key for key in there if self._changes.get(key, b"") is not None]
        known = set(there)
        return iter([*kept, *(key for key, value in self._changes.items() if value is not None and key not in known)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def increment(self, key: Any, by: Any = 1, default: Any = 0) -> Any:
        """Add `by` to a key's number, which is `default` if it is missing; the sum."""
        self[key] = total = self.get(key, default) + by
        return total

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self
