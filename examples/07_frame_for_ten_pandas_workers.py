"""Ten processes answer queries from one frame that is in memory once: rows by key, as pandas."""

import os
import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from flights import flights

import pheon

WORKERS = 10
QUERIES = 100


def answer(table: pheon.Table, asked: list[tuple[str, int]]) -> list[tuple[str, int, int, float]]:
    """For each carrier and flight number: how often it flew, and its delay in minutes in all."""
    answers: list[tuple[str, int, int, float]] = []
    for carrier, number in asked:
        rows = table.loc[(carrier, number)].to_pandas()
        answers.append((carrier, number, len(rows), float(rows["arr_delay"].sum())))
    return answers


def main() -> None:
    frame = flights()
    # The source reads a missing delay as NaN and adds it up as 0, as pandas does below.
    expected = frame.groupby(["carrier", "flight"])["arr_delay"].agg(["size", "sum"])
    rng = random.Random(7)
    keys = list(expected.index)
    with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
        table = store.put("flights", frame, key=["carrier", "flight"])
        print(f"{len(table):,} flights, {table.nbytes / 1e6:.0f} MB, key {table.key}")
        with ProcessPoolExecutor(max_workers=WORKERS, mp_context=get_context("spawn")) as pool:
            asked = [[rng.choice(keys) for _ in range(QUERIES)] for _ in range(WORKERS)]
            answers = [a for part in pool.map(answer, [table] * WORKERS, asked) for a in part]
        for carrier, number, count, delay in answers:
            wanted = expected.loc[(carrier, number)]
            assert (count, delay) == (wanted["size"], wanted["sum"]), (carrier, number)
        # A range includes both ends, as in pandas; the first columns of the key will do.
        assert len(table.loc["AA":"B6"]) == frame["carrier"].between("AA", "B6").sum()
        print(f"{len(answers):,} answers of {WORKERS} workers on {os.cpu_count()} cores, all as pandas gives them")


if __name__ == "__main__":
    main()
