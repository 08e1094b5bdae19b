"""Real dictionaries of a million entries and more, from what a machine already has.

`debian_index` is Debian's file index, path -> packages that contain it: 7.3 million entries in bookworm. Its files
("Contents") are taken where `apt-file update` left them or fetched by apt itself into a folder of ours, without root.
`source_lines` is for machines without apt: "file:line" -> the text of that line, for the text files below /usr and the
Python installation. Both are streams of chunks of (key, value) pairs. A key may come twice; then the
last one counts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

Pair = tuple[str, str]
CHUNK_PAIRS = 65_536
APT_HELPER = Path("/usr/lib/apt/apt-helper")
APT_LISTS = Path("/var/lib/apt/lists")
FETCH_SECONDS_MAX = 600
TEXT_SUFFIXES = (".py", ".pyi", ".h", ".c", ".js", ".pl", ".pm", ".rb", ".el", ".txt", ".md", ".rst", ".html", ".xml")

# What the apt-file package adds to apt's configuration, restricted to what we need, and with folders of our own.
APT_CONFIG = """
Dir::State "{root}/state";
Dir::State::lists "{root}/state/lists";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets {{
  deb::Packages::DefaultEnabled "false";
  deb::DEP-11::DefaultEnabled "false";
  deb::DEP-11-icons::DefaultEnabled "false";
  deb::DEP-11-icons-small::DefaultEnabled "false";
  deb::DEP-11-icons-hidpi::DefaultEnabled "false";
  deb::Contents-deb {{
    MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)";
    ShortDescription "Contents-$(ARCHITECTURE)";
    Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents (deb)";
    KeepCompressed "true";
  }};
}};
"""


class NoDataError(Exception):
    """This machine has no such data; the message says what was looked for."""


@dataclass(frozen=True)
class Source:
    """Where entries come from, in words, and a function that starts reading them from the beginning."""

    title: str
    chunks: Callable[[], Iterator[list[Pair]]]


def find_source(fetch_dir: Path, entries_max: int | None = None) -> Source:
    """Debian's file index where there is one, else the lines of this machine's text files."""
    try:
        return debian_index(fetch_dir, entries_max)
    except NoDataError as why:
        print(f"no Debian file index: {why}; using lines of text files instead", file=sys.stderr)
        return source_lines(entries_max)


def debian_index(fetch_dir: Path, entries_max: int | None = None) -> Source:
    """Debian's file index. Raises NoDataError if apt has none and cannot fetch it into `fetch_dir`."""
    own_lists = fetch_dir / "state" / "lists"
    if not APT_HELPER.exists():
        raise NoDataError(f"this machine has no apt: there is no {APT_HELPER}")
    files = _contents_files(APT_LISTS) or _contents_files(own_lists)
    if not files:
        _fetch_contents(fetch_dir)
        files = _contents_files(own_lists)
    if not files:
        raise NoDataError(f"no file named *_Contents-* in {APT_LISTS} or {own_lists}")
    names = ", ".join(file.name.split("_dists_")[-1] for file in files)
    title = f"Debian's file index, path -> packages ({names})"
    return Source(title, lambda: _limited(_contents_chunks(files), entries_max))


def source_lines(entries_max: int | None = None) -> Source:
    """Lines of the text files below /usr and the Python installation, "file:line" -> text."""
    roots = sorted({Path(place).resolve() for place in ("/usr", sys.base_prefix, sys.prefix) if Path(place).is_dir()})
    title = f"lines of the text files below {', '.join(map(str, roots))}, file:line -> text"
    return Source(title, lambda: _limited(_line_chunks(roots), entries_max))


def _limited(chunks: Iterator[list[Pair]], entries_max: int | None) -> Iterator[list[Pair]]:
    left = entries_max
    for chunk in chunks:
        if left is not None and len(chunk) >= left:
            yield chunk[:left]
            return
        yield chunk
        left = None if left is None else left - len(chunk)


def _contents_files(lists: Path) -> list[Path]:
    """The Contents files of the one suite that has most bytes of them: updates and backports overlap with it."""
    suites: dict[str, list[Path]] = {}
    if lists.is_dir():
        for file in lists.glob("*_Contents-*"):
            suite, _, architecture = file.name.rpartition("_Contents-")
            if not architecture.startswith(("udeb", "source")):
                suites.setdefault(suite, []).append(file)
    # "all" sorts before the architecture's own file, so that the latter's entries count where both name a path.
    largest = max(suites.values(), key=lambda files: sum(file.stat().st_size for file in files), default=[])
    return sorted(largest)


def _fetch_contents(root: Path) -> None:
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise NoDataError("apt-get is not installed")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    config = root / "apt.conf"
    config.write_text(APT_CONFIG.format(root=root.resolve()))
    print("fetching Debian's file index with apt-get update (about 80 MB, once) ...", file=sys.stderr)
    try:
        # A repository without Contents files, or out of reach, is no reason to stop: the files found afterwards decide.
        subprocess.run(
            [apt_get, "update", "-qq"],
            env={**os.environ, "APT_CONFIG": str(config)},
            check=False,
            timeout=FETCH_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired as why:
        raise NoDataError(f"apt-get update took more than {FETCH_SECONDS_MAX} s") from why


def _contents_chunks(files: list[Path]) -> Iterator[list[Pair]]:
    for file in files:
        with closing(_decompressed(file)) as lines:
            while batch := list(islice(lines, CHUNK_PAIRS)):
                # A path may hold spaces; the packages after it may not.
                yield [(path, packages) for path, packages in (line.decode().rsplit(None, 1) for line in batch)]


def _decompressed(file: Path) -> Generator[bytes]:
    """Lines of a file in whatever compression apt chose. Closing the generator ends the program that it reads from."""
    command = [str(APT_HELPER), "cat-file", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield from process.stdout
        except GeneratorExit:
            process.terminate()
            raise
    if process.returncode != 0:
        raise OSError(f"{shlex.join(command)} ended with exit status {process.returncode}")


def _line_chunks(roots: list[Path]) -> Iterator[list[Pair]]:
    chunk: list[Pair] = []
    seen: set[str] = set()
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            if folder in seen:
                subfolders.clear()
                continue
            seen.add(folder)
            for name in sorted(names):
                if name.endswith(TEXT_SUFFIXES):
                    chunk.extend(_file_lines(Path(folder, name)))
                    if len(chunk) >= CHUNK_PAIRS:
                        yield chunk
                        chunk = []
    if chunk:
        yield chunk


def _file_lines(path: Path) -> Iterator[Pair]:
    name = os.fsencode(path).decode(errors="replace")
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if text := line.strip():
                    yield f"{name}:{number}", text
    except OSError:  # unreadable, or gone since the folder was listed
        return
