"""A time series grows while readers look at its end: each refresh is one system call, no reader is ever disturbed."""

import tempfile
from multiprocessing import get_context
from multiprocessing.synchronize import Event

import numpy as np
import pyarrow as pa

import pheon

BATCH = 1_000
BATCHES = 60
START = np.datetime64("2026-01-01T09:00:00", "us")


def prices(batch: int) -> pa.Table:
    """A thousand prices, one a second; the value tells which it is."""
    numbers = np.arange(batch * BATCH, (batch + 1) * BATCH)
    return pa.table({"time": START + numbers * np.timedelta64(1_000_000, "us"), "price": numbers * 0.25})


def watch(path: str, done: Event) -> None:
    """Looks at the last minute, again and again."""
    table = pheon.open(path, read_only=True).table("prices")
    versions = 0
    while not done.is_set():
        versions += table.refresh()
        last = len(table) - 1
        minute = table.range((START + np.timedelta64(last - 59, "s")).item(), None)
        assert minute.to_numpy("price").tolist() == [n * 0.25 for n in range(last - 59, last + 1)]
    assert versions > 0


def main() -> None:
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
        first = store.put("prices", prices(0), key="time")
        done = context.Event()
        readers = [context.Process(target=watch, args=(store.path, done)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for batch in range(1, BATCHES):
            table = store.append("prices", prices(batch), keep=2)
        # The readers need a moment to start; give each of them something new to see.
        while any(reader.is_alive() for reader in readers) and not done.is_set():
            for reader in readers:
                reader.join(0.5)
            table = store.append("prices", prices(len(table) // BATCH), keep=2)
            if len(table) >= (BATCHES + 12) * BATCH:
                done.set()
        for reader in readers:
            reader.join()
            assert reader.exitcode == 0
        assert len(first) == BATCH, "a handle stays on its version"
        print(f"{len(table):,} prices in {table.info().segments} segments, version {table.version}")


if __name__ == "__main__":
    main()
