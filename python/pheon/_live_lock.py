"""Locks of live maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pheon._errors import LockTimeout
from pheon._options import check_seconds

if TYPE_CHECKING:
    from typing import Self

    from pheon._native import LiveHandle


def _check_arguments(blocking: bool, timeout: float) -> None:
    """What `threading.Lock.acquire` refuses."""
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")


class LiveLock:
    """A lock across processes, like `threading.RLock`: reentrant, released by the thread that took it.

    The kernel frees it when its holder ends, however that happens; it is never taken from a living one. A forked child
    does not hold its parent's. Writes of others wait for it, reads do not.
    """

    __slots__ = ("_map",)

    def __init__(self, live: LiveHandle) -> None:
        self._map = live

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether it was free in time. `timeout` in seconds, -1: for ever."""
        _check_arguments(blocking, timeout)
        if not blocking:
            return self._map.lock_acquire(0)
        return self._map.lock_acquire(None if timeout == -1 else timeout)

    def release(self) -> None:
        """Give it back; `RuntimeError` if this thread does not hold it."""
        self._map.lock_release()

    def locked_by_me(self) -> int:
        """How often the calling thread holds it."""
        return self._map.lock_depth()

    def __enter__(self) -> Self:
        self._map.lock_acquire(None)
        return self

    def __exit__(self, *exc: object) -> None:
        self._map.lock_release()

    def __call__(self, timeout: float | None = None) -> TimedLock:
        """For a ``with`` statement that raises `LockTimeout` after so many seconds; None: waits for ever."""
        return TimedLock(self._map, check_seconds(timeout, "timeout"))

    def __repr__(self) -> str:
        return f"<lock of live map {self._map.name!r}>"


class TimedLock:
    """The lock of a map in a ``with`` statement, with a timeout."""

    __slots__ = ("_map", "_timeout")

    def __init__(self, live: LiveHandle, timeout: float | None) -> None:
        self._map, self._timeout = live, timeout

    def __enter__(self) -> Self:
        if not self._map.lock_acquire(self._timeout):
            raise LockTimeout(
                f"waited {self._timeout} s for the lock of live map {self._map.name!r}: another process or thread "
                "holds it; wait until it has finished, or give a longer timeout"
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._map.lock_release()


class LiveKeyLock:
    """The lock of one key, in a ``with`` statement or with `acquire` and `release`. Reentrant."""

    __slots__ = ("_key", "_map", "_timeout")

    def __init__(self, live: LiveHandle, key: Any, timeout: float | None) -> None:
        self._map, self._key, self._timeout = live, key, check_seconds(timeout, "timeout")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether it was free in time. `timeout` in seconds, -1: as the lock was made."""
        _check_arguments(blocking, timeout)
        if not blocking:
            return self._map.key_acquire(self._key, 0)
        return self._map.key_acquire(self._key, self._timeout if timeout == -1 else timeout)

    def release(self) -> None:
        """Give it back; `RuntimeError` if this thread does not hold it."""
        self._map.key_release(self._key)

    def __enter__(self) -> Self:
        if not self._map.key_acquire(self._key, self._timeout):
            raise LockTimeout(
                f"waited {self._timeout} s for the lock of key {self._key!r} of live map {self._map.name!r}: another "
                "process or thread holds it, or that of a key which shares it"
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._map.key_release(self._key)
