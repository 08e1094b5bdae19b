"""What `test_full.py` runs in a process of its own: each operation with too little room, and with more room each time.

An operation is tried with 0 KiB free, then a little more, until it succeeds. So it runs out of room at every point at
which it can. Each failure must be a `StoreFullError` that names the store, and leave everything as it was; then room is
made and the same operation, with the same handles, must succeed.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import pheon

ROWS = 400
OLD = {f"key {i}": f"old {i}" for i in range(ROWS)}
NEW = {f"key {i}": f"a newer value {i}" for i in range(3 * ROWS)}
LARGE = "x" * 100_000
# Files whose content may change without anybody seeing it: the lock's is advisory, finished parts wait for a build.
UNSEEN = ("LOCK", "resume")


def table_of(first: int, rows: int) -> pa.Table:
    numbers = range(first, first + rows)
    columns = {
        "id": pa.array(numbers, pa.int64()),
        "kind": pa.array([f"kind {i % 7}" for i in numbers]).dictionary_encode(),
        "list": pa.array([[i] * (i % 5) for i in numbers], pa.list_(pa.int32())),
    }
    return pa.table(columns)


# Limits of this process, and kinds of which each one counts.
LIMITS = {"descriptors": resource.RLIMIT_NOFILE, "sizes": resource.RLIMIT_FSIZE}
COUNTED = {"names", "descriptors"}


# File systems ---------------------------------------------------------------------------------------------------------


class Disk:
    """A small file system, seen by this process and its children only; or a limit of this process on any other."""

    def __init__(self, kind: str, scratch: Path) -> None:
        self.kind = kind
        self.mount = Path("/dev/shm") if kind == "shm" else scratch / "mount"
        self.mount.mkdir(exist_ok=True)
        # What an attempt that is refused says.
        self.errors = {
            "descriptors": (OSError, {errno.EMFILE}),
            "sizes": (pheon.StoreFullError, {errno.EFBIG}),
        }.get(kind, (pheon.StoreFullError, {errno.ENOSPC, errno.EDQUOT}))
        if kind in LIMITS:
            return
        if kind == "ext4":
            image = scratch / "image"
            with image.open("wb") as file:
                file.truncate(16 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, self.mount], check=True)
        else:
            options = {"shm": "size=12m", "tmpfs": "size=12m", "names": "size=12m,nr_inodes=400"}[kind]
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.mount], check=True)
        self.filler = self.mount / "filler"
        self.filler.mkdir()

    def fill(self, free: int) -> None:
        """Leave so many KiB, inodes or descriptors; or allow files of so many KiB."""
        self.clear()
        if self.kind in LIMITS:
            opened = len(os.listdir("/proc/self/fd")) - 1
            soft = opened + free if self.kind == "descriptors" else free * 1024
            resource.setrlimit(LIMITS[self.kind], (soft, resource.getrlimit(LIMITS[self.kind])[1]))
            return
        disk = os.statvfs(self.mount)
        if self.kind == "names":
            for number in range(disk.f_favail - free):
                (self.filler / str(number)).touch()
            return
        with (self.filler / "file").open("wb") as file:
            blocks = disk.f_bavail - free * 1024 // disk.f_frsize
            while blocks > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, blocks * disk.f_frsize)
                except OSError as error:
                    # The file system needs some blocks for the filler itself.
                    if error.errno != errno.ENOSPC:
                        raise
                    blocks -= 1
                else:
                    break

    def clear(self) -> None:
        if self.kind in LIMITS:
            hard = resource.getrlimit(LIMITS[self.kind])[1]
            resource.setrlimit(LIMITS[self.kind], (hard, hard))
            return
        for path in self.filler.iterdir():
            path.unlink()

    def rooms(self, fine: bool) -> Iterator[int]:
        """What is left in each attempt, ever more."""
        free = 0
        step = 1 if self.kind in COUNTED else 4
        while True:
            yield free
            free += step if fine or self.kind in COUNTED else max(step, free)


# Operations -----------------------------------------------------------------------------------------------------------


class Case:
    """A store, or live map, as it is before an operation."""

    def __init__(self, disk: Disk, number: int) -> None:
        self.root = disk.mount / (f"pheon-{os.geteuid()}-{number}" if disk.kind == "shm" else f"{number}")
        self.place = f"shm://{number}" if disk.kind == "shm" else str(self.root)
        self.number = number
        self.store = pheon.open(self.place)
        self.lives: dict[str, pheon.LiveMap] = {}

    def live(self, name: str, create: bool | None = None, **options: Any) -> pheon.LiveMap:
        """Of the store; where that lies in memory, in memory by itself."""
        if self.place.startswith("shm://"):
            options.pop("durable", None)
            return pheon.LiveMap(name=f"{self.number}-{name}", create=create, **options)
        return self.store.live(name, create=create, **options)

    def live_names(self) -> list[str]:
        if self.place.startswith("shm://"):
            names = [name.split("-", 1) for name in pheon.LiveMap.list_names()]
            return [name for number, name in names if number == str(self.number)]
        return self.store.live_names()

    def state(self) -> dict[str, Any]:
        """Whatever somebody can see, and every file of the store but those of live maps."""
        seen: dict[str, Any] = {}
        for path in self.root.rglob("*"):
            inside = path.relative_to(self.root)
            if path.is_file() and inside.parts[0] != ".live" and not any(name in UNSEEN for name in inside.parts):
                seen[str(inside)] = path.read_bytes()
        for name in self.store:
            seen[f"rows of {name}"] = self.store.table(name).to_pyarrow().to_pylist()
        for name in self.live_names():
            live = self.live(name, create=False)
            seen[f"live {name}"] = dict(live.snapshot())
            if name in self.lives:
                assert dict(self.lives[name].items()) == seen[f"live {name}"]
        return seen

    def is_sound(self) -> None:
        for name in self.store:
            report = self.store.verify(name)
            assert report.ok, report.problems

    def remove(self) -> None:
        for name in self.live_names():
            self.live(name, create=False).unlink()
        self.lives.clear()
        # Tracebacks of what was refused hold handles, and these the space of files that are unlinked.
        gc.collect()
        shutil.rmtree(self.root)


Prepare = Callable[[Case], Any]
Act = Callable[[Case], Any]
Check = Callable[[Case], bool]


def nothing(_: Case) -> None:
    pass


def old_map(case: Case) -> None:
    case.store.put_map("m", OLD)


def two_versions(case: Case) -> None:
    old_map(case)
    case.store.put_map("m", NEW)


def old_table(case: Case) -> None:
    case.store.put("t", table_of(0, ROWS), key="id")


def several_segments(case: Case) -> None:
    old_table(case)
    for number in range(1, 4):
        case.store.append("t", table_of(number * ROWS, ROWS), compact=False)


def rows_are(rows: int) -> Check:
    return lambda case: case.store.table("t").to_pyarrow().column("id").to_pylist() == list(range(rows))


def write_in_pieces(case: Case) -> None:
    with case.store.map_writer("m") as writer:
        pairs = list(NEW.items())
        for first in range(0, len(pairs), 200):
            writer.update(pairs[first : first + 200])


def write_in_parts(*, resume: bool) -> Act:
    def act(case: Case) -> None:
        pairs = list(NEW.items())
        with case.store.map_writer("m", resume=resume) as writer:
            for number in range(3):
                part = writer.part(f"part {number}")
                if part.finished:
                    continue
                with part:
                    part.update(pairs[number * ROWS : (number + 1) * ROWS])

    return act


def is_new(case: Case) -> bool:
    return dict(case.store.map("m")) == NEW


def a_live(*, durable: bool = False) -> Prepare:
    def prepare(case: Case) -> None:
        live = case.lives["l"] = case.live("l", durable=durable)
        live["first"] = [0]
        live.update({i: i for i in range(300)})

    return prepare


def live_of(case: Case) -> pheon.LiveMap:
    return case.lives["l"]


def take_many(case: Case) -> None:
    live_of(case).update({f"more {i}": i for i in range(4000)})


def in_a_batch(case: Case) -> None:
    with live_of(case).batch() as batch:
        batch["first"] = LARGE
        for i in range(300):
            del batch[i]
        batch["last"] = LARGE


def make_a_live(case: Case) -> None:
    live = case.live("new")
    live["a"] = LARGE


def change_nested(case: Case) -> None:
    live_of(case)["first"].extend(["y" * 1000] * 100)


def freeze(case: Case) -> None:
    live = case.lives["l"]
    live.freeze("frozen", store=case.store)


def numbers_live(case: Case) -> None:
    case.lives["l"] = case.live("l")
    case.lives["l"].update({f"{i}": i for i in range(3000)})


def overwrite_for_long(case: Case) -> None:
    for i in range(300):
        live_of(case)["again"] = f"{i}" * 2000


def lock_a_key(case: Case) -> None:
    with live_of(case).lock_key("first", timeout=5):
        pass


def drop_and_collect(case: Case) -> None:
    case.store.gc("m", keep=1)


def read(case: Case) -> None:
    """Whatever needs no room."""
    store = pheon.open(case.place, read_only=True)
    m = store.map("m")
    assert m.get_many(["key 1", "nothing"]) == [NEW["key 1"], None]
    assert store.verify("m").ok
    assert case.live("l", create=False)[7] == 7
    assert len(live_of(case).snapshot()) == 301
    assert live_of(case).get("first") == [0]


def all_of(*prepare: Prepare) -> Prepare:
    def prepare_all(case: Case) -> None:
        for one in prepare:
            one(case)

    return prepare_all


def value_is(name: str, key: str, value: str) -> Check:
    return lambda case: case.store.map(name)[key] == value


def live_is(key: str, value: str) -> Check:
    return lambda case: live_of(case)[key] == value


def put_large(case: Case) -> None:
    live_of(case)["large"] = LARGE


def is_left(case: Case) -> bool:
    return dict(case.store.map("m")) == {"key 0": "old 0"}


# Name: what is there, what is done, what is there then, and whether it needs room.
CASES: dict[str, tuple[Prepare, Act, Check, bool]] = {
    "put, a new name": (nothing, lambda c: c.store.put_map("m", NEW), is_new, True),
    "put, another version": (old_map, lambda c: c.store.put_map("m", NEW), is_new, True),
    "put, a table": (nothing, lambda c: c.store.put("t", table_of(0, ROWS), key="id"), rows_are(ROWS), True),
    "a writer": (old_map, write_in_pieces, is_new, True),
    "parts": (old_map, write_in_parts(resume=False), is_new, True),
    "parts that can be taken up": (old_map, write_in_parts(resume=True), is_new, True),
    "append": (old_table, lambda c: c.store.append("t", table_of(ROWS, ROWS)), rows_are(2 * ROWS), True),
    "compact": (several_segments, lambda c: c.store.compact("t"), rows_are(4 * ROWS), True),
    "upsert": (old_map, lambda c: c.store.upsert("m", NEW), is_new, True),
    "delete": (old_map, lambda c: c.store.delete("m", list(OLD)[1:]), is_left, True),
    "rollback": (two_versions, lambda c: c.store.rollback("m", 1), value_is("m", "key 0", "old 0"), True),
    "insert": (old_map, lambda c: c.store.sql("insert into m values ('z', 'z')"), value_is("m", "z", "z"), True),
    "gc": (two_versions, drop_and_collect, lambda c: len(c.store.versions("m")) == 1 and is_new(c), False),
    "drop": (old_map, lambda c: c.store.drop("m"), lambda c: list(c.store) == [], False),
    "read": (all_of(two_versions, a_live()), read, is_new, False),
    "live: make": (a_live(), make_a_live, lambda c: dict(c.live("new", create=False)) == {"a": LARGE}, True),
    "live: put": (a_live(), put_large, live_is("large", LARGE), True),
    "live: put, durable": (a_live(durable=True), put_large, live_is("large", LARGE), True),
    "live: grow": (a_live(), take_many, lambda c: len(live_of(c)) == 4301, True),
    "live: batch": (a_live(), in_a_batch, lambda c: dict(live_of(c)) == {"first": LARGE, "last": LARGE}, True),
    "live: nested": (a_live(), change_nested, lambda c: len(live_of(c)["first"]) == 101, True),
    "live: clean": (a_live(), overwrite_for_long, live_is("again", "299" * 2000), True),
    "live: lock a key": (a_live(), lock_a_key, lambda _: True, True),
    "live: freeze": (numbers_live, freeze, lambda c: len(c.store.map("frozen")) == 3000, True),
    "live: unlink": (a_live(), lambda c: live_of(c).unlink(), lambda c: c.live_names() == [], False),
}
# Those of `make test`; the long test tries all.
SHORT = {"put, another version", "parts", "compact", "gc", "drop", "live: make", "live: grow", "live: lock a key"}
# Several changes, of which each may be acknowledged before the next one finds no room.
IN_STEPS = {"live: make", "live: clean"}


def attempt(act: Act, case: Case, disk: Disk, room: int) -> OSError | None:
    """What the operation said if there was no room. Anything else that it raises ends the process."""
    kind, numbers = disk.errors
    try:
        act(case)
    except kind as error:
        said = error
    else:
        return None
    assert said.errno in numbers, repr(said)
    assert str(disk.mount) in str(said), f"with {room} free: {said}"
    assert str(case.number) in str(said), f"with {room} free: {said}"
    return said


def has_no_leftovers(case: Case, kind: str, name: str) -> None:
    leftovers = [path for path in case.root.rglob(".tmp-*") if "resume" not in path.parts]
    if kind == "descriptors" and name == "live: unlink":
        # A folder can be removed only where one can be opened; the next map that is made takes it away.
        files = [path for left in leftovers for path in left.rglob("*") if path.is_file()]
        assert not files, files
        case.live("another")
        leftovers = list(case.root.rglob(".tmp-*"))
    assert not leftovers, leftovers
    live_maps_have_no_leftovers(case)


def live_maps_have_no_leftovers(case: Case) -> None:
    for live_name in case.live_names():
        live = case.live(live_name, create=False)
        [folder] = [entry for entry in Path(live.path).iterdir() if entry.is_dir()]
        names = [entry.name.split("-")[0] for entry in folder.iterdir()]
        counts = {kind: names.count(kind) for kind in ("log", "index", "view")}
        assert counts == {"log": live.info()["chunks"], "index": 1, "view": 1}, counts


def run(kind: str, scratch: Path, how: str) -> None:
    """Of `how`, "short" tries some of the operations, "coarse" all, "fine" all with a little more room each time."""
    disk = Disk(kind, scratch)
    refused = number = 0
    for name, (prepare, act, is_done, needs_room) in CASES.items():
        if how == "short" and name not in SHORT:
            continue
        refused_here = 0
        for room in disk.rooms(how == "fine"):
            number += 1
            case = Case(disk, number)
            prepare(case)
            before = case.state()
            disk.fill(room)
            try:
                error = attempt(act, case, disk, room)
                if error is None:
                    break
                assert needs_room or kind == "descriptors", f"{name}: {error}"
                refused_here += 1
                disk.clear()
                if name not in IN_STEPS:
                    assert case.state() == before, f"{name}: changed with {room} free"
                live_maps_have_no_leftovers(case)
                case.is_sound()
                assert attempt(act, case, disk, -1) is None
                assert is_done(case), f"{name}: wrong after {room}"
                case.is_sound()
                has_no_leftovers(case, kind, name)
            except BaseException:
                print(f"in {name!r} with {room} free", file=sys.stderr)
                raise
            case.remove()
        disk.clear()
        assert is_done(case), f"{name}: wrong after {room}"
        case.is_sound()
        has_no_leftovers(case, kind, name)
        case.remove()
        print(f"{kind}: {name}: refused {refused_here} times, done with {room}")
        assert refused_here > 0 or not needs_room or kind in {"names", *LIMITS}, f"{name} needed no room"
        refused += refused_here
    print("refused", refused)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
