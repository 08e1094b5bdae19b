"""The benchmark of a server: it runs, it notices wrong answers, and its report shows what was missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benches.compare.oracle import WrongAnswerError
from benches.live.plan import Figure, Measure
from benches.remote import data, report
from benches.remote.plan import PHEON, QUICK, Run

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(200)
def test_the_program_runs(tmp_path: Path) -> None:
    output = tmp_path / "remote"
    command = [sys.executable, "-m", "benches.remote", "--quick", "--pheon", f"{sys.executable} -m pheon"]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(output.with_suffix(".json").read_text())["figures"]
    assert set(figures) == {"scan", "lookup", "single", "idle", "prepared"}
    for name, figure in figures.items():
        for measure in figure["measures"]:
            assert measure["rounds"][PHEON], (name, measure)
    assert "C++ server" in output.with_suffix(".md").read_text()


def test_a_wrong_answer_is_noticed() -> None:
    keys, right = data.questions(QUICK, 50)
    assert len(keys) == len(right) == 50
    assert right.count(None) == 50 // data.MISSES_EVERY
    data.check("somebody", list(right), right)
    for wrong in ([*right[:-1], "another"], right[:-1], [*right, None]):
        with pytest.raises(WrongAnswerError, match="somebody"):
            data.check("somebody", wrong, right)


def test_missed_goals_are_shown(tmp_path: Path) -> None:
    measure = Measure("one stream", "GB/s", True, 2.0, {PHEON: [1.0, 1.5], "other": [1.9]})
    run = Run("pheon", QUICK, 1, tmp_path)
    results = report.describe(run, "python -m benches.remote", {"scan": Figure("Scan", "rows", [measure])})
    assert "MISSED" in report.table(results)
    assert "goal missed" in report.markdown(results)
    # Pheon with another client is no peer of Pheon's.
    measure.rounds["Pheon, another client"] = [3.0]
    results = report.describe(run, "python -m benches.remote", {"scan": Figure("Scan", "rows", [measure])})
    assert "1.90 GB/s (other)" in report.table(results)
    assert "better: other" in report.markdown(results)
    assert "another client 3" not in report.markdown(results)
    results["figures"]["lookup"] = {"failed": "no server"}
    assert "no server" in report.markdown(results)
