"""A dict that many processes change: counters, locks, batches, and a worker that is killed."""

import multiprocessing
import os
import signal

import pheon


def work(counters: pheon.LiveMap, number: int) -> None:
    for _ in range(1000):
        counters.increment("jobs")  # one step, whoever else is at it
        counters[f"worker {number}"] = counters.get(f"worker {number}", 0) + 1  # nobody else writes this one
    with counters.lock:  # two keys that belong together
        counters["finished"] = [*counters.get("finished", []), number]
        counters["count"] = len(counters["finished"])


def work_for_ever(counters: pheon.LiveMap) -> None:
    while True:
        with counters.batch() as batch:  # both or none, for readers too, and also if this process dies here
            batch.increment("left")
            batch.increment("right")


def main() -> None:
    with pheon.LiveMap(auto_unlink=True) as counters:  # a name of its own; a pickled handle opens it by that name
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=work, args=(counters, number)) for number in range(4)]
        victim = context.Process(target=work_for_ever, args=(counters,))
        for worker in [victim, *workers]:
            worker.start()
        for worker in workers:
            worker.join()
        while "right" not in counters:  # until the victim writes
            counters.wait(1.0)
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()

        assert counters["jobs"] == 4000
        assert counters["count"] == len(counters["finished"]) == 4
        assert counters["left"] == counters["right"]
        counters["written after the kill"] = True  # nothing is left locked
        print({key: counters[key] for key in ("jobs", "finished", "left", "right")})


if __name__ == "__main__":
    main()
