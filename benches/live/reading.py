"""Single lookups: by one process, by several, and while others write."""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING, Any

from benches.compare.oracle import WrongAnswerError
from benches.live import data, maps, writing
from benches.live.crew import BLOCK_MAX, Watch, alone, together
from benches.live.peers.base import Place
from benches.live.plan import Figure, Measure, Plan, data_words, entries_words, shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.live.crew import Task
    from benches.live.peers.base import Peer

READS_MIN = 3e6
NOTE = (
    "The rate is that of the slowest reader. By the clock: per second that passed, with all other processes running; "
    "by CPU time: per second that the reader's own process ran on a core, because more processes than cores get only a "
    "share of the time. Work of a server process is in the first one only."
)


def reader(
    ready: Callable[[], Any],
    *,
    peer: str,
    handle: Any,
    place: Place,
    number: int,
    writers: int,
    seconds: float,
    many: bool = False,
    adapter: Peer | None = None,
) -> dict[str, Any]:
    """A task: looks random keys up for so long; each answer is compared between the blocks that are timed.

    `many`: a block in one call, in the fastest way that the peer has.
    """
    dice = random.Random(number)
    size, shape = place.size, place.shape
    latest = data.latest(size, writers) if writers else 0
    written: set[int] = set()  # seen with a value of a writer: what was there at the start must not come back
    gc.disable()
    with maps.attached(peer, handle, writers, adapter) as found:
        data.generation(shape, 0, found.read([data.key(0)])[0])
        ready()
        watch = Watch(seconds)
        while watch.running():
            numbers = dice.choices(range(size), k=watch.block)
            keys = data.keys(numbers)
            with watch:
                answers = found.fetch(keys) if many else found.read(keys)
            if not writers:
                data.check("read", numbers, answers, [data.value(shape, number) for number in numbers])
                continue
            for asked, answer in zip(numbers, answers, strict=True):
                generation = data.generation(shape, asked, answer)
                if generation > latest or (generation == 0 and asked in written):
                    raise WrongAnswerError(
                        f"read while others write: {data.key(asked)} is {answer!r}, which is not due"
                    )
                if generation:
                    written.add(asked)
    return {"reads": watch.calls, "wall": watch.wall, "cpu": watch.cpu}


def read(
    *, peer: str, place: dict[str, Any], readers: int, writers: int, seconds: float, many: bool = False
) -> dict[str, Any]:
    """A step: reads a second of the slowest reader, by the clock and by its own processor time."""
    where = Place(**place)
    with maps.made(peer, where) as (adapter, handle):
        common = {"peer": peer, "handle": handle, "place": where, "writers": writers, "seconds": seconds}
        asking = {**common, "many": many}
        tasks: list[Task] = [(reader, {**asking, "number": number}) for number in range(readers)]
        tasks += [(writing.writer, {**common, "number": number, "batch": 0}) for number in range(writers)]
        if len(tasks) == 1:
            gc.collect()
            results = alone((reader, {**asking, "number": 0, "adapter": adapter}))
        else:
            results = together(tasks)
        counts = [result["count"] for result in results[readers:]]
        maps.check_in_another_process(adapter, peer, handle, where, counts)
    found = results[:readers]
    return {
        "wall": min(each["reads"] / each["wall"] for each in found),
        "cpu": min(each["reads"] / max(each["cpu"], 1e-9) for each in found),
        "all": sum(each["reads"] / each["wall"] for each in found),
        "writes": sum(count / each["wall"] for count, each in zip(counts, results[readers:], strict=True)),
    }


def run(plan: Plan) -> Figure:
    """Readers alone, together, and beside writers."""
    measures = []
    several = plan.sizes.processes
    who = [(1, 0, False), (several, 0, False), (several, 1, False), (several, several, False)]
    who += [(1, 0, True), (several, 0, True)]
    for size in plan.sizes.keys:
        for readers, writers, many in who:
            title = f"{entries_words(size)}, {readers} reader{'s' * (readers > 1)}"
            if writers:
                title += f", {writers} writer{'s' * (writers > 1)}"
            if many:
                title += ", lists of keys"
            goal = None if many else READS_MIN  # of single lookups
            by = {
                "wall": Measure(f"{title}: reads by the clock", "/s a process", True, goal if readers == 1 else None),
                "cpu": Measure(f"{title}: reads by CPU time", "/s a process", True, goal if readers > 1 else None),
            }
            if writers:
                by["writes"] = Measure(f"{title}: writes meanwhile, all writers", "/s", True)
            plan.collect(
                read,
                by,
                size,
                data.MAIN,
                only=shared if readers + writers > 1 else lambda who: True,
                readers=readers,
                writers=writers,
                seconds=plan.sizes.seconds,
                many=many,
            )
            measures += by.values()
    return Figure(
        "Reads",
        f"`d[key]`, one after the other, {data_words(data.MAIN)}, random keys, new strings each time. "
        f"Lists of keys: up to {BLOCK_MAX:,} at a time, by the fastest call there is (`get_many`, `MGET`).",
        measures,
        [NOTE],
    )
