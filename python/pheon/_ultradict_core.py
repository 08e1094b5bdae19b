"""How an `UltraDict` finds its map, and what its handle shares with those of the dicts nested in it."""

from __future__ import annotations

import importlib
import os
import pickle
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from pheon._errors import Error, NotFoundError, StoreFullError
from pheon._live import LiveMap
from pheon._live_nested import LiveDict, LiveList
from pheon._live_owed import owe, settle
from pheon._ultradict_errors import (
    AlreadyClosed,
    AlreadyExists,
    CannotAttachSharedMemory,
    CannotCreateSharedMemory,
    ParameterMismatch,
)
from pheon._ultradict_lock import RLock, SharedLock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pheon.ultradict import UltraDict

SETTINGS_KEY = "\0pheon.ultradict"
"""The entry of a map that holds its `Settings`; handles do not show it."""

_OPEN_ATTEMPTS_MAX = 100
_SMALL = frozenset((int, float, bool, NoneType))
_PLAIN = frozenset((*_SMALL, str, bytes, tuple, LiveList))


class Serializer(Protocol):
    """What ``serializer`` must be: a module or object with these two."""

    def dumps(self, obj: Any, /) -> bytes | str:
        """The object as bytes or text."""
        ...

    def loads(self, data: Any, /) -> Any:
        """The object that `dumps` made this of."""
        ...


@dataclass(frozen=True)
class Settings:
    """What the creator of a map chose and everybody else is told."""

    shared_lock: bool
    recurse: bool
    buffer_size: int
    full_dump_size: int | None
    serializer: str

    def check(self, name: str, **asked: Any) -> None:
        """`ParameterMismatch` when the one who attaches asks for something else; None asks for nothing."""
        for parameter, value in asked.items():
            chosen = getattr(self, parameter)
            if value is not None and value != chosen:
                raise ParameterMismatch(
                    f"attaching to UltraDict {name!r}: {parameter}={value} was asked for, "
                    f"but it was created with {parameter}={chosen}"
                )


@dataclass(frozen=True)
class Reference:
    """A value that stands for another UltraDict; whoever reads it attaches to that one."""

    name: str


class Core:
    """A map that is open, its lock and how its values are encoded."""

    __slots__ = (
        "attached",
        "auto_unlink",
        "creator_pid",
        "dumps",
        "live",
        "lock",
        "name",
        "owed",
        "plain",
        "register",
        "serializer",
        "settings",
        "settings_first",
        "small",
    )

    def __init__(self, live: LiveMap, settings: Settings, serializer: Serializer) -> None:
        self.live = live
        self.name: str = live.name
        self.settings = settings
        self.serializer = serializer
        self.lock: RLock | SharedLock = SharedLock(live) if settings.shared_lock else RLock(live)
        self.auto_unlink: bool | None = None
        self.register: UltraDict | str | None = None
        self.attached: dict[str, UltraDict] = {}
        self.creator_pid = 0
        self.dumps = 0
        self.owed: int | None = None
        self.settings_first: bool | None = None
        # Types of values that are given to the caller as they are, and those that are also written as they are.
        self.plain: frozenset[type] = frozenset()
        self.small: frozenset[type] = frozenset()
        if serializer is pickle:
            self.plain = _PLAIN if settings.recurse else _PLAIN | {LiveDict}
            self.small = _SMALL

    def settings_lead(self) -> bool:
        """Whether the settings are the map's first entry, as in any that an UltraDict made: others go before them."""
        if self.settings_first is None:
            self.settings_first = bool(next(iter(self.live), None) == SETTINGS_KEY)
        return bool(self.settings_first)

    def owe(self) -> None:
        """Have the name removed at the process's end, or not, as `auto_unlink` says now."""
        due = bool(self.auto_unlink) and self.creator_pid == os.getpid()
        if due and self.owed is None:
            self.owed = owe(self.live, None, None)
        elif not due:
            settle(self.owed)
            self.owed = None

    def unlink(self, wanted: bool = False) -> None:
        """Remove the map's name if that is wanted, or due because this process made it."""
        if wanted or (self.auto_unlink and self.creator_pid == os.getpid()):
            self.creator_pid = 0
            settle(self.owed)
            with suppress(Error, OSError):  # somebody else did
                self.live.unlink()


class Closed:
    """Stands where the map was, once a handle is closed."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: object) -> NoReturn:
        raise AlreadyClosed(
            f"using UltraDict {self._name!r}: this handle was closed; what it read last is still in its `data`"
        )

    __getattr__ = __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = __reversed__ = _refuse


def open_core(
    name: str | None,
    create: bool | None,
    serializer: Serializer,
    entries: Mapping[Any, Any],
    asked: Mapping[str, Any],
) -> Core:
    """The map `name`, attached or made. A new one has the entries from the moment that others can find it."""
    mine = Settings(
        shared_lock=bool(asked["shared_lock"]),
        recurse=bool(asked["recurse"]),
        buffer_size=asked["buffer_size"],
        full_dump_size=asked["full_dump_size"],
        serializer=_serializer_name(serializer),
    )
    live, created = _open_map(name, create, serializer, {SETTINGS_KEY: asdict(mine), **entries})
    try:
        # A map that was not made by an UltraDict has the first one's settings from now on.
        settings = mine if created else Settings(**live.setdefault(SETTINGS_KEY, asdict(mine)))
        if not created:
            settings.check(
                live.name, shared_lock=asked["shared_lock"], recurse=asked["recurse"], serializer=mine.serializer
            )
    except BaseException:
        live.close()
        raise
    core = Core(live, settings, serializer)
    core.creator_pid = os.getpid() if created else 0
    return core


def _open_map(
    name: str | None, create: bool | None, serializer: Serializer, entries: dict[Any, Any]
) -> tuple[LiveMap, bool]:
    codec: dict[str, Any] = {"codec": "pickle", "allow_pickle": True} if serializer is pickle else {}
    for _ in range(_OPEN_ATTEMPTS_MAX):
        if name is not None and create is not True:
            try:
                return LiveMap(name=name, create=False, **codec), False
            except NotFoundError:
                if create is False:
                    raise CannotAttachSharedMemory(
                        f"attaching to UltraDict {name!r}: there is no map of this name"
                    ) from None
        try:
            return LiveMap(entries, name=name, create=True, **codec), True
        except FileExistsError:
            if create is True:
                raise AlreadyExists(
                    f"creating UltraDict {name!r}: there is a map of this name; "
                    "attach to it, or remove it with UltraDict.unlink_by_name"
                ) from None
        except StoreFullError as error:
            raise CannotCreateSharedMemory(str(error)) from error
    raise CannotAttachSharedMemory(f"opening UltraDict {name!r}: it came and went {_OPEN_ATTEMPTS_MAX} times")


def _serializer_name(serializer: Serializer) -> str:
    return str(getattr(serializer, "__name__", type(serializer).__qualname__))


def pickled_serializer(serializer: Serializer) -> object:
    """The serializer itself, or for modules, which do not pickle, their name."""
    return serializer.__name__ if isinstance(serializer, ModuleType) else serializer


def reopened(kind: type[UltraDict], name: str, auto_unlink: bool | None, serializer: Any) -> UltraDict:
    """What a pickled handle becomes: another handle of the same map."""
    if isinstance(serializer, str):
        serializer = importlib.import_module(serializer)
    return kind(name=name, create=False, auto_unlink=auto_unlink, serializer=serializer)
