"""The benchmark of live maps: it runs, it notices wrong answers, and its report shows losses and missed goals."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from benches.compare.oracle import WrongAnswerError
from benches.compare.phase import PhaseError
from benches.live import counting, data, latency, plan, reading, report, sharing, writing
from benches.live.crew import Crew, together
from benches.live.peers import PEERS, find
from benches.live.peers.base import MEMORY, MissingError, Place, files
from benches.live.peers.manager import Manager
from benches.live.peers.plain import Plain

import pheon

ROOT = Path(__file__).parents[1]
HERE = "test_bench_live"
SIZE = 300


class Stale(Plain):
    """Gives the values of the start, whatever was written."""

    def write(self, pairs: Iterable[data.Pair]) -> None:
        pass


class Mixed(Plain):
    """Gives another key's value now and then."""

    def read(self, keys: list[str]) -> list[Any]:
        return [self.map[data.key(7)] if key == data.key(8) else self.map[key] for key in keys]


class Forgetful(Plain):
    """Loses one entry of each batch."""

    def update(self, entries: dict[str, data.Value]) -> None:
        self.map.update(entries if len(self.map) < SIZE else dict(list(entries.items())[1:]))


class Careless(Manager):
    """Counts without a lock, and waits for nothing."""

    def add(self, key: str, amount: int) -> None:
        self.map[key] = self.map[key] + amount


class Private(Manager):
    """Keeps what it writes for itself."""

    def write(self, pairs: Iterable[data.Pair]) -> None:
        self.own = dict(pairs)


class Shy(Plain):
    """Adds nothing to nested numbers."""

    def add_nested(self) -> None:
        pass


class Stuck(Plain):
    """Never ends."""

    def fill(self, handle: Any, place: Place) -> None:
        (MEMORY / place.name).write_bytes(b"left behind")
        import time

        time.sleep(600)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Steps switch the garbage collector off: in their own process nobody minds."""
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes must find the package and these peers where this process found them."""
    paths = [str(ROOT), str(ROOT / "tests"), str(Path(pheon.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def place(tmp_path: Path, shape: str = data.MAIN) -> dict[str, Any]:
    return asdict(Place(f"pheon-bench-test-{os.getpid()}", str(tmp_path), SIZE, shape))


def test_values_say_whose_they_are_and_which_write_they_are_of() -> None:
    for shape, size in (("str20", 20), ("str100", 100), ("str1000", 1000)):
        found = data.value(shape, 123, 45)
        assert isinstance(found, str)
        assert len(found) == size == data.width(shape)
        assert data.generation(shape, 123, found) == 45
        for wrong in (data.value(shape, 124, 45), found[:-1], found[:8], None, 7):
            with pytest.raises(WrongAnswerError):
                data.generation(shape, 123, wrong)
    assert data.generation(data.INT, 5, data.value(data.INT, 5, 9)) == 9
    with pytest.raises(WrongAnswerError):
        data.generation(data.INT, 5, data.value(data.INT, 6, 9))


@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("size", [50, 130])
def test_the_number_of_writes_tells_every_value(monkeypatch: pytest.MonkeyPatch, size: int, writers: int) -> None:
    monkeypatch.setattr(data, "PAIRS_MIN", 60)
    monkeypatch.setattr(data, "PAIRS_MAX", 70)
    prepared = [data.writes(size, data.INT, writer, writers) for writer in range(writers)]
    for count in (0, 1, 17, 59, 60, 61, 69, 70, 71, 120, 140, 200, 1001):
        real = {data.key(number): data.value(data.INT, number) for number in range(size)}
        counts = [count + writer for writer in range(writers)]
        for pairs, own in zip(prepared, counts, strict=True):
            real.update([pairs[at % len(pairs)] for at in range(own)])
        last = data.last_generations(size, counts)
        assert [real[data.key(number)] for number in range(size)] == [
            data.value(data.INT, number, each) for number, each in enumerate(last)
        ]
        assert max(last) <= data.latest(size, writers)


def test_right_answers_pass(tmp_path: Path) -> None:
    where = place(tmp_path)
    assert reading.read(peer="dict", place=where, readers=1, writers=0, seconds=0.01)["cpu"] > 0
    assert writing.write(peer="dict", place=where, writers=1, batch=0, seconds=0.01)["share"] == 1
    assert writing.write(peer="dict", place=where, writers=1, batch=100, seconds=0.01)["rate"] > 0
    assert latency.create(peer="dict", place=where)["s"] >= 0
    assert latency.nested(peer="dict", place=where, times=10)["p99"] > 0
    assert counting.count(peer="dict", place=place(tmp_path, data.INT), native=False, writers=1, seconds=0.01)["rate"]


def noticed(step: Callable[..., object], kind: type[Exception], match: str, seconds: float) -> None:
    """A step raises this in so many seconds, or in more on a machine that does little in them."""
    told = ""
    for longer in (1, 10, 100):
        try:
            step(seconds=seconds * longer)
        except kind as error:
            told = str(error)
            if re.search(match, told):
                return
    pytest.fail(f"no {kind.__name__} that says {match!r}; the last one: {told!r}")


def test_wrong_answers_of_one_process_are_noticed(tmp_path: Path) -> None:
    where = place(tmp_path)
    mixed = partial(reading.read, peer=f"{HERE}:Mixed", place=where, readers=1, writers=0)
    noticed(mixed, WrongAnswerError, r"read: user:000008 is '00000007", 0.2)
    stale = partial(writing.write, peer=f"{HERE}:Stale", place=where, writers=1, batch=0)
    noticed(stale, WrongAnswerError, "in the end: .* 300 are wrong", 0.2)
    forgetful = partial(writing.write, peer=f"{HERE}:Forgetful", place=where, writers=1, batch=100)
    noticed(forgetful, WrongAnswerError, "in the end: ", 0.01)
    with pytest.raises(WrongAnswerError, match="the nested number is 0, expected 10"):
        latency.nested(peer=f"{HERE}:Shy", place=where, times=10)


def test_wrong_answers_of_several_processes_are_noticed(tmp_path: Path) -> None:
    where = place(tmp_path, data.INT)
    careless = partial(counting.count, peer=f"{HERE}:Careless", place=where, native=False, writers=2)
    noticed(careless, WrongAnswerError, "in the end: hits is", 0.5)
    private = partial(writing.write, peer=f"{HERE}:Private", place=where, writers=2, batch=0)
    noticed(private, WrongAnswerError, "in the end: user:", 0.01)


def test_a_waiter_must_see_what_was_sent() -> None:
    latency.check_seen([1, 2, 3, 4], [1, 3, 4])
    for wrong in ([1, 2, 3], [2, 1, 4], [1, 5, 4], []):
        with pytest.raises(WrongAnswerError):
            latency.check_seen([1, 2, 3, 4], wrong)


def _fails(ready: Any, *, wrong: bool) -> dict[str, Any]:
    if wrong:
        raise WrongAnswerError("this one")
    ready()
    return {}


def test_a_crew_ends_with_its_first_wrong_answer() -> None:
    with pytest.raises(WrongAnswerError, match="this one"):
        together([(_fails, {"wrong": False}), (_fails, {"wrong": True})])
    with Crew([(_fails, {"wrong": False})]) as crew:
        crew.wait()
        assert crew.results() == [{}]


def test_a_step_that_is_wrong_or_too_slow_ends_with_its_reason() -> None:
    run = plan.Plan([], plan.QUICK, 1, 300)
    stale = partial(run.step, writing.write, f"{HERE}:Stale", SIZE, data.MAIN, writers=1, batch=0)
    noticed(stale, PhaseError, "WRONG ANSWER: in the end", 0.1)
    slow = plan.Plan([plan.Who(f"{HERE}:Stuck", "Stuck", shared=False)], plan.QUICK, 3, 2)
    measure = plan.Measure("m", "s", False)
    assert slow.collect(latency.nested, {"median": measure}, SIZE, data.MAIN, times=1) == {}
    assert measure.failed == {"Stuck": "too slow: latency:nested took more than 2 s"}
    assert not files(f"pheon-bench-{os.getpid()}-")


def test_memory_counts_what_processes_share_once(tmp_path: Path) -> None:
    name = f"pheon-bench-memory-{os.getpid()}"
    file = MEMORY / name
    _, before = sharing.held_bytes(["self"], name)
    try:
        file.write_bytes(bytes(64 << 20))
        private, common = sharing.held_bytes(["self"], name)
    finally:
        file.unlink()
    assert 64 << 20 <= common <= (64 << 20) + before
    assert private > 0


def test_peers_that_are_not_installed_say_so() -> None:
    for name in PEERS:
        try:
            assert find(name).version()
        except MissingError as why:
            assert "is not installed" in str(why) or "has no LiveMap" in str(why)  # noqa: PT017


def test_the_program_runs_and_cleans_up(tmp_path: Path) -> None:
    if not hasattr(pheon, "LiveMap"):
        pytest.skip("pheon has no LiveMap")
    output = tmp_path / "report"
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    command = [sys.executable, "-m", "benches.live", "--quick", "--peers", "pheon,dict"]
    command += ["--output", str(output), "--readme", str(readme)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, messages = process.communicate(timeout=280)
    assert process.returncode == 0, messages
    results = json.loads(output.with_suffix(".json").read_text())
    assert list(results["figures"]) == ["reads", "writes", "counter", "memory", "latencies", "shapes"]
    for figure in results["figures"].values():
        for measure in figure["measures"]:
            assert measure["rounds"]["Pheon"][0] > 0
            assert not measure["failed"]
    assert report.markdown(results) == output.with_suffix(".md").read_text()
    assert readme.read_text().startswith(f"before\n{report.BEGIN}\n| ")
    assert not files(f"pheon-bench-{process.pid}-")


@pytest.fixture
def results() -> dict[str, Any]:
    peers = {name: {"title": title, "how": "x", "version": "1"} for name, title in (("p", "Pheon"), ("o", "other"))}
    peers["n"] = {"title": "none", "how": "x", "missing": "not installed"}
    measures = [
        plan.Measure("rate", "/s", True, 3e6, {"Pheon": [2e6, 4e6], "other": [5e6], report.CEILING: [1e7]}),
        plan.Measure("slow", "/s", True, 3e6, {"Pheon": [2e6], "other": [5e4]}),
        plan.Measure("time", "s", False, 2.0, {"Pheon": [2.0, 1.0], "other": [3.0]}),
        plan.Measure("none", "s", False, 2.0, {"other": [3.0]}, {"Pheon": "WRONG ANSWER: x"}),
        plan.Measure("late", "s", False, None, {"Pheon": [1.0]}, {"other": "too slow: x took more than 9 s"}),
    ]
    run = plan.Plan([], plan.Sizes(), 2, 9)
    return report.describe(run, "command", peers, {"a": plan.Figure("A", "data", measures), "b": "no memory"})


def test_losses_missed_goals_and_failures_show(results: dict[str, Any]) -> None:
    assert report.losses(results) == [
        f"- A, rate: Pheon 4.00 M/s; better: {report.CEILING} 10.0 M/s, other 5.00 M/s",
        "- A, slow: Pheon 2.00 M/s; goal missed: >= 3.00 M/s",
    ]
    assert report.failed(results) == [
        "- b FAILED: no memory",
        "- A, Pheon FAILED: WRONG ANSWER: x (none)",
        "- A, other FAILED: too slow: x took more than 9 s (late)",
        "- none: not installed",
    ]
    assert report.pheon_failed(results)
    page = report.markdown(results)
    assert "| A: rate | **4.00 M/s** | 5.00 M/s (other) | 0.80 x | 10.0 M/s | >= 3.00 M/s | reached |" in page
    assert "| A: slow | **2.00 M/s** | 50.0 k/s (other) | 40.0 x | - | >= 3.00 M/s | MISSED |" in page
    assert "| A: time | **1.00 s** | 3.00 s (other) | 3.00 x | - | <= 2.00 s | reached |" in page
    assert "| A: none | - | 3.00 s (other) | - | - | <= 2.00 s | MISSED |" in page
    assert "| late, s | 1.00 | too slow |" in page
