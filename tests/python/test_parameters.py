"""Parameters of SQL statements from Python values."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

import pheon

VALUES = [
    None,
    True,
    -5,
    2**63 - 1,
    2**64 - 1,
    1.5,
    "text",
    b"\0bytes",
    dt.date(2026, 1, 2),
    dt.time(1, 2, 3, 4),
    dt.datetime(2026, 1, 2, 3, 4, 5, 6),
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2026, 7, 2, 3, tzinfo=ZoneInfo("Europe/Berlin")),
    Decimal("1.50"),
    np.int32(7),
    np.float64(0.5),
    np.str_("text"),
    np.datetime64("2026-01-02T03:04:05", "ns"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back(store: pheon.Store, value: Any) -> None:
    for parameters in ([value], (value,)):
        answer = store.sql("select ? as v", parameters)
        assert isinstance(answer, pheon.Batch)
        found = answer.to_pylist()[0]["v"]
        expected = value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value
        assert found == expected, (found, expected)


def test_arrow_data_is_many_rows(store: pheon.Store) -> None:
    store.put_map("m", {"a": 1, "b": 2})
    query = "select value from m where key = ?"
    for parameters in (pa.table({"k": ["a", "b"]}), pa.record_batch({"k": ["a", "b"]})):
        answer = store.sql(query, parameters)
        assert isinstance(answer, pheon.Batch)
        assert [row["value"] for row in answer.to_pylist()] == [1, 2]
    keys = store.table("m")[["key"]]
    answer = store.sql(query, keys)
    assert isinstance(answer, pheon.Batch)
    assert answer.num_rows == 2


def test_no_parameters(store: pheon.Store) -> None:
    for parameters in (None, [], ()):
        answer = store.sql("select 1 as v", parameters)
        assert isinstance(answer, pheon.Batch)
        assert answer.to_pylist() == [{"v": 1}]


@pytest.mark.parametrize("parameters", ["ab", b"ab", {"a": 1, "b": 2}, {1, 2}, iter([1, 2]), 5, np.array([1, 2])])
def test_what_is_no_row_is_refused(store: pheon.Store, parameters: Any) -> None:
    with pytest.raises(TypeError, match=f"a list or tuple of values.*got {type(parameters).__name__}"):
        store.sql("select ? as a, ? as b", parameters)


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1,), {1}, object(), 2**64, 1j])
def test_what_stands_for_no_value_is_refused(store: pheon.Store, value: Any) -> None:
    with pytest.raises(TypeError, match=f"parameter 2, of type {type(value).__name__}: expected None"):
        store.sql("select ? as a, ? as b", [1, value])


def test_no_library_is_needed(store: pheon.Store, store_path: Path) -> None:
    store.put_map("m", {"a": 1})
    code = f"""
import sys
for name in ("pyarrow", "pandas", "numpy", "polars"):
    sys.modules[name] = None
import pheon
with pheon.open({str(store_path)!r}) as store:
    print(store.sql("select value from m where key = ?", ["a"]).to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[{'value': 1}]\n"), done.stderr
