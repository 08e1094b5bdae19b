"""`LiveDict` and `LiveList`: the dicts and lists inside a live map, changed in place.

A nested container is stored with the entry of the map that it is in; changing it writes that entry anew, under the
map's lock, so each change is atomic and costs what the whole entry costs. Here it is a real `dict` or `list` that holds
what was read last: whatever takes a dict or list takes it (json, `dict(n)`, ``{**n}``). Its own methods look first
whether the entry was written since, and its changes go to the map.

It stands for a place, as ``d["a"]["b"][0]`` names it, not for an object: if something else is put there, or moves there
because the list before it grows, it is what is there now.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, cast

from pheon._native import live_decode, live_encode

if TYPE_CHECKING:
    from typing import Self

    from pheon._native import LiveHandle

_T = TypeVar("_T")
_MARK: Any = object()
_SCALARS = frozenset((str, int, float, bool, bytes, type(None)))


def plain_copy(value: Any) -> Any:
    """The same with plain dicts and lists in place of nested ones, however deep."""
    if isinstance(value, (LiveDict, LiveList)):
        return value.plain()
    if type(value) is dict:
        pairs = cast("dict[Any, Any]", value).items()
        return {key: plain_copy(item) for key, item in pairs}
    if type(value) is list:
        return [plain_copy(item) for item in cast("list[Any]", value)]
    if type(value) is tuple:
        return tuple(plain_copy(item) for item in cast("tuple[Any, ...]", value))
    return value


def as_stored(live: LiveHandle, value: Any) -> Any:
    """The object that comes back when this one is stored: plain, a copy, of the types that the map's encoding has."""
    if type(value) in _SCALARS:
        return value
    pickles, allowed = live.pickles
    if pickles and not allowed:
        return plain_copy(value)
    return live_decode(live_encode(value, pickles), allowed)


def nest(live: LiveHandle, key: Any, plain: Any, written: int) -> Any:
    """A plain dict or list, which that transaction wrote to a key of a map, as one whose changes go to the map."""
    return _nested(_Entry(live, key), (), plain, written)


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
    if type(plain) is tuple:
        items = cast("tuple[Any, ...]", plain)
        return tuple(_nested(entry, (*path, i), item, seen) for i, item in enumerate(items))
    return plain


def _follow(root: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        root = root[step]
    return root


class _Nested:
    """Where a nested container is, and what both kinds do."""

    __slots__ = ()
    _entry: _Entry
    _path: tuple[Any, ...]
    _seen: int | None
    _content: Any
    _plain_type: type

    def __init__(self, *_: Any, **__: Any) -> None:
        kind = self._plain_type.__name__
        raise TypeError(f"a {type(self).__name__} comes out of a LiveMap: put a {kind} in, and take it out")

    def _fill(self, plain: Any, seen: int | None) -> None:
        raise TypeError("filled by the two kinds of nested containers")  # pragma: no cover

    def _missing(self) -> Exception:
        where = "".join(f"[{step!r}]" for step in (self._entry.key, *self._path))
        kind = self._plain_type.__name__
        return KeyError(f"live map {self._entry.live.name!r} has no {kind} at {where} any more")

    def _find(self) -> tuple[Any, Any, int]:
        """The whole entry, this part of it, and which transaction wrote it; read anew."""
        found = self._entry.live.plain(self._entry.key)
        if found is None:
            raise self._missing()
        root, seen = found
        try:
            part = _follow(root, self._path)
        except (LookupError, TypeError):
            raise self._missing() from None
        if type(part) is not self._plain_type:
            raise self._missing()
        return root, part, seen

    def _now(self) -> Any:
        """What it holds now: a plain container, which is not changed any more, with nested ones in it."""
        if self._entry.live.written(self._entry.key) != self._seen:
            _, part, seen = self._find()
            self._fill(part, seen)
        return self._content

    def _change(self, change: Callable[[Any], _T]) -> _T:
        """Make a change of the plain container in the map, and here."""
        entry = self._entry
        swap: Any = getattr(entry.live, "swap", None)
        while swap is not None:
            # A map at a server has no lock. Changes are such that they may be made again on another container.
            root, part, seen = self._find()
            done = change(part)
            seen = swap(entry.key, seen, root)
            if seen is not None:
                self._fill(part, seen)
                return done
        entry.live.lock_acquire(None)
        try:
            root, part, _ = self._find()
            done = change(part)
            entry.live[entry.key] = root
            seen = entry.live.written(entry.key)
        finally:
            entry.live.lock_release()
        self._fill(part, seen)
        return done

    def _stored(self, value: Any) -> Any:
        return as_stored(self._entry.live, value)

    def plain(self) -> Any:
        """A plain copy, as deep as it goes."""
        return self._find()[1]

    def stands_at(self, live: LiveHandle, key: Any, *path: Any) -> bool:
        """Whether this is what stands there: to put it there, as ``d["list"] += [1]`` does at last, changes nothing."""
        entry = self._entry
        if entry.live is not live or entry.key != key or self._path != path:
            return False
        self._now()
        return True

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # What is pickled is the content; pickle the map to share it.
        return self._plain_type, (self.plain(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.plain()

    def __copy__(self) -> Any:
        return self.plain()


class LiveDict(_Nested, dict[Any, Any]):
    """A dict inside a `LiveMap`. Changes go to the map; see the module's text for what that costs."""

    __slots__ = ("_content", "_entry", "_path", "_seen")
    _plain_type = dict

    @classmethod
    def _of(cls, entry: _Entry, path: tuple[Any, ...], plain: dict[Any, Any], seen: int | None) -> LiveDict:
        self = cls.__new__(cls)
        self._entry, self._path = entry, path
        self._fill(plain, seen)
        return self

    def _fill(self, plain: dict[Any, Any], seen: int | None) -> None:
        entry, path = self._entry, self._path
        content = {key: _nested(entry, (*path, key), value, seen) for key, value in plain.items()}
        dict.clear(self)
        dict.update(self, content)
        self._content, self._seen = content, seen

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None, /) -> dict[Any, Any]:  # type: ignore[override]
        """As `dict.fromkeys`: a plain dict."""
        return dict.fromkeys(iterable, value)

    # Reading ------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return self._now()[key]

    def get(self, key: Any, default: Any = None, /) -> Any:
        """As `dict.get`."""
        return self._now().get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._now()

    def __len__(self) -> int:
        return len(self._now())

    def __bool__(self) -> bool:
        return bool(self._now())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._now())

    def copy(self) -> dict[Any, Any]:
        """A plain dict, as deep as it goes."""
        return self.plain()

    def keys(self) -> KeysView[Any]:  # type: ignore[override] - a view of what does not change
        """The keys as they are now."""
        return self._now().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """The values as they are now."""
        return self._now().values()

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]
        """The items as they are now."""
        return self._now().items()

    def __eq__(self, other: object) -> bool:
        return self._now() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment] - changes, like a dict

    def __repr__(self) -> str:
        return repr(self._now())

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self.plain() | plain_copy(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return plain_copy(other) | self.plain() if isinstance(other, dict) else NotImplemented

    # Changing -----------------------------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, _Nested) and value.stands_at(self._entry.live, self._entry.key, *self._path, key):
            return
        key, value = self._stored(key), self._stored(value)
        self._change(lambda part: part.__setitem__(key, value))

    def __delitem__(self, key: Any) -> None:
        self._change(lambda part: part.__delitem__(key))

    def pop(self, key: Any, default: Any = _MARK, /) -> Any:
        """As `dict.pop`; a nested container comes out plain."""
        if default is _MARK:
            return self._change(lambda part: part.pop(key))
        return self._change(lambda part: part.pop(key, default)) if key in self else default

    def popitem(self) -> tuple[Any, Any]:
        """As `dict.popitem`."""
        return self._change(lambda part: part.popitem())

    def clear(self) -> None:
        """As `dict.clear`."""
        self._change(lambda part: part.clear())

    def update(self, *data: Any, **entries: Any) -> None:
        """As `dict.update`, in one change."""
        new = self._stored(dict(*data, **entries))
        if new:
            self._change(lambda part: part.update(new))

    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """As `dict.setdefault`, in one change."""
        if key not in self:
            key, default = self._stored(key), self._stored(default)
            self._change(lambda part: part.setdefault(key, default))
        return self._content[key]

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc] - returns itself, like a dict
        self.update(other)
        return self


class LiveList(_Nested, list[Any]):
    """A list inside a `LiveMap`. Changes go to the map; see the module's text for what that costs."""

    __slots__ = ("_content", "_entry", "_path", "_seen")
    _plain_type = list

    @classmethod
    def _of(cls, entry: _Entry, path: tuple[Any, ...], plain: list[Any], seen: int | None) -> LiveList:
        self = cls.__new__(cls)
        self._entry, self._path = entry, path
        self._fill(plain, seen)
        return self

    def _fill(self, plain: list[Any], seen: int | None) -> None:
        entry, path = self._entry, self._path
        content = [_nested(entry, (*path, i), value, seen) for i, value in enumerate(plain)]
        list.__setitem__(self, slice(None), content)
        self._content, self._seen = content, seen

    # Reading ------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def __bool__(self) -> bool:
        return bool(self._now())

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

    def __radd__(self, other: Any) -> list[Any]:
        return plain_copy(other) + self.plain()

    def __mul__(self, times: SupportsIndex) -> list[Any]:
        return self.plain() * times

    __rmul__ = __mul__

    # Changing -----------------------------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, _Nested) and value.stands_at(self._entry.live, self._entry.key, *self._path, index):
            return
        value = self._stored(list(cast("Iterable[Any]", value)) if isinstance(index, slice) else value)
        self._change(lambda part: part.__setitem__(index, value))

    def __delitem__(self, index: Any) -> None:
        self._change(lambda part: part.__delitem__(index))

    def append(self, value: Any) -> None:
        """As `list.append`."""
        value = self._stored(value)
        self._change(lambda part: part.append(value))

    def extend(self, values: Iterable[Any]) -> None:
        """As `list.extend`, in one change."""
        new = self._stored(list(values))
        if new:
            self._change(lambda part: part.extend(new))

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """As `list.insert`."""
        value = self._stored(value)
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
