"""What test_power_cut.py runs in another process: writes to a store until its disk goes away.

What is done follows from a seed alone, so that the parent knows what each step leads to. Imports nothing but Pheon.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pheon

# A power cut must find something that is not on the disk yet.
ENTRIES = 2000
LIVE_VALUE_BYTES_MAX = 20_000

Rows = dict[str, int]
Live = dict[str, bytes]
State = tuple[Rows | None, Live, Live]


def plan(seed: int, start: State) -> Iterator[tuple[str, object, State, bool]]:
    """Steps: what is done, with what, the state afterwards, whether the map without `durable` is on the disk then."""
    rng = random.Random(seed)
    rows, live, durable = (dict(start[0]) if start[0] is not None else None), dict(start[1]), dict(start[2])
    steps = ("put", "append", "upsert", "delete", "compact", "gc", "drop", "live", "sync", "durable")
    weights = (2, 3, 2, 2, 1, 2, 0.3, 12, 2, 6)
    while True:
        step = rng.choices(steps, weights)[0]
        argument: object = None
        synced = False
        if step in {"live", "durable"}:
            target = live if step == "live" else durable
            changes = {
                f"key {rng.randrange(40)}": rng.randbytes(rng.randrange(LIVE_VALUE_BYTES_MAX))
                for _ in range(rng.choice((1, 1, 5)))
            }
            target.update(changes)
            argument = changes
        elif step == "sync":
            synced = True
        elif rows is None or step == "put":
            step = "put"
            rows = {f"key {i}": rng.getrandbits(40) for i in range(rng.randrange(1, ENTRIES))}
            argument = dict(rows)
        elif step == "append":
            added = {f"more {rng.getrandbits(60):x}": rng.getrandbits(40) for _ in range(rng.randrange(1, 200))}
            rows |= added
            argument = added
        elif step == "upsert":
            changed = {f"key {rng.randrange(ENTRIES)}": rng.getrandbits(40) for _ in range(100)}
            rows |= changed
            argument = changed
        elif step == "delete":
            gone = rng.sample(sorted(rows), min(len(rows) - 1, 20))
            for key in gone:
                del rows[key]
            argument = gone
            if not gone:
                continue
        elif step == "gc":
            argument = rng.randrange(1, 4)
        elif step == "drop":
            rows = None
        yield step, argument, (None if rows is None else dict(rows), dict(live), dict(durable)), synced


def found(store: pheon.Store) -> State:
    """What the store holds. Nothing stays open."""
    rows = dict(store.map("m").items()) if "m" in store else None
    lives: list[Live] = []
    for name in LIVE_NAMES:
        if name in store.live_names():
            with store.live(name, create=False) as live:
                lives.append(dict(live.items()))
        else:
            lives.append({})
    return rows, lives[0], lives[1]


LIVE_NAMES = ("live", "durable")


def write(path: Path, seed: int, start: State, told: int) -> None:
    """Takes steps until one fails; says before and after each, through the descriptor `told`, that it is."""
    store = pheon.open(path)
    maps = {"live": store.live("live"), "durable": store.live("durable", durable=True)}
    maps["live"].sync()
    os.write(told, b"ready\n")
    for number, (step, argument, _, _) in enumerate(plan(seed, start)):
        os.write(told, f"begin {number}\n".encode())
        try:
            take(store, maps, step, argument)
            versions = [info.version for info in store.versions("m")] if "m" in store else []
        except (OSError, pheon.Error):
            # The disk is gone.
            return
        os.write(told, f"done {number} {' '.join(map(str, versions))}\n".encode())


def take(store: pheon.Store, maps: dict[str, pheon.LiveMap], step: str, argument: object) -> None:
    if step in maps:
        maps[step].update(argument)
    elif step == "sync":
        maps["live"].sync()
    elif step == "put":
        store.put_map("m", argument)
    elif step == "append":
        store.append("m", argument)
    elif step == "upsert":
        store.upsert("m", argument)
    elif step == "delete":
        store.delete("m", argument)
    elif step == "compact":
        store.compact("m", keep=2)
    elif step == "gc":
        store.gc("m", keep=argument)
    elif step == "drop":
        store.drop("m")
    else:
        raise ValueError(step)
