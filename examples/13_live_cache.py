"""A cache that all workers share, with a limit: the least recently written entries go first."""

import concurrent.futures
import multiprocessing

import pheon


def square(cache: pheon.LiveMap, number: int) -> int:
    found = cache.get(number)
    if found is None:
        found = number * number  # imagine something slow
        cache[number] = found
        cache.increment("computed")
    return found


def main() -> None:
    with pheon.LiveMap(max_entries=1000, max_age=60.0, auto_unlink=True) as cache:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            numbers = [i % 500 for i in range(2000)]
            assert list(pool.map(square, [cache] * len(numbers), numbers, chunksize=100)) == [n * n for n in numbers]
        assert cache["computed"] < 2000  # most were found
        cache.update((number, None) for number in range(10_000, 20_000))
        assert len(cache) == 1000
        assert 5 not in cache
        print(f"looked squares up for {len(numbers)} questions; {len(cache)} entries are left")


if __name__ == "__main__":
    main()
