"""The benchmark of data that is not in memory: it runs, it notices wrong answers, and its report shows losses."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benches.cold import data, limit, report, worker
from benches.cold.engines import Pheon
from benches.cold.run import Plan, run
from benches.compare.oracle import WrongAnswerError

import pheon

ROOT = Path(__file__).parents[1]
ROWS = 3_000


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Phases switch the garbage collector off: in their own process nobody minds."""
    yield
    gc.enable()


def test_rows_are_texts_in_the_order_of_their_keys() -> None:
    ordered = data.in_key_order(ROWS)
    keys = data.keys(ordered).to_pylist()
    assert keys == sorted(set(keys))
    values = data.values(np.arange(ROWS, dtype=np.uint64))
    values.validate(full=True)
    lengths = {len(text) for text in values.to_pylist()}
    assert (min(lengths), max(lengths)) == (data.VALUE_BYTES_MIN, data.VALUE_BYTES_END - 1)
    asked = data.questions(ROWS, 1_000, 0.1, seed=1)
    assert 50 < data.answers(ROWS, asked).count(None) < 200


@pytest.mark.parametrize("phase", ["single", "batch", "scan"])
def test_wrong_answers_are_noticed(tmp_path: Path, phase: str) -> None:
    engine = Pheon()
    engine.build(tmp_path, ROWS)
    right = worker.measure(engine, worker.PHASES[phase](ROWS, [5, 20]), tmp_path, None)
    assert [one["count"] for one in right["rounds"]] == [5, 20]
    assert right["facts"] == {"access": "memory"}
    fewer = worker.PHASES[phase](ROWS // 2, [5, 20])  # takes half of the rows for missing
    if phase == "scan":
        fewer = worker.PHASES[phase](ROWS + 500, [5, 20])
    with pytest.raises(WrongAnswerError):
        worker.measure(engine, fewer, tmp_path, None)


def test_it_runs_and_says_where_it_could_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), str(Path(pheon.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(limit, "_own_groups", list)
    plan = Plan(tmp_path / "work", ROWS, 64 << 20, ["pheon"], scale=0.01)
    results = report.describe(plan, "python -m benches.cold", run(plan))
    assert "failed" not in results["engines"]["pheon"]
    text = report.markdown(results)
    assert "Not measured: no control group" in text
    assert 'memory enough: opened itself as "memory"' in text
    assert not list((tmp_path / "work").glob("pheon*"))


def rounds(*us: float) -> dict[str, Any]:
    return {"rounds": [{"count": 10, "us": one, "read_bytes": 4096.0, "waits": 1.0} for one in us], "facts": {}}


def test_the_report_has_every_loss() -> None:
    plan = Plan(Path("work"), 1_000, 100 << 20, ["pheon", "lmdb"])
    engines: dict[str, Any] = {
        "pheon": {"title": "Pheon", "how": "so", "version": "1", "limited": {"single": rounds(9.0, 5.0, 700.0)}},
        "lmdb": {"title": "LMDB", "how": "so", "limited": {"single": rounds(1.0, 2.0, 4.0)}},
        "rocksdb": {"title": "RocksDB", "how": "so", "failed": "it ended"},
    }
    for engine in ("pheon", "lmdb"):
        engines[engine]["build"] = {"seconds": 1.0, "bytes": 3 << 20}
    engines["pheon"]["dropped"] = {"scan": {**rounds(2_500.0, 1_500.0), "facts": {"access": "memory"}}}
    engines["lmdb"]["dropped"] = {"scan": rounds(3_000.0, 3_000.0)}
    text = report.markdown(report.describe(plan, "python -m benches.cold", engines))
    assert "| **Pheon** | 2.50 ms; 4.0 KiB | 2.00 ms; 4.0 KiB |" in text  # the sums so far
    assert "| **Pheon** | 352.5 us; 4.0 KiB |" in text  # the median without the first round
    assert "| RocksDB | FAILED: it ended | |" in text
    assert "has 100 MiB" in text
    assert text.count("better:") == 1
    assert "- Larger than memory, single lookup: Pheon 352.5 us; better: LMDB 3.0 us" in text
