"""Other values than those of the main figures: one process reads and writes them."""

from __future__ import annotations

from benches.live import data
from benches.live.plan import Figure, Measure, Plan, data_words, entries_words
from benches.live.reading import read
from benches.live.writing import write

SHAPES = (data.INT, "str100")


def run(plan: Plan) -> Figure:
    """Reads and writes of one process."""
    size, seconds = plan.sizes.keys[0], plan.sizes.seconds
    measures = []
    for shape in SHAPES:
        title = data_words(shape).partition(", ")[2]
        reads = Measure(f"{title}: reads", "/s", True)
        writes = Measure(f"{title}: d[k] = v", "/s", True)
        batches = Measure(f"{title}: d.update(dict of {data.BATCH:,})", "/s", True)
        plan.collect(read, {"wall": reads}, size, shape, readers=1, writers=0, seconds=seconds)
        plan.collect(write, {"rate": writes}, size, shape, writers=1, batch=0, seconds=seconds)
        plan.collect(write, {"rate": batches}, size, shape, writers=1, batch=data.BATCH, seconds=seconds)
        measures += [reads, writes, batches]
    return Figure("Other values", f"{entries_words(size)}, one process, by the clock.", measures)
