"""What a table shows of itself: enough, bounded, escaped, without any library, and never an exception."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import pheon
from pheon import _display

LINES_MAX = 1 + 2 + 11
LINE_CHARS_MAX = 21 * 42


class Cells(HTMLParser):
    """The texts of an HTML table's cells, and its tags."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert attrs == []
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_small_table(store: pheon.Store) -> None:
    table = store.put("prices", pa.table({"k": [2, 1], "x": [1.5, None], "s": ["b", "a"]}), key="k")
    assert repr(table) == textwrap.dedent(
        """\
        <pheon.Table 'prices' version 1: 2 rows, 3 columns, key k>
        k      x        s
        Int64  Float64  LargeUtf8
        1      null     a
        2      1.5      b"""
    )
    cells = Cells(table._repr_html_())
    assert cells.texts == [
        "prices version 1: 2 rows, 3 columns, key k",
        *("k", "x", "s", "Int64", "Float64", "LargeUtf8"),
        *("1", "null", "a", "2", "1.5", "b"),
    ]
    assert set(cells.tags) == {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert repr(table[:0]).endswith("LargeUtf8")
    assert "0 rows" in repr(table[:0])


def test_head_and_tail(store: pheon.Store) -> None:
    table = store.put("t", pa.table({"n": range(1000)}))
    shown = [line.split()[0] for line in repr(table).splitlines()[1:]]
    assert shown == ["n", "Int64", "0", "1", "2", "3", "4", "...", "995", "996", "997", "998", "999"]
    assert "1,000 rows, 1 column, no key" in repr(table)
    assert Cells(table._repr_html_()).texts[1:] == shown
    for rows in range(9, 12):
        lines = repr(table[:rows]).splitlines()[3:]
        assert len(lines) == min(rows, 11)
        assert ("..." in lines) == (rows == 11)


def test_many_columns(store: pheon.Store) -> None:
    table = store.put("t", pa.table({f"c{i}": [i] for i in range(500)}))
    names = repr(table).splitlines()[1].split()
    assert names == [*(f"c{i}" for i in range(10)), "...", *(f"c{i}" for i in range(490, 500))]
    assert "500 columns" in repr(table)
    assert repr(table).splitlines()[3].split()[-1] == "499"
    assert names == [text for text in Cells(table._repr_html_()).texts if text.startswith("c") or text == "..."][:21]


def test_nothing_makes_it_long(store: pheon.Store) -> None:
    data = {f"a long name {i} " * 50: ["a long text\n" * 10_000, "\x1b[31m" * 100, "ü" * 100] for i in range(30)}
    data["binary"] = [b"\x00" * 10_000] * 3
    data["list"] = [list(range(10_000))] * 3
    data["struct"] = [{f"f{i}": i for i in range(100)}] * 3
    data["number"] = [1.0 / 3, float("nan"), None]
    table = store.put("t", pa.table(data), key="a long name 0 " * 50)
    for shown in (repr(table), str(table)):
        lines = shown.splitlines()
        assert len(lines) <= LINES_MAX
        assert max(map(len, lines)) <= LINE_CHARS_MAX
        assert "\x1b" not in shown
        assert "10,000 items" in shown
    assert len(table._repr_html_()) < 100_000


def test_html_is_escaped(store: pheon.Store) -> None:
    evil = "<script>alert('x')</script>"
    table = store.put("t", pa.table({evil[:40]: [evil, "&amp;"], "s": pa.array([{"<i>": "<b>"}, None])}), key=evil[:40])
    markup = table._repr_html_()
    assert not re.search(r"<script|<i>|<b>", markup)
    assert "&lt;script&gt;" in markup
    assert "&amp;amp;" in markup
    Cells(markup)


def test_values_of_every_kind(store: pheon.Store) -> None:
    day = dt.date(2020, 1, 2)
    data = pa.table(
        {
            "bool": [True],
            "bytes": [b"\x00a"],
            "date": [day],
            "time": [dt.time(1, 2)],
            "instant": pa.array([0], pa.timestamp("ns", "Europe/Berlin")),
            "fine": pa.array([1], pa.timestamp("ns")),
            "length": [dt.timedelta(seconds=1)],
            "decimal": [decimal.Decimal("1.50")],
            "list": [[1, 2]],
            "struct": [{"a": 1}],
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "dictionary": pa.array(["x"]).dictionary_encode(),
            "null": pa.nulls(1),
            "interval": pa.array([pa.MonthDayNano([1, 2, 3])]),
            "half": pa.array([1.5], pa.float16()),
        }
    )
    cells = Cells(store.put("t", data)._repr_html_()).texts
    values = dict(zip(data.column_names, cells[-len(data.column_names) :], strict=True))
    assert values["bool"] == "True"
    assert values["bytes"] == "b'\\x00a'"
    assert values["date"] == "2020-01-02"
    assert values["decimal"] == "1.50"
    assert values["list"] == "[1, 2]"
    assert values["struct"] == "{'a': 1}"
    assert values["dictionary"] == "x"
    assert values["null"] == "null"
    assert values["half"] == "1.5"
    assert all(values.values())


def test_a_map_whose_values_may_not_be_read(store: pheon.Store) -> None:
    store.put_map("m", {"a": object}, codec="pickle")
    assert "1 row, 2 columns, key key" in repr(store.table("m"))
    assert repr(store.put_map("n", {"a": 1})).startswith("<pheon.Map 'n' version 1: 1 entries")


def test_the_cost_does_not_grow_with_the_rows(store: pheon.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 200_001
    table = store.put("t", pa.table({"n": range(rows), "c": pa.array(["x"] * rows).dictionary_encode()}))
    read: list[tuple[int, int]] = []

    class Spy:
        """The handle of a table, which tells what is read of it."""

        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def __getattr__(self, name: str) -> Any:
            assert name not in ("column", "row", "rows", "__arrow_c_stream__")
            return getattr(self.handle, name)

        def slice(self, offset: int, length: int) -> Any:
            read.append((offset, length))
            return self.handle.slice(offset, length)

    spied = pheon.Table(Spy(table._handle), table._origin)  # type: ignore[arg-type]
    lines = repr(spied).splitlines()
    # The engine checks a dictionary column whole before it gives a value: only of small tables.
    assert [line.split()[-1] for line in lines[3:]] == ["..."] * 11
    assert len(read) == 10
    assert {length for _, length in read} == {1}
    monkeypatch.setattr(_display, "_CHECKED_ROWS_MAX", rows)
    assert repr(table).splitlines()[-1].split() == ["200000", "x"]


def test_structs_of_plain_fields_are_shown_whatever_their_number(
    store: pheon.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pa.table({"k": [1, 2], "s": [{"a": 1.5, "b": {"c": "x"}}] * 2, "l": [{"a": [1]}] * 2})
    table = store.put("t", rows, key="k")
    monkeypatch.setattr(_display, "_CHECKED_ROWS_MAX", 1)
    assert repr(table).splitlines()[-1].split() == ["2", "{'a':", "1.5,", "'b':", "{'c':", "'x'}}", "..."]


def test_slices_and_pandas(store: pheon.Store) -> None:
    table = store.put("t", pd.DataFrame({"v": [1.5, 2.5, 3.5]}, index=[10, 11, 12]))
    assert "key __index_level_0__" in repr(table)
    assert repr(table[1:2]).splitlines()[-1].split() == ["2.5", "11"]


WITHOUT_LIBRARIES = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("pyarrow", "pandas", "polars", "numpy", "duckdb"):
                raise ImportError(name)

    sys.meta_path.insert(0, Blocked())
    import pheon

    table = pheon.open(sys.argv[1], read_only=True).table("t")
    print(repr(table))
    print(table._repr_html_())
"""


def test_no_library_is_needed(store: pheon.Store) -> None:
    table = store.put("t", pa.table({"k": [1, 2], "s": ["a", None], "l": [[1], None]}), key="k")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_LIBRARIES), str(store.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"{table!r}\n{table._repr_html_()}\n"
