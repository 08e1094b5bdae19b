"""The benchmark of tables: it runs, it notices wrong answers, and its report shows losses and missed goals."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from benches.compare.oracle import WrongAnswerError
from benches.compare.phase import PhaseError
from benches.tables import data, keys, lazy, opening, plan, puts, report, series, sharing

import pheon

ROOT = Path(__file__).parents[1]
ROWS, COUNT = 2_000, 3


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Steps switch the garbage collector off: in their own process nobody minds."""
    yield
    gc.enable()


def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are processes that must find the package where this one found it."""
    paths = [str(ROOT), str(Path(pheon.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def put(folder: Path, name: str, count: int, key: str | None, *, wrong: int | None = None) -> str:
    """A table as the benchmark makes it; `wrong`: one value in this row (before sorting) is changed by 1."""
    table = data.stream(ROWS, count, key).read_all()
    if wrong is not None:
        column = table["c00"].to_numpy().copy()
        column[wrong] += 1
        table = table.set_column(table.column_names.index("c00"), "c00", pa.array(column))
    pheon.open(folder).put(name, table, key="key" if key else None)
    return str(folder)


def test_values_follow_the_row_and_fit_an_exact_sum() -> None:
    numbers = np.arange(100_000)
    found = data.values(numbers, 1)
    assert found[77] == data.value(77, 1)
    assert data.value(77, 1) != data.value(77, 2)
    assert found.min() >= 0
    assert found.max() < 2**20
    assert (found == np.floor(found)).all()
    assert len(np.unique(found)) > 90_000
    assert len(np.unique(data.keys(numbers))) == len(numbers)


def test_a_stream_that_begins_later_continues_the_first() -> None:
    whole = data.stream(500, 2, "ordered").read_all()
    assert data.stream(200, 2, "ordered", start=300).read_all().equals(whole.slice(300))


@pytest.mark.parametrize("how", ["pheon", "feather", "ipc", "pandas"])
def test_opening_notices_one_wrong_value(tmp_path: Path, how: str) -> None:
    right = put(tmp_path / "right", opening.TABLE, COUNT, None)
    assert opening.open_once(how=how, folder=right, rows=ROWS, count=COUNT, warm=True)["ms"] > 0
    wrong = put(tmp_path / "wrong", opening.TABLE, COUNT, None, wrong=1234)
    with pytest.raises(WrongAnswerError, match=r"value 1234 is"):
        opening.open_once(how=how, folder=wrong, rows=ROWS, count=COUNT, warm=True)


def test_sums_of_readers_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    numbers = np.arange(ROWS)
    sums = [float(data.values(numbers, column)[a:b].sum()) for column, a, b in sharing.ranges(0, ROWS, COUNT)]
    file.write_text(str(sums))
    sharing.check_sums({"x": [str(file)]}, ROWS, COUNT)
    sums[3] += 1
    file.write_text(str(sums))
    with pytest.raises(WrongAnswerError, match="x, process 0, sum of column 1"):
        sharing.check_sums({"x": [str(file)]}, ROWS, COUNT)


def test_questions_by_key_notice_one_wrong_value(tmp_path: Path) -> None:
    asked = keys.questions(50, ROWS)
    row = next(row for row in range(ROWS) if data.keys(np.array([row]))[0] == asked[20])
    right = put(tmp_path / "right", "unique", keys.COLUMNS, "random")
    put(tmp_path / "right", "repeated", keys.COLUMNS, "repeated")
    assert keys.by_pheon(right, ROWS, 50)[keys.BATCH] > 0
    wrong = put(tmp_path / "wrong", "unique", keys.COLUMNS, "random", wrong=row)
    put(tmp_path / "wrong", "repeated", keys.COLUMNS, "repeated")
    with pytest.raises(WrongAnswerError, match="value 20 is"):
        keys.by_pheon(wrong, ROWS, 50)


@pytest.mark.parametrize("how", ["pheon", "scan"])
@pytest.mark.parametrize("kind", list(lazy.KINDS.values()))
def test_filters_notice_wrong_values(tmp_path: Path, how: str, kind: str) -> None:
    folder = put(tmp_path / "right", lazy.TABLE, 1, "ordered")
    assert lazy.filtered(how, kind, folder, ROWS)["ms"] > 0
    shifted = data.stream(ROWS, 1, "ordered").read_all()
    column = pa.array(shifted["c00"].to_numpy() + 1)
    folder = str(tmp_path / "wrong")
    pheon.open(folder).put(lazy.TABLE, shifted.set_column(1, "c00", column), key="key")
    with pytest.raises(WrongAnswerError, match=f"{how}, {kind}, c00"):
        lazy.filtered(how, kind, folder, ROWS)


def test_a_put_in_the_wrong_order_is_noticed(tmp_path: Path) -> None:
    assert puts.by_pheon("polars", str(tmp_path), ROWS, COUNT)["s"] > 0
    key = np.sort(data.keys(np.arange(ROWS)))
    frame = {name: data.values(key, number) for number, name in enumerate(data.columns(COUNT))}
    data.check_sorted_frame("x", key, frame, ROWS)
    swapped = key.copy()
    swapped[[10, 11]] = key[[11, 10]]
    with pytest.raises(WrongAnswerError, match="x, key: value 10 is"):
        data.check_sorted_frame("x", swapped, frame, ROWS)
    frame["c02"][ROWS - 1] = -1
    with pytest.raises(WrongAnswerError, match="x, c02"):
        data.check_sorted_frame("x", key, frame, ROWS)


def test_the_series_writer_notices_a_table_that_is_wrong(tmp_path: Path) -> None:
    folder = put(tmp_path / "right", series.TABLE, series.COLUMNS, "ordered")
    assert series.write(folder, 3, ROWS)["segments"] >= 1
    assert series.refresh(folder, 10)["us"] > 0
    folder = put(tmp_path / "wrong", series.TABLE, series.COLUMNS, "ordered", wrong=99)
    with pytest.raises(WrongAnswerError, match=r"c00 from row 0: value 99"):
        series.write(folder, 1, ROWS)


def test_a_wrong_answer_in_a_process_ends_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    folder = put(tmp_path / "store", opening.TABLE, COUNT, None, wrong=5)
    run = plan.Plan(tmp_path, plan.Sizes(), 1, 1)
    with pytest.raises(PhaseError, match="WRONG ANSWERS in phase benches.tables.opening:open_once"):
        run.step(opening.open_once, how="pheon", folder=folder, rows=ROWS, count=COUNT, warm=False)


def test_the_program_runs_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    output = tmp_path / "report"
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    command = [sys.executable, "-m", "benches.tables", "--divide", "2000", "--repeat", "1", "--processes", "1"]
    command += ["--only", "share,series", "--data", str(tmp_path / "data"), "--output", str(output)]
    command += ["--readme", str(readme)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.with_suffix(".json").read_text())
    assert list(results["figures"]) == ["share", "series"]
    assert report.markdown(results) == output.with_suffix(".md").read_text()
    assert "20 appends" in output.with_suffix(".md").read_text()
    assert readme.read_text().startswith(f"before\n{report.BEGIN}\n| ")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def results() -> dict[str, Any]:
    run = plan.Plan(Path(), plan.Sizes(), 2, 1)
    measures = [
        plan.Measure("won", "ms", {plan.PHEON: [2.0, 1.0], "other": [50.0, 60.0]}, speedup_min=50),
        plan.Measure("lost", "s", {plan.PHEON: [3.0, 4.0], "fast": [1.0], "slow": [9.0]}, speedup_min=0.5),
        plan.Measure("small", "MiB", {plan.PHEON: [1.5]}, at_most=2.0),
        plan.Measure("large", "MiB", {plan.PHEON: [2.5], "other": [30.0]}, at_most=2.0),
    ]
    return report.describe(run, "command", {"a": plan.Figure("A", "data", measures), "b": "no memory"})


def test_losses_and_missed_goals_show(results: dict[str, Any]) -> None:
    only_pandas = plan.Measure("for comparison", "ms", {"pandas alone": [0.1]})
    results["figures"]["a"]["measures"].append(asdict(only_pandas))
    assert report.losses(results) == [
        "- A, lost: Pheon 3.00 s; better: fast 1.00 s",
        "- A, lost: Pheon 3.00 s; goal missed: >= 0.50 x",
        "- A, large: Pheon 2.50 MiB; goal missed: <= 2.00 MiB",
    ]
    page = report.markdown(results)
    assert "- b FAILED: no memory" in page
    assert "| A: won | **1.00 ms** | 50.0 ms (other) | 50.0 x | >= 50 x | reached |" in page
    assert "| A: lost | **3.00 s** | 1.00 s (fast) | 0.33 x | >= 0.50 x | MISSED |" in page
    assert "| A: small | **1.50 MiB** | - | - | <= 2.00 MiB | reached |" in page
    assert "| for comparison | pandas alone | 0.10 ms |" in page
    assert "| won | **Pheon** | 1.00 ms | 2.00, 1.00 |" in page
