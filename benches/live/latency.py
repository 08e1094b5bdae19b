"""How long things take once: making a map, attaching to it, changing what is nested in it, waking who waits."""

from __future__ import annotations

import gc
from random import Random
from time import perf_counter, perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

from benches.compare.oracle import WrongAnswerError
from benches.live import data, maps, peers
from benches.live.crew import Crew, together
from benches.live.peers.base import Place
from benches.live.plan import Figure, Measure, Plan, Who, entries_words, shared

if TYPE_CHECKING:
    from collections.abc import Callable

ATTACHES = 5
BELL, END = "bell", -1
WAIT_SECONDS = 1.0
PAUSE_SECONDS = 0.002  # at least, between two writes that wake
NOTE = (
    "Awake: from before the write until the waiting process has read the new value; a peer without a call that waits "
    "is missing: its programs must poll."
)


def attacher(ready: Callable[[], Any], *, peer: str, handle: Any, place: Place) -> dict[str, Any]:
    """A task: milliseconds until a process that has loaded the library has the map and its first value."""
    found = peers.find(peer)
    found.load()
    number = place.size - 1
    key = data.key(number)
    ready()
    gc.disable()
    start = perf_counter()
    found.attach(handle)
    answers = found.read([key])
    taken = (perf_counter() - start) * 1e3
    data.check("first read", [number], answers, [data.value(place.shape, number)])
    found.close()
    return {"ms": taken}


def attach(*, peer: str, place: dict[str, Any]) -> dict[str, Any]:
    """A step: the median of a few processes, one after the other."""
    where = Place(**place)
    with maps.made(peer, where) as (_, handle):
        arguments = {"peer": peer, "handle": handle, "place": where}
        taken = [together([(attacher, arguments)])[0]["ms"] for _ in range(ATTACHES)]
    return {"ms": sorted(taken)[len(taken) // 2]}


def create(*, peer: str, place: dict[str, Any]) -> dict[str, Any]:
    """A step: seconds to make a map of a dict."""
    where = Place(**place)
    entries: dict[str, data.Value] = {}
    for part in data.filling(where.size, where.shape):
        entries.update(part)
    with maps.made(peer, where, fill=False) as (adapter, handle):
        gc.collect()
        gc.disable()
        start = perf_counter()
        adapter.create(handle, entries)
        taken = perf_counter() - start
        maps.check_in_another_process(adapter, peer, handle, where, [])
    return {"s": taken}


def nested(*, peer: str, place: dict[str, Any], times: int) -> dict[str, Any]:
    """A step: microseconds of a change in a dict in the map."""
    where = Place(**place)
    with maps.made(peer, where) as (adapter, handle):
        adapter.nest(handle)
        gc.disable()
        taken = []
        for _ in range(times):
            start = perf_counter_ns()
            adapter.add_nested()
            taken.append(perf_counter_ns() - start)
        if (found := adapter.nested()) != times:
            raise WrongAnswerError(f"the nested number is {found}, expected {times}")
    return _percentiles(taken)


def sender(ready: Callable[[], Any], *, peer: str, handle: Any, times: int) -> dict[str, Any]:
    """A task: writes the time again and again, then END; which times."""
    dice = Random(1)
    sent = []
    with maps.attached(peer, handle, writers=1) as found:
        ready()
        ready()
        for _ in range(times):
            sleep(PAUSE_SECONDS * (1 + dice.random()))
            sent.append(perf_counter_ns())
            found.notify(BELL, sent[-1])
        sleep(PAUSE_SECONDS * 10)
        found.notify(BELL, END)
    return {"sent": sent}


def waiter(ready: Callable[[], Any], *, peer: str, handle: Any, times: int) -> dict[str, Any]:
    """A task: waits and reads until END; which times it read, and how late."""
    seen: list[int] = []
    late = []
    gc.disable()
    with maps.attached(peer, handle, writers=1) as found:
        ready()
        found.wait(0.0)
        ready()
        last = 0
        while last != END:
            found.wait(WAIT_SECONDS)
            (value,) = found.read([BELL])
            now = perf_counter_ns()
            if value not in (last, END):
                seen.append(value)
                late.append(now - value)
            last = value
    return {"seen": seen, "late": late}


def check_seen(sent: list[int], seen: list[int]) -> None:
    """What a waiter read was sent, in this order, and it did not sleep through the last one.

    Raises:
        WrongAnswerError: it is not so.
    """
    left = iter(sent)
    if not all(value in left for value in seen):
        raise WrongAnswerError("a waiter read what nobody sent, or in another order")
    if seen[-1:] != sent[-1:]:
        raise WrongAnswerError("a waiter did not see the last value before the end")


def wake(*, peer: str, place: dict[str, Any], times: int) -> dict[str, Any]:
    """A step: microseconds from before a write to when a waiting process has read what was written."""
    where = Place(**place)
    with maps.made(peer, where) as (adapter, handle):
        adapter.write([(BELL, 0)])
        arguments = {"peer": peer, "handle": handle, "times": times}
        with Crew([(sender, arguments), (waiter, arguments)]) as crew:
            crew.wait()
            crew.wait()  # the waiter has subscribed, where it must
            sent, heard = crew.results()
    check_seen(sent["sent"], heard["seen"])
    return {**_percentiles(heard["late"]), "seen": len(heard["seen"]) / times}


def _percentiles(nanoseconds: list[int]) -> dict[str, Any]:
    taken = sorted(nanoseconds)
    return {"median": taken[len(taken) // 2] / 1e3, "p99": taken[len(taken) * 99 // 100] / 1e3}


def _can_wait(who: Who) -> bool:
    return peers.find(who.name).waiting is not None


def run(plan: Plan) -> Figure:
    """All of these."""
    times = plan.sizes.times
    small, large = plan.sizes.keys[0], plan.sizes.keys[-1]
    made = Measure(f"make a map of a dict of {entries_words(large)}", "s", False)
    opened = {
        size: Measure(f"attach and read one value, {entries_words(size)}", "ms", False) for size in plan.sizes.keys
    }
    inner = [Measure(f'd["nested"]["n"] += 1, {which}', "us", False) for which in ("median", "p99")]
    woken = [Measure(f"write to awake in another process, {which}", "us", False) for which in ("median", "p99")]
    plan.collect(create, {"s": made}, large, data.MAIN)
    for size, measure in opened.items():
        plan.collect(attach, {"ms": measure}, size, data.MAIN, only=shared)
    plan.collect(nested, {"median": inner[0], "p99": inner[1]}, small, data.INT, times=times)
    by = {"median": woken[0], "p99": woken[1]}
    found = plan.collect(wake, by, small, data.INT, only=_can_wait, times=times)
    seen = ", ".join(f"{title} {min(run['seen'] for run in runs):.0%}" for title, runs in found.items())
    return Figure(
        "Latencies",
        f"Making and attaching: {data.MAIN.removeprefix('str')}-byte values; the other two: {times:,} times each.",
        [made, *opened.values(), *inner, *woken],
        [NOTE, f"Writes that the waiter saw one by one: {seen or 'none'}."],
    )
