"""Writes: one by one and in batches by one process, and one by one by several that contend."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from benches.live import data, maps
from benches.live.crew import Watch, alone, together
from benches.live.peers.base import Place
from benches.live.plan import Figure, Measure, Plan, data_words, entries_words, shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.live.peers.base import Peer

WRITES_MIN, BATCHED_MIN, CONTENDING_MIN, SHARE_MIN = 1e6, 3e6, 5e5, 0.1


def writer(
    ready: Callable[[], Any],
    *,
    peer: str,
    handle: Any,
    place: Place,
    number: int,
    writers: int,
    batch: int,
    seconds: float,
    adapter: Peer | None = None,
) -> dict[str, Any]:
    """A task: writes its keys in their order for so long; `batch`: entries of one `update`, 0: one by one."""
    pairs = data.writes(place.size, place.shape, number, writers)
    own = len(range(number, place.size, writers))
    batches = data.batches(pairs, min(batch, own)) if batch else []
    gc.disable()
    with maps.attached(peer, handle, writers, adapter) as found:
        ready()
        watch = Watch(seconds)
        at = count = 0
        while watch.running():
            if batch:
                part = batches[at : at + watch.block]
                with watch:
                    for entries in part:
                        found.update(entries)
                count += sum(map(len, part))
                at = (at + len(part)) % len(batches)
            else:
                some = pairs[at : at + watch.block]
                with watch:
                    found.write(some)
                count += len(some)
                at = (at + len(some)) % len(pairs)
    return {"count": count, "wall": watch.wall, "cpu": watch.cpu}


def write(*, peer: str, place: dict[str, Any], writers: int, batch: int, seconds: float) -> dict[str, Any]:
    """A step: entries written a second by all, and what the slowest writer got of its fair share."""
    where = Place(**place)
    with maps.made(peer, where) as (adapter, handle):
        common = {"peer": peer, "handle": handle, "place": where, "writers": writers, "batch": batch}
        common["seconds"] = seconds
        if writers == 1:
            gc.collect()
            results = alone((writer, {**common, "number": 0, "adapter": adapter}))
        else:
            results = together([(writer, {**common, "number": number}) for number in range(writers)])
        counts = [result["count"] for result in results]
        maps.check_in_another_process(adapter, peer, handle, where, counts)
    wall = max(result["wall"] for result in results)
    return {"rate": sum(counts) / wall, "share": min(counts) * writers / sum(counts)}


def run(plan: Plan) -> Figure:
    """One writer, then several."""
    measures = []
    many = plan.sizes.processes
    for size in plan.sizes.keys:
        for writers, batch, title, goal in (
            (1, 0, "1 writer: d[k] = v", WRITES_MIN),
            (1, data.BATCH, f"1 writer: d.update(dict of {data.BATCH:,})", BATCHED_MIN),
            (many, 0, f"{many} contending writers, all together: d[k] = v", CONTENDING_MIN),
        ):
            by = {"rate": Measure(f"{entries_words(size)}, {title}", "/s", True, goal)}
            if writers > 1:
                name = f"{entries_words(size)}, {many} contending writers: the slowest, of its fair share"
                by["share"] = Measure(name, "times", True, SHARE_MIN)
            plan.collect(
                write,
                by,
                size,
                data.MAIN,
                only=shared if writers > 1 else lambda who: True,
                writers=writers,
                batch=batch,
                seconds=plan.sizes.seconds,
            )
            measures += by.values()
    return Figure(
        "Writes",
        f"{data_words(data.MAIN)}; each writer writes its own keys in random order, again and again.",
        measures,
        ["By the clock. In the end another process compares every value with what so many writes must leave."],
    )
