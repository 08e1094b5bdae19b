"""`Map`: a read-only mapping on one version of a dataset."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from itertools import islice
from typing import TYPE_CHECKING, Any

from pheon._adapters import contains_many, get_many
from pheon._native import MapHandle
from pheon._options import check_threads
from pheon._reopen import Origin, reopen_map
from pheon._table import Table
from pheon._views import MapItemsView, MapKeysView, MapValuesView

if TYPE_CHECKING:
    from typing import Self

    from pheon._info import DatasetInfo

    _Handle = MapHandle
else:
    _Handle = object

_REPR_ENTRIES = 3


class MapFace(_Handle):
    """What all maps of stores have in common, wherever their entries are: `Map` and `pheon.RemoteMap`."""

    __slots__ = ()

    def keys(self) -> KeysView[Any]:
        """A set-like view of the keys, ascending."""
        return MapKeysView(self)

    def values(self) -> ValuesView[Any]:
        """A view of the values, in key order."""
        return MapValuesView(self)

    def items(self) -> ItemsView[Any, Any]:
        """A set-like view of the (key, value) tuples, in key order."""
        return MapItemsView(self)

    def get_many(self, keys: Any, default: Any = None, *, threads: int | None = None) -> Any:
        """The values of many keys, aligned with them; the same kind out as in.

        ======================================  =======================================================
        keys                                    values
        ======================================  =======================================================
        list, or any other iterable             list
        tuple                                   tuple
        pyarrow Array or ChunkedArray           the same
        polars Series                           polars Series of the same name
        pandas Series (its index is kept)       pandas Series
        pandas Index                            pandas Index
        NumPy array                             NumPy array of the same shape
        other data with ``__arrow_c_array__``   `Column` (exports ``__arrow_c_array__``)
        ======================================  =======================================================

        Keys of several columns are tuples in lists, else structs with fields of the key columns' names (or, if none of
        these is there, with as many fields in the key's order), MultiIndexes or frames of such columns.

        Where a key is missing stands `default`; None is a null, or NaN/NaT in NumPy. Except in lists and tuples it must
        be one of the values' type exactly, else it is a `TypeError`: 7.9 is no default of integers. A None or null key
        is missing.
        With several value columns, lists hold dicts and the others become pyarrow Table, polars or pandas DataFrame,
        dict of NumPy arrays, or `Batch`. Values that are stored by a codec (msgpack, pickle) come decoded
        except in pyarrow, polars and other Arrow data, where they are the stored bytes.

        `threads`: how many may work on a large batch; None: one.
        """
        return get_many(self, keys, default, check_threads(threads))

    def contains_many(self, keys: Any, *, threads: int | None = None) -> Any:
        """Whether each key is there, aligned with the keys; the same kind out as in (see `get_many`)."""
        return contains_many(self, keys, check_threads(threads))

    def range(self, start: Any = None, stop: Any = None) -> Table:
        """The entries with ``start <= key < stop`` as a table; None: open. See `Table.range`."""
        return self.table().range(start, stop)

    def prefix(self, prefix: str | bytes | tuple[Any, ...]) -> Table:
        """The entries whose key begins with `prefix`, as a table."""
        return self.table().prefix(prefix)

    def table(self) -> Table:
        """All entries as a table."""
        raise NotImplementedError  # pragma: no cover - both kinds of maps have their own

    def info(self) -> DatasetInfo:
        """Facts about the version that this map is on."""
        from pheon._info import DatasetInfo

        return DatasetInfo.of(self.facts())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        if len(self) != len(other):
            return False
        if isinstance(other, MapFace) and other.key_type == self.key_type:
            # Both are in key order, so no key has to be looked up, one by one over the network perhaps.
            pairs = zip(self.items(), other.items(), strict=True)
            return all(_same(a, b) and _same(x, y) for (a, x), (b, y) in pairs)
        missing = object()
        try:
            return all(_same(other.get(key, missing), value) for key, value in self.items())
        except TypeError:  # the other mapping refuses our type of key
            return False

    # A mapping that compares by content and may be refreshed has no hash, like a dict.
    __hash__ = None  # type: ignore[assignment]

    def _first_items(self, count: int) -> list[tuple[Any, Any]]:
        return list(islice(self.items(), count))

    def __repr__(self) -> str:
        head = (
            f"<pheon.{type(self).__name__} {self.name!r} version {self.version}: {len(self):,} entries, "
            f"keys {self.key_type}"
        )
        try:
            shown = [f"{_short(k)}: {_short(v)}" for k, v in self._first_items(_REPR_ENTRIES)]
        except Exception:  # noqa: BLE001 - a repr must not fail because values need allow_pickle, or a server is gone
            return f"{head}>"
        if len(self) > _REPR_ENTRIES:
            shown.append("...")
        return f"{head}, {{{', '.join(shown)}}}>"


Mapping.register(MapFace)  # type: ignore[attr-defined] - every ABC has it; the stub shows a Protocol


class Map(MapFace, MapHandle):
    """The dict face of a dataset whose key is unique. Opened with `Store.map`; a `collections.abc.Mapping`.

    ``m[key]`` and ``m.get(key)`` look one key up, ``m.get_many(keys)`` many at once, several times as fast a key.
    Iteration, views, ``range`` and ``prefix`` are in key order. A key of another type than the
    map's raises `TypeError`.

    The entries are in a read-only mapping of the store's file, which all processes share. They stay readable after the
    store is closed, and after the dataset is replaced or dropped. A map stays on its version until `refresh`.
    Pickling a map pickles how to open it again.

    With one value column ``m[key]`` is the value; with several it is a dict by column name. With several key columns
    keys are tuples.
    """

    __slots__ = ("__weakref__", "_origin")
    _origin: Origin

    def __new__(cls, handle: MapHandle, origin: Origin) -> Self:
        self = super().__new__(cls, handle)
        self._origin = origin
        return self

    def table(self) -> Table:
        """All entries as a table, without a copy."""
        return Table(self.table_handle(), self._origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_map, (self._origin, self.name, self.version, self.allow_pickle)


def _same(a: object, b: object) -> bool:
    return a is b or a == b


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
