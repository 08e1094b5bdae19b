"""Same kind out as in: which library the caller's data comes from, found without importing any.

A library's objects cannot exist before it is imported, so `sys.modules` tells. Each module here imports only
its library.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from pheon._native import parameter_row

if TYPE_CHECKING:
    from pheon._map import MapFace
    from pheon._native import TableHandle


def library_of(data: Any) -> str | None:
    """The library whose adapter serves `data`."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, (pandas.Series, pandas.Index, pandas.DataFrame)):
        return "pandas"
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(data, polars.Series):
        return "polars"
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(data, (pyarrow.Array, pyarrow.ChunkedArray)):
        return "pyarrow"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(data, numpy.ndarray):
        return "numpy"
    return None


def get_many(mapping: MapFace, keys: Any, default: Any, threads: int | None) -> Any:
    """`Map.get_many`."""
    if isinstance(keys, list):
        return mapping.get_list(keys, default, threads)
    if isinstance(keys, tuple):
        return tuple(mapping.get_list(keys, default, threads))
    match library_of(keys):
        case "pyarrow":
            from pheon._adapters.pyarrow import get_many as adapted
        case "polars":
            from pheon._adapters.polars import get_many as adapted
        case "pandas":
            from pheon._adapters.pandas import get_many as adapted
        case "numpy":
            from pheon._adapters.numpy import get_many as adapted
        case _:
            if is_arrow(keys):
                return mapping.get_arrow(keys, default, threads)
            return mapping.get_list(_iterable(keys), default, threads)
    return adapted(mapping, keys, default, threads)


def contains_many(mapping: MapFace, keys: Any, threads: int | None) -> Any:
    """`Map.contains_many`."""
    if isinstance(keys, list):
        return mapping.contains_list(keys, threads)
    if isinstance(keys, tuple):
        return tuple(mapping.contains_list(keys, threads))
    match library_of(keys):
        case "pyarrow":
            from pheon._adapters.pyarrow import contains_many as adapted
        case "polars":
            from pheon._adapters.polars import contains_many as adapted
        case "pandas":
            from pheon._adapters.pandas import contains_many as adapted
        case "numpy":
            from pheon._adapters.numpy import contains_many as adapted
        case _:
            if is_arrow(keys):
                return mapping.contains_arrow(keys, threads)
            return mapping.contains_list(_iterable(keys), threads)
    return adapted(mapping, keys, threads)


def arrow_keys(table: TableHandle, keys: Any) -> Any:
    """Many keys of a table as Arrow data, whatever they come as."""
    match library_of(keys):
        case "pandas":
            from pheon._adapters.pandas import key_data as adapted
        case "numpy":
            from pheon._adapters.numpy import key_data as adapted
        case _:
            return keys if is_arrow(keys) else table.key_column(_iterable(keys))
    return adapted(table, keys)


def is_arrow(data: Any) -> bool:
    """Whether `data` exports an Arrow array or stream."""
    return hasattr(data, "__arrow_c_array__") or hasattr(data, "__arrow_c_stream__")


def arrow_source(data: Any, key: list[str] | None = None) -> tuple[Any, list[str]]:
    """What to read `data` from by the PyCapsule interface, and its key columns.

    `key` names them, by their labels in a pandas frame; None: those that a pandas index became.
    """
    if library_of(data) == "pandas":
        from pheon._adapters.pandas_source import frame_source

        return frame_source(data, key)
    if not is_arrow(data):
        raise TypeError(
            f"expected Arrow data, a data frame or a path, got {type(data).__name__}; "
            "dicts and pairs are published with put_map"
        )
    return data, key or []


def _iterable(keys: Any) -> Any:
    # One str would pass as an iterable of its characters.
    if isinstance(keys, (str, bytes)):
        raise TypeError(f"expected many keys, got one {type(keys).__name__}: look it up with m[key]")
    return keys


def parameter_rows(parameters: Any) -> Any:
    """The parameters of a statement as Arrow data: a list or tuple is one row, Arrow data is there already."""
    if parameters is None or is_arrow(parameters):
        return parameters
    # A dict would give its names, text its characters, a set no order.
    if not isinstance(parameters, (list, tuple)):
        raise TypeError(
            f"parameters are a list or tuple of values in the order of the placeholders, or Arrow data with a row for "
            f"each execution, got {type(parameters).__name__}"
        )
    values = list(cast("list[Any]", parameters))
    return parameter_row(values) if values else None
