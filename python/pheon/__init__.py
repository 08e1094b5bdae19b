"""One physical copy of a huge dictionary or data frame, read by every process of the machine at memory speed.

>>> import pheon
>>> store = pheon.open("words")
>>> m = store.put_map("synonyms", {"quick": "fast", "lazy": "idle"})
>>> m["quick"]
'fast'
>>> m.get_many(["lazy", "brown"])
['idle', None]

Any number of processes open the same store; each map costs them next to nothing:

>>> pheon.open("words", read_only=True).map("synonyms")["lazy"]
'idle'
"""

from typing import TYPE_CHECKING

from pheon._errors import (
    ClosedError,
    CopyRequiredError,
    CorruptError,
    DuplicateKeyError,
    Error,
    LockTimeout,
    NotFoundError,
    RemoteConnectionError,
    RemoteError,
    RemotePermissionError,
    RemoteTimeoutError,
    SchemaError,
    StoreFullError,
)
from pheon._map import Map
from pheon._native import Batch, Column, Progress, __version__
from pheon._store import Store, open  # noqa: A004 - the interface
from pheon._table import Table
from pheon._writer import MapPart, MapWriter

if TYPE_CHECKING:
    from pheon._info import DatasetInfo, DatasetMemory, GcReport, VerifyReport, VersionInfo, WarmReport
    from pheon._live import MISSING, LiveMap
    from pheon._live_batch import LiveBatch
    from pheon._live_lock import LiveKeyLock, LiveLock
    from pheon._live_nested import LiveDict, LiveList
    from pheon._live_snapshot import LiveSnapshot
    from pheon._remote import RemoteStore, connect
    from pheon._remote_live import RemoteLiveMap
    from pheon._remote_live_batch import RemoteLiveBatch
    from pheon._remote_map import RemoteMap
    from pheon._remote_table import RemoteTable
    from pheon._zero_copy import ColumnVerdict, ZeroCopyReport

# In which module these are: loaded when they are first asked for. A process that reads maps and tables needs none of
# them, and they would cost it more memory than its map, and most of the time that it takes to start.
_LATER = {
    "DatasetInfo": "_info",
    "DatasetMemory": "_info",
    "GcReport": "_info",
    "VerifyReport": "_info",
    "VersionInfo": "_info",
    "WarmReport": "_info",
    "MISSING": "_live",
    "LiveMap": "_live",
    "LiveBatch": "_live_batch",
    "LiveKeyLock": "_live_lock",
    "LiveLock": "_live_lock",
    "LiveDict": "_live_nested",
    "LiveList": "_live_nested",
    "LiveSnapshot": "_live_snapshot",
    "RemoteStore": "_remote",
    "connect": "_remote",
    "RemoteLiveMap": "_remote_live",
    "RemoteLiveBatch": "_remote_live_batch",
    "RemoteMap": "_remote_map",
    "RemoteTable": "_remote_table",
    "ColumnVerdict": "_zero_copy",
    "ZeroCopyReport": "_zero_copy",
}

__all__ = [
    "MISSING",
    "Batch",
    "ClosedError",
    "Column",
    "ColumnVerdict",
    "CopyRequiredError",
    "CorruptError",
    "DatasetInfo",
    "DatasetMemory",
    "DuplicateKeyError",
    "Error",
    "GcReport",
    "LiveBatch",
    "LiveDict",
    "LiveKeyLock",
    "LiveList",
    "LiveLock",
    "LiveMap",
    "LiveSnapshot",
    "LockTimeout",
    "Map",
    "MapPart",
    "MapWriter",
    "NotFoundError",
    "Progress",
    "RemoteConnectionError",
    "RemoteError",
    "RemoteLiveBatch",
    "RemoteLiveMap",
    "RemoteMap",
    "RemotePermissionError",
    "RemoteStore",
    "RemoteTable",
    "RemoteTimeoutError",
    "SchemaError",
    "Store",
    "StoreFullError",
    "Table",
    "VerifyReport",
    "VersionInfo",
    "WarmReport",
    "ZeroCopyReport",
    "__version__",
    "connect",
    "open",
]


if not TYPE_CHECKING:  # or type checkers would take any name for right

    def __getattr__(name: str) -> object:
        module = _LATER.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"pheon.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
