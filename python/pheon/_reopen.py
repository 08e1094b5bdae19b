"""Pickled handles: how to open the same data again, never the data."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pheon._native import StoreHandle

if TYPE_CHECKING:
    from pheon._map import Map
    from pheon._options import Access
    from pheon._store import Store
    from pheon._table import Table

SHM_PREFIX = "shm://"
_LIKE_SHM = re.compile("shm:/", re.IGNORECASE)


class Origin(NamedTuple):
    """The store that a handle was opened from: an absolute path, or ``shm://name``; and how it is read."""

    path: str
    access: str = "auto"


def absolute(path: str | os.PathLike[str]) -> str:
    """A store's path that means the same in any process.

    Raises:
        ValueError: it is nearly ``shm://name``, such as ``pathlib.Path("shm://name")``, which is ``shm:/name``.
    """
    text = os.fspath(path)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if text.startswith(SHM_PREFIX):
        return text
    if _LIKE_SHM.match(text):
        raise ValueError(
            f"the store's path is {text!r}; a store in memory is the str 'shm://name' (pathlib.Path drops a slash), "
            f"a directory of that name is './{text}'"
        )
    return os.path.abspath(text)


@lru_cache(maxsize=64)
def _reader(path: str, access: str, pid: int) -> StoreHandle:
    # `pid` keeps a forked child from sharing what its parent cached.
    del pid
    return StoreHandle(path, True, access)


def reopen_store(path: str, read_only: bool, access: Access = "auto") -> Store:
    """Unpickle a `Store`."""
    from pheon._store import Store

    return Store(path, read_only=read_only, access=access)


def reopen_map(origin: Origin, name: str, version: int, allow_pickle: bool) -> Map:
    """Unpickle a `Map`, on the version that it was on."""
    from pheon._map import Map

    return Map(_reader(origin.path, origin.access, os.getpid()).map(name, version, allow_pickle), origin)


def reopen_table(
    origin: Origin, name: str, version: int, rows: tuple[int, int], columns: list[str] | None = None
) -> Table:
    """Unpickle a `Table`, with the rows (the first, and how many) and columns that it had."""
    from pheon._table import Table

    handle = _reader(origin.path, origin.access, os.getpid()).table(name, version).slice(*rows)
    return Table(handle if columns is None else handle.select(columns), origin)
