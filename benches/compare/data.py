"""The data set that every peer gets, and the questions with their answers, cached as files in one folder.

The answers come from a Python dict filled from the source: no peer is its own judge.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # readers whose memory is measured must not load it for nothing
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

KEY, VALUE = "path", "packages"
SEED = 20_260_101
MISS_SHARE = 0.2
READER_QUESTIONS = 100_000
READERS_MAX = 64
LAYOUT = 1  # of the cache: change it when a file's content changes


@dataclass(frozen=True)
class DataSet:
    """Files of one data set. `rows` unique pairs, shuffled; the bytes are those of keys and values alone."""

    folder: str
    title: str
    rows: int
    key_bytes: int
    value_bytes: int
    questions: int

    @property
    def rows_file(self) -> Path:
        """Arrow IPC: columns path and packages, large strings, in random order."""
        return Path(self.folder) / "rows.arrow"

    @property
    def questions_file(self) -> Path:
        """Arrow IPC: key and the right answer, null for a miss, in random order."""
        return Path(self.folder) / "questions.arrow"

    def reader_file(self, reader: int) -> Path:
        """Questions of one reader process, as plain text: see `read_reader_questions`."""
        return Path(self.folder) / f"reader-{reader:02}.txt"


def load(folder: Path) -> DataSet:
    """What `prepare` left in a folder."""
    return DataSet(**json.loads((folder / "dataset.json").read_text()))


def prepare(cache: Path, rows_max: int | None, questions: int) -> DataSet:
    """The data set from the cache folder, made first if it is not there."""
    folder = cache / f"debian-{rows_max or 'all'}-{questions}-v{LAYOUT}"
    if (folder / "dataset.json").exists():
        return load(folder)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"preparing the data set in {folder} (once) ...", file=sys.stderr)
    title, oracle = _read_source(cache, rows_max)
    dice = random.Random(SEED)
    keys = list(oracle)
    dice.shuffle(keys)
    data = DataSet(
        folder=str(folder.resolve()),
        title=title,
        rows=len(keys),
        key_bytes=sum(len(key.encode()) for key in keys),
        value_bytes=sum(len(value.encode()) for value in oracle.values()),
        questions=questions,
    )
    _write_arrow(data.rows_file, {KEY: keys, VALUE: [oracle[key] for key in keys]})
    asked = _questions(keys, oracle, questions, dice)
    _write_arrow(data.questions_file, {"key": asked, "answer": [oracle.get(key) for key in asked]})
    for reader in range(READERS_MAX):
        asked = _questions(keys, oracle, READER_QUESTIONS, dice)
        pairs = (f"{key}\0{oracle.get(key, '')}" for key in asked)
        data.reader_file(reader).write_text("\0".join(pairs), encoding="utf-8", newline="")
    (folder / "dataset.json").write_text(json.dumps(asdict(data), indent=1))
    return data


def _read_source(cache: Path, rows_max: int | None) -> tuple[str, dict[str, str]]:
    from examples.real_data import NoDataError, debian_index

    try:
        source = debian_index(cache / "apt")
        oracle = {path: packages for chunk in source.chunks() for path, packages in chunk}
    except NoDataError as why:
        raise SystemExit(
            f"bench: no data: {why}. It needs Debian's file index: run it on Debian or Ubuntu, "
            "once with network access or after `apt-file update`."
        ) from why
    if rows_max is not None and rows_max < len(oracle):
        kept = random.Random(SEED).sample(list(oracle), rows_max)
        oracle = {path: oracle[path] for path in kept}
    return source.title, oracle


def _questions(keys: list[str], oracle: dict[str, str], count: int, dice: random.Random) -> list[str]:
    """Random keys, a fifth of them absent: real paths with one character replaced by one that no path has."""
    misses = int(count * MISS_SHARE)
    asked = dice.choices(keys, k=count)
    for place in range(misses):
        path = asked[place]
        position = dice.randrange(len(path))
        asked[place] = path[:position] + "\n" + path[position + 1 :]
        assert asked[place] not in oracle
    dice.shuffle(asked)
    return asked


def read_reader_questions(file: Path) -> tuple[list[str], list[str | None]]:
    """Keys and right answers of one reader process; needs the standard library only."""
    with file.open(encoding="utf-8", newline="") as text:
        fields = text.read().split("\0")
    return fields[::2], [answer or None for answer in fields[1::2]]


def _write_arrow(file: Path, columns: Mapping[str, Sequence[str | None]]) -> None:
    import pyarrow as pa

    table = pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table)


def read_table(file: Path) -> pa.Table:
    """A table read into memory, not mapped: building must not wait for a disk."""
    import pyarrow as pa

    with pa.OSFile(str(file)) as opened:
        return pa.ipc.open_file(opened).read_all()


def string_batches(table: pa.Table, rows: int = 65_536) -> Iterator[tuple[list[str], list[str]]]:
    """A table's keys and values as lists of Python strings, some rows at a time."""
    for batch in table.to_batches(max_chunksize=rows):
        yield batch.column(0).to_pylist(), batch.column(1).to_pylist()
