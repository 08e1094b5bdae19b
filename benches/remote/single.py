"""One key at a time: how long it takes, and how long at worst."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from benches.live.peers.base import MissingError
from benches.live.plan import Figure, Measure
from benches.remote import data, servers
from benches.remote.lookup import REDIS, fill_redis, redis_client
from benches.remote.plan import PHEON, Run

import pheon

if TYPE_CHECKING:
    from collections.abc import Callable

PERCENT = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}


def _latencies(who: str, get: Callable[[str], Any], keys: list[str], right: list[str | None]) -> dict[str, float]:
    """Microseconds."""
    get(keys[0])
    taken, found = [], []
    for key in keys:
        start = perf_counter_ns()
        found.append(get(key))
        taken.append(perf_counter_ns() - start)
    data.check(who, found, right)
    taken.sort()
    return {name: taken[int(len(taken) * share)] / 1e3 for name, share in PERCENT.items()}


def run(run: Run) -> Figure:
    """Rounds in turns."""
    folder = run.folder / "single"
    folder.mkdir()
    store = data.make_map(run.sizes, folder)
    keys, right = data.questions(run.sizes, run.sizes.singles)
    measures = {name: Measure(f"one get, {name}", "us", False) for name in PERCENT}
    notes = []

    def add(who: str, get: Callable[[str], Any]) -> None:
        for name, taken in _latencies(who, get, keys, right).items():
            measures[name].rounds.setdefault(who, []).append(taken)

    with (
        servers.pheon(run.command, store) as server,
        pheon.connect(f"grpc://127.0.0.1:{server.port}", local=False) as client,
    ):
        remote = client.map(data.MAP)
        try:
            with servers.redis(folder) as peer:
                fill_redis(run, peer.port)
                redis = redis_client(peer.port)
                for _ in range(run.repeat):
                    add(PHEON, remote.get)
                    add(REDIS, redis.get)
            measures["p99"].goal = min(measures["p99"].rounds[REDIS])
        except MissingError as why:
            add(PHEON, remote.get)
            notes.append(f"Redis: {why}.")
    return Figure(
        "One key at a time over TCP", f"{len(keys):,} gets, one after the other.", list(measures.values()), notes
    )
