"""`Loc`: rows of a table by key, in the manner of `pandas.DataFrame.loc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pheon._native import Batch, Column
    from pheon._table import Table


class Loc:
    """What `Table.loc` gives: an object to be indexed with keys.

    ======================  ==================================================================================
    ``t.loc[key]``          the rows that hold the key, a `Table` without a copy; `KeyError` if there is none
    ``t.loc[first:last]``   the rows with ``first <= key <= last``: **both ends are included**, as in pandas, and
                            neither needs to be there; a `Table` without a copy
    ``t.loc[[k1, k2]]``     the rows of each key in the order asked for, a `Batch`; `KeyError` if one is missing.
                            Any array or Series of keys will do
    ``t.loc[rows, "c"]``    one column of these rows, a `Column`; of one key where each occurs once, the value
    ``t.loc[rows, ["c"]]``  some columns of these rows
    ======================  ==================================================================================

    A key of several columns is a tuple, or the values of the first columns only: ``t.loc["JFK"]``,
    ``t.loc[("JFK", 3)]``, ``t.loc[("JFK", 3):("JFK", 9)]``. With such a key ``t.loc["JFK", 3]`` is a key too, as in
    pandas; name columns with ``t.loc[("JFK", 3), ["c"]]``.

    Where the key is a time or a date, text stands for a span, as in pandas (which must be installed for it):
    ``t.loc["2026-01"]`` is a month, ``t.loc["2026-01-05":"2026-01-06 12:00"]`` a day and a half.
    """

    __slots__ = ("_table",)

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, item: Any) -> Any:
        rows, columns = self._split(item)
        found, only = self._rows(rows)
        if columns is None:
            return found
        if isinstance(columns, str):
            column: Column = found[columns]
            return column[0] if only else column
        return found.select(list(columns))

    def _split(self, item: Any) -> tuple[Any, str | list[str] | None]:
        """The selection of rows, and that of columns if there is one."""
        if not isinstance(item, tuple) or len(item) != 2:
            return item, None
        rows, columns = item
        if len(self._table.key) > 1 and not isinstance(rows, (tuple, list, slice)):
            return item, None
        if isinstance(columns, slice):
            if columns != slice(None):
                raise TypeError(f"columns are chosen by name or by a list of names, got {columns!r}")
            return rows, None
        return rows, columns

    def _rows(self, rows: Any) -> tuple[Any, bool]:
        """The rows, and whether they are the only row of one key."""
        table = self._table
        if isinstance(rows, slice):
            if rows.step is not None:
                raise ValueError(f"the step is {rows.step!r}; only 1 shares the memory: slice the result")
            first, last = self._span(rows.start)[0], self._span(rows.stop)[1]
            return table._between(first, last), False  # noqa: SLF001
        if _is_many(rows):
            return self._many(rows), False
        first, last = self._span(rows)
        found = table.rows(rows) if first is rows else table._between(first, last)  # noqa: SLF001
        if len(found) == 0:
            raise KeyError(rows)
        if first is not rows:
            return found, False
        parts = len(rows) if isinstance(rows, tuple) else 1
        whole = parts == len(table.key)
        return found, whole and table._handle.unique  # noqa: SLF001

    def _span(self, key: Any) -> tuple[Any, Any]:
        """The first and the last key that `key` stands for: itself, unless it is text for a time."""
        kind = self._table._handle.key_type if isinstance(key, str) else None  # noqa: SLF001
        if kind is None or not kind.startswith(("Timestamp", "Date")):
            return key, key
        from pheon._adapters.pandas import time_span

        return time_span(key, kind)

    def _many(self, keys: Any) -> Batch:
        if (
            getattr(getattr(keys, "dtype", None), "kind", "") == "b"
            and self._table.schema[self._table.key[0]] != "Boolean"
        ):
            raise TypeError("loc takes keys, not a mask: filter the result of to_pandas(), to_polars() or lazy()")
        if not hasattr(keys, "__len__"):
            keys = list(keys)
        names = self._table.column_names
        position = "position"
        while position in names:
            position += "_"
        found = self._table.lookup(keys, position=position)
        seen = set(found[position].to_pylist())
        if len(seen) < len(keys):
            missing = next(i for i in range(len(keys)) if i not in seen)
            raise KeyError(_plain(keys, missing))
        return found.select(names)


def _is_many(rows: Any) -> bool:
    """Whether these are several keys: anything with a length that no single key is."""
    if isinstance(rows, (str, bytes, tuple)):
        return False
    return (
        isinstance(rows, list)
        or hasattr(rows, "__arrow_c_array__")
        or hasattr(rows, "__arrow_c_stream__")
        or (hasattr(rows, "__len__") and hasattr(rows, "dtype"))
    )


def _plain(keys: Any, i: int) -> Any:
    value = keys.iloc[i] if hasattr(keys, "iloc") else keys[i]
    return value.as_py() if hasattr(value, "as_py") else value
