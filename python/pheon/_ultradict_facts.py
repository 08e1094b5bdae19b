"""What an `UltraDict` says about itself: the parameters of its map, and its state."""

from __future__ import annotations

import pprint
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pheon._ultradict_core import Closed
from pheon._ultradict_names import join_name

if TYPE_CHECKING:
    from pheon._live import LiveMap
    from pheon._ultradict_core import Core, Serializer
    from pheon.ultradict import UltraDict


class Facts:
    """Attributes of a handle that are not entries."""

    _core: Core
    _target: Any  # a LiveMap, a LiveDict in one, or Closed
    _path: tuple[Any, ...]

    @property
    def name(self) -> str:
        """By which others attach; a nested dict's is the map's with the keys that lead there."""
        return join_name(self._core.name, self._path)

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._core.live.closed or isinstance(self._target, Closed)

    @property
    def shared_lock(self) -> bool:
        """As the creator chose."""
        return self._core.settings.shared_lock

    @property
    def recurse(self) -> bool:
        """As the creator chose."""
        return self._core.settings.recurse

    @property
    def buffer_size(self) -> int:
        """As the creator chose; there is no buffer that fills up."""
        return self._core.settings.buffer_size

    @property
    def full_dump_size(self) -> int | None:
        """As the creator chose; there are no dumps."""
        return self._core.settings.full_dump_size

    @property
    def full_dump_counter(self) -> int:
        """How often this handle called `dump` or wrote a value of more than `buffer_size` bytes."""
        return self._core.dumps

    @property
    def recurse_register(self) -> UltraDict | str | None:
        """As it was given; nested dicts are parts of their map and need none."""
        return self._core.register

    @property
    def serializer(self) -> Serializer:
        """As it was given."""
        return self._core.serializer

    @property
    def auto_unlink(self) -> bool | None:
        """Whether closing removes the map's name, if this handle made it."""
        return self._core.auto_unlink

    @auto_unlink.setter
    def auto_unlink(self, value: bool | None) -> None:
        self._core.auto_unlink = value
        self._core.owe()

    @property
    def live(self) -> LiveMap:
        """The map itself, with what an UltraDict has not: batches, ``increment``, ``compare_and_set``, ``wait``."""
        return self._core.live

    def status(self) -> dict[str, Any]:
        """What is known of the map and this handle."""
        core = self._core
        facts: dict[str, Any] = {"name": self.name, "closed": self.closed, **asdict(core.settings)}
        facts |= {"auto_unlink": core.auto_unlink, "recurse_register": core.register, "serializer": core.serializer}
        facts["full_dump_counter"] = core.dumps
        if not self.closed:
            facts |= {"lock": core.lock, "lock_remote": core.lock.lock_remote, "lock_pid_remote": core.lock.pid_remote}
            facts["live"] = core.live.info()
        return facts

    def print_status(self, status: dict[str, Any] | None = None, stderr: bool = False) -> None:
        """Print `status`."""
        pprint.pprint(status or self.status(), stream=sys.stderr if stderr else sys.stdout)
