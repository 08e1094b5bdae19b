"""`python -m benches.remote.arrow_server FILE PORT`: pyarrow's Flight server, which sends one file to whoever asks."""

import sys

import pyarrow as pa
from pyarrow import flight, ipc


class ArrowServer(flight.FlightServerBase):
    """Everything about a stream but its start is C++."""

    def __init__(self, port: int, file: str) -> None:
        super().__init__(f"grpc://127.0.0.1:{port}")
        self._table = ipc.open_file(pa.memory_map(file)).read_all()

    def get_flight_info(self, context: object, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        endpoint = flight.FlightEndpoint(b"all", [])
        return flight.FlightInfo(self._table.schema, descriptor, [endpoint], self._table.num_rows, self._table.nbytes)

    def do_get(self, context: object, ticket: flight.Ticket) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(self._table)


if __name__ == "__main__":
    ArrowServer(int(sys.argv[2]), sys.argv[1]).serve()
