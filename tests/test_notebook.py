"""The notebook's code cells run in order, without Jupyter, and show what its text says; no outputs are stored."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_outputs_are_stripped() -> None:
    cells = code_cells()
    assert len(cells) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_the_cells_run() -> None:
    shown: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells()):
        source = "".join(cell["source"])
        exec(compile(source, f"cell {number}", "exec"), names)
        # What Jupyter shows: the last line, if it is an expression.
        last = source.splitlines()[-1]
        if not last.startswith((" ", ")", "}", "]")) and " = " not in last:
            shown[last] = eval(last, names)
    assert set(shown) >= {"t", "morning", "one[0]", "by_symbol", "report"}
    assert "10,000 rows" in repr(shown["t"])
    assert "key ts" in shown["t"]._repr_html_()
    assert len(shown["morning"]) == 240
    assert shown["one[0]"]["note"] == "trade 1234"
    assert sum(shown["by_symbol"]["len"].to_list()) == 240
    assert shown["volume.sum(), volume.flags.writeable"] == (2_495_000, False)
    assert all(verdict.zero_copy for verdict in shown["report"].of("pandas").values())
    assert "<table>" in shown["report"]._repr_html_()
    first, changed = shown['t.to_pandas()["open"].iloc[0], frame["open"].iloc[0]']
    assert (first, changed) == (100.0, 200.0)
    pd.testing.assert_frame_equal(names["t"].to_pandas(), names["prices"], check_freq=False)
    names["store"].close()
    names["folder"].cleanup()
