"""What several processes and shared memory hold together: every page counted once."""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING, Any

from benches.compare import memory
from benches.live import data, maps, peers
from benches.live.crew import Crew
from benches.live.peers.base import MEMORY, Place, files
from benches.live.peers.ultra import dump_names
from benches.live.plan import Figure, Measure, Plan, Who, data_words, shared

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benches.live.peers.base import Peer

TIMES_MAX = 1.3
WRITES_BYTES = 8 << 20
GB = 1e9
NOTE = (
    "PSS of all processes, a server's included, without what they map of shared memory, plus all files of the map in "
    "/dev/shm."
)


def look_around(found: Peer, place: Place, number: int) -> None:
    """Reads random keys, and compares them."""
    numbers = random.Random(number).choices(range(place.size), k=found.memory_reads)
    for first in range(0, len(numbers), data.BATCH):
        part = numbers[first : first + data.BATCH]
        answers = found.read(data.keys(part))
        data.check("read", part, answers, [data.value(place.shape, each) for each in part])


def holder(ready: Callable[[], Any], *, peer: str, handle: Any, place: Place, number: int) -> dict[str, Any]:
    """A task: reads, then holds what it holds until it has been measured."""
    with maps.attached(peer, handle) as found:
        look_around(found, place, number)
        gc.collect()
        ready()
        ready()
    return {}


def bare(ready: Callable[[], Any], *, peer: str) -> dict[str, Any]:
    """A task: a process that has loaded the library, and no map."""
    peers.find(peer).load()
    gc.collect()
    ready()
    ready()
    return {}


def held_bytes(pids: list[int | str], name: str) -> tuple[int, int]:
    """What processes hold for themselves, and what the map with this name has in shared memory.

    Shared memory that is mapped but has no file any more counts too.
    """
    rollups = [memory.rollup(pid) for pid in pids]
    mapped = sum(each["Pss_Shmem"] for each in rollups)
    private = sum(each["Pss"] for each in rollups) - mapped
    return private, max(_file_bytes(name), mapped)


def _file_bytes(name: str) -> int:
    found: list[Path] = [*files(name), *(MEMORY / dump for dump in dump_names(name))]
    found += [inner for folder in found if folder.is_dir() for inner in folder.rglob("*")]
    return sum(file.stat().st_blocks * 512 for file in found if file.is_file())


def hold(*, peer: str, place: dict[str, Any], processes: int) -> dict[str, Any]:
    """A step: the process that makes the map is one of them; a server, if any, comes on top."""
    where = Place(**{**place, "writes_bytes": WRITES_BYTES})
    with Crew([(bare, {"peer": peer})] * processes) as crew:
        crew.wait()
        without, _ = held_bytes([*crew.pids], where.name)
        crew.wait()
        crew.results()
    with maps.made(peer, where) as (adapter, handle):
        look_around(adapter, where, 0)
        arguments = {"peer": peer, "handle": handle, "place": where}
        with Crew([(holder, {**arguments, "number": number}) for number in range(1, processes)]) as crew:
            crew.wait()
            gc.collect()
            private, common = held_bytes(["self", *crew.pids, *adapter.servers], where.name)
            crew.wait()
            crew.results()
        size = where.size * (data.width(where.shape) + len(data.key(0)))
    return {
        "times": (private + common) / size,
        "beyond": (private + common - without) / size,
        "shared": common / size,
        "size": size,
    }


def run(plan: Plan) -> Figure:
    """Everybody with the same data, but who would need more memory than there is, with a part of it."""
    sizes = plan.sizes
    many = sizes.memory_processes
    by = {
        "times": Measure(f"all memory of {many} processes / data", "times", False, TIMES_MAX),
        "beyond": Measure("the same, beyond as many processes without a map", "times", False),
        "shared": Measure("of that, shared memory / data", "times", False),
    }

    def entries(who: Who) -> int:
        return sizes.memory_keys // peers.find(who.name).memory_divide

    found = plan.collect(hold, by, entries, sizes.memory_shape, only=shared, repeat=1, processes=many)
    smaller = [
        f"{title} got {runs[0]['size'] / GB:.2g} GB only: with all of it, it would need about "
        f"{runs[0]['times'] * full / GB:.2g} GB."
        for title, runs in found.items()
        if runs[0]["size"] < (full := sizes.memory_keys * (data.width(sizes.memory_shape) + len(data.key(0))))
    ]
    gigabytes = sizes.memory_keys * (data.width(sizes.memory_shape) + len(data.key(0))) / GB
    return Figure(
        "Memory",
        f"{data_words(sizes.memory_shape)}, {sizes.memory_keys:,} entries, {gigabytes:.3g} GB; {many} processes, one "
        "of which made the map; each has looked up thousands of keys.",
        [*by.values()],
        [NOTE, *smaller],
    )
