"""`RemoteLiveMap`: a live map at a server, changed over the network."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, cast

from pheon._errors import ClosedError, RemoteError
from pheon._live import MISSING, equal_as_stored, publish_entries
from pheon._live_nested import nest, plain_copy
from pheon._native import RemoteClient, live_decode, live_encode, live_is_container
from pheon._remote_live_batch import RemoteLiveBatch
from pheon._remote_origin import RemoteOrigin, reopen_remote_live

if TYPE_CHECKING:
    from typing import NoReturn, Self

    from pheon._map import Map
    from pheon._store import Store

_MARK: Any = object()
# Operations of one message: what a server takes.
_OPERATIONS_MAX = 1_000_000
# Keys that are looked up with one: their values have to fit into the answer.
_KEYS_AT_ONCE = 100_000

Operation: TypeAlias = tuple[Any, ...]
"""The name of an operation of docs/flight.md, its key, and values: None, a tuple of one, or bytes of an encoded one."""


class RemoteLiveMap(MutableMapping[Any, Any]):
    """A `LiveMap` at a server: a `collections.abc.MutableMapping` that every process of every host shares.

    Each method is one question to the server, and atomic there; `update`, `get_many` and `batch` send all at once, and
    should be used for many keys: up to 1,000,000 and 64 MiB. Keys, values and their types are those of a `LiveMap`.
    Lists and dicts come back as ones whose changes go into the map: such a change reads the entry, and sets it if
    nobody did meanwhile, else it is made again on what is there then.

    There are no locks over the network, for a host that is gone would keep one, and no `wait`: use `compare_and_set`,
    `increment` and `batch`. Made by `RemoteStore.live`.
    """

    __slots__ = ("__weakref__", "_allowed", "_client", "_closed", "_name", "_origin", "_pickles")

    def __init__(
        self, client: RemoteClient, origin: RemoteOrigin, name: str, pickles: bool, allow_pickle: bool
    ) -> None:
        self._client, self._origin, self._name = client, origin, name
        self._pickles, self._allowed = pickles, allow_pickle
        self._closed = False

    # Operations ---------------------------------------------------------------------------------------------------

    def transact(self, operations: list[Operation]) -> list[Any]:
        """Do operations of docs/flight.md in one transaction; what each found, values in their encoding."""
        if self._closed:
            raise ClosedError(f"the live map {self._name!r} was closed")
        if len(operations) > _OPERATIONS_MAX:
            raise RemoteError(
                f"change a live map: {len(operations)} operations; a server takes at most {_OPERATIONS_MAX} at once: "
                "send fewer"
            )
        return self._client.live(self._name, operations, self._pickles)

    def _one(self, *operation: Any) -> tuple[bool, bytes | None]:
        return self.transact([operation])[0]

    def decoded(self, value: bytes) -> Any:
        """A value from its encoding, nested containers plain."""
        return live_decode(value, self._allowed)

    def encoded(self, value: Any) -> bytes:
        """A value in its encoding."""
        return live_encode(plain_copy(value), self._pickles)

    def _object(self, key: Any, value: bytes) -> Any:
        plain = self.decoded(value)
        if not live_is_container(value) and type(plain) is not tuple:
            return plain
        return nest(cast("Any", self), key, plain, cast("Any", value))

    # dict ---------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        found, value = self._one("get", key)
        if not found or value is None:
            raise KeyError(key)
        return self._object(key, value)

    def get(self, key: Any, default: Any = None, /) -> Any:
        """The value of a key, or `default`."""
        found, value = self._one("get", key)
        return self._object(key, value) if found and value is not None else default

    def __contains__(self, key: object) -> bool:
        return self._one("get", key)[0]

    def __setitem__(self, key: Any, value: Any) -> None:
        stands_at = getattr(value, "stands_at", None)
        if stands_at is not None and stands_at(self, key):
            return
        self.transact([("set", key, self.encoded(value))])

    def __delitem__(self, key: Any) -> None:
        if not self._one("delete", key)[0]:
            raise KeyError(key)

    def __len__(self) -> int:
        return self.transact([("len",)])[0]

    def __bool__(self) -> bool:
        return len(self) > 0

    def _pairs(self) -> Iterator[tuple[Any, bytes]]:
        if self._closed:
            raise ClosedError(f"the live map {self._name!r} was closed")
        for batch in self._client.live_scan(self._name):
            yield from zip(
                (live_decode(key, self._allowed) for key in batch.column("key")), batch.column("value"), strict=True
            )

    def __iter__(self) -> Iterator[Any]:
        """The keys of one moment, in the map's order."""
        return (key for key, _ in self._pairs())

    def __reversed__(self) -> Iterator[Any]:
        return reversed(list(self))

    def items(self) -> RemoteItemsView:
        """A view of the (key, value) tuples. Each iteration is over one moment's; nested values are plain."""
        return RemoteItemsView(self)

    def values(self) -> RemoteValuesView:
        """A view of the values. Each iteration is over one moment's; nested ones are plain."""
        return RemoteValuesView(self)

    def _plain(self) -> dict[Any, Any]:
        """All entries of one moment."""
        return {key: self.decoded(value) for key, value in self._pairs()}

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """The value of a key, which is set to `default` if it is not there, in one step."""
        _, value = self._one("setdefault", key, self.encoded(default))
        return default if value is None else self._object(key, value)

    def pop(self, key: Any, default: Any = _MARK, /) -> Any:
        """Take a key out and return its value, or `default`; a nested one is a plain list or dict."""
        found, value = self._one("pop", key)
        if found and value is not None:
            return self.decoded(value)
        if default is _MARK:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Take the last entry out and return it; `KeyError` if there is none."""
        while True:
            key = next(reversed(self), _MARK)
            if key is _MARK:
                raise KeyError("popitem(): the live map is empty")
            found, value = self._one("pop", key)
            # Else somebody else took it.
            if found and value is not None:
                return key, self.decoded(value)

    def clear(self) -> None:
        """Take all entries out, in one step."""
        self.transact([("clear",)])

    def update(self, data: Any = (), /, **entries: Any) -> None:
        """Set the entries of a mapping or of an iterable of pairs, and those named, all at once.

        Raises:
            RemoteError: they are more than 1,000,000, or more than 64 MiB; nothing was sent.
        """
        pairs = [*_pairs_of(data), *entries.items()]
        if pairs:
            self.transact([("set", key, self.encoded(value)) for key, value in pairs])

    def get_many(self, keys: Iterable[Any], default: Any = None) -> list[Any]:
        """The values of many keys in a list, aligned with them; `default` where missing. Nested ones are plain.

        They are of one moment up to 100,000 keys, which are one question.
        """
        asked = list(keys)
        values: list[Any] = []
        for first in range(0, len(asked), _KEYS_AT_ONCE):
            found = self.transact([("get", key) for key in asked[first : first + _KEYS_AT_ONCE]])
            values += [self.decoded(value) if there else default for there, value in found]
        return values

    def copy(self) -> dict[Any, Any]:
        """All entries of one moment as a dict of this process."""
        return self._plain()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = dict(cast("Mapping[Any, Any]", other).items())
        return equal_as_stored(self._plain(), theirs, self._pickles)

    # Compares by content and changes: no hash, like a dict.
    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._plain() | plain_copy(dict(cast("Mapping[Any, Any]", other).items()))

    def __ror__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return plain_copy(dict(cast("Mapping[Any, Any]", other).items())) | self._plain()

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    # Atomic changes -----------------------------------------------------------------------------------------------

    def increment(self, key: Any, by: Any = 1, default: Any = 0) -> Any:
        """Add `by` to a key's number, which is `default` if it is missing, in one step; the sum.

        ints of 64 bits and floats are added by the server; other numbers are compared and set.
        """
        if type(by) in (int, float) and type(default) in (int, float):
            operations: list[Operation] = [("increment", key, (by,))]
            if default != 0 or type(default) is float:
                operations.insert(0, ("setdefault", key, (default,)))
            try:
                _, value = self.transact(operations)[-1]
                return self.decoded(cast("bytes", value))
            except ValueError:
                pass  # a number there, or a sum, that the server does not add
        while True:
            _, before = self._one("get", key)
            after = (default if before is None else self.decoded(before)) + by
            if self._one("cas", key, before, self.encoded(after))[0]:
                return after

    def compare_and_set(self, key: Any, old: Any, new: Any) -> bool:
        """Set a key to `new` if its value equals `old`, in one step; whether it did. `MISSING` stands for no entry.

        Values that are stored alike are equal too, so one with a NaN in it can be replaced.
        """
        after = None if new is MISSING else self.encoded(new)
        before = None if old is MISSING else self.encoded(old)
        while True:
            done, found = self._one("cas", key, before, after)
            if done:
                return True
            # Equal values may be stored differently: 1, 1.0 and True.
            if found is None or old is MISSING or self.decoded(found) != plain_copy(old):
                return False
            before = found

    def batch(self) -> RemoteLiveBatch:
        """Changes that others see all at once: ``with d.batch() as b: b["x"] = 1; del b["y"]``.

        `b` reads what it has changed. An entry that it has read otherwise must still be as it was when the block ends,
        or nothing is changed and `RemoteError` is raised: make the block again. An exception discards everything. What
        an `update` can hold a batch can hold, too.
        """
        return RemoteLiveBatch(self)

    # What nested containers ask -----------------------------------------------------------------------------------

    @property
    def pickles(self) -> tuple[bool, bool]:
        """Whether other objects are pickled, and whether pickles are read."""
        return self._pickles, self._allowed

    def plain(self, key: Any) -> tuple[Any, bytes] | None:
        """A value, nested ones plain, and its encoding."""
        _, value = self._one("get", key)
        return None if value is None else (self.decoded(value), value)

    def moment(self) -> dict[Any, bytes]:
        """All entries of one moment, in their encoding."""
        return dict(self._pairs())

    def written(self, key: Any) -> bytes | None:
        """What tells one value of a key from another: its encoding."""
        return self._one("get", key)[1]

    def swap(self, key: Any, before: bytes, after: Any) -> bytes | None:
        """Set a key whose value has this encoding; the new encoding, or None if somebody else has set it meanwhile."""
        encoded = self.encoded(after)
        return encoded if self._one("cas", key, before, encoded)[0] else None

    # What needs the same machine ----------------------------------------------------------------------------------

    @property
    def lock(self) -> NoReturn:
        """There is none over the network."""
        raise NotImplementedError(
            "a live map at a server has no lock, which a host that is gone would keep: "
            "use batch, compare_and_set or increment"
        )

    def lock_key(self, key: Any, timeout: float | None = None) -> NoReturn:
        """There are none over the network."""
        raise NotImplementedError(
            "a live map at a server has no locks, which a host that is gone would keep: "
            "use batch, compare_and_set or increment"
        )

    def wait(self, timeout: float | None = None) -> NoReturn:
        """There is none over the network."""
        raise NotImplementedError(
            "a live map at a server cannot be waited for, since the protocol has no call for it: "
            "wait on the server's host, or look again"
        )

    # The whole map ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[Any, Any]:
        """The entries of one moment, as a read-only mapping of this process."""
        return MappingProxyType(self._plain())

    def freeze(self, name: str, *, store: Store | str | None = None, **put: Any) -> Map:
        """Publish the entries as they are now as an immutable map, of the server's store or of `store`, and open it.

        See `LiveMap.freeze`.
        """
        if store is None:
            from pheon._remote import RemoteStore

            store = RemoteStore(self._origin, self._client)
        return publish_entries(name, self._plain, store, self._pickles, put)

    def info(self) -> dict[str, Any]:
        """Facts: name, where it is, entries."""
        return {"name": self._name, "uri": self._origin.uri, "entries": len(self)}

    @property
    def name(self) -> str:
        """The map's name."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the connection closed."""
        return self._closed or self._client.closed

    def close(self) -> None:
        """End the use of this object. The map stays."""
        self._closed = True

    def unlink(self) -> None:
        """Remove the map from the store; that asks for the right to administrate."""
        import json

        self._client.action("live-drop", json.dumps({"live": self._name}).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return reopen_remote_live, (self._origin, self._name, self._pickles, self._allowed)

    def __copy__(self) -> dict[Any, Any]:
        return self._plain()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return self._plain()

    def __repr__(self) -> str:
        # No entries: a repr should not wait for the network.
        state = ", closed" if self.closed else ""
        return f"<pheon.RemoteLiveMap {self._name!r} at {self._origin.uri}{state}>"


class RemoteItemsView(ItemsView[Any, Any]):
    """(key, value) tuples, each iteration of one moment."""

    __slots__ = ()
    _mapping: RemoteLiveMap

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return ((key, self._mapping.decoded(value)) for key, value in self._mapping._pairs())  # noqa: SLF001

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return reversed(list(self))


class RemoteValuesView(ValuesView[Any]):
    """Values, each iteration of one moment's."""

    __slots__ = ()
    _mapping: RemoteLiveMap

    def __iter__(self) -> Iterator[Any]:
        return (self._mapping.decoded(value) for _, value in self._mapping._pairs())  # noqa: SLF001

    def __reversed__(self) -> Iterator[Any]:
        return reversed(list(self))


def _pairs_of(data: Any) -> Iterable[Any]:
    """The pairs of what `dict.update` takes."""
    if isinstance(data, Mapping):
        return cast("Mapping[Any, Any]", data).items()
    if hasattr(data, "keys"):
        return [(key, data[key]) for key in data.keys()]  # noqa: SIM118 - what dict.update does
    return data
