"""What connections cost that do nothing."""

from __future__ import annotations

from time import sleep

from benches.compare.oracle import WrongAnswerError
from benches.live.plan import Figure, Measure
from benches.remote import data, servers
from benches.remote.plan import PHEON, Run
from pyarrow import flight

SETTLE_SECONDS = 2.0
GOAL_BYTES = 100e6
GOAL_CONNECTIONS = 1_000


def run(run: Run) -> Figure:
    """The server's private memory before and with the connections, each of which has made one call."""
    folder = run.folder / "idle"
    folder.mkdir()
    store = data.make_map(run.sizes, folder)
    count = run.sizes.connections
    measure = Measure(f"{count:,} idle connections", "MB", False, GOAL_BYTES / 1e6 * count / GOAL_CONNECTIONS)
    with servers.pheon(run.command, store) as server:
        list(_connect(server.port, 0).list_flights())
        sleep(SETTLE_SECONDS)
        before = server.private_bytes
        clients = [_connect(server.port, number) for number in range(1, count + 1)]
        for client in clients:
            list(client.list_flights())
        sleep(SETTLE_SECONDS)
        if (seen := server.connections) < count:
            raise WrongAnswerError(f"the server has {seen} connections, expected {count}")
        measure.rounds[PHEON] = [(server.private_bytes - before) / 1e6]
        for client in clients:
            client.close()
    return Figure("Idle connections", "Of pyarrow's client; the server's private memory.", [measure], [])


def _connect(port: int, number: int) -> flight.FlightClient:
    # Clients with other options do not share a connection.
    options = [("pheon.bench.number", number), ("grpc.use_local_subchannel_pool", 1)]
    return flight.connect(f"grpc://127.0.0.1:{port}", generic_options=options)
