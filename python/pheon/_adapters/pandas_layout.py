"""Where everything in an Arrow table goes in a pandas frame: columns, index, labels, attributes.

Tables that `pandas_source` made say so under `pheon.pandas`; others may have the metadata that pyarrow writes.
"""

from __future__ import annotations

import ast
import contextlib
import json
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from pheon._adapters.pandas_dtypes import Description, describe, index_of
from pheon._adapters.pandas_labels import METADATA_KEY, METADATA_VERSION, from_json
from pheon._errors import CorruptError


class Column(NamedTuple):
    """A column of the table, and what is known of it from the frame that it was."""

    values: pa.ChunkedArray
    label: Any
    dtype: Description | None = None


class Layout:
    """Where everything in a table goes."""

    # No dataclass: making one takes longer than making the first frame.
    __slots__ = ("attrs", "columns", "index", "labels", "positions")

    def __init__(self) -> None:
        self.columns: list[tuple[str, Column]] = []
        self.index: list[tuple[str, Column]] = []
        self.positions: pd.RangeIndex | None = None
        self.labels: pd.Index | None = None
        self.attrs: dict[Any, Any] = {}


def layout_of(table: pa.Table) -> Layout:
    """The layout of a table."""
    metadata = table.schema.metadata or {}
    own = metadata.get(METADATA_KEY)
    if own is not None:
        return _own_layout(table, own)
    stock = table.schema.pandas_metadata
    layout = _stock_layout(table, stock) if stock else Layout()
    known = {name for name, _ in layout.index}
    if not layout.columns:
        layout.columns = [
            (name, Column(values, name))
            for name, values in zip(table.column_names, table.columns, strict=True)
            if name not in known
        ]
    return layout


class _Own:
    """What `pheon.pandas` says, read."""

    __slots__ = ("attrs", "columns", "fields", "index", "labels", "labels_of_some")

    def __init__(  # noqa: PLR0917 - one a member of the metadata
        self,
        fields: dict[str, tuple[Any, Description]],
        columns: list[str],
        index: list[str],
        labels: pd.Index,
        labels_of_some: dict[str, Any],
        attrs: Any,
    ) -> None:
        self.fields = fields
        self.columns = columns
        self.index = index
        self.labels = labels
        self.labels_of_some = labels_of_some
        self.attrs = attrs


@lru_cache(maxsize=32)
def _own(text: bytes) -> _Own:
    """The metadata; kept, because reading them takes as long as making the frame of a table without copies."""
    where = f"the schema metadata {METADATA_KEY.decode()!r}"
    try:
        content = json.loads(text)
        version = content["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{where} are not as Pheon writes them: {error}") from error
    if version > METADATA_VERSION:
        raise CorruptError(
            f"{where} have version {version}, this Pheon reads up to {METADATA_VERSION}; read the table with "
            "t.to_pyarrow().to_pandas(), or with a newer Pheon"
        )
    entries = [*content["columns"], *content["index"]]
    columns = [entry["field"] for entry in content["columns"]]
    fields = {entry["field"]: (from_json(entry["label"]), entry["dtype"]) for entry in entries}
    some = {key: value for key, value in content["labels"].items() if key != "range"}
    if "range" in content["labels"]:
        some["dtype"] = {"numpy": "<i8"}
    return _Own(
        fields=fields,
        columns=columns,
        index=[entry["field"] for entry in content["index"]],
        labels=_own_labels([fields[name][0] for name in columns], content["labels"]),
        labels_of_some=some,
        attrs=content["attrs"],
    )


def _own_layout(table: pa.Table, text: bytes) -> Layout:
    own = _own(text)
    layout = Layout()
    layout.attrs = from_json(own.attrs)
    names = table.column_names
    there = dict(zip(names, table.columns, strict=True))
    # A projection may lack a level: then the others would be no index.
    if own.index and all(name in there for name in own.index):
        layout.index = [(name, Column(there[name], *own.fields[name])) for name in own.index]
    taken = {name for name, _ in layout.index}
    for name, values in there.items():
        if name in taken:
            continue
        label, dtype = own.fields.get(name, (name, None))
        layout.columns.append((name, Column(values, name if name in own.index else label, dtype)))
    shown = [name for name, _ in layout.columns]
    if shown == own.columns:
        # A copy: its names are the caller's to change.
        layout.labels = own.labels.view()
    elif set(shown) <= set(own.columns):
        layout.labels = _own_labels([column.label for _, column in layout.columns], own.labels_of_some)
    return layout


def _own_labels(labels: list[Any], content: dict[str, Any]) -> pd.Index:
    names = [from_json(name) for name in content["names"]]
    if "range" in content:
        start, stop, step = content["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    if "levels" in content:
        levels = [index_of([label[at] for label in labels], dtype) for at, dtype in enumerate(content["levels"])]
        return pd.MultiIndex.from_arrays(levels, names=names)
    return index_of(labels, content["dtype"], names[0])


def _stock_layout(table: pa.Table, content: dict[str, Any]) -> Layout:
    """What pyarrow's own metadata say, for files that other programs wrote."""
    layout = Layout()
    there = dict(zip(table.column_names, table.columns, strict=True))
    entries = {entry.get("field_name") or entry["name"]: entry for entry in content.get("columns", [])}
    for level in content.get("index_columns", []):
        if isinstance(level, str) and level in there:
            entry = entries.get(level, {"name": level})
            name = entry["name"]
            generated = name is not None and name == level and name.startswith("__index_level_")
            layout.index.append((level, Column(there[level], None if generated else name, _stock_dtype(entry))))
        elif isinstance(level, dict) and level.get("kind") == "range":
            count = pd.RangeIndex(level["start"], level["stop"], level["step"], name=level["name"])
            layout.positions = count if len(count) == table.num_rows else None
    index = {name for name, _ in layout.index}
    for name, values in there.items():
        if name not in index:
            layout.columns.append((name, Column(values, name, _stock_dtype(entries.get(name)))))
    layout.labels = _stock_labels([name for name, _ in layout.columns], content.get("column_indexes", []))
    attributes = content.get("attributes")
    layout.attrs = attributes if isinstance(attributes, dict) else {}
    return layout


def _stock_labels(names: list[str], levels: list[dict[str, Any]]) -> pd.Index | None:
    if len(levels) > 1:
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            tuples = [ast.literal_eval(name) for name in names]
            return pd.MultiIndex.from_tuples(tuples, names=[level.get("name") for level in levels])
    if len(levels) == 1:
        labels = pd.Index(names, name=levels[0].get("name"))
        if levels[0].get("pandas_type") == "int64":
            with contextlib.suppress(ValueError):
                return labels.astype("int64")
        return labels
    return None


def _stock_dtype(entry: dict[str, Any] | None) -> Description | None:
    name = (entry or {}).get("numpy_type")
    if not isinstance(name, str) or name == "object":
        return None
    try:
        dtype = pd.api.types.pandas_dtype(name)
    except (TypeError, ValueError, NotImplementedError):
        return None
    return None if isinstance(dtype, pd.CategoricalDtype) else describe(dtype, "the pandas metadata")
