"""Several processes count with one number: under the lock of the map, and with its own call. The sum must be exact."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from benches.live import data, maps, peers
from benches.live.crew import Watch, alone, together
from benches.live.peers.base import Place
from benches.live.plan import Figure, Measure, Plan, Who, shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.live.peers.base import Peer

KEY = "hits"


def counter(
    ready: Callable[[], Any],
    *,
    peer: str,
    handle: Any,
    native: bool,
    writers: int,
    seconds: float,
    adapter: Peer | None = None,
) -> dict[str, Any]:
    """A task: adds 1 for so long; how often."""
    gc.disable()
    with maps.attached(peer, handle, writers, adapter) as found:
        add = found.increment if native else found.add
        ready()
        watch = Watch(seconds)
        while watch.running():
            with watch:
                for _ in range(watch.block):
                    add(KEY, 1)
    return {"count": watch.calls, "wall": watch.wall}


def count(*, peer: str, place: dict[str, Any], native: bool, writers: int, seconds: float) -> dict[str, Any]:
    """A step: additions a second by all, and what the slowest process got of its fair share."""
    where = Place(**place)
    with maps.made(peer, where) as (adapter, handle):
        adapter.write([(KEY, 0)])
        common = {"peer": peer, "handle": handle, "native": native, "writers": writers, "seconds": seconds}
        if writers == 1:
            results = alone((counter, {**common, "adapter": adapter}))
        else:
            results = together([(counter, common)] * writers)
        counts = [result["count"] for result in results]
        maps.check_in_another_process(adapter, peer, handle, where, [], **{KEY: sum(counts)})
    wall = max(result["wall"] for result in results)
    return {"rate": sum(counts) / wall, "share": min(counts) * writers / sum(counts)}


def _can_count(who: Who) -> bool:
    return peers.find(who.name).native_increment is not None


def run(plan: Plan) -> Figure:
    """One process and several, both ways."""
    many = plan.sizes.processes
    measures = []
    for native, way in ((False, "with d.lock: d[k] = d[k] + 1"), (True, "d.increment(k, 1)")):
        for writers in (1, many):
            who = f"{writers} process{'es' * (writers > 1)}"
            by = {"rate": Measure(f"{who}: {way}", "/s", True)}
            if writers > 1:
                by["share"] = Measure(f"{who}: {way}, the slowest, of its fair share", "times", True)
            plan.collect(
                count,
                by,
                plan.sizes.keys[0],
                data.INT,
                only=_can_count if native else shared,
                native=native,
                writers=writers,
                seconds=plan.sizes.seconds,
            )
            measures += by.values()
    return Figure(
        "One counter",
        "All processes add to one number; a sum that is not exact is a wrong answer.",
        measures,
        ["A peer without a call of its own for adding is missing in the second kind."],
    )
