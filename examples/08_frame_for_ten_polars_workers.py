"""The same in polars: each worker writes an ordinary lazy query, and what it says of the key goes to the index."""

import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import polars as pl
from flights import flights

import pheon

WORKERS = 10
QUERIES = 100


def answer(table: pheon.Table, asked: list[tuple[str, int]]) -> list[tuple[str, int, int, float]]:
    """For each carrier and flight number: how often it flew, and its delay in minutes in all."""
    answers: list[tuple[str, int, int, float]] = []
    for carrier, number in asked:
        of_flight = table.lazy().filter(pl.col("carrier") == carrier, pl.col("flight") == number)
        count, delay = of_flight.select(pl.len(), pl.col("arr_delay").sum()).collect().row(0)
        answers.append((carrier, number, count, delay))
    return answers


def main() -> None:
    frame = pl.from_pandas(flights())
    expected = {
        (carrier, number): (count, delay)
        for carrier, number, count, delay in frame.group_by("carrier", "flight")
        .agg(pl.len(), pl.col("arr_delay").sum().alias("delay"))
        .iter_rows()
    }
    rng = random.Random(8)
    keys = sorted(expected)
    with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
        table = store.put("flights", frame, key=["carrier", "flight"])
        with ProcessPoolExecutor(max_workers=WORKERS, mp_context=get_context("spawn")) as pool:
            asked = [[rng.choice(keys) for _ in range(QUERIES)] for _ in range(WORKERS)]
            answers = [a for part in pool.map(answer, [table] * WORKERS, asked) for a in part]
        for carrier, number, count, delay in answers:
            assert (count, delay) == expected[carrier, number], (carrier, number)
        query = table.lazy().filter(pl.col("carrier") == "UA").select("dep_time")
        print(query.explain())
        assert query.collect().height == frame.filter(pl.col("carrier") == "UA").height
        print(f"{len(answers):,} answers of {WORKERS} workers, all as polars gives them in memory")


if __name__ == "__main__":
    main()
