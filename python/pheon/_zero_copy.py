"""What `Table.zero_copy_report` says: which library reads which column where it lies, and why another is copied."""

from __future__ import annotations

import html
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pheon._errors import CopyRequiredError

if TYPE_CHECKING:
    from pheon._table import Table

# What each consumer needs to be installed; its adapter says which columns it copies.
_CONSUMERS = {
    "pandas": ("pandas", "pyarrow"),
    "numpy": ("numpy",),
    "polars": ("polars",),
    "pyarrow": ("pyarrow",),
}
_COLUMNS_SHOWN_MAX = 100
_NAME_CHARS_MAX = 40


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """One column for one consumer; `reason` says why it is copied, "" if it is not."""

    column: str
    consumer: str
    zero_copy: bool
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class ZeroCopyReport:
    """For every column and installed consumer whether it is read where it lies in the mapped file.

    Zero-copy means that the values (and offsets, in strings and lists) that the consumer holds are the file's bytes.
    The bitmap of nulls, one bit a row, does not count: slices may need it shifted.
    """

    name: str
    version: int
    verdicts: tuple[ColumnVerdict, ...]

    def __iter__(self) -> Iterator[ColumnVerdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def of(self, consumer: str) -> dict[str, ColumnVerdict]:
        """The verdicts of one consumer by column; empty if it is not installed."""
        return {verdict.column: verdict for verdict in self.verdicts if verdict.consumer == consumer}

    @property
    def consumers(self) -> list[str]:
        """The consumers that are installed."""
        return list(dict.fromkeys(verdict.consumer for verdict in self.verdicts))

    @property
    def copies(self) -> tuple[ColumnVerdict, ...]:
        """The verdicts that are not zero-copy."""
        return tuple(verdict for verdict in self.verdicts if not verdict.zero_copy)

    def __repr__(self) -> str:
        consumers, rows, reasons = self._grid()
        table = [["column", *consumers], *rows]
        widths = [max(len(row[at]) for row in table) for at in range(len(consumers) + 1)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        lines += [f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)]
        return "\n".join([f"<pheon.ZeroCopyReport {self.name!r} version {self.version}>", *lines])

    def _repr_html_(self) -> str:
        consumers, rows, reasons = self._grid()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("column", *consumers))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        notes = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
        title = html.escape(f"{self.name}, version {self.version}")
        return (
            f"<div><p>Zero copy: {title}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<ol>{notes}</ol></div>"
        )

    def _grid(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Consumers, a row a column with "yes" or the number of a reason, and the reasons."""
        consumers = self.consumers
        verdicts = {(verdict.column, verdict.consumer): verdict for verdict in self.verdicts}
        columns = list(dict.fromkeys(verdict.column for verdict in self.verdicts))
        reasons: dict[str, int] = {}
        rows: list[list[str]] = []
        for column in columns[:_COLUMNS_SHOWN_MAX]:
            row = [_shortened(column)]
            for consumer in consumers:
                verdict = verdicts[column, consumer]
                number = 0 if verdict.zero_copy else reasons.setdefault(verdict.reason, len(reasons) + 1)
                row.append("yes" if verdict.zero_copy else f"copy [{number}]")
            rows.append(row)
        if len(columns) > _COLUMNS_SHOWN_MAX:
            rows.append([f"... {len(columns) - _COLUMNS_SHOWN_MAX} more", *["..."] * len(consumers)])
        return consumers, rows, list(reasons)


def report(table: Table) -> ZeroCopyReport:
    """The report for a table or slice, for every consumer that is installed."""
    verdicts: list[ColumnVerdict] = []
    for consumer, needed in _CONSUMERS.items():
        if all(find_spec(module) is not None for module in needed):
            verdicts += [
                ColumnVerdict(column, consumer, reason is None, reason or "")
                for column, reason in _copies(table, consumer).items()
            ]
    return ZeroCopyReport(table.name, table.version, tuple(verdicts))


def require(table: Table, consumer: str, column: str | None = None) -> None:
    """Check that `consumer` copies nothing of the table, or of one column.

    Raises:
        CopyRequiredError: it does; the message names the columns and the reasons.
    """
    copied = {
        name: reason
        for name, reason in _copies(table, consumer).items()
        if reason is not None and column in (None, name)
    }
    if copied:
        shown = [f"{name!r} ({reason})" for name, reason in list(copied.items())[:_COLUMNS_SHOWN_MAX]]
        more = f" and {len(copied) - len(shown)} more" if len(copied) > len(shown) else ""
        raise CopyRequiredError(
            f"{consumer} cannot read {len(copied)} of {table.num_columns} columns of {table.name!r} without a copy: "
            f"{', '.join(shown)}{more}; leave these columns out, or allow copies with require_zero_copy=False"
        )


def _copies(table: Table, consumer: str) -> dict[str, str | None]:
    """Why each column is copied; None: it is not."""
    copied = table._copied  # noqa: SLF001
    if copied is not None:
        return dict.fromkeys(table.column_names, copied)
    module = importlib.import_module(f"pheon._adapters.{consumer}")
    copies: Callable[[Table], dict[str, str | None]] = module.copies
    return copies(table)


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_CHARS_MAX else f"{name[: _NAME_CHARS_MAX - 3]}..."
