"""Arrow tables as pandas frames, in the cheapest form that is faithful.

What a column becomes is decided first, from its type, its nulls and chunks and the dtype that it had (`pandas_forms`);
a `Form` says whether that costs a copy, and why. Frames are made of exactly these forms.

NumPy arrays are views of the mapped file. pandas would write into them and fail, because they are read-only, unless it
believes that another object shares the values: each view tells so to the block that holds it, and pandas copies.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pandas as pd
import pyarrow as pa

from pheon._adapters.pandas_forms import form_of
from pheon._adapters.pandas_layout import Layout, layout_of
from pheon._adapters.pandas_values import View, convert, is_objects


def frame_of(table: pa.Table) -> pd.DataFrame:
    """All rows of an Arrow table as a frame."""
    layout = layout_of(table)
    index = _index(layout, table.num_rows)
    arrays: dict[int, Any] = {}
    views: dict[int, View] = {}
    for at, (_, column) in enumerate(layout.columns):
        values, view = convert(column.values, form_of(column.values, column.dtype))
        if view is not None:
            views[at] = view
        # An array of objects would be inspected, and become something else.
        arrays[at] = pd.Series(values, index=index, dtype=object, copy=False) if is_objects(values) else values
    frame = pd.DataFrame(arrays, index=index, copy=False)
    _share(frame, views)
    frame.columns = _column_index(layout)
    if layout.attrs:
        frame.attrs = layout.attrs
    return frame


def copies(table: pa.Table) -> dict[str, str | None]:
    """For each column of the table why `frame_of` copies it; None: it does not."""
    layout = layout_of(table)
    found = {name: form_of(column.values, column.dtype).copy for name, column in layout.columns}
    for name, column in layout.index:
        reason = form_of(column.values, column.dtype).copy
        if len(layout.index) > 1:
            reason = "pandas numbers the values of an index of several levels"
        found[name] = reason
    return {name: found[name] for name in table.column_names}


def _share(frame: pd.DataFrame, views: dict[int, View]) -> None:
    """Make pandas copy a column before it writes to it."""
    if not views:
        return
    # Private to pandas: without it writing raises ValueError ("read-only"), as it does without copy-on-write.
    with contextlib.suppress(AttributeError):
        for block in frame._mgr.blocks:  # noqa: SLF001
            for at in block.mgr_locs.as_array:
                if (view := views.get(int(at))) is not None:
                    block.refs.add_index_reference(view)  # pyright: ignore[reportArgumentType] - any object does


def _index(layout: Layout, rows: int) -> pd.Index:
    if not layout.index:
        return pd.RangeIndex(rows) if layout.positions is None else layout.positions
    levels: list[pd.Index] = []
    for _, column in layout.index:
        values, view = convert(column.values, form_of(column.values, column.dtype))
        dtype = object if is_objects(values) else None
        if view is None:
            levels.append(pd.Index(values, dtype=dtype, name=column.label, copy=False, tupleize_cols=False))
        else:
            # By way of a Series, so that a column made of the index by `reset_index` is copied before it is written.
            series = pd.Series(values, copy=False)
            _share_series(series, view)
            levels.append(pd.Index(series, name=column.label, copy=False))
    if len(levels) == 1:
        return levels[0]
    return pd.MultiIndex.from_arrays(levels, names=[column.label for _, column in layout.index])


def _share_series(series: pd.Series, view: View) -> None:
    with contextlib.suppress(AttributeError):
        block = series._mgr.blocks[0]  # noqa: SLF001
        block.refs.add_index_reference(view)  # pyright: ignore[reportArgumentType] - any object does


def _column_index(layout: Layout) -> pd.Index:
    if layout.labels is not None:
        return layout.labels
    labels = [column.label for _, column in layout.columns]
    return pd.Index(labels, tupleize_cols=False) if labels else pd.Index([], dtype=object)
