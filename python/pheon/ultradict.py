"""`UltraDict` on a `pheon.LiveMap`: for programs written for the package of that name.

>>> from pheon.ultradict import UltraDict
>>> ultra = UltraDict({1: 1}, some_key="some_value")
>>> other = UltraDict(name=ultra.name)      # in this process or any other
>>> other[2] = 2
>>> ultra
{1: 1, 'some_key': 'some_value', 2: 2}

What differs from the original, and why, is in docs/ultradict.md. New programs had better use `pheon.LiveMap` itself.
"""

from __future__ import annotations

import logging
import pickle
import sys
import weakref
from collections import UserDict
from collections.abc import Iterator, Mapping
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

from pheon import _ultradict_errors as Exceptions  # noqa: N812 - the name that programs use
from pheon._errors import NotFoundError
from pheon._live import LiveMap
from pheon._live_nested import LiveDict, LiveList, plain_copy
from pheon._ultradict_core import SETTINGS_KEY, Closed, Core, Reference, open_core, pickled_serializer, reopened
from pheon._ultradict_errors import AlreadyClosed, CannotAttachSharedMemory
from pheon._ultradict_facts import Facts
from pheon._ultradict_lock import RLock, SharedLock
from pheon._ultradict_names import join_name, split_name
from pheon._ultradict_views import UltraItemsView, UltraKeysView, UltraValuesView

if TYPE_CHECKING:
    from typing import Self

    from pheon._ultradict_core import Serializer

# Handles of one map know each other.
# ruff: noqa: SLF001

__all__ = ["Exceptions", "UltraDict"]

_BUFFER_BYTES_LIMIT = 1 << 32
_MISSING: Any = object()


class _Present:
    """The only key in the dict that an UltraDict is by inheritance: C code, such as json's encoder, asks no further
    when it finds none at all."""

    __slots__ = ()


_PRESENT = _Present()


class UltraDict(Facts, UserDict[Any, Any], dict[Any, Any]):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A dict in shared memory, called as the package UltraDict is.

    `name` names the map; without one it makes one up. ``create=None`` attaches to the map of this name or makes it,
    True only makes it (`Exceptions.AlreadyExists`), False only attaches (`Exceptions.CannotAttachSharedMemory`).
    Positional and keyword data are written into it.

    `serializer` is a module or object with ``loads`` and ``dumps``; all handles of a map must name the same.
    `shared_lock` chooses how `lock` is called; it excludes everybody either way. With `recurse`, dicts in it are
    UltraDicts, without they are `pheon.LiveDict`; either kind writes through. The handle that made the map removes its
    name when it is closed or its process ends, unless `auto_unlink` is False.

    `buffer_size`, `full_dump_size` and `recurse_register` are accepted and kept, but nothing needs them.
    """

    Exceptions = Exceptions
    RLock = RLock
    SharedLock = SharedLock
    log = logging

    _root: UltraDict | None  # of a nested dict: the handle whose life it needs
    _local: dict[Any, Any] | None
    _local_sequence: int

    def __init__(
        self,
        *args: Any,
        name: str | None = None,
        create: bool | None = None,
        buffer_size: int = 10_000,
        serializer: Serializer = pickle,
        shared_lock: bool | None = None,
        full_dump_size: int | None = None,
        auto_unlink: bool | None = None,
        recurse: bool | None = None,
        recurse_register: UltraDict | str | None = None,
        **kwargs: Any,
    ) -> None:
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"name is a str or None, found {name!r}")
        if len(args) > 1:
            raise TypeError(f"UltraDict takes one positional argument at most; {len(args)} were given")
        if not 0 < buffer_size < _BUFFER_BYTES_LIMIT:
            raise ValueError(f"buffer_size must be positive and below 2**32, found {buffer_size}")
        if recurse and serializer is not pickle:
            raise ValueError("recurse=True needs serializer=pickle: what another one makes cannot be changed in part")
        if not isinstance(recurse_register, UltraDict | str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("recurse_register must be an UltraDict or the name of one")
        asked = {
            "shared_lock": shared_lock,
            "recurse": recurse,
            "buffer_size": buffer_size,
            "full_dump_size": full_dump_size,
        }
        entries: dict[Any, Any] = dict(*(arg for arg in args if arg is not None), **kwargs)
        base, path = split_name(name) if name else (None, ())
        encoded = {key: _encoded(serializer, value) for key, value in entries.items()}
        core = open_core(base, False if path else create, serializer, {} if path else encoded, asked)
        core.auto_unlink = True if auto_unlink is None and core.creator_pid else auto_unlink
        core.register = recurse_register
        self._set(core, core.live, None, path)
        if core.creator_pid:
            # Also at the end of the process. A lock taken from this handle may outlive it, so it is not closed.
            core.owe()
            weakref.finalize(self, core.unlink).atexit = False
        if path:
            self._target = self._follow(path)
        if entries and (path or not core.creator_pid):
            self.update(entries)

    def _set(self, core: Core, target: Any, root: UltraDict | None, path: tuple[Any, ...]) -> None:
        dict.__setitem__(self, _PRESENT, None)
        self._core = core
        self._target = target
        self._root = root
        self._path = path
        self._local = None
        self._local_sequence = 0

    def _follow(self, path: tuple[Any, ...]) -> LiveDict:
        target: Any = self._core.live
        try:
            for key in path:
                target = target[key]
            if isinstance(target, LiveDict):
                return target
        except (KeyError, IndexError, TypeError):
            pass
        raise CannotAttachSharedMemory(f"attaching to {join_name(self._core.name, path)}: no dict is there")

    # -- values ----------------------------------------------------------------------------------------------------

    def _decoded(self, key: Any, value: Any) -> Any:
        core = self._core
        if core.serializer is not pickle:
            return core.serializer.loads(value)
        if type(value) is LiveDict and core.settings.recurse:
            child = UltraDict.__new__(UltraDict)
            child._set(core, value, self._root or self, (*self._path, key))
            return child
        if type(value) is Reference:
            return self._attached(value.name)
        return value

    def _attached(self, name: str) -> UltraDict:
        core = self._core
        if name == core.name:
            return self._root or self
        if name not in core.attached:
            core.attached[name] = UltraDict(name=name, create=False)
        return core.attached[name]

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        """(key, value) as ``self[key]`` gives it, without the settings."""
        plain = self._core.plain
        for key, value in self._target.items():
            if _is_shown(key):
                yield key, value if type(value) in plain else self._decoded(key, value)

    def _write(self, entries: Mapping[Any, Any]) -> None:
        core = self._core
        encoded: dict[Any, Any] = {}
        for key, value in entries.items():
            part = value._target if type(value) is UltraDict else value
            if isinstance(part, (LiveDict, LiveList)) and part.stands_at(core.live, *self._path, key):
                continue  # d["nested"] |= ... assigns what is there
            encoded[key] = _encoded(core.serializer, value)
            core.dumps += sys.getsizeof(value) > core.settings.buffer_size
        self._target.update(encoded)

    # -- dict ------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        value = self._target[key]
        return value if type(value) in self._core.plain else self._decoded(key, value)

    def __setitem__(self, key: Any, item: Any) -> None:
        if type(item) in self._core.small:
            self._target[key] = item
        else:
            self._write({key: item})

    def __delitem__(self, key: Any) -> None:
        del self._target[key]

    def __contains__(self, key: object) -> bool:
        return key in self._target

    def __len__(self) -> int:
        return len(self._target) - (not self._path and SETTINGS_KEY in self._target)

    def __iter__(self) -> Iterator[Any]:
        return filter(_is_shown, self._target)

    def __reversed__(self) -> Iterator[Any]:
        return filter(_is_shown, reversed(self._target))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UltraDict):
            return dict(self._pairs()) == dict(other._pairs())
        if isinstance(other, Mapping):
            return dict(self._pairs()) == dict(other.items())
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @recursive_repr("{...}")
    def __repr__(self) -> str:
        return repr((self._local or {}) if self.closed else dict(self._pairs()))

    def __or__(self, other: Any) -> UltraDict:
        if not isinstance(other, Mapping):
            return NotImplemented
        return UltraDict({**dict(self._pairs()), **other})

    def __ror__(self, other: Any) -> UltraDict:
        if not isinstance(other, Mapping):
            return NotImplemented
        return UltraDict({**other, **dict(self._pairs())})

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __copy__(self) -> UltraDict:
        return reopened(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        core = self._core
        return reopened, (type(self), self.name, core.auto_unlink, pickled_serializer(core.serializer))

    def keys(self) -> UltraKeysView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A set-like view of the keys, in the order in which they were first written."""
        return UltraKeysView(self)

    def values(self) -> UltraValuesView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A view of the values, in the order of the keys."""
        return UltraValuesView(self)

    def items(self) -> UltraItemsView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A set-like view of the (key, value) tuples, in the order of the keys."""
        return UltraItemsView(self)

    def has_key(self, key: Any) -> bool:
        """``key in self``."""
        return key in self._target

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, else `default`."""
        value = self._target.get(key, _MISSING)
        if value is _MISSING:
            return default
        return value if type(value) in self._core.plain else self._decoded(key, value)

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value, else `default`, else `KeyError`."""
        value = self._target.pop(key, _MISSING)
        if value is not _MISSING:
            return self._decoded(key, value)
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Remove the key that was inserted last and return it and its value; `KeyError` when there is none."""
        if self._path:
            key, value = self._target.popitem()
        else:
            with self._target.lock:
                if not len(self):
                    raise KeyError("popitem(): dictionary is empty")
                if self._core.settings_lead():
                    key, value = self._target.popitem()
                else:
                    key = next(reversed(self))
                    value = self._target.pop(key)
        return key, self._decoded(key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`; `default` is written, in the same step, when there is none."""
        return self._decoded(key, self._target.setdefault(key, _encoded(self._core.serializer, default)))

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Write the entries of a mapping, or pairs, and the keywords, in one step."""
        self._write(dict(() if other is None else other, **kwargs))

    def clear(self) -> None:
        """Remove everything, in one step."""
        if self._path:
            self._target.clear()
            return
        with self._core.live.batch() as batch:
            for key in list(self):
                del batch[key]

    def copy(self) -> dict[Any, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The entries as a dict of this process alone."""
        return {key: _detached(value) for key, value in self._pairs()}

    # -- of UltraDict ----------------------------------------------------------------------------------------------

    @property
    def lock(self) -> RLock | SharedLock:
        """The map's lock, one for all handles; called like a `multiprocessing.RLock` unless ``shared_lock=True``."""
        self._check_open("taking the lock of")
        return self._core.lock

    def _check_open(self, doing: str) -> None:
        if type(self._target) is Closed:
            raise AlreadyClosed(f"{doing} UltraDict {self.name!r}: this handle was closed")

    @property
    def data(self) -> dict[Any, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The entries as a plain dict of this process: brought up to date here, never written back.

        It is built when first asked for, and costs this process the memory that a map in shared memory saves.
        """
        return self._refreshed()

    def apply_update(self) -> None:
        """Bring `data` up to date, if it was ever asked for."""
        self._check_open("bringing up to date the data of")
        if self._local is not None:
            self._refreshed()

    def _refreshed(self) -> dict[Any, Any]:
        local = self._local
        if local is None:
            local = self._local = {}
        if not self.closed and self._local_sequence != (sequence := self._core.live.sequence):
            entries = dict(self._pairs())
            local.clear()
            local.update(entries)
            self._local_sequence = sequence
        return local

    def load(self, force: bool = False) -> None:
        """As `apply_update`."""
        del force
        self.apply_update()

    def dump(self) -> None:
        """Nothing: what was written is in shared memory already. Counts in `full_dump_counter`."""
        self._check_open("dumping")
        self._core.dumps += 1

    def close(self, unlink: bool = False) -> dict[Any, Any] | None:
        """Close this handle and return the entries as a plain dict; None when it was closed before.

        With `unlink`, or if this handle made the map and `auto_unlink` is not False, the map's name is removed: nobody
        can attach any more, and its memory is freed when the last handle is closed. Closing a nested dict closes that
        handle of it alone.
        """
        if self.closed:
            return None
        self._local = self.copy()
        if not self._path:
            self._core.unlink(unlink)
            self._core.live.close()
        self._target = Closed(self.name)
        return self._local

    def unlink(self) -> None:
        """``close(unlink=True)``"""
        self.close(unlink=True)

    def cleanup(self) -> dict[Any, Any] | None:
        """``close()``"""
        return self.close()

    @staticmethod
    def unlink_by_name(name: str, ignore_errors: bool = False) -> bool:
        """Remove the map `name`, say one that a killed program left; whether there was one.

        `Exceptions.CannotAttachSharedMemory` when there was none, unless `ignore_errors`. A name that ends in
        ``_memory``, once the second of two names that had to be removed, never counts as an error.
        """
        try:
            LiveMap.unlink_by_name(name)
        except (NotFoundError, ValueError) as error:
            if ignore_errors or name.endswith("_memory"):
                return False
            if isinstance(error, ValueError):
                raise
            raise CannotAttachSharedMemory(f"removing UltraDict {name!r}: there is no map of this name") from None
        return True


def _is_shown(key: Any) -> bool:
    return type(key) is not str or key != SETTINGS_KEY


def _encoded(serializer: Serializer, value: Any) -> Any:
    """The value as it is stored."""
    if serializer is not pickle:
        return serializer.dumps(value)
    if isinstance(value, UltraDict) and not value._path:
        return Reference(value.name)
    return _detached(value)


def _detached(value: Any) -> Any:
    """The value without its ties to a map."""
    if isinstance(value, UltraDict):
        return plain_copy(value._target) if value._path else value
    return plain_copy(value) if isinstance(value, (LiveDict, LiveList, tuple)) else value
