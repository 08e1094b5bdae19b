"""Many keys at a time: DoExchange with pyarrow's client and with Pheon's, and MGET."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from benches.live.peers.base import MissingError
from benches.live.plan import Figure, Measure
from benches.remote import data, servers
from benches.remote.plan import PHEON, Run
from pyarrow import flight

import pheon

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


@dataclass(frozen=True)
class Case:
    """Who is asked, in which form, and how its answers become a list."""

    who: str
    server: servers.Server
    ask: Ask
    batches: list[Any]
    to_list: Callable[[Any], list[str | None]]

    def rates(self, right: list[str | None]) -> tuple[float, float]:
        """Keys a second by the clock, and a second of one core's time of client and server together."""
        self.ask(self.batches[0])
        cpu, start = process_time() + self.server.cpu_seconds, perf_counter()
        answers = [self.ask(batch) for batch in self.batches]
        wall, cpu = perf_counter() - start, process_time() + self.server.cpu_seconds - cpu
        data.check(self.who, [each for answer in answers for each in self.to_list(answer)], right)
        return len(right) / wall, len(right) / max(cpu, 1e-9)


def run(run: Run) -> Figure:
    """Rounds in turns."""
    folder = run.folder / "lookup"
    folder.mkdir()
    store = data.make_map(run.sizes, folder)
    asked = data.questions(run.sizes, run.sizes.lookup_keys)
    measures = []
    notes = ["Lists: Python lists of str in and out, as with Redis; the others: Arrow arrays in and out."]
    with ExitStack() as stack:
        server = stack.enter_context(servers.pheon(run.command, store))
        peer = None
        try:
            peer = stack.enter_context(servers.redis(folder))
            fill_redis(run, peer.port)
        except MissingError as why:
            notes.append(f"Redis: {why}.")
        for size in run.sizes.batches:
            measures += _batches(run, (server, peer), size, asked)
    return Figure(
        "Lookups of many keys over TCP",
        f"{run.sizes.map_entries:,} entries of 20 + 20 bytes, {run.sizes.lookup_keys:,} keys in random order, one in "
        f"{data.MISSES_EVERY} missing; one connection, one batch after the other.",
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
    run: Run, both: tuple[servers.Server, servers.Server | None], size: int, asked: tuple[list[str], list[str | None]]
) -> list[Measure]:
    (server, peer), (keys, right) = both, asked
    wall = Measure(f"{size:,} keys a batch", "keys/s", True)
    cpu = Measure(f"{size:,} keys a batch, a second of CPU time of client and server", "keys/s", True)
    lists = [keys[first : first + size] for first in range(0, len(keys), size)]
    arrays = [pa.array(each, pa.large_string()) for each in lists]
    uri = f"grpc://127.0.0.1:{server.port}"
    with pheon.connect(uri, local=False) as client, exchange(server.port) as (ask, to_list):
        remote = client.map(data.MAP)
        cases = [
            Case(PHEON, server, remote.get_many, arrays, lambda answer: answer.to_pylist()),
            Case(STOCK, server, ask, arrays, to_list),
            Case(LISTS, server, remote.get_many, lists, list),
        ]
        if peer is not None:
            cases.append(Case(REDIS, peer, redis_client(peer.port).mget, lists, list))
        for _ in range(run.repeat):
            for case in cases:
                for measure, rate in zip((wall, cpu), case.rates(right), strict=True):
                    measure.rounds.setdefault(case.who, []).append(rate)
    if REDIS in cpu.rounds:
        cpu.goal = TIMES_REDIS * max(cpu.rounds[REDIS])
    return [wall, cpu]
