"""The two kinds of lock of an `UltraDict`: two ways to call the map's lock, which no death of a holder leaves taken."""

from __future__ import annotations

import os
import pprint
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pheon._ultradict_errors import CannotAcquireLock, CannotAcquireLockTimeout

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from pheon._live import LiveMap


# Where docs/live.md has the writers' mutex, and the bits of its first word that are a thread's number.
_MUTEX_OFFSET = 448
_THREAD_MASK = 0x3FFF_FFFF


class HandleLock:
    """What both kinds share: who holds the lock, and the ``with`` statement.

    Every handle of a map, attached, forked, spawned or unpickled, has the same lock. It is reentrant in a thread,
    through any handle. It is never taken from a living holder; the kernel frees it when its holder dies.
    """

    __slots__ = ("_live",)

    def __init__(self, live: LiveMap) -> None:
        self._live = live

    @property
    def has_lock(self) -> int:
        """How often the calling thread holds the lock."""
        return self._live.lock_depth()

    @property
    def pid(self) -> int:
        """The number of this process."""
        return os.getpid()

    @property
    def pid_remote(self) -> int:
        """As `get_remote_pid`."""
        return self.get_remote_pid()

    @property
    def lock_remote(self) -> int:
        """As `get_remote_lock`."""
        return self.get_remote_lock()

    def get_remote_pid(self) -> int:
        """The number of the process that holds the lock; 0 when nobody does, or when it cannot be told."""
        return os.getpid() if self.has_lock else _process_of(_holder(self._live))

    def get_remote_lock(self) -> int:
        """1 while a living thread holds the lock, else 0."""
        return int(self.get_remote_pid() != 0)

    def status(self) -> dict[str, int]:
        """What is known of the lock at this moment."""
        return {
            "has_lock": self.has_lock,
            "lock_remote": self.get_remote_lock(),
            "pid": self.pid,
            "pid_remote": self.get_remote_pid(),
        }

    def print_status(self, status: dict[str, int] | None = None) -> None:
        """Print `status`."""
        pprint.pprint(status or self.status())

    def take(self, block: bool, timeout: float | None) -> bool:
        """Take the lock; False when that does not work in the time given."""
        if timeout is None:
            return self._live.lock_acquire(None if block else 0.0)
        return self._live.lock_acquire(max(timeout, 0.0))

    def take_or_raise(self, block: bool, timeout: float | None) -> None:
        """Take the lock; `CannotAcquireLock` or `CannotAcquireLockTimeout` when that does not work."""
        started = time.monotonic()
        if self.take(block, timeout):
            return
        pid = self.get_remote_pid()
        if timeout is None:
            raise CannotAcquireLock(blocking_pid=pid, timestamp=started)
        passed = time.monotonic() - started
        raise CannotAcquireLockTimeout(blocking_pid=pid, timestamp=started, time_passed=passed)

    def give(self) -> bool:
        """Release the lock once; False when this thread does not hold it."""
        if not self._live.lock_depth():
            return False
        self._live.lock_release()
        return True

    def __enter__(self) -> Self:
        self._live.lock_acquire(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give()

    def __call__(
        self,
        block: bool = True,
        timeout: float | None = None,
        sleep_time: float = 0.0,
        steal_after_timeout: bool = False,
        *,
        steal: bool = False,
    ) -> Attempt:
        """The lock for a ``with`` statement that raises `CannotAcquireLock` unless it gets it within `timeout` seconds.

        `sleep_time`, `steal_after_timeout` and `steal` mean nothing here: waiting is the kernel's business, and a lock
        that could be stolen is free already.
        """
        del sleep_time, steal_after_timeout, steal
        return Attempt(self, block, timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status()}>"


class Attempt:
    """One ``with lock(...)``: the arguments belong to it alone, not to the next one who takes the lock."""

    __slots__ = ("_block", "_lock", "_timeout")

    def __init__(self, lock: HandleLock, block: bool, timeout: float | None) -> None:
        self._lock = lock
        self._block = block
        self._timeout = timeout

    def __enter__(self) -> HandleLock:
        self._lock.take_or_raise(self._block, self._timeout)
        return self._lock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.give()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


class RLock(HandleLock):
    """The lock of a map with ``shared_lock=False``: called like a `multiprocessing.RLock`, which answers False where
    a `SharedLock` raises."""

    __slots__ = ()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock; False when it is held elsewhere and `block` is false or `timeout` seconds passed."""
        return self.take(block, timeout if block else None)

    def release(self) -> None:
        """Release it once; `AssertionError` when this thread does not hold it."""
        if not self.give():
            raise AssertionError("releasing the lock of an UltraDict: this thread does not hold it")


class SharedLock(HandleLock):
    """The lock of a map with ``shared_lock=True``."""

    __slots__ = ()

    def acquire(
        self,
        block: bool = True,
        sleep_time: float = 0.0,
        timeout: float | None = None,
        steal_after_timeout: bool = False,
    ) -> bool:
        """Take the lock: True, or `CannotAcquireLock`, after `timeout` seconds `CannotAcquireLockTimeout`.

        `sleep_time` and `steal_after_timeout` mean nothing here, as in ``lock(...)``.
        """
        del sleep_time, steal_after_timeout
        self.take_or_raise(block, timeout)
        return True

    def acquire_with_timeout(
        self,
        block: bool = True,
        sleep_time: float = 0.0,
        timeout: float = 1.0,
        steal_after_timeout: bool = False,
    ) -> bool:
        """As `acquire`, with a timeout of a second."""
        return self.acquire(block, sleep_time, timeout, steal_after_timeout)

    def release(self, *args: object) -> bool:
        """Release it once; False when this thread does not hold it."""
        del args
        return self.give()

    def reset(self) -> None:
        """Release it as often as this thread holds it. What others hold stays theirs."""
        while self.give():
            pass

    def steal(self, from_pid: int = 0, release: bool = False) -> bool:
        """Take the lock if process `from_pid` is gone and nobody else holds it; with `release` give it back at once.

        False, and nothing done, when it is held by a living process.
        """
        if _lives(from_pid):
            return False
        if self.has_lock:
            raise RuntimeError("stealing the lock of an UltraDict: this thread holds it already; release it instead")
        if not self.take(False, None):
            return False
        if release:
            self.give()
        return True

    def steal_from_dead(self, from_pid: int = 0, release: bool = False) -> bool:
        """As `steal`, which takes from the dead only."""
        return self.steal(from_pid, release)


def _holder(live: LiveMap) -> int:
    """The thread that has the map's mutex: the C library keeps its number in the mutex, for the kernel."""
    try:
        with open(Path(live.path, "CTRL"), "rb") as control:
            control.seek(_MUTEX_OFFSET)
            return int.from_bytes(control.read(4), sys.byteorder) & _THREAD_MASK
    except OSError:
        return 0


def _process_of(thread: int) -> int:
    """The process of a thread, 0 when it has ended."""
    try:
        with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("Tgid:")), 0)
    except OSError:
        return 0


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed process keeps its number until its parent asks how it ended.
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return True
