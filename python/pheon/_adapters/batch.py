"""`Batch` for the libraries that the caller has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from pheon._native import Batch


def to_pyarrow(batch: Batch) -> pa.Table:
    """A pyarrow Table that shares the memory."""
    import pyarrow as pa

    return pa.table(batch)


def to_pandas(batch: Batch) -> pd.DataFrame:
    """A pandas DataFrame, with the types that `Table.to_pandas` gives."""
    return to_pyarrow(batch).to_pandas()


def to_polars(batch: Batch) -> pl.DataFrame:
    """A polars DataFrame."""
    import polars as pl

    return pl.DataFrame(batch)
