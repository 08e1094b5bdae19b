"""`LiveDict` and `LiveList`: the dicts and lists inside a live map, changed in place.

A nested container is stored with the entry of the map that it is in; changing it writes that entry anew, under the
map's lock, so each change is atomic and costs what the whole entry costs. Here it is a real `dict` or `list` that holds
what was read last: whatever takes a dict or list takes it (json, `dict(n)`, ``{**n}``). Its own methods look first
whether the entry was written since, and its changes go to the map.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, cast

if TYPE_CHECKING:
    from typing import Self

    from pheon._native import LiveHandle

_T = TypeVar("_T")
_MARK: Any = object()


def plain_copy(value: Any) -> Any:
    """The same with plain dicts and lists in place of nested ones, however deep. What holds none is not copied."""
    if isinstance(value, (LiveDict, LiveList)):
        return value.plain()
    if type(value) is dict:
        pairs = cast("dict[Any, Any]", value).items()
        return {key: plain_copy(item) for key, item in pairs}
    if type(value) is list:
        return [plain_copy(item) for item in cast("list[Any]", value)]
    if type(value) is tuple:
        return tuple(plain_copy(item) for item in cast("tuple[Any, ...]", value))
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return {key: plain_copy(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    return value


def nest(live: LiveHandle, key: Any, plain: Any) -> Any:
    """A plain dict or list, just read from a key of a map, as one that writes to it."""
    return _nested(_Entry(live, key), (), plain, live.written(key))


class _Entry:
    """An entry of a map with all that is nested in it."""

    __slots__ = ("key", "live")

    def __init__(self, live: LiveHandle, key: Any) -> None:
        self.live, self.key = live, key


def _nested(entry: _Entry, path: tuple[Any, ...], plain: Any, seen: int | None) -> Any:
    if type(plain) is dict:
        return LiveDict._of(entry, path, cast("dict[Any, Any]", plain), seen)  # noqa: SLF001
    if type(plain) is list:
        return LiveList._of(entry, path, cast("list[Any]", plain), seen)  # noqa: SLF001
    return plain


def _follow(root: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        root = root[step]
    return root


class _Nested:
    """Where a nested container is, and what both kinds do."""

    _entry: _Entry
    _path: tuple[Any, ...]
    _seen: int | None
    _plain_type: type

    def _fill(self, plain: Any) -> None:
        raise TypeError("filled by the two kinds of nested containers")  # pragma: no cover

    def _missing(self) -> Exception:
        where = "".join(f"[{step!r}]" for step in (self._entry.key, *self._path))
        kind = self._plain_type.__name__
        return KeyError(f"live map {self._entry.live.name!r} has no {kind} at {where} any more")

    def _find(self) -> tuple[Any, Any]:
        """The whole entry, and this part of it, read anew."""
        found = self._entry.live.plain(self._entry.key)
        if found is None:
            raise self._missing()
        root, self._seen = found
        try:
            part = _follow(root, self._path)
        except (LookupError, TypeError):
            raise self._missing() from None
        if type(part) is not self._plain_type:
            raise self._missing()
        return root, part

    def _refresh(self) -> None:
        """Read anew if the entry was written since."""
        if self._entry.live.written(self._entry.key) != self._seen:
            self._fill(self._find()[1])

    def _change(self, change: Callable[[Any], _T]) -> _T:
        """Make a change of the plain container in the map, and here."""
        entry = self._entry
        entry.live.lock_acquire(None)
        try:
            root, part = self._find()
            done = change(part)
            entry.live[entry.key] = root
            self._seen = entry.live.written(entry.key)
        finally:
            entry.live.lock_release()
        self._fill(part)
        return done

    def plain(self) -> Any:
        """A plain copy, as deep as it goes."""
        return self._find()[1]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # What is pickled is the content; pickle the map to share it.
        return self._plain_type, (self.plain(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.plain()

    def __copy__(self) -> Any:
        return self.plain()


class LiveDict(_Nested, dict[Any, Any]):
    """A dict inside a `LiveMap`. Changes go to the map; see the module's text for what that costs."""

    __slots__ = ("_entry", "_path", "_seen")
    _plain_type = dict

    @classmethod
    def _of(cls, entry: _Entry, path: tuple[Any, ...], plain: dict[Any, Any], seen: int | None) -> LiveDict:
        self = cls.__new__(cls)
        self._entry, self._path, self._seen = entry, path, seen
        self._fill(plain)
        return self

    def _fill(self, plain: dict[Any, Any]) -> None:
        entry, path, seen = self._entry, self._path, self._seen
        dict.clear(self)
        dict.update(self, {key: _nested(entry, (*path, key), value, seen) for key, value in plain.items()})

    # Reading ------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        self._refresh()
        return dict.__getitem__(self, key)

    def get(self, key: Any, default: Any = None, /) -> Any:
        """As `dict.get`."""
        self._refresh()
        return dict.get(self, key, default)

    def __contains__(self, key: object) -> bool:
        self._refresh()
        return dict.__contains__(self, key)

    def __len__(self) -> int:
        self._refresh()
        return dict.__len__(self)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Any]:
        # Not over what a refresh would change under the iteration.
        return iter(dict(self.items()))

    def __reversed__(self) -> Iterator[Any]:
        return reversed(dict(self.items()))

    def copy(self) -> dict[Any, Any]:
        """A plain dict, as deep as it goes."""
        return self.plain()

    def keys(self) -> KeysView[Any]:  # type: ignore[override] - a view of a moment's copy
        """The keys as they are now."""
        return dict(self.items()).keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """The values as they are now."""
        return dict(self.items()).values()

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]
        """The items as they are now."""
        self._refresh()
        return dict(zip(dict.keys(self), dict.values(self), strict=True)).items()

    def __eq__(self, other: object) -> bool:
        self._refresh()
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment] - changes, like a dict

    def __repr__(self) -> str:
        self._refresh()
        return dict.__repr__(self)

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self.plain() | plain_copy(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return plain_copy(other) | self.plain() if isinstance(other, dict) else NotImplemented

    # Changing -----------------------------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        value = plain_copy(value)
        self._change(lambda part: part.__setitem__(key, value))

    def __delitem__(self, key: Any) -> None:
        self._change(lambda part: part.__delitem__(key))

    def pop(self, key: Any, default: Any = _MARK, /) -> Any:
        """As `dict.pop`; a nested container comes out plain."""
        return self._change(lambda part: part.pop(key) if default is _MARK else part.pop(key, default))

    def popitem(self) -> tuple[Any, Any]:
        """As `dict.popitem`."""
        return self._change(lambda part: part.popitem())

    def clear(self) -> None:
        """As `dict.clear`."""
        self._change(lambda part: part.clear())

    def update(self, *data: Any, **entries: Any) -> None:
        """As `dict.update`, in one change."""
        new = plain_copy(dict(*data, **entries))
        self._change(lambda part: part.update(new))

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """As `dict.setdefault`, in one change."""
        default = plain_copy(default)
        self._change(lambda part: part.setdefault(key, default))
        return dict.__getitem__(self, key)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc] - returns itself, like a dict
        self.update(other)
        return self


class LiveList(_Nested, list[Any]):
    """A list inside a `LiveMap`. Changes go to the map; see the module's text for what that costs."""

    __slots__ = ("_entry", "_path", "_seen")
    _plain_type = list

    @classmethod
    def _of(cls, entry: _Entry, path: tuple[Any, ...], plain: list[Any], seen: int | None) -> LiveList:
        self = cls.__new__(cls)
        self._entry, self._path, self._seen = entry, path, seen
        self._fill(plain)
        return self

    def _fill(self, plain: list[Any]) -> None:
        entry, path, seen = self._entry, self._path, self._seen
        list.clear(self)
        list.extend(self, [_nested(entry, (*path, i), value, seen) for i, value in enumerate(plain)])

    def _now(self) -> list[Any]:
        """The content as it is now, nested containers live."""
        self._refresh()
        return list.__getitem__(self, slice(None))

    # Reading ------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        self._refresh()
        return list.__getitem__(self, index)

    def __len__(self) -> int:
        self._refresh()
        return list.__len__(self)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._now())

    def __contains__(self, value: object) -> bool:
        return value in self._now()

    def index(self, value: Any, *bounds: SupportsIndex) -> int:
        """As `list.index`."""
        return self._now().index(value, *bounds)

    def count(self, value: Any) -> int:
        """As `list.count`."""
        return self._now().count(value)

    def copy(self) -> list[Any]:
        """A plain list, as deep as it goes."""
        return self.plain()

    def __eq__(self, other: object) -> bool:
        return self._now() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: list[Any]) -> bool:
        return self._now() < other

    def __le__(self, other: list[Any]) -> bool:
        return self._now() <= other

    def __gt__(self, other: list[Any]) -> bool:
        return self._now() > other

    def __ge__(self, other: list[Any]) -> bool:
        return self._now() >= other

    __hash__ = None  # type: ignore[assignment] - changes, like a list

    def __repr__(self) -> str:
        return repr(self._now())

    def __add__(self, other: Any) -> list[Any]:
        return self.plain() + plain_copy(other)

    def __mul__(self, times: SupportsIndex) -> list[Any]:
        return self.plain() * times

    __rmul__ = __mul__

    # Changing -----------------------------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        value = plain_copy(list(value) if isinstance(index, slice) else value)
        self._change(lambda part: part.__setitem__(index, value))

    def __delitem__(self, index: Any) -> None:
        self._change(lambda part: part.__delitem__(index))

    def append(self, value: Any) -> None:
        """As `list.append`."""
        value = plain_copy(value)
        self._change(lambda part: part.append(value))

    def extend(self, values: Iterable[Any]) -> None:
        """As `list.extend`, in one change."""
        new = plain_copy(list(values))
        self._change(lambda part: part.extend(new))

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """As `list.insert`."""
        value = plain_copy(value)
        self._change(lambda part: part.insert(index, value))

    def pop(self, index: SupportsIndex = -1) -> Any:
        """As `list.pop`; a nested container comes out plain."""
        return self._change(lambda part: part.pop(index))

    def remove(self, value: Any) -> None:
        """As `list.remove`."""
        value = plain_copy(value)
        self._change(lambda part: part.remove(value))

    def clear(self) -> None:
        """As `list.clear`."""
        self._change(lambda part: part.clear())

    def reverse(self) -> None:
        """As `list.reverse`."""
        self._change(lambda part: part.reverse())

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """As `list.sort`, in one change."""
        self._change(lambda part: part.sort(key=key, reverse=reverse))

    def __iadd__(self, values: Iterable[Any]) -> Self:  # type: ignore[override, misc] - returns itself, like a list
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        self._change(lambda part: part.__imul__(times))
        return self
