"""What commands share when they print: JSON for machines, plain rich tables for people."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from moelab.files import finite
from moelab.printable import printable

_PIPE_WIDTH = 200
_WORD = 16
"""A number up to this long is never broken, even where COLUMNS is too small: half of it reads as another."""


def print_json(value: Any) -> None:
    """Write JSON to stdout; NaN and infinity become null because JSON has no such numbers."""
    json.dump(finite(value), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A rich table on stdout: words left-aligned, columns of numbers right-aligned; the first column never wraps.

    Cells, columns and the title are text: no markup, emoji code or escape sequence in them acts.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    heading = Text(printable(title), style="bold") if title else None
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in cells)
        justify: Literal["right", "left"] = "right" if numeric else "left"
        least = max((len(word) for row in cells for word in row[index].split()), default=1) if numeric else 1
        table.add_column(
            Text(printable(column)), justify=justify, no_wrap=index == 0, overflow="fold", min_width=min(least, _WORD)
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = _console()
    width = max(console.width, console.measure(table).minimum)
    console.print(table, width=width, crop=False)


def print_line(text: str = "") -> None:
    """A line of plain text on stdout, wrapped to the terminal; nothing in it acts."""
    from rich.text import Text

    _console().print(Text(printable(text)))


def _console() -> Any:
    """Rich's console, as wide as COLUMNS or the terminal; in a pipe without COLUMNS, wide enough not to wrap tables."""
    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(highlight=False, width=None if known else _PIPE_WIDTH)


def _is_number(cell: str) -> bool:
    return cell in ("-", "", "–") or cell.lstrip("+-$~").replace(",", "")[:1].isdigit()
