"""How a table shows itself: its facts, a few rows of both ends, a few columns; the cost does not grow with the data."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pheon._table import Table

_ROWS_EACH_END = 5
_COLUMNS_EACH_END = 10
_CELL_CHARS_MAX = 32
_NAME_CHARS_MAX = 40
_KEYS_SHOWN_MAX = 4
_ELLIPSIS = "..."
# Longer values are cut before they are printed.
_PRINTED_ITEMS_MAX = 40
_CHECKED_WHOLE = ("Dictionary", "List", "Map", "Union", "RunEnd", "Null", "Struct()")
_CHECKED_ROWS_MAX = 100_000


def text(table: Table) -> str:
    """For `repr`."""
    names, kinds, rows, gap = _excerpt(table)
    lines = [f"<pheon.{type(table).__name__} {table.name!r} version {table.version}: {_facts(table)}>"]
    if not names:
        return lines[0]
    grid = [names, kinds, *rows]
    if gap is not None:
        grid.insert(gap + 2, [_ELLIPSIS] * len(names))
    widths = [max(len(row[at]) for row in grid) for at in range(len(names))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]
    return "\n".join(lines)


def markup(table: Table) -> str:
    """For notebooks: HTML in which everything that comes from the data is escaped."""
    names, kinds, rows, gap = _excerpt(table)
    title = html.escape(f"{_short(table.name, _NAME_CHARS_MAX)} version {table.version}: {_facts(table)}")
    if not names:
        return f"<div><p>{title}</p></div>"
    if gap is not None:
        rows.insert(gap, [_ELLIPSIS] * len(names))
    head = _cells(names, "th") + "</tr><tr>" + _cells(kinds, "td")
    body = "".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)
    return f"<div><p>{title}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cells(row: list[str], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)


def _facts(table: Table) -> str:
    rows, columns = len(table), table.num_columns
    shown = [_short(name, _NAME_CHARS_MAX) for name in table.key[:_KEYS_SHOWN_MAX]]
    more = ", ..." if len(table.key) > _KEYS_SHOWN_MAX else ""
    key = f"key {', '.join(shown)}{more}" if table.key else "no key"
    return f"{rows:,} row{'s' * (rows != 1)}, {columns:,} column{'s' * (columns != 1)}, {key}"


def _excerpt(table: Table) -> tuple[list[str], list[str], list[list[str]], int | None]:
    """Names, types and values of the columns shown, and before which of the rows some are left out."""
    schema = table._handle.column_names  # noqa: SLF001
    kinds = table._handle.column_types  # noqa: SLF001
    whole = len(schema) <= 2 * _COLUMNS_EACH_END
    columns = list(range(len(schema)))
    if not whole:
        columns = [*columns[:_COLUMNS_EACH_END], *columns[-_COLUMNS_EACH_END:]]
    count = len(table)
    head = range(min(count, _ROWS_EACH_END))
    tail = range(max(len(head), count - _ROWS_EACH_END), count)
    gap = len(head) if tail.start > len(head) else None
    shown = [(schema[at], _is_cheap(table, kinds[at])) for at in columns]
    places = [*head, *tail]
    cell = _reader(
        table, [(head.start, head.stop), (tail.start, tail.stop)], places, [name for name, cheap in shown if cheap]
    )
    values = [[cell(at, name) if cheap else _ELLIPSIS for name, cheap in shown] for at in places]
    parts = [[_short(schema[at], _NAME_CHARS_MAX) for at in columns], [_short(kinds[at]) for at in columns], *values]
    if not whole:
        for part in parts:
            part.insert(_COLUMNS_EACH_END, _ELLIPSIS)
    return parts[0], parts[1], parts[2:], gap


def _is_cheap(table: Table, kind: str) -> bool:
    """Whether showing a value reads little: the engine checks dictionary columns and lists whole, also in structs."""
    return not any(word in kind for word in _CHECKED_WHOLE) or table.info().rows <= _CHECKED_ROWS_MAX


def _reader(
    table: Table, pieces: list[tuple[int, int]], places: list[int], names: list[str]
) -> Callable[[int, str], str]:
    """What prints the value at a place of a column."""
    try:
        fetched = table._pieces(pieces, names)  # noqa: SLF001
    except Exception:  # noqa: BLE001 - showing a table must not fail because a value cannot be read
        return lambda at, name: "?"
    number = {at: i for i, at in enumerate(places)}

    def cell(at: int, name: str) -> str:
        try:
            if fetched is not None:
                return _printed(fetched.column(name)[number[at]])
            return _printed(table._handle.slice(at, 1).column(name)[0])  # noqa: SLF001
        except Exception:  # noqa: BLE001 - as above
            return "?"

    return cell


def _printed(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (str, bytes)):
        cut = value[:_CELL_CHARS_MAX]
        printed = cut if isinstance(cut, str) and cut.isprintable() else repr(cut)
        return _short(printed + "...") if len(value) > _CELL_CHARS_MAX else _short(printed)
    if isinstance(value, (list, tuple)) and len(value) > _PRINTED_ITEMS_MAX:
        return f"{len(value):,} items"
    return _short(str(value))


def _short(shown: str, chars_max: int = _CELL_CHARS_MAX) -> str:
    if not shown.isprintable():
        shown = repr(shown)[1:-1]
    return shown if len(shown) <= chars_max else f"{shown[: chars_max - 3]}..."
