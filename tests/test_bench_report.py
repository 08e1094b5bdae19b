"""What the report promises: losses show, answers are compared by value, the README keeps the rest of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benches.compare import oracle, report

if TYPE_CHECKING:
    from pathlib import Path


def peer(title: str, build: float, single: float, batch: float | None = None) -> dict[str, Any]:
    measured: dict[str, Any] = {
        "title": title,
        "version": "1",
        "build": [{"seconds": build, "details": {}}],
        "bytes": 10 * report.MIB,
        "open": {"ms": [1.0], "private_dirty_bytes": [4096], "first_lookup_ms": [0.1]},
        "single": {"ns": [single], "count": 10},
        "memory": {"processes": 8, "measured_processes": 8, "beyond_bare_bytes": report.MIB},
        "extras": {},
        "how": {"single": "get", "batch": None if batch is None else "get_many", "notes": ""},
    }
    if batch is not None:
        measured["batch"] = {"ns": [batch], "count": 10}
    return measured


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "date": "2026-01-01",
        "command": "python -m benches.compare",
        "machine": dict.fromkeys(("processor", "cores", "memory_gib", "last_level_cache", "kernel", "python"), "x"),
        "data": {"title": "t", "rows": 10, "key_bytes": 100, "value_bytes": 50, "questions": 10},
        "peers": {
            "pheon": peer("Pheon", 2.0, 300.0, 70.0),
            "dict": peer("Python dict", 1.0, 500.0),
            "slow": peer("Slow", 9.0, 9000.0, 9500.0),
            "gone": {"title": "Gone", "missing": "the Python package gone is not installed"},
        },
    }


def test_losses_name_the_peer_that_is_better_and_nothing_else(results: dict[str, Any]) -> None:
    assert report.losses(results) == ["- build: Pheon 2.0; better: Python dict 1.0"]
    assert "- build: Pheon 2.0; better: Python dict 1.0" in report.markdown(results)


def test_a_missing_peer_is_reported(results: dict[str, Any]) -> None:
    assert "| Gone | the Python package gone is not installed |" in report.table(results)


def test_the_loop_counts_where_it_beats_the_batch_call(results: dict[str, Any]) -> None:
    lines = report.table(results).splitlines()
    assert next(line for line in lines if "Slow" in line).split(" | ")[5] == "9,000 (loop)"
    assert next(line for line in lines if "Pheon" in line).split(" | ")[5] == "70"


def test_every_row_of_the_table_has_as_many_cells(results: dict[str, Any]) -> None:
    assert len({line.count("|") for line in report.table(results).splitlines()}) == 1


def test_the_readme_keeps_its_other_text(results: dict[str, Any], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.update_readme(readme, results)
    text = readme.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n| ")
    assert text.endswith(f"\n{report.END}\nafter\n")
    assert "old" not in text
    assert "Python dict" in text
    report.update_readme(readme, results)
    assert readme.read_text() == text


def test_a_readme_without_markers_is_refused(results: dict[str, Any], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.END} {report.BEGIN}")
    with pytest.raises(ValueError, match="expected the markers"):
        report.update_readme(readme, results)


def test_answers_are_compared_by_value_and_place() -> None:
    right = ["a", None, "b"]
    assert oracle.check("p", ["1", "2", "3"], right, ["a", None, "b"]) == oracle.digest(right)
    for wrong in (["a", "b", None], ["a", None, "c"], ["a", None]):
        with pytest.raises(oracle.WrongAnswerError):
            oracle.check("p", ["1", "2", "3"], right, wrong)
        assert oracle.digest(wrong) != oracle.digest(right)
