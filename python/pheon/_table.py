"""`Table`: a version of a dataset, or a slice of one, for every Arrow consumer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

from pheon._adapters import arrow_keys
from pheon._loc import Loc
from pheon._native import Batch, Column, TableHandle
from pheon._options import check_threads
from pheon._reopen import Origin, reopen_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from pheon._info import DatasetInfo
    from pheon._zero_copy import ZeroCopyReport


class Table:
    """The rows of a version, ascending by key, or a contiguous slice of them. Opened with `Store.table`.

    Anything that takes the Arrow PyCapsule stream takes a table without a copy: ``pyarrow.table(t)``,
    ``polars.DataFrame(t)`` (or `to_polars`), ``pandas.DataFrame.from_arrow(t)``, ``duckdb.sql("from t")``. What they
    get stays readable after the table, the store and the file are gone. Slices (``t[10:20]``, `range`, `prefix`,
    `rows`) share the same memory.
    """

    __slots__ = ("__weakref__", "_handle", "_origin")

    def __init__(self, handle: TableHandle, origin: Origin) -> None:
        self._handle = handle
        self._origin = origin

    @property
    def _copied(self) -> str | None:
        """Why every consumer gets a copy; None: some may read in place."""
        return (
            "rows of several segments take turns; Store.compact makes one segment of them"
            if self._handle.is_copied()
            else None
        )

    def _pieces(self, pieces: list[tuple[int, int]], columns: list[str]) -> Batch | None:
        """Rows of several places at once, where fetching each value alone would be slow; None: it is not."""
        return None

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self._handle.name

    @property
    def version(self) -> int:
        """The number of the version that this table reads."""
        return self._handle.version

    @property
    def num_rows(self) -> int:
        """Rows of this table or slice."""
        return self._handle.num_rows

    @property
    def num_columns(self) -> int:
        """Columns."""
        return len(self._handle.column_names)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return self._handle.column_names

    @property
    def schema(self) -> dict[str, str]:
        """Column names with their Arrow types, printed. ``pyarrow.schema(t)`` gives them as pyarrow's."""
        return dict(zip(self._handle.column_names, self._handle.column_types, strict=True))

    @property
    def key(self) -> list[str]:
        """Names of the key columns; empty: rows are in the order in which they were written."""
        return self._handle.key

    @property
    def num_chunks(self) -> int:
        """In how many pieces the rows come: 1 for a table of one segment, so that NumPy can view its columns.

        `Store.append` and its like add segments, `Store.compact` makes one of them again.
        """
        return self._handle.num_chunks()

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers that the rows lie in."""
        return self._handle.nbytes

    def __len__(self) -> int:
        return self._handle.num_rows

    @overload
    def __getitem__(self, index: str) -> Column: ...
    @overload
    def __getitem__(self, index: slice | list[str]) -> Table: ...
    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    def __getitem__(self, index: str | slice | int | list[str]) -> Column | Table | dict[str, Any]:
        """``t["col"]`` is a column, ``t[["a", "b"]]`` some columns, ``t[10:20]`` a slice, ``t[10]`` a row as a dict."""
        if isinstance(index, str):
            return self._handle.column(index)
        if isinstance(index, list):
            return self.select(index)
        if isinstance(index, slice):
            return self._derived(self._handle.slice_of(index))
        return self._handle.row(index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as dicts."""
        return (self._handle.row(i) for i in range(len(self)))

    def range(self, start: Any = None, stop: Any = None) -> Table:
        """The rows with ``start <= key < stop``, without a copy; None: open.

        Where the key has several columns, `start` and `stop` are tuples of the first columns' values, in the order of
        tuples: ``(a,)`` comes before every ``(a, b)``. A value alone stands for the first column.
        """
        return self._derived(self._handle.range(start, stop))

    def prefix(self, prefix: str | bytes | tuple[Any, ...]) -> Table:
        """The rows whose key begins with `prefix`, without a copy.

        Where the key has several columns, `prefix` may be a tuple: of whole values, but the last is how a value begins.
        """
        return self._derived(self._handle.prefix(prefix))

    def rows(self, key: Any) -> Table:
        """The rows that hold `key`, without a copy; empty if there is none.

        Where the key has several columns, `key` is a tuple of all or of the first columns' values; a value alone stands
        for the first column.
        """
        return self._derived(self._handle.rows(key))

    @property
    def loc(self) -> Loc:
        """Rows by key, as `pandas.DataFrame.loc`: ``t.loc[key]``, ``t.loc[first:last]`` (both ends included),
        ``t.loc[[key, ...]]``, each with ``, column`` or ``, [column, ...]``; see `Loc`."""
        return Loc(self)

    def lookup(self, keys: Any, *, position: str = "position", threads: int | None = None) -> Batch:
        """All rows of many keys: a column named `position` with the number of each row's key in `keys`, and the rows.

        In the order of `keys`; a key that occurs in several rows gives them all, in table order; one that is not there
        gives none. `keys` is a list, an array or Series of any library, or other Arrow data. The rows are a copy.
        `threads`: how many may work on a large batch; None: one.

        Raises:
            ValueError: the table has a column named `position`; choose another name.
        """
        if position in self._handle.column_names:
            raise ValueError(f"the table has a column {position!r}: give lookup another name for the positions")
        found, rows = self._handle.lookup(arrow_keys(self._handle, keys), check_threads(threads))
        return rows.with_first(position, found)

    def select(self, columns: list[str]) -> Table:
        """The same rows with these columns, in this order, without a copy.

        Raises:
            KeyError: there is no such column.
        """
        return self._derived(self._handle.select(columns))

    def _between(self, first: Any, last: Any) -> Table:
        """The rows with ``first <= key <= last``."""
        return self._derived(self._handle.range(first, last, True))

    def _derived(self, handle: TableHandle) -> Table:
        return Table(handle, self._origin)

    def refresh(self) -> bool:
        """Move to all rows of the newest version; True if there was a newer one. Slices taken before stay."""
        newer = self._handle.refreshed()
        if newer is not None:
            self._handle = newer
        return newer is not None

    def info(self) -> DatasetInfo:
        """Facts about the version that this table is on."""
        from pheon._info import DatasetInfo

        return DatasetInfo.of(self._handle.facts())

    def to_pyarrow(self, *, require_zero_copy: bool = False) -> pa.Table:
        """A pyarrow Table that shares the memory."""
        import pyarrow as pa

        if require_zero_copy:
            self._require_zero_copy("pyarrow")
        return pa.table(self)

    def to_pandas(self, *, require_zero_copy: bool = False) -> pd.DataFrame:
        """A pandas DataFrame in the cheapest form that is faithful.

        A frame that was stored comes back with its index, labels, dtypes and attrs. Other columns become NumPy views
        (numbers, timestamps, durations), pandas' ``str`` (strings), categoricals (dictionaries), or Arrow-backed
        columns, where nulls, nesting or the type ask for it. Most share the memory, so they are read-only: with pandas'
        copy-on-write (always on in pandas 3) a column is copied when it is written to; without it that is a ValueError.
        `zero_copy_report` tells what is copied; with `require_zero_copy` such a column is a `CopyRequiredError`.
        """
        if require_zero_copy:
            self._require_zero_copy("pandas")
        from pheon._adapters.pandas_frame import frame_of

        return frame_of(self.to_pyarrow())

    def to_polars(self, *, require_zero_copy: bool = False) -> pl.DataFrame:
        """A polars DataFrame; numbers share the memory, polars keeps strings in a layout of its own.

        With `require_zero_copy` a column that must be copied is a `CopyRequiredError`.
        """
        if require_zero_copy:
            self._require_zero_copy("polars")
        from pheon._adapters.polars import table_to_polars

        return table_to_polars(self)

    def lazy(self) -> pl.LazyFrame:
        """A polars LazyFrame over these rows, ascending by key, that reads what a query needs.

        Only the columns that it uses are read, and only the rows of ``head(n)`` or those that the index finds for
        what its filters say about the key: ``==``, ``is_in``, ``<``, ``is_between``, ``str.starts_with`` and their
        like, joined by ``&`` and ``|``. polars filters what is left, so the answers are those of `to_polars`. It
        stays on this version.

        DuckDB hands filters and columns on to it: ``lf = t.lazy(); duckdb.sql("from lf where key = 3")``. A table
        itself (``from t``) it reads whole, in place.
        """
        from pheon._adapters.polars_lazy import lazy_frame

        return lazy_frame(self)

    def to_numpy(self, column: str, *, require_zero_copy: bool = False) -> np.ndarray[Any, Any]:
        """One column as a NumPy array; numbers, timestamps and durations without nulls share the memory.

        With `require_zero_copy` a column that must be copied is a `CopyRequiredError`.
        """
        from pheon._adapters.numpy import column_to_numpy

        found = self._handle.column(column)
        if require_zero_copy:
            self._require_zero_copy("numpy", column)
        return column_to_numpy(found)

    def zero_copy_report(self) -> ZeroCopyReport:
        """For every column, and every library that is installed, whether it reads the column in place, and why not."""
        from pheon._zero_copy import report

        return report(self)

    def _require_zero_copy(self, library: str, column: str | None = None) -> None:
        from pheon._zero_copy import require

        require(self, library, column)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._handle.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._handle.__arrow_c_schema__()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_table, (self._origin, self.name, self.version, self._handle.bounds, self._handle.selected)

    def __repr__(self) -> str:
        from pheon._display import text

        return text(self)

    def _repr_html_(self) -> str:
        from pheon._display import markup

        return markup(self)
