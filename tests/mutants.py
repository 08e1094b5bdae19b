"""Breaks the engine in many small ways, one at a time, and lists those that no test notices.

cargo-mutants says what to break (`.cargo/mutants.toml`). To compile every change by itself would take a day, so
`tests/mutants` puts all of them behind switches of one program, which an environment variable throws. Each test is run
once without any, to learn which changes it comes by; then each change is tried with these tests only, the quickest and
those that noticed other changes of the same file first, until one fails.

Everything lies in target/mutants; what was tried stays tried as long as neither the sources nor the tests change.
Changes in constants and in conditions that bind names, and those that leave fields out of structs, get no switch: they
are not tried.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rust_programs import ROOT, checked, names_of, programs, run

WORK = ROOT / "target" / "mutants"
TREE, TARGET, SCRATCH = WORK / "tree", WORK / "target", WORK / "tmp"
LIST, DROPPED, TESTS, RESULTS = WORK / "list.json", WORK / "dropped.txt", WORK / "tests.json", WORK / "results.jsonl"
ACCEPTED = Path(__file__).parent / "mutants" / "accepted.txt"
PACKAGES = ("pheon", "pheon-live")
# The longest loops look for crashes and repeat what shorter tests do; the model is another program than the map.
OTHERS = re.compile(r"^model |a_failing_change_keeps_the_old_rows|forged_damage_never_panics|every_key_type_mode")
TURNS_MAX = 60
# On a machine that is busy with other things a test takes longer than it should.
TRIES_MAX = 4
# A change may make a loop endless, or ask for all memory that there is.
SECONDS_MIN, MEMORY_BYTES_MAX, FILE_BYTES_MAX = 10, 6 << 30, 4 << 30
# What decides whether a change is noticed; the list of those that need not be does not.
COUNTS = re.compile(
    r"crates/|tests/engine/|tests/mutants/(?!accepted)|tests/(?:mutants|rust_programs)\.py|\.cargo/|Cargo\."
)
SWITCH = re.compile(r"mutants_switch::on\((\d+)\)")


@dataclass
class Test:
    """One test, and what it showed when nothing was changed."""

    binary: str
    name: str
    folder: str
    seconds: float = 0
    failed: bool = False
    met: list[int] = field(default_factory=list)


def is_same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def prepare() -> None:
    """A copy of the sources, and the list of changes. What an earlier run found goes if they are others now."""
    files = checked(run("git", "ls-files", "-z")).split("\0")
    present = [name for name in files if name and (ROOT / name).is_file()]
    original = WORK / "original"
    copied = {str(path.relative_to(original)) for path in original.rglob("*") if path.is_file()}
    before, now = ({name for name in names if COUNTS.match(name)} for names in (copied, present))
    if LIST.exists() and before == now and all(is_same(original / name, ROOT / name) for name in now):
        return
    for path in (original, TREE):
        shutil.rmtree(path, ignore_errors=True)
    for path in (LIST, DROPPED, TESTS, RESULTS):
        path.unlink(missing_ok=True)
    for name in present:
        for base in (original, TREE):
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, base / name)
    LIST.write_text(checked(run("cargo", "mutants", "--list", "--json", folder=TREE)))


def put_behind_switches() -> list[int]:
    """The numbers of changes that have no switch."""
    for name in {change["file"] for change in json.loads(LIST.read_text())}:
        shutil.copyfile(WORK / "original" / name, TREE / name)
    for package in PACKAGES:
        source = Path("crates", package, "src")
        library = (WORK / "original" / source / "lib.rs").read_text()
        (TREE / source / "lib.rs").write_text(f"{library}\n#[doc(hidden)]\npub mod mutants_switch;\n")
        shutil.copyfile(ROOT / "tests/mutants/src/switch.rs", TREE / source / "mutants_switch.rs")
    DROPPED.touch()
    tool = ("cargo", "run", "--quiet", "--manifest-path", ROOT / "tests/mutants/Cargo.toml", "--", TREE, LIST, DROPPED)
    return [int(line) for line in checked(run(*tool, CARGO_TARGET_DIR=str(WORK / "tool"))).split()]


def blamed(message: dict[str, Any]) -> set[int]:
    """The change that a compiler's error is about: that of the switch at the place, or of the last one before it."""
    found = set()
    for span in [span for span in message["spans"] if span["is_primary"]] or message["spans"]:
        path = TREE / span["file_name"]
        text = path.read_bytes() if path.exists() else b""
        before, after = (
            part.decode(errors="ignore") for part in (text[: span["byte_start"]], text[span["byte_start"] :])
        )
        at_it = re.match(rf"\(?(?:if )?crate::{SWITCH.pattern}", after)
        found |= {int(at_it[1])} if at_it else {int(number) for number in SWITCH.findall(before)[-1:]}
    return found


def build() -> tuple[list[Test], list[int]]:
    """All tests of the changed program, and the changes that are not in it: no switch, or they do not compile."""
    packages = [argument for package in PACKAGES for argument in ("-p", package)]
    for turn in range(TURNS_MAX):
        unplaced = put_behind_switches()
        command = ("cargo", "test", "--no-run", "--message-format=json", *packages)
        done = run(*command, folder=TREE, CARGO_TARGET_DIR=str(TARGET), RUSTFLAGS="--cap-lints allow -Awarnings")
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode == 0:
            tests = [
                Test(program.path, name, program.folder)
                for program in programs(messages)
                for name in names_of(program)
                if not OTHERS.search(f"{program.target} {name}")
            ]
            return tests, unplaced + [int(line) for line in DROPPED.read_text().split()]
        errors = [
            m["message"] for m in messages if m["reason"] == "compiler-message" and m["message"]["level"] == "error"
        ]
        wrong = set().union(*map(blamed, errors))
        if not wrong:
            sys.exit(f"the changed program does not compile:\n{done.stderr[-4000:]}")
        print(f"compiled {turn + 1} times; {len(wrong)} changes do not compile", flush=True)
        with DROPPED.open("a") as file:
            file.writelines(f"{number}\n" for number in wrong)
    sys.exit("the changed program does not come to compile")


def apart() -> list[str]:
    """Gives a test a /dev/shm of its own, where that is allowed: what a killed one leaves there is gone with it."""
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
    return command if shutil.which("unshare") and run(*command, "true").returncode == 0 else []


APART = apart()


def limit() -> None:
    os.setsid()
    for what, most in (
        (resource.RLIMIT_DATA, MEMORY_BYTES_MAX),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def attempt(test: Test, seconds_max: float, **env: str) -> tuple[str | None, float]:
    """How the test failed, if it did, and how long it took."""
    scratch = SCRATCH / str(threading.get_ident())
    scratch.mkdir(parents=True, exist_ok=True)
    given = os.environ | {"TMPDIR": str(scratch), "CARGO_MANIFEST_DIR": test.folder} | env
    begun = time.monotonic()
    command = [*APART, test.binary, "--exact", test.name, "--test-threads=2"]
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=test.folder, env=given, preexec_fn=limit, **silent)  # noqa: PLW1509
    try:
        code = process.wait(seconds_max)
        failure = None if code == 0 else f"ended with {code}"
    except subprocess.TimeoutExpired:
        failure = f"not done in {seconds_max:.0f} s"
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if failure:
        shutil.rmtree(scratch, ignore_errors=True)
    return failure, time.monotonic() - begun


def at_once(work: Any, things: list[Any], jobs: int) -> None:
    """Calls `work` for each of them, in so many threads."""
    with ThreadPoolExecutor(jobs) as pool:
        begun = [pool.submit(work, thing) for thing in things]
        try:
            for one in begun:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def learn(tests: list[Test], jobs: int) -> None:
    """Runs each test without any change."""

    def one(test: Test) -> None:
        met = SCRATCH / f"met-{threading.get_ident()}"
        met.unlink(missing_ok=True)
        failure, test.seconds = attempt(test, 600, MUTANTS_MET=str(met))
        test.failed = failure is not None
        test.met = [number for number, seen in enumerate(met.read_bytes()) if seen] if met.exists() else []

    SCRATCH.mkdir(parents=True, exist_ok=True)
    at_once(one, tests, jobs)


def failure_by(test: Test, number: int) -> str | None:
    """How a test fails because of a change, if it does."""
    seconds_max = max(SECONDS_MIN, 5 * test.seconds + 5)
    for _ in range(TRIES_MAX):
        failure, _ = attempt(test, seconds_max, MUTANT=str(number))
        # Not because of the change, but of a full disk, or a machine that is busy with other things?
        if not failure or not attempt(test, seconds_max)[0]:
            return failure
        seconds_max *= 2
    sys.exit(f"{test.name} fails without any change, too")


def try_changes(numbers: list[int], names: list[str], tests: list[Test], jobs: int, seconds: float) -> None:
    """Tries changes at random until the time is over; last those that need not be noticed, which takes long to see."""
    by_change: defaultdict[int, list[Test]] = defaultdict(list)
    for test in tests:
        for number in test.met if not test.failed else ():
            by_change[number].append(test)
    noticed: Counter[tuple[str, str]] = Counter()
    lock, end = threading.Lock(), time.monotonic() + seconds
    random.Random(1).shuffle(numbers)
    excused = accepted()
    numbers.sort(key=lambda number: plain(names[number]) in excused)

    def one(number: int) -> None:
        if time.monotonic() > end:
            return
        file = names[number].partition(":")[0]
        order = sorted(by_change[number], key=lambda test: test.seconds / (1 + 3 * noticed[file, test.name]))
        result: dict[str, Any] = {"number": number, "met": len(order), "by": None}
        for test in order:
            if failure := failure_by(test, number):
                result |= {"by": test.name, "how": failure}
                break
        with lock:
            if result["by"]:
                noticed[file, result["by"]] += 1
            with RESULTS.open("a") as out:
                out.write(json.dumps(result) + "\n")

    at_once(one, numbers, jobs)


def plain(name: str) -> str:
    """A change's name without its line and column, which other changes of the file move."""
    return re.sub(r":\d+:\d+: ", ": ", name)


def accepted() -> dict[str, tuple[int, str]]:
    """What need not be noticed, and why. Lines are `2  name without line and column  # reason`: of so many places."""
    found = {}
    for line in ACCEPTED.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition("  # ")
            count, _, name = name.partition("  ")
            found[name.strip()] = (int(count), reason.strip())
    return found


def report(names: list[str], left_out: set[int]) -> int:
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    survived = sorted((names[result["number"]], result["met"]) for result in results if result["by"] is None)
    tried, noticed = len(results), len(results) - len(survived)
    print(f"{len(names)} changes: {len(left_out)} have no switch or do not compile, {tried} were tried")
    print(f"{noticed} were noticed, {len(survived)} not")
    places = Counter(plain(name) for name, _ in survived)
    excused = accepted()
    reasons: Counter[str] = Counter()
    unexplained = 0
    for name, met in survived:
        count, reason = excused.get(plain(name), (0, ""))
        if places[plain(name)] <= count:
            reasons[reason] += 1
        else:
            unexplained += 1
            print(f"  not noticed: {name} ({met} tests come by)")
    for reason, count in reasons.most_common():
        print(f"  {count} need not be: {reason}")
    known = {plain(name) for name in names}
    for name in excused.keys() - known:
        print(f"  there is no such change any more: {name}")
    return 1 if unexplained else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="", help="only changes whose names have this (regular expression)")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="begin no other change after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    prepare()
    names = [change["name"] for change in json.loads(LIST.read_text())]
    tests, left_out = build()
    if TESTS.exists():
        tests = [Test(**test) for test in json.loads(TESTS.read_text())]
    else:
        learn(tests, given.jobs)
        TESTS.write_text(json.dumps([asdict(test) for test in tests]))
    failed = [test.name for test in tests if test.failed]
    print(
        f"{len(tests)} tests, {sum(test.seconds for test in tests):.0f} s; failing without any change: {failed}",
        flush=True,
    )
    tried = {json.loads(line)["number"] for line in RESULTS.read_text().splitlines()} if RESULTS.exists() else set()
    numbers = [
        number
        for number, name in enumerate(names)
        if number not in tried and number not in left_out and re.search(given.match, name)
    ]
    try_changes(numbers, names, tests, given.jobs, given.minutes * 60)
    return report(names, set(left_out))


if __name__ == "__main__":
    sys.exit(main())
