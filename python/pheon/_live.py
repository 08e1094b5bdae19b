"""`LiveMap`: a changing dict in shared memory."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, MutableMapping, ValuesView
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsIndex, TypeAlias, cast
from weakref import finalize

from pheon._errors import ClosedError, NotFoundError, SchemaError
from pheon._live_batch import LiveBatch
from pheon._live_lock import LiveKeyLock, LiveLock
from pheon._live_nested import plain_copy
from pheon._live_owed import owe, settle, unlink_owed
from pheon._live_snapshot import LiveSnapshot
from pheon._live_views import LiveItemsView, LiveKeysView, LiveValuesView
from pheon._native import LiveHandle, live_encode
from pheon._options import LiveLimits, check_live, check_seconds

if TYPE_CHECKING:
    from typing import Self

    from pheon._map import Map
    from pheon._store import Store

Codec: TypeAlias = Literal["msgpack", "pickle"]


class _Missing:
    """The type of `MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "pheon.MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""In `LiveMap.compare_and_set`: no entry."""


class LiveMap(LiveHandle):
    """A dict that any number of processes share and change: a `collections.abc.MutableMapping` in shared memory.

    ``LiveMap({"a": 1}, name="counters")`` attaches to the map of that name, making it if it is not there, and sets
    these entries; without a name it makes one up. Every process that names it has the same map; a handle may also be
    pickled, inherited through a fork, or taken from a store (`Store.live`). It lives in ``/dev/shm`` until `unlink`,
    in a store until it is removed there, whoever ends or is killed.

    Reading takes no lock. Each change is atomic, whole `update` calls and `batch` blocks are too. ``d[k] += 1`` is two
    operations: use `increment`, or ``with d.lock:``.

    Keys are what a dict's are, compared as there (1, 1.0 and True are one key): str, bytes, int, float, bool, None,
    date, time, datetime, timedelta, Decimal, complex, frozenset, and tuples of these. Values are these and lists,
    dicts, sets, nested. Lists and dicts, also in tuples, come back as `LiveList` and `LiveDict`, whose changes go into
    the map. A set or bytearray that comes back is a copy: ``d["s"].add(2)`` is lost, ``d["s"] |= {2}`` is not.

    ``dict(d)`` and ``{**d}`` ask for the keys first and then for each value, so they raise `KeyError` when somebody
    deletes meanwhile: take ``dict(d.items())`` or `snapshot`, which are of one moment.

    * `create`: None attaches or makes, True makes (`FileExistsError` if it is there), False attaches (`NotFoundError`),
    * `codec="pickle"`: pickle keys and values of any other type; `allow_pickle`: unpickle them. Unpickling runs code
      that the data chooses: allow it only for maps whose every writer you trust,
    * `max_entries`, `max_age` (seconds): a cache. The least recently written entries go first, and iteration is in
      that order,
    * `max_bytes`: a write beyond so many bytes of entries (keys, values and 48 bytes each) raises `StoreFullError`,
    * `group`: the name or id of a group all of whose members may use the map; None: this user only,
    * `auto_unlink`: this process unlinks the map when it ends or closes it, if it made the map,
    * `read_only`: attach without the right to change it.

    The limits belong to the map: they count when it is made.
    """

    __slots__ = ("__dict__", "__weakref__")

    _group: int | None
    _store: str | None
    _owed: int | None  # the token of what is to be unlinked
    _forgotten: finalize[..., LiveMap] | None

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __new__(
        cls,
        data: Any = None,
        /,
        *,
        name: str | None = None,
        create: bool | None = None,
        codec: Codec = "msgpack",
        allow_pickle: bool = False,
        max_entries: int | None = None,
        max_age: float | None = None,
        max_bytes: int | None = None,
        auto_unlink: bool = False,
        group: str | int | None = None,
        read_only: bool = False,
        **entries: Any,
    ) -> Self:
        if entries:
            data = [*_pairs(() if data is None else data), *entries.items()]
        if read_only and (name is None or create or auto_unlink):
            raise ValueError("read_only attaches to a map that exists: it needs a name, and no create or auto_unlink")
        limits = (max_entries, max_age, max_bytes, False)
        return cls._open(name, group, None, create, codec, allow_pickle, read_only, limits, auto_unlink, data)

    @classmethod
    def _open(  # noqa: PLR0917 - the one place where maps are opened
        cls,
        name: str | None,
        group: str | int | None,
        store: str | None,
        create: bool | None,
        codec: Codec,
        allow_pickle: bool,
        read_only: bool,
        limits: LiveLimits,
        auto_unlink: bool = False,
        data: Any = None,
    ) -> Self:
        max_entries, max_age, max_bytes, durable = check_live(name, create, codec, limits)
        gid = _group_id(group)
        if name is None:
            # Unique, and made by us: nobody attaches to it by chance.
            name, create = f"unnamed-{os.getpid()}-{os.urandom(8).hex()}", create if create is False else True
        if data is not None and type(data) is not dict:
            data = _pairs(data)
        rest = (codec == "pickle", allow_pickle, max_entries, max_age, max_bytes, durable)
        self = super().__new__(cls, name, gid, store, create, not read_only, *rest, data)
        self._group, self._store = gid, store
        self._forgotten = None
        # Only who makes a map unlinks it by itself.
        self._owed = owe(self, gid, store) if auto_unlink and self.made else None
        return self

    # dict ---------------------------------------------------------------------------------------------------------

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> Self:
        """A new map, without a name, with these keys and one value. It goes away like one that `copy` made."""
        new: Any = cls()
        if isinstance(new, LiveMap):  # a derived class may make anything
            new._make_temporary()  # noqa: SLF001
        for key in iterable:
            new[key] = value
        return cast("Self", new)

    _MARK: ClassVar[Any] = object()

    def pop(self, key: Any, default: Any = _MARK, /) -> Any:
        """Take a key out and return its value, or `default`; a nested one is a plain list or dict."""
        taken = self.take(key)
        if taken is not None:
            return taken[0]
        if default is LiveMap._MARK:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Take the last entry out and return it; `KeyError` if there is none."""
        taken = self.take_last()
        if taken is None:
            raise KeyError("popitem(): the live map is empty")
        return taken

    def update(self, data: Any = (), /, **entries: Any) -> None:
        """Set the entries of a mapping or of an iterable of pairs, and those named, all at once."""
        if entries:
            data = [*_pairs(data), *entries.items()]
        self.put_many(data if type(data) is dict else _pairs(data))

    def keys(self) -> KeysView[Any]:
        """A set-like view of the keys. Iterating over it sees the keys of one moment."""
        return LiveKeysView(self)

    def values(self) -> ValuesView[Any]:
        """A view of the values."""
        return LiveValuesView(self)

    def items(self) -> ItemsView[Any, Any]:
        """A set-like view of the (key, value) tuples."""
        return LiveItemsView(self)

    def copy(self) -> Self:
        """Another map, without a name, with the entries of one moment; a plain dict is ``dict(d.snapshot())``.

        It goes away when this process forgets it or ends: only if it was pickled it stays as long as the process.
        """
        pickles, allowed = self.pickles
        limits = (None, None, None, False)
        codec: Codec = "pickle" if pickles else "msgpack"
        new = self._open(None, None, None, True, codec, allowed, False, limits, data=self.snapshot())
        new._make_temporary()  # noqa: SLF001
        return new

    def _plain(self) -> dict[Any, Any]:
        """All entries of one moment."""
        return dict(self.snapshot().items())

    def _make_temporary(self) -> None:
        """Unlink the map when this object is collected, or when this process ends."""
        self._owed = owe(self, self._group, self._store)
        self._forgotten = finalize(self, unlink_owed, self._owed)
        self._forgotten.atexit = False

    def get_many(self, keys: Iterable[Any], default: Any = None) -> list[Any]:
        """The values of many keys in a list, aligned with them; `default` where missing. Nested ones are plain."""
        return self.get_list(keys, default)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        return equal_as_stored(self._plain(), _as_dict(cast("Mapping[Any, Any]", other)), self.pickles[0])

    # Compares by content and changes: no hash, like a dict.
    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._plain() | plain_copy(_as_dict(cast("Mapping[Any, Any]", other)))

    def __ror__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return plain_copy(_as_dict(cast("Mapping[Any, Any]", other))) | self._plain()

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        if self.closed:
            return f"<pheon.LiveMap {self.name!r}, closed>"
        return repr(self._plain())

    # Atomic changes -----------------------------------------------------------------------------------------------

    def increment(self, key: Any, by: Any = 1, default: Any = 0) -> Any:
        """Add `by` to a key's number, which is `default` if it is missing, in one step; the sum."""
        return self.add(key, by, default)

    def compare_and_set(self, key: Any, old: Any, new: Any) -> bool:
        """Set a key to `new` if its value equals `old`, in one step; whether it did. `MISSING` stands for no entry.

        Values that are stored alike are equal too, so one with a NaN in it can be replaced.
        """
        present = None if old is MISSING else (old,)
        return self.replace(key, present, None if new is MISSING else (new,))

    def batch(self) -> LiveBatch:
        """Changes that others see all at once: ``with d.batch() as b: b["x"] = 1; del b["y"]``.

        The block holds the map's lock, `b` reads what it has changed, and an exception discards everything. Changes of
        `d` itself inside the block are not part of the batch.
        """
        return LiveBatch(self)

    # Locks --------------------------------------------------------------------------------------------------------

    @property
    def lock(self) -> LiveLock:
        """The map's lock: ``with d.lock: ...`` or, with a timeout, ``with d.lock(timeout=5): ...``."""
        return LiveLock(self)

    def lock_key(self, key: Any, timeout: float | None = None) -> LiveKeyLock:
        """A lock for one key: ``with d.lock_key("a"): ...``. It excludes others who take it, not writes.

        Two keys may share a lock; who takes several at once should give a timeout (`LockTimeout`).
        """
        return LiveKeyLock(self, key, timeout)

    # Others' changes ----------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> set[Any]:
        """Wait until others change something; the keys set or deleted, or an empty set after `timeout` seconds.

        Others are other processes and other threads. All changes since this handle was opened, or since its last
        `wait`, are told. If so much was written meanwhile, by oneself too, that the map no longer knows all changes,
        all present keys are in the set.
        """
        keys, more = self.wait_changes(check_seconds(timeout, "timeout"))
        if more:
            keys.update(self)
        return keys

    def snapshot(self) -> LiveSnapshot:
        """The map as it is now, for good: a read-only mapping. Memory that the map gives up stays in use with it."""
        return LiveSnapshot(self.snapshot_handle())

    def freeze(self, name: str, *, store: Store | str | None = None, **put: Any) -> Map:
        """Publish the entries as they are now as an immutable map of a store, and open it.

        `store`: which one; None: the store that this map is in. Other keyword arguments are those of `Store.put_map`,
        but `codec` and `allow_pickle`, which are as this map's handle has them.

        A map of a store holds less: `SchemaError` for keys of different types, and for values that `Store.put_map`
        does not take, such as sets.
        """
        if store is None:
            store = self._store
        if store is None:
            raise ValueError("this live map is in no store; name one with store=")
        return publish_entries(name, self._plain, store, self.pickles[0], put)

    # Life ---------------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Facts: entries, bytes of entries and files, path, limits..."""
        return self.facts()

    def close(self) -> None:
        """End the use of this handle: all but `unlink`, `name` and `path` raise `ClosedError` then. The map stays."""
        if self._owed is not None and not self.closed:
            unlink_owed(self._owed)
            self._owed = None
        super().close()

    def unlink(self) -> None:
        """Remove the map's name: nobody can attach any more, and who has it open can go on reading, not writing."""
        super().unlink()
        settle(self._owed)
        self._owed = None

    @staticmethod
    def unlink_by_name(name: str, *, group: str | int | None = None, ignore_missing: bool = False) -> bool:
        """Unlink a map that need not be open, nor be readable; whether it was there.

        Raises:
            NotFoundError: it is not there, unless `ignore_missing`.
        """
        try:
            LiveHandle.remove(name, _group_id(group), None)
        except NotFoundError:
            if ignore_missing:
                return False
            raise
        return True

    @staticmethod
    def list_names(*, group: str | int | None = None) -> list[str]:
        """Names of this user's, or a group's, maps in memory, ascending."""
        return LiveHandle.names(_group_id(group), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        if self.closed:
            raise ClosedError(f"the live map {self.name!r} was closed; pickle it before")
        if self._forgotten is not None:
            # Others may have it now, so it stays until this process ends.
            self._forgotten.detach()
            self._forgotten = None
        pickles, allowed = self.pickles
        return _reopen, (type(self), self.name, self._group, self._store, pickles, allowed, not self.writable)

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()


MutableMapping.register(LiveMap)  # type: ignore[attr-defined] - every ABC has it; the stub shows a Protocol


def open_in_store(  # noqa: PLR0917
    store: str,
    name: str,
    create: bool | None,
    codec: Codec,
    allow_pickle: bool,
    read_only: bool,
    limits: LiveLimits,
) -> LiveMap:
    """A live map of a store."""
    return LiveMap._open(name, None, store, create, codec, allow_pickle, read_only, limits)  # noqa: SLF001


def _reopen(  # noqa: PLR0917 - what a pickle holds
    cls: type[LiveMap],
    name: str,
    group: int | None,
    store: str | None,
    pickles: bool,
    allow_pickle: bool,
    read_only: bool,
) -> LiveMap:
    """Unpickle a handle: attach to the map again."""
    codec: Codec = "pickle" if pickles else "msgpack"
    limits = (None, None, None, False)
    return cls._open(name, group, store, False, codec, allow_pickle, read_only, limits)


def publish_entries(
    name: str, entries: Callable[[], dict[Any, Any]], store: Store | str, pickles: bool, put: dict[str, Any]
) -> Map:
    """Publish a live map's entries as an immutable map: what `freeze` does."""
    from pheon._store import Store

    for option in ("codec", "allow_pickle"):
        if option in put:
            raise TypeError(f"freeze takes no {option}: it is as this handle of the live map was opened with")
    opened = store if isinstance(store, Store) else Store(store)
    if pickles:
        put["codec"] = "pickle"
    return opened.put_map(name, entries(), **put)


def _pairs(data: Any) -> Iterable[Any]:
    """The pairs of what `dict.update` takes."""
    if isinstance(data, LiveMap):
        data = data.snapshot()
    if isinstance(data, Mapping):
        return cast("Mapping[Any, Any]", data).items()
    if hasattr(data, "keys"):
        return [(key, data[key]) for key in data.keys()]  # noqa: SIM118 - what dict.update does
    return data


def equal_as_stored(one: dict[Any, Any], other: dict[Any, Any], pickles: bool) -> bool:
    """Whether two dicts are equal, values that are stored alike counting as equal: those with a NaN in them."""
    if one == other:
        return True
    if len(one) != len(other):
        return False
    for key, value in one.items():
        if key not in other:
            return False
        if value != other[key]:
            try:
                if live_encode(value, pickles) != live_encode(other[key], pickles):
                    return False
            except (SchemaError, TypeError):
                return False
    return True


def _as_dict(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return mapping if isinstance(mapping, dict) else dict(mapping.items())


def _group_id(group: str | int | None) -> int | None:
    if not isinstance(group, str):
        # The greatest number means no group to the kernel.
        if group is not None and not 0 <= group < 2**32 - 1:
            raise ValueError(f"group is a name or an id from 0 to 2**32 - 2, found {group}")
        return group
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {group!r} on this machine") from None
