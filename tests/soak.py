"""A soak: everything at once for a long time, with processes that come, go and are killed, and every answer checked.

    python tests/soak.py --minutes 10

At the end descriptors, mappings, threads and memory of the processes that stayed, and the entries of all folders, must
be what they were soon after the beginning; else it says what is left over and ends with 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import children
import soak_children as work
from python.flight_server import FlightServer
from soak_children import Board

import pheon

WAIT_SECONDS_MAX = 120
# What is given back is not always given back at once, or to the last page.
SETTLE_SECONDS_MAX = 20
GROWTH_BYTES_MAX = 24 << 20
KILLED = 0.4


# Measuring ------------------------------------------------------------------------------------------------------------


def plain(path: str) -> str:
    """A path without what is different each time: ids, and numbers of versions and chunks."""
    return re.sub(r"(seg|manifest|view|index|log)-[0-9a-f]+", r"\1", re.sub(r"[0-9a-f]{32}", "id", path))


@dataclass
class Use:
    """What a process has of the system."""

    descriptors: Counter[str] = field(default_factory=Counter)
    mappings: Counter[str] = field(default_factory=Counter)
    threads: int = 0
    pss_bytes: int = 0
    rss_bytes: int = 0

    @classmethod
    def of(cls, pid: int) -> Use:
        use = cls()
        proc = Path(f"/proc/{pid}")
        for descriptor in (proc / "fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            # Sockets and pipes have numbers.
            use.descriptors[plain(target.split(":[")[0])] += 1
        for line in (proc / "maps").read_text().splitlines():
            path = line.partition("/")[2]
            if "pheon-" in path:
                use.mappings[plain(f"/{path}")] += 1
        use.threads = len(list((proc / "task").iterdir()))
        for line in (proc / "smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss:", "Rss:")):
                setattr(use, f"{line[:3].lower()}_bytes", int(line.split()[1]) << 10)
        return use

    def beyond(self, before: Use) -> list[str]:
        """What it has more than before, in words."""
        found = [f"{n} of descriptor {what}" for what, n in (self.descriptors - before.descriptors).items()]
        found += [f"{n} of mapping {what}" for what, n in (self.mappings - before.mappings).items()]
        if self.threads > before.threads:
            found.append(f"{self.threads - before.threads} threads")
        for what in ("pss", "rss"):
            more = getattr(self, f"{what}_bytes") - getattr(before, f"{what}_bytes")
            if more > GROWTH_BYTES_MAX:
                found.append(f"{more >> 20} MiB of memory ({what})")
        return found

    def __str__(self) -> str:
        return (
            f"{sum(self.descriptors.values())} descriptors, {sum(self.mappings.values())} mappings, "
            f"{self.threads} threads, PSS {self.pss_bytes >> 20} MiB, RSS {self.rss_bytes >> 20} MiB"
        )


def entries_of(place: Path) -> Counter[str]:
    """The names in all folders, those of live maps in memory among them."""
    in_memory = Path("/dev/shm").glob(f"*{work.memory_name(place)}*")
    return Counter(plain(str(path)) for path in (*place.rglob("*"), *in_memory))


# Running --------------------------------------------------------------------------------------------------------------


class Soak:
    """One soak, from an empty folder to the comparison at the end."""

    def __init__(self, place: Path, seed: int, leaks: tuple[str, ...] = ()) -> None:
        self.place, self.rng, self.leaks = place, random.Random(seed), leaks
        self.failures = place.parent / "failures"
        self.failures.mkdir()
        self.context = multiprocessing.get_context("spawn")
        self.numbers = self.context.RawArray("q", Board.NUMBERS)
        self.board = Board(self.numbers)
        self.staying: dict[str, BaseProcess] = {}
        self.passing: dict[int, BaseProcess] = {}
        self.clients: set[int] = set()
        self.counts: Counter[str] = Counter()

    def run(self, seconds: float) -> list[str]:
        """What is left over at the end, in words; nothing if all is well."""
        store = pheon.open(self.place)
        self.refill(store)
        with FlightServer(self.place) as server:
            self.location = server.location
            try:
                for slot, role in enumerate(work.STAYING):
                    args = (role, self.place, self.location, self.numbers, slot, self.dice(), self.failures)
                    leaks = self.leaks if role == "reader" else ()
                    self.staying[role] = self.context.Process(target=work.work, args=(*args, leaks), daemon=True)
                    self.staying[role].start()
                # Libraries are loaded, pools and caches filled: what comes then must not grow.
                self.work_for(min(60.0, max(1.0, seconds / 6)))
                before, entries_before = self.rest(store, server)
                self.work_for(seconds)
                after, entries_after = self.rest(store, server)
                deadline = time.monotonic() + SETTLE_SECONDS_MAX
                while self.left_over(before, after) and time.monotonic() < deadline:
                    time.sleep(0.2)
                    after = self.uses(server)
                self.numbers[0] = work.END
                for role, process in self.staying.items():
                    process.join(WAIT_SECONDS_MAX)
                    assert process.exitcode == 0, f"the {role} ended with {process.exitcode}"
            finally:
                for process in (*self.staying.values(), *self.passing.values()):
                    if process.is_alive():
                        process.kill()
                    process.join()
                pheon.LiveMap(name=work.memory_name(self.place)).unlink()
                self.unlink_others()
        for role, use in after.items():
            print(f"{role:7} before: {before[role]}\n{role:7} after:  {use}")
        rounds = {role: self.numbers[self.board.rounds(slot)] for slot, role in enumerate(work.STAYING)}
        print(f"rounds {rounds}, processes that came and went: {dict(self.counts)}")
        assert min(rounds.values()) > 0, "somebody did nothing"
        left = self.left_over(before, after)
        left += [f"{n} of entry {name}" for name, n in (entries_after - entries_before).items()]
        left += [f"{n} of entry {name} are missing" for name, n in (entries_before - entries_after).items()]
        store.close()
        return left

    @staticmethod
    def left_over(before: dict[str, Use], after: dict[str, Use]) -> list[str]:
        return [f"{role}: {what}" for role, use in after.items() for what in use.beyond(before[role])]

    def dice(self) -> int:
        return self.rng.getrandbits(32)

    def check(self) -> None:
        for path in self.failures.iterdir():
            raise AssertionError(f"process {path.name}:\n{path.read_text()}")
        for role, process in self.staying.items():
            assert process.is_alive(), f"the {role} ended with {process.exitcode}"

    def refill(self, store: pheon.Store) -> None:
        """The store as it is between phases: what was killed has left nothing that the next writer does not remove."""
        for name in store:
            if name != "m":
                store.drop(name)
        self.numbers[1] = 0
        self.unlink_others()
        store.put_map("m", children.content(0))
        store.gc(keep=1)
        for live in (store.live("l"), pheon.LiveMap(name=work.memory_name(self.place))):
            live.unlink()
        for slot in range(work.SLOTS):
            self.numbers[self.board.begun(slot)] = self.numbers[self.board.acked(slot)] = 0
        for live in (store.live("l", create=True), pheon.LiveMap(name=work.memory_name(self.place), create=True)):
            live["filler", 0] = b""

    def unlink_others(self) -> None:
        """Maps in memory whose makers were killed before they unlinked them."""
        for path in Path("/dev/shm").glob(f"*{work.memory_name(self.place)}-*"):
            name = path.name[path.name.index(work.memory_name(self.place)) :]
            with suppress(pheon.NotFoundError):
                pheon.LiveMap(name=name, create=False).unlink()

    def work_for(self, seconds: float) -> None:
        """Lets all work, and others come and go."""
        for slot in range(work.SLOTS):
            self.numbers[self.board.rested(slot)] = 0
        self.numbers[0] = work.WORK
        end = time.monotonic() + seconds
        live = pheon.open(self.place).live("l", create=False)
        while time.monotonic() < end or min(self.numbers[self.board.rounds(slot)] for slot in range(4)) == 0:
            self.check()
            assert time.monotonic() < end + WAIT_SECONDS_MAX, "a process does not come to its first round"
            for slot in range(len(work.STAYING), work.SLOTS):
                process = self.passing.get(slot)
                if process is None:
                    if len(self.passing) < 3:
                        self.begin(slot)
                elif not process.is_alive() or self.rng.random() < 0.02:
                    self.end(slot, live, kill=self.rng.random() < KILLED)
            time.sleep(self.rng.random() * 0.05)
        for slot in list(self.passing):
            self.end(slot, live, kill=True)
        live.close()

    def begin(self, slot: int) -> None:
        method = self.rng.choice(("fork", "spawn"))
        role = self.rng.choice(work.STAYING)
        (self.clients.add if role == "client" else self.clients.discard)(slot)
        context = multiprocessing.get_context(method)
        args = (role, self.place, self.location, self.numbers, slot, self.dice(), self.failures)
        self.passing[slot] = context.Process(target=work.work_a_while, args=args, daemon=True)
        self.passing[slot].start()
        self.counts[method] += 1

    def end(self, slot: int, live: pheon.LiveMap, *, kill: bool) -> None:
        """One that comes and goes has gone, or is killed: what it was told is there."""
        process = self.passing.pop(slot)
        # A statement that a killed client leaves at the server holds its tables until it expires, in minutes.
        if kill and process.is_alive() and slot not in self.clients:
            process.kill()
            self.counts["killed"] += 1
        process.join(WAIT_SECONDS_MAX)
        self.check()
        assert process.exitcode in {0, -9}, process.exitcode
        begun, acked = self.board.begun(slot), self.board.acked(slot)
        counted = live.get(("n", slot), 0)
        assert self.numbers[acked] <= counted <= self.numbers[begun], (slot, self.numbers[acked], counted)
        self.numbers[begun] = self.numbers[acked] = counted

    def rest(self, store: pheon.Store, server: FlightServer) -> tuple[dict[str, Use], Counter[str]]:
        """All rest, the store is as at first; what each process has then, and the names in all folders."""
        self.numbers[0] = work.REST
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not all(self.numbers[self.board.rested(slot)] for slot in range(len(work.STAYING))):
            self.check()
            assert time.monotonic() < deadline, "a process does not come to rest"
            time.sleep(0.01)
        live = store.live("l", create=False)
        for slot in range(work.SLOTS):
            assert live.get(("n", slot), 0) == self.numbers[self.board.acked(slot)], f"counts of {slot}"
        live.close()
        assert store.verify("m").ok
        self.refill(store)
        # The server sees what is there now, too.
        with pheon.connect(self.location, local=False) as remote:
            assert children.tag_of(remote.map("m")) == 0
            assert len(remote.live("l")) == 1
        work.trim()
        return self.uses(server), entries_of(self.place)

    def uses(self, server: FlightServer) -> dict[str, Use]:
        pids = {role: process.pid for role, process in self.staying.items()}
        pids |= {"server": server.process.pid, "parent": os.getpid()}
        return {role: Use.of(pid) for role, pid in pids.items() if pid is not None}


def soak(seconds: float, seed: int, leaks: tuple[str, ...] = ()) -> list[str]:
    """Runs one soak in a folder of its own; what is left over."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pheon-soak-", dir=folder) as name:
        return Soak(Path(name, "store"), seed, leaks).run(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("PHEON_SEED", random.getrandbits(32))))
    given: Any = parser.parse_args()
    print("PHEON_SEED =", given.seed, flush=True)
    left = soak(given.minutes * 60, given.seed)
    for line in left:
        print("left over:", line)
    print("all is as it was" if not left else f"{len(left)} things are left over")
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
