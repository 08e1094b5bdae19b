"""The benchmark of scale: readers check their answers, the model says what it should, missed goals are shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benches.compare.report import save
from benches.scale import builds, model, readers, report
from benches.scale.plan import Build, Plan, fitting

import pheon

ROOT = Path(__file__).parents[1]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A tiny run whose processes find the package where this one found it."""
    paths = [str(ROOT), str(Path(pheon.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (tmp_path / "work").mkdir()
    return Plan(tmp_path, tmp_path / "work", [], 10, 10, [1, 2], 3_000, 0.05)


def engine_row(case: str, kind: str, bound: float, many: float) -> dict[str, Any]:
    return {
        "case": case,
        "kind": kind,
        "rows": 1000,
        "bound_ns": bound,
        "get_many_ns": many,
        "find_many_ns": many / 2,
        "get_ns": 300.0,
        "lines": 5.0,
        "huge_share": 0.5,
        "distinct_bytes": 3 << 20,
    }


def built(kind: str, order: str, **changed: float) -> dict[str, Any]:
    """As the program `scale` reports it: just at every goal."""
    measured = {
        "kind": kind,
        "order": order,
        "rows": 1000,
        "wanted_rows": 1000,
        "rows_per_second": 3.0e6,
        "seconds": 2.0,
        "memory_limit_bytes": 1000,
        "peak_memory_bytes": 1100,
        "written_bytes": 100_000,
        "written_per_byte_of_data": 2.5,
        "disk_peak_bytes": 100_000,
        "data_bytes": 56_000,
        "index_bytes": 7_111,
        "index_bytes_a_key": 7.1,
        "making_ns_a_row": 10.0,
    }
    return {**measured, **changed}


def test_readers_run_side_by_side(plan: Plan) -> None:
    found = readers.run(plan)
    assert [run["processes"] for run in found["runs"]] == [1, 2]
    assert all(run["batch_rate"] > 0 and run["single_rate"] > 0 for run in found["runs"])
    assert all(run["page_table_bytes"] > 0 for run in found["runs"])


def test_a_reader_that_gets_wrong_answers_says_so(plan: Plan) -> None:
    folder = plan.work / "wrong"
    pheon.open(folder).put_map("readers", {readers.key_of(number): "wrong" for number in range(10)})
    asked = json.dumps([str(folder), 10, 0.1, 0])
    worker = [sys.executable, "-m", "benches.scale.readers", asked]
    done = subprocess.run(worker, capture_output=True, text=True, input="", check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "wrong answers" in done.stderr


def test_a_program_that_fails_is_an_error(plan: Plan) -> None:
    program = plan.binaries / "scale"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(RuntimeError, match="scale --rows 1000000 .* exit status 3"):
        builds.run(plan, [Build("str", "random", 1_000_000, 1)])
    program.write_text("#!/bin/sh\necho '{\"rows\": 5}'\n")
    assert builds.run(plan, [Build("str", "random", 1_000_000, 1)]) == [{"rows": 5, "wanted_rows": 1_000_000}]


def test_builds_fit_the_disk(tmp_path: Path) -> None:
    rows = fitting(Build("str", "random", 10**15, 1), tmp_path).rows
    assert 1_000_000 <= rows < 10**12
    assert fitting(Build("str", "random", 1_000_001, 1), tmp_path).rows in (1_000_000, 1_000_001)


def test_the_model_adds_up() -> None:
    shape = model.Shape(rows=9_000, key_bytes=12, value_bytes=8)
    assert (shape.data_bytes, shape.index_bytes) == (9_000 * 36, 64_000)
    assert shape.lines_a_hit == pytest.approx(1.09 + 2.25 + 1 + 11 / 64 + 1 + 7 / 64)
    costs = model.Costs.of(built("str", "random", rows_per_second=1e6), engine_row("str -> str, short", "hits", 50, 70))
    assert (costs.build_ns_a_row, costs.line_ns, costs.own_ns) == (1000, 10, 4)
    assert model.build_seconds(model.Shape(1_000_000, 20, 20), costs) == pytest.approx(1)
    assert model.build_seconds(model.Shape(1_000_000, 40, 40), costs) == pytest.approx(1.5)
    assert model.disk_peak_bytes(model.Shape(1_000, 20, 20), costs) == pytest.approx(100_000)
    assert model.hit_ns(shape.lines_a_hit, costs) == pytest.approx(14 * shape.lines_a_hit)
    assert model.page_tables_bytes(shape, 2, huge=False) == pytest.approx(2 * shape.file_bytes / 512)
    assert model.error(1.1, 1.0) == pytest.approx(0.1)


def test_the_report_shows_goals_missed_and_errors(tmp_path: Path) -> None:
    engine = [
        engine_row("str -> str, long", "hits", 80, 100),
        engine_row("str -> str, short", "hits", 79, 100),
        engine_row("int64 -> int64", "misses", 70, 100),
        engine_row("int64 -> int64", "80 % hits", 79, 100),
    ]
    large = [
        built("str", "random", rows_per_second=1.5e6),
        built("str", "sorted", rows_per_second=2.9e6),
        built("int", "random", peak_memory_bytes=1101, wanted_rows=2000),
    ]
    side_by_side = {
        "rows": 1000,
        "file_bytes": 63_111,
        "cores": 2,
        "runs": [
            {"processes": 4, "batch_rate": 2e6, "single_rate": 1e6, "pss_bytes": 2**20, "page_table_bytes": 2**20}
        ],
    }
    small = built("str", "random", rows_per_second=1.0e6)
    found = {"engine": engine, "builds": large, "small": small, "readers": side_by_side}
    found["model"] = report.modelled(engine, large, small, side_by_side)
    results = report.describe("a command", found)
    missed = report.losses(results)
    assert len(missed) == 5, missed
    page = report.markdown(results)
    for line in missed:
        assert f"- {line}" in page
    assert "| str | random | 1,000 |" in page
    assert "| 4 | 2.00 | 1.00 | 1 | 1.0 |" in page
    assert "| 1,000 strings: files, MiB |" in page
    assert "1,750,000,000 entries" in page
    failed = report.markdown(report.describe("a command", {"engine": "it broke", "builds": large}))
    assert "FAILED: it broke" in failed
    save(results, tmp_path / "scale.json")
    kept = tmp_path / "records" / f"{results['date']}-scale.json"
    assert json.loads(kept.read_text()) == json.loads((tmp_path / "scale.json").read_text())
