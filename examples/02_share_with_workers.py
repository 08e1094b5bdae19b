"""Worker processes share one copy: a map pickles as where it is, whatever its size."""

import pickle
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pheon


def total_length(words: pheon.Map, keys: list[str]) -> int:
    return sum(len(value) for value in words.get_many(keys) if value is not None)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
        words = store.put_map("words", ((f"word-{n}", "x" * (n % 10)) for n in range(100_000)))
        print("a handle pickles to", len(pickle.dumps(words)), "bytes")

        with ProcessPoolExecutor(max_workers=4, mp_context=get_context("spawn")) as pool:
            parts = [[f"word-{n}" for n in range(start, 120_000, 4)] for start in range(4)]
            lengths = list(pool.map(total_length, [words] * 4, parts))

        assert sum(lengths) == sum(n % 10 for n in range(100_000))
        print("characters found by each worker:", lengths)


if __name__ == "__main__":
    main()
