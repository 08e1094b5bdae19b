"""A whole table by DoGet, with the client of pyarrow: Pheon's server and the C++ one."""

from __future__ import annotations

import threading
from time import perf_counter

import pyarrow as pa
from benches.compare.oracle import WrongAnswerError
from benches.live.plan import Figure, Measure
from benches.remote import data, servers
from benches.remote.plan import PHEON, Run
from pyarrow import flight, ipc

ARROW = "C++ server"


def _reader(port: int) -> flight.FlightStreamReader:
    client = flight.connect(f"grpc://127.0.0.1:{port}")
    info = client.get_flight_info(flight.FlightDescriptor.for_path(data.TABLE))
    return client.do_get(info.endpoints[0].ticket)


def _read(port: int, rows: list[int]) -> None:
    # What a consumer that keeps nothing does: the client has each batch in memory, then lets it go.
    rows.append(sum(chunk.data.num_rows for chunk in _reader(port)))


def gigabytes_a_second(port: int, streams: int, rows_expected: int, table_bytes: int) -> float:
    """Of all streams together, connecting included."""
    rows: list[int] = []
    threads = [threading.Thread(target=_read, args=(port, rows)) for _ in range(streams)]
    start = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = perf_counter() - start
    if rows != [rows_expected] * streams:
        raise WrongAnswerError(f"{streams} streams gave {rows} rows, expected {rows_expected} each")
    return table_bytes * streams / taken / 1e9


def run(run: Run) -> Figure:
    """Rounds in turns; after them the content is compared once."""
    folder = run.folder / "scan"
    folder.mkdir()
    store, file = data.make_table(run.sizes, folder)
    expected = ipc.open_file(pa.memory_map(str(file))).read_all()
    measures = {n: Measure(f"{n} stream{'s' * (n > 1)}", "GB/s", True) for n in run.sizes.streams}
    with servers.pheon(run.command, store) as ours, servers.arrow(file) as theirs:
        both = {PHEON: ours, ARROW: theirs}
        for _ in range(run.repeat):
            for streams, measure in measures.items():
                for who, server in both.items():
                    rate = gigabytes_a_second(server.port, streams, expected.num_rows, expected.nbytes)
                    measure.rounds.setdefault(who, []).append(rate)
        for who, server in both.items():
            if not _reader(server.port).read_all().equals(expected):
                raise WrongAnswerError(f"{who}: the table that was sent is not the one that is served")
    size = f"{expected.num_rows:,} rows of {len(expected.schema)} numbers, {expected.nbytes / 1e9:.1f} GB"
    for measure in measures.values():
        measure.goal = max(measure.rounds[ARROW])
    return Figure(
        "Scan over Flight",
        f"{size}; one client process (pyarrow) lets batches go as they come and shares the cores with the server.",
        list(measures.values()),
        ["The goal is the C++ server's figure of the same run."],
    )
