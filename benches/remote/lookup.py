"""Many keys at a time: DoExchange with pyarrow's client and with Pheon's, and MGET."""

from __future__ import annotations

from contextlib import contextmanager
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

import pheon
from benches.live.peers.base import MissingError
from benches.live.plan import Figure, Measure
from benches.remote import data, servers
from benches.remote.plan import PHEON, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[[list[str]], Any]

STOCK, LISTS, REDIS = "Pheon, pyarrow's client", "Pheon, lists", "Redis"
TIMES_REDIS = 10.0
FILL = 10_000


@contextmanager
def exchange(port: int) -> Iterator[tuple[Ask, Callable[[Any], list[str | None]]]]:
    """The stock client: one stream, batch after batch."""
    client = flight.connect(f"grpc://127.0.0.1:{port}")
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_path(data.MAP))
    schema = pa.schema([("key", pa.large_string())])
    writer.begin(schema)

    def ask(keys: pa.Array) -> pa.RecordBatch:
        writer.write_batch(pa.record_batch([keys], schema=schema))
        return reader.read_chunk().data

    with writer:
        yield ask, lambda batch: batch.column(0).to_pylist()
        writer.done_writing()


def redis_client(port: int) -> Any:
    """Redis, with its C parser where it is installed."""
    import redis

    return redis.Redis(port=port, decode_responses=True)


def _measure(
    who: str, ask: Ask, batches: list[Any], to_list: Callable[[Any], list[str | None]], right: list[str | None],
    server: servers.Server,
) -> tuple[float, float]:
    """Keys a second by the clock, and a second of one core's time of client and server together."""
    ask(batches[0])
    cpu, start = process_time() + server.cpu_seconds, perf_counter()
    answers = [ask(batch) for batch in batches]
    wall, cpu = perf_counter() - start, process_time() + server.cpu_seconds - cpu
    data.check(who, [each for answer in answers for each in to_list(answer)], right)
    return len(right) / wall, len(right) / max(cpu, 1e-9)


def run(run: Run) -> Figure:
    """Rounds in turns."""
    folder = run.folder / "lookup"
    folder.mkdir()
    store = data.make_map(run.sizes, folder)
    keys, right = data.questions(run.sizes, run.sizes.lookup_keys)
    measures = []
    notes = ["Lists: Python lists of str in and out, as with Redis; the others: Arrow arrays in and out."]
    with servers.pheon(run.command, store) as server:
        redis = servers.redis(folder)
        try:
            peer = redis.__enter__()
        except MissingError as why:
            redis, peer = None, None
            notes.append(f"Redis: {why}.")
        try:
            if peer is not None:
                fill_redis(run, peer.port)
            for size in run.sizes.batches:
                measures += _batches(run, server, peer, size, keys, right)
        finally:
            if redis is not None:
                redis.__exit__(None, None, None)
    return Figure(
        "Lookups of many keys over TCP",
        f"{run.sizes.map_entries:,} entries of 20 + 20 bytes, {len(keys):,} keys in random order, one in {data.MISSES_EVERY} missing; "
        "one connection, one batch after the other.",
        measures,
        notes,
    )


def fill_redis(run: Run, port: int) -> None:
    """Puts the map's entries into a Redis server."""
    client = redis_client(port)
    numbers = range(run.sizes.map_entries)
    for first in numbers[::FILL]:
        client.mset({data.key(i): data.value(i) for i in numbers[first : first + FILL]})


def _batches(
    run: Run, server: servers.Server, peer: servers.Server | None, size: int, keys: list[str], right: list[str | None]
) -> list[Measure]:
    wall = Measure(f"{size:,} keys a batch", "keys/s", True)
    cpu = Measure(f"{size:,} keys a batch, a second of CPU time of client and server", "keys/s", True)
    lists = [keys[first : first + size] for first in range(0, len(keys), size)]
    arrays = [pa.array(each, pa.large_string()) for each in lists]

    def add(who: str, rates: tuple[float, float]) -> None:
        for measure, rate in zip((wall, cpu), rates, strict=True):
            measure.rounds.setdefault(who, []).append(rate)

    with pheon.connect(f"grpc://127.0.0.1:{server.port}", local=False) as client, exchange(server.port) as (ask, to_list):
        remote = client.map(data.MAP)
        for _ in range(run.repeat):
            add(PHEON, _measure(PHEON, remote.get_many, arrays, lambda a: a.to_pylist(), right, server))
            add(STOCK, _measure(STOCK, ask, arrays, to_list, right, server))
            add(LISTS, _measure(LISTS, remote.get_many, lists, list, right, server))
            if peer is not None:
                add(REDIS, _measure(REDIS, redis_client(peer.port).mget, lists, list, right, peer))
    if REDIS in cpu.rounds:
        cpu.goal = TIMES_REDIS * max(cpu.rounds[REDIS])
    return [wall, cpu]
