"""The exceptions of `pheon.ultradict.UltraDict`, under the names that programs written for UltraDict catch."""

# The names are the original's.
# ruff: noqa: N818

from __future__ import annotations

import time

from pheon._errors import ClosedError, Error, LockTimeout, NotFoundError, StoreFullError


class CannotAttachSharedMemory(NotFoundError):
    """There is no map of this name."""


class AlreadyExists(Error, FileExistsError):
    """A map of this name is there, and ``create=True`` asked for a new one."""


class AlreadyClosed(ClosedError):
    """The handle was closed; what it last read is still in its ``data``."""


class ParameterMismatch(Error, ValueError):
    """A parameter is not the one that the map was created with."""


class CannotAcquireLock(Error):
    """Another thread or process holds the lock.

    ``blocking_pid`` is the process that holds it, 0 where that is not known; ``timestamp`` the `time.monotonic` of the
    first attempt.
    """

    def __init__(self, *args: object, blocking_pid: int = 0, timestamp: float | None = None) -> None:
        holder = f"process {blocking_pid}" if blocking_pid else "another thread or process"
        super().__init__(*(args or (f"taking the lock of an UltraDict: {holder} holds it",)))
        self.blocking_pid = blocking_pid
        self.timestamp = time.monotonic() if timestamp is None else timestamp


class CannotAcquireLockTimeout(CannotAcquireLock, LockTimeout):
    """Another thread or process held the lock all the time; ``time_passed`` is how many seconds that was."""

    def __init__(
        self,
        *args: object,
        blocking_pid: int = 0,
        timestamp: float | None = None,
        time_passed: float | None = None,
    ) -> None:
        super().__init__(*args, blocking_pid=blocking_pid, timestamp=timestamp)
        self.time_passed = time_passed


class CannotCreateSharedMemory(StoreFullError):
    """No memory is left for a new map."""


class FullDumpMemoryFull(StoreFullError):
    """Never raised: there are no dumps that could be too large. Here for programs that catch it."""


class FullDumpsTooFast(Error):
    """Never raised: readers cannot fall behind. Here for programs that catch it."""


class CorruptedStream(Error, AssertionError):
    """Never raised: there is no stream; damage is a `pheon.CorruptError`. Here for programs that catch it."""


class MissingDependency(Error, ImportError):
    """Never raised: the lock needs no further package. Here for programs that catch it."""
