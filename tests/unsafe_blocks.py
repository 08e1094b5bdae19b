"""Counts which tests run each `unsafe` block of the crates, and writes target/coverage/unsafe_blocks.md.

Each Rust test runs by itself with `-C instrument-coverage`; counters lie in a shared mapping, so that forked children
and processes that a signal ends count too. A block that no test runs makes the command fail.
"""

import json
import os
import platform
import re
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rust_programs import ROOT, Program, checked, names_of, programs, run

WORK = ROOT / "target" / "coverage"
# What is built and listed counts, too, into a file of no interest.
ELSEWHERE = {"LLVM_PROFILE_FILE": str(WORK / "other-%p")}
PACKAGES = ("pheon-os", "pheon", "pheon-live")
FLAGS = "-C instrument-coverage -C llvm-args=-runtime-counter-relocation"
FUNCTION = re.compile(r"^ *(?:pub(?:\(\w+\))? )?(?:const )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)")
ARCHITECTURE = re.compile(r'#\[cfg\(target_arch = "(\w+)"\)\]')


@dataclass
class Block:
    """An `unsafe` block: its lines, counted from 1, and the tests that run it."""

    path: Path
    function: str
    first: int
    last: int
    tests: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.path.name}: {self.function}"


@cache
def tool(name: str) -> str:
    """LLVM's program of the compiler's own version: rustup's component llvm-tools, or Debian's package."""
    about = checked(run("rustc", "-vV"))
    version, host = re.search(r"LLVM version: (\d+)", about), re.search(r"host: (\S+)", about)
    assert version
    assert host
    own = Path(checked(run("rustc", "--print", "sysroot")).strip(), "lib/rustlib", host[1], "bin", name)
    found = str(own) if own.exists() else shutil.which(f"{name}-{version[1]}")
    return found or sys.exit(f"{name} of LLVM {version[1]} is not there: `rustup component add llvm-tools`")


def blocks_of(path: Path) -> list[Block]:
    """Those outside of tests, and not for other processors."""
    found = []
    function = architecture = ""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("mod tests {"):
            break
        if named := ARCHITECTURE.match(line):
            architecture = named[1]
        if named := FUNCTION.match(line):
            function = named[1]
        if line.startswith("}"):
            architecture = ""
        code = line.partition("//")[0]
        if "unsafe {" not in code or architecture not in ("", platform.machine()):
            continue
        depth, last = 0, number
        for last in range(number, len(lines) + 1):
            text = lines[last - 1].partition("//")[0]
            text = text[text.index("unsafe {") :] if last == number else text
            depth += text.count("{") - text.count("}")
            # A block that ends in its line is one, whatever opens after it.
            if depth <= 0 or (last == number and "}" in text):
                break
        found.append(Block(path, function, number, last))
    return found


def built() -> Iterator[Program]:
    wrapper = WORK / "rustc"
    wrapper.write_text(f'#!/bin/sh\nexec "$@" {FLAGS}\n')
    wrapper.chmod(0o755)
    packages = [argument for package in PACKAGES for argument in ("-p", package)]
    command = ("cargo", "test", "--no-run", "--message-format=json", *packages, "--features", "pheon/polars")
    made = checked(run(*command, RUSTC_WORKSPACE_WRAPPER=str(wrapper), **ELSEWHERE))
    return programs(map(json.loads, made.splitlines()))


def lines_run(program: Program, test: str, paths: list[Path]) -> dict[Path, set[int]]:
    """The lines of these files that a test runs."""
    runs = WORK / f"runs-{threading.get_ident()}"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir()
    # %c: counters lie in a mapping of the file; %p: the programs that a test starts have files of their own.
    given = {"LLVM_PROFILE_FILE": f"{runs}/%p%c", "CARGO_MANIFEST_DIR": program.folder}
    done = run(program.path, "--exact", test, "--test-threads=1", folder=program.folder, **given)
    if done.returncode != 0:
        sys.exit(f"{test} fails:\n{done.stdout[-2000:]}")
    merged = runs / "merged"
    checked(run(tool("llvm-profdata"), "merge", "-sparse", *runs.iterdir(), "-o", merged))
    profile = ("--format=lcov", "--skip-functions", f"--instr-profile={merged}")
    told = checked(run(tool("llvm-cov"), "export", *profile, program.path, *paths))
    found: dict[Path, set[int]] = defaultdict(set)
    path = Path()
    for line in told.splitlines():
        kind, _, rest = line.partition(":")
        if kind == "SF":
            path = Path(rest)
        elif kind == "DA":
            number, count = rest.split(",")[:2]
            if int(count):
                found[path].add(int(number))
    return found


def report(blocks: list[Block], tests: int) -> int:
    """Writes the table; 1 if a block lacks a test."""
    rows: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        rows[block.name].append(block)
    lines = ["| where | tests that run each block | one of them |", "| --- | ---: | --- |"]
    failed = 0
    for name, group in sorted(rows.items()):
        one = min((block.tests for block in group if block.tests), key=len, default=[])
        lines.append(
            f"| `{name}` | {', '.join(str(len(block.tests)) for block in group)} | {f'`{one[0]}`' if one else '-'} |"
        )
        for block in group:
            if not block.tests:
                failed = 1
                print(f"no test runs the block at {block.path.relative_to(ROOT)}:{block.first}")
    (WORK / "unsafe_blocks.md").write_text("\n".join(lines) + "\n")
    print(f"{len(blocks)} blocks, {tests} tests: see {(WORK / 'unsafe_blocks.md').relative_to(ROOT)}")
    return failed


def main() -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    paths = [path for package in PACKAGES for path in sorted((ROOT / "crates" / package / "src").rglob("*.rs"))]
    blocks = [block for path in paths if path.name != "forked_child.rs" for block in blocks_of(path)]
    files = sorted({block.path for block in blocks})
    tests = [(program, name) for program in built() for name in names_of(program, **ELSEWHERE)]

    def one(test: tuple[Program, str]) -> None:
        run = lines_run(*test, files)
        for block in blocks:
            # Of a block of several lines those between its braces count, for other code may stand before it.
            body = range(block.first + (block.last > block.first), block.last + (block.last == block.first))
            if run[block.path].intersection(body):
                block.tests.append(test[1])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, tests))
    return report(blocks, len(tests))


if __name__ == "__main__":
    sys.exit(main())
