"""Rows by key, one by one and many at once, beside pandas on a built index."""

from __future__ import annotations

import gc
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from benches.tables import data
from benches.tables.opening import private_mib
from benches.tables.plan import PHEON, Figure, Measure, Plan, Rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd

HASH, SORTED = "pandas, rows in random order (hash index)", "pandas, rows sorted (binary search)"
ORDERS = {HASH: "random", SORTED: "sorted"}
COLUMNS = 2
BLOCK = 1_000  # questions between two looks at the clock
SECONDS_MAX = 5.0  # of questions of one kind; what is slower is asked fewer
BATCH_FACTOR = 10  # how many more keys a batch has
REPEATED = f"a key of {data.REPEATS} rows"
ROW, VALUE = "t.loc[key] / df.loc[key]", 't.loc[key, "c00"] / df.loc[key, "c00"]'
REPEATED_ROW, REPEATED_VALUE = f"{REPEATED}: {ROW}", f"{REPEATED}: {VALUE}"
FRAME, REPEATED_FRAME, BATCH_FRAME = "frame", "repeated frame", "batch frame"
AT, REINDEX = "at", "reindex"
BATCH = "many keys: t.lookup(keys) / df.loc[keys]"
FIRST, INDEX = "open + first row / build the index (first .loc)", "private memory of that"


def prepare(plan: Plan) -> None:
    """Builds a table of unique keys and one whose keys repeat."""
    for name, kind in (("unique", "random"), ("repeated", "repeated")):
        plan.step(
            data.build, folder=str(plan.work / "store"), name=name, rows=plan.sizes.key_rows, count=COLUMNS, key=kind
        )


def questions(count: int, keys: int) -> np.ndarray[Any, Any]:
    """Keys that are there, drawn at random from the first `keys` numbers."""
    import numpy as np

    return data.keys(np.random.default_rng(7).integers(0, keys, count))


def one_by_one(
    what: str, ask: Callable[[int], Any], value_of: Callable[[Any], Any], asked: np.ndarray[Any, Any], rows: int = 1
) -> float:
    """Nanoseconds a question; `value_of` turns an answer into its values of the first column, which are compared."""
    import numpy as np

    spent = count = 0
    block = BLOCK
    while count < len(asked) and spent < SECONDS_MAX * 1e9:
        part = asked[count : count + block]
        plain = part.tolist()
        start = perf_counter_ns()
        answers = [ask(key) for key in plain]
        elapsed = perf_counter_ns() - start
        found = np.array([value_of(answer) for answer in answers], dtype=np.float64).reshape(-1)
        data.check(what, found, np.repeat(data.values(part, 0), rows))
        spent += elapsed
        count += len(part)
        if elapsed > SECONDS_MAX / 10 * 1e9:
            block = max(BLOCK // 50, 1)
    return spent / count


def batch(what: str, ask: Callable[[np.ndarray[Any, Any]], Any], asked: np.ndarray[Any, Any]) -> float:
    """Nanoseconds a key of a second call with all of them; all columns of the answer are compared."""
    import numpy as np

    ask(asked)
    start = perf_counter_ns()
    found = ask(asked)
    elapsed = perf_counter_ns() - start
    for number, name in enumerate(data.columns(COLUMNS)):
        data.check(f"{what}, {name}", np.asarray(found[name]), data.values(asked, number))
    return elapsed / len(asked)


def by_pheon(folder: str, rows: int, count: int) -> dict[str, Any]:
    """A step: all questions to the tables."""
    import pyarrow as pa
    import pyarrow.pandas_compat

    import pheon
    import pheon._adapters.pandas

    asked = questions(count, rows)
    many = questions(count * BATCH_FACTOR, rows)
    repeated_keys = questions(count, max(rows // data.REPEATS, 1))
    first = int(asked[0])
    gc.collect()
    gc.disable()
    before, start = private_mib(), perf_counter()
    store = pheon.open(folder, read_only=True)
    t = store.table("unique")
    t.loc[first]
    found = {FIRST: (perf_counter() - start) * 1e3, INDEX: private_mib() - before}
    repeated = store.table("repeated")
    found[ROW] = one_by_one(ROW, lambda key: t.loc[key], lambda row: row["c00"][0], asked)
    found[VALUE] = one_by_one(VALUE, lambda key: t.loc[key, "c00"], lambda value: value, asked)
    found[FRAME] = one_by_one(FRAME, lambda key: t.loc[key].to_pandas(), lambda frame: frame["c00"].iloc[0], asked)
    each = data.REPEATS
    found[REPEATED_ROW] = one_by_one(
        REPEATED_ROW, lambda key: repeated.loc[key], lambda part: part["c00"].to_pylist(), repeated_keys, each
    )
    found[REPEATED_VALUE] = one_by_one(
        REPEATED_VALUE, lambda key: repeated.loc[key, "c00"], lambda part: part.to_pylist(), repeated_keys, each
    )
    found[REPEATED_FRAME] = one_by_one(
        REPEATED_FRAME, lambda key: repeated.loc[key].to_pandas(), lambda frame: frame["c00"], repeated_keys, each
    )
    found[BATCH] = batch(BATCH, t.lookup, many)
    found[BATCH_FRAME] = batch(BATCH_FRAME, lambda keys: pa.table(t.lookup(keys)).to_pandas(), many)
    return found


def _frame(rows: int, kind: str, order: str) -> pd.DataFrame:
    table = data.stream(rows, COLUMNS, kind).read_all()
    if order == "sorted":
        table = table.sort_by("key")
    return table.to_pandas().set_index("key")


def by_pandas(order: str, folder: str, rows: int, count: int) -> dict[str, Any]:
    """A step: the same questions to frames that this process makes for itself."""
    return _unique_in_pandas(order, rows, count) | _repeated_in_pandas(order, rows, count)


def _unique_in_pandas(order: str, rows: int, count: int) -> dict[str, Any]:
    asked = questions(count, rows)
    many = questions(count * BATCH_FACTOR, rows)
    df = _frame(rows, "random", order)
    first = int(asked[0])
    gc.collect()
    gc.disable()
    before, start = private_mib(), perf_counter()
    df.loc[first]
    found = {FIRST: (perf_counter() - start) * 1e3, INDEX: private_mib() - before}
    found[ROW] = one_by_one(ROW, lambda key: df.loc[key], lambda row: row["c00"], asked)
    found[VALUE] = one_by_one(VALUE, lambda key: df.loc[key, "c00"], lambda value: value, asked)
    found[AT] = one_by_one(AT, lambda key: df.at[key, "c00"], lambda value: value, asked)
    found[FRAME] = one_by_one(FRAME, lambda key: df.loc[[key]], lambda frame: frame["c00"].iloc[0], asked)
    found[BATCH] = batch(BATCH, lambda keys: df.loc[keys], many)
    found[REINDEX] = batch(REINDEX, df.reindex, many)
    gc.enable()
    return found


def _repeated_in_pandas(order: str, rows: int, count: int) -> dict[str, Any]:
    asked = questions(count, max(rows // data.REPEATS, 1))
    df = _frame(rows, "repeated", order)
    df.loc[int(asked[0])]  # builds what pandas builds
    gc.disable()
    each = data.REPEATS
    return {
        REPEATED_ROW: one_by_one(REPEATED_ROW, lambda key: df.loc[key], lambda frame: frame["c00"], asked, each),
        REPEATED_VALUE: one_by_one(REPEATED_VALUE, lambda key: df.loc[key, "c00"], lambda part: part, asked, each),
    }


def run(plan: Plan) -> Figure:
    """Every kind of question to Pheon and to pandas with both kinds of index."""
    sizes = plan.sizes
    shared = {"folder": str(plan.work / "store"), "rows": sizes.key_rows, "count": sizes.key_questions}
    rounds: dict[str, Rounds] = {PHEON: plan.rounds(by_pheon, **shared)}
    for title, order in ORDERS.items():
        rounds[title] = plan.rounds(by_pandas, order=order, **shared)

    def of(name: str, others: str | None = None) -> dict[str, list[float]]:
        """Pheon's rounds and those of pandas, which may have a name of its own for it."""
        return {title: each[name if title == PHEON else others or name] for title, each in rounds.items()}

    goal = {"speedup_min": 1.0}
    return Figure(
        "Rows by key",
        f"{sizes.key_rows:,} rows, an int64 key and {COLUMNS} float64 columns; {sizes.key_questions:,} random keys "
        f"that are there, one by one, and {sizes.key_questions * BATCH_FACTOR:,} in one call.",
        [
            Measure(ROW, "ns", of(ROW), **goal),
            Measure(VALUE, "ns", of(VALUE), **goal),
            Measure('t.loc[key, "c00"] / df.at[key, "c00"]', "ns", of(VALUE, AT)),
            Measure("t.loc[key].to_pandas() / df.loc[[key]]", "ns", of(FRAME)),
            Measure(REPEATED_ROW, "ns", of(REPEATED_ROW), **goal),
            Measure(REPEATED_VALUE, "ns", of(REPEATED_VALUE), **goal),
            Measure(f"{REPEATED}: t.loc[key].to_pandas() / df.loc[key]", "ns", of(REPEATED_FRAME, REPEATED_ROW)),
            Measure(BATCH, "ns a key", of(BATCH)),
            Measure("many keys, to a frame: t.lookup(keys), pandas / df.loc[keys]", "ns a key", of(BATCH_FRAME, BATCH)),
            Measure("many keys, to a frame: t.lookup(keys), pandas / df.reindex", "ns a key", of(BATCH_FRAME, REINDEX)),
            Measure(FIRST, "ms", of(FIRST)),
            Measure(INDEX, "MiB", of(INDEX)),
        ],
        [
            "`t.loc[key]` gives a table slice, without a copy; pandas a Series of one row, a frame if keys repeat.",
            '`t.loc[key, "c00"]` gives the value of a key that cannot repeat, else a column; so does pandas.',
            "pandas has the frame itself in each process besides; only what the index adds is counted.",
            "From a million sorted rows on pandas searches by bisection and builds no hash table.",
            f"Questions of one kind end after {SECONDS_MAX:.0f} s, so slow ones are fewer.",
        ],
    )
