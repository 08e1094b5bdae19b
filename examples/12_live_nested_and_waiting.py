"""A nested dict as a job board: workers wait for changes, and a snapshot becomes an immutable map."""

import multiprocessing
import tempfile

import pheon


def worker(board: pheon.LiveMap, number: int) -> None:
    while not board.get("closed"):
        with board.lock:
            job = next((name for name, facts in board["jobs"].items() if facts["state"] == "new"), None)
            if job is not None:
                board["jobs"][job]["state"] = f"taken by {number}"
        if job is None:
            board.wait(0.2)  # until somebody changes something
            continue
        result = sum(board["jobs"][job]["numbers"])
        with board.lock:
            board["jobs"][job].update(state="done", result=result)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
        board = store.live("board")  # kept in the store: on a disk it outlives a reboot, as of the last board.sync()
        board["jobs"] = {}
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=worker, args=(board, number)) for number in range(3)]
        for process in workers:
            process.start()
        for number in range(20):
            board["jobs"][f"job {number}"] = {"state": "new", "numbers": list(range(number))}
        while not all(facts["state"] == "done" for facts in board["jobs"].values()):
            board.wait(0.2)
        board["closed"] = True
        for process in workers:
            process.join()

        results = {name: facts["result"] for name, facts in board["jobs"].items()}
        assert results == {f"job {n}": n * (n - 1) // 2 for n in range(20)}
        frozen = board.freeze("board_of_today")
        assert frozen["jobs"]["job 4"]["result"] == 6  # an ordinary map of the store now, which nothing changes
        print(f"{len(results)} jobs done; frozen as version {frozen.version} of {frozen.name!r}")


if __name__ == "__main__":
    main()
