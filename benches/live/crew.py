"""Processes that begin together: each prepares itself, waits for the others, does its work and reports."""

from __future__ import annotations

import multiprocessing
from threading import BrokenBarrierError
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from benches.compare.oracle import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from types import TracebackType

    # Takes a function that waits for all others, and its own arguments.
    Task = tuple[Callable[..., dict[str, Any]], Mapping[str, Any]]

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_SECONDS = 600
BLOCK_SECONDS = 0.01
BLOCK_MAX = 50_000


def _work(
    function: Callable[..., dict[str, Any]], arguments: Mapping[str, Any], barrier: Barrier, answer: Connection
) -> None:
    try:
        answer.send(("done", function(barrier.wait, **arguments)))
    except WrongAnswerError as why:
        barrier.abort()
        answer.send(("wrong", str(why)))
    except BaseException as why:
        barrier.abort()
        answer.send(("failed", f"{type(why).__name__}: {why}"))
        raise


class Crew:
    """Spawned processes, one a task; all of them and the one that made them pass the same barriers."""

    def __init__(self, tasks: list[Task]) -> None:
        self._barrier = SPAWN.Barrier(len(tasks) + 1, timeout=PATIENCE_SECONDS)
        self._processes: list[Any] = []
        self._answers: list[Connection] = []
        for function, arguments in tasks:
            mine, theirs = SPAWN.Pipe(duplex=False)
            process = SPAWN.Process(target=_work, args=(function, arguments, self._barrier, theirs))
            process.start()
            theirs.close()
            self._processes.append(process)
            self._answers.append(mine)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.join(PATIENCE_SECONDS)

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return [process.pid for process in self._processes]

    def wait(self) -> None:
        """Passes a barrier with all of them. If one of them failed, `results` says why."""
        try:
            self._barrier.wait()
        except BrokenBarrierError:
            self.results()
            raise

    def results(self) -> list[dict[str, Any]]:
        """What each of them found.

        Raises:
            WrongAnswerError: one of them got a wrong answer.
            RuntimeError: one of them failed.
        """
        found = []
        for answer in self._answers:
            try:
                found.append(answer.recv())
            except EOFError:
                found.append(("failed", "a process ended without a word"))
        for kind, error in (("wrong", WrongAnswerError), ("failed", RuntimeError)):
            # Who found the barrier broken was not the one who broke it.
            whys = sorted((why for said, why in found if said == kind), key=lambda why: why.startswith("BrokenBarrier"))
            if whys:
                raise error(whys[0])
        return [result for _, result in found]


def together(tasks: list[Task]) -> list[dict[str, Any]]:
    """Runs tasks in processes of their own that begin together."""
    with Crew(tasks) as crew:
        crew.wait()
        return crew.results()


def alone(task: Task) -> list[dict[str, Any]]:
    """Runs one task in this process."""
    function, arguments = task
    return [function(lambda: None, **arguments)]


class Watch:
    """Times blocks of calls until the time is up; blocks grow until the clock costs nothing beside them."""

    def __init__(self, seconds: float) -> None:
        self.block = 1
        self.calls = 0
        self.wall = self.cpu = 0.0
        self._began = self._cpu_began = 0.0
        self._end = perf_counter() + seconds

    def running(self) -> bool:
        """Whether there is time left for another block; there is for one."""
        return self.calls == 0 or perf_counter() < self._end

    def __enter__(self) -> None:
        self._cpu_began = process_time()
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        wall = perf_counter() - self._began
        self.wall += wall
        self.cpu += process_time() - self._cpu_began
        self.calls += self.block
        if wall < BLOCK_SECONDS:
            self.block = min(self.block * 2, BLOCK_MAX)
