"""What is measured of whom and at which size; steps, each in a process of its own with a time limit; figures."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benches.compare.phase import WRONG_ANSWER, PhaseError
from benches.live import data
from benches.live.peers.base import MEMORY, Place, files
from benches.live.peers.ultra import dump_names
from benches.tables.plan import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

PHEON = "Pheon"
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Who:
    """A peer that is measured."""

    name: str
    title: str
    shared: bool = True


@dataclass(frozen=True)
class Sizes:
    """Numbers of keys and repetitions of a run. The defaults are the full sizes."""

    keys: tuple[int, ...] = (10_000, 1_000_000)
    processes: int = 4
    seconds: float = 2.0  # that a rate is measured, the comparing of answers included
    times: int = 1_000  # that a latency is measured
    memory_keys: int = 1_000_000
    memory_shape: str = "str1000"
    memory_processes: int = 8


QUICK = Sizes((1_000,), 2, 0.1, 20, 2_000, "str1000", 2)


@dataclass
class Measure:
    """One thing measured. The best round counts: the largest if `more` is better, the smallest if not.

    `goal`: what Pheon must reach. `failed`: why somebody has no figure.
    """

    name: str
    unit: str
    more: bool
    goal: float | None = None
    rounds: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Figure:
    """The measures of one figure, with a sentence on the data and what else a reader must know."""

    title: str
    data: str
    measures: list[Measure]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Who is measured, at which sizes, how often, and how long a step may take."""

    peers: list[Who]
    sizes: Sizes
    repeat: int
    limit: float

    def step(self, step: Callable[..., dict[str, Any]], peer: str, size: int, shape: str, **more: Any) -> Any:
        """Runs a function of this package in a process of its own; what it returned.

        Raises:
            PhaseError: it failed, took too long, or an answer was wrong.
        """
        name = f"pheon-bench-{os.getpid()}-{next(NUMBERS)}"
        with TemporaryDirectory(prefix="pheon-bench-") as folder:
            place = Place(name, folder, size, shape)
            arguments = json.dumps({"peer": peer, "place": asdict(place), **more})
            try:
                return _run(name_of(step), arguments, Path(folder), self.limit)
            finally:
                remove_files(name)

    def collect(
        self,
        step: Callable[..., dict[str, Any]],
        measures: dict[str, Measure],
        size: int | Callable[[Who], int],
        shape: str,
        *,
        only: Callable[[Who], bool] = lambda who: True,
        repeat: int | None = None,
        **more: Any,
    ) -> dict[str, list[dict[str, Any]]]:
        """Runs a step for everybody; `measures`: by the name that their figures have in what the step returns.

        Returns what each run returned, by title. Who fails once is not asked again: its figure is the reason.
        """
        found: dict[str, list[dict[str, Any]]] = {}
        for who in filter(only, self.peers):
            runs: list[dict[str, Any]] = []
            for _ in range(repeat or self.repeat):
                try:
                    entries = size(who) if callable(size) else size
                    runs.append(self.step(step, who.name, entries, shape, **more))
                except PhaseError as why:
                    print(f"  {who.title}, {size if isinstance(size, int) else ''}: {why}", file=sys.stderr, flush=True)
                    for measure in measures.values():
                        measure.failed[who.title] = str(why)
                    break
            else:
                found[who.title] = runs
                for name, measure in measures.items():
                    amounts = [run[name] for run in runs if run.get(name) is not None]
                    if amounts:
                        measure.rounds[who.title] = amounts
        return found


def shared(who: Who) -> bool:
    """Whether several processes can use this peer."""
    return who.shared


def remove_files(name: str) -> None:
    """Removes what a step has left in /dev/shm; nothing, if it ended well."""
    for dump in dump_names(name):
        (MEMORY / dump).unlink(missing_ok=True)
    for file in files(name):
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


def _run(step: str, arguments: str, folder: Path, limit: float) -> dict[str, Any]:
    answer, messages = folder / "result.json", folder / "messages.txt"
    command = [sys.executable, "-m", "benches.tables.worker", step, arguments, "--result", str(answer)]
    short = step.removeprefix("benches.live.")
    with messages.open("w") as file:
        # Its own group: all that it started ends with it.
        process = subprocess.Popen(command, stderr=file, start_new_session=True)
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired as why:
            raise PhaseError(f"too slow: {short} took more than {limit:.0f} s") from why
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [line for line in messages.read_text(errors="replace").splitlines() if line.strip()]
    if status == 0:
        return json.loads(answer.read_text())
    print("\n".join(lines[-20:]), file=sys.stderr, flush=True)
    if status == WRONG_ANSWER:
        raise PhaseError(next((line for line in lines if line.startswith("WRONG ANSWER")), "WRONG ANSWER"))
    raise PhaseError(f"{short} ended with exit status {status}: {lines[-1] if lines else 'no message'}")


def entries_words(size: int) -> str:
    """The number of keys in words."""
    return f"{size:,} keys"


def data_words(shape: str) -> str:
    """The keys and values in words."""
    kind = "int" if shape == data.INT else f"str values of {data.width(shape):,} bytes"
    return f'str keys like "{data.key(123)}", {kind}'
