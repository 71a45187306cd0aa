"""What commands share when they print: JSON for machines, plain rich tables for people."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from moelab.cli.columns import Block, blocks
from moelab.files import finite
from moelab.printable import printable

_PIPE_WIDTH = 200


def print_json(value: Any) -> None:
    """Write JSON to stdout; NaN and infinity become null because JSON has no such numbers."""
    json.dump(finite(value), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A rich table on stdout: words left-aligned, columns of numbers right-aligned, cut to the terminal by `blocks`.

    Cells, columns and the title are text: no markup, emoji code or escape sequence in them acts.
    """
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[index]) for row in cells) for index in range(len(columns))]
    console = _console()
    if title:
        console.print(Text(printable(title), style="bold"))
    for number, block in enumerate(blocks([printable(column) for column in columns], cells, console.width)):
        if number:
            console.print()
        _print_block(console, block, [numeric[index] for index in block.columns])


def _print_block(console: Any, block: Block, numeric: Sequence[bool]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, block.gap, 0, 0))
    for heading, width, number in zip(block.headings, block.widths, numeric, strict=True):
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(Text(heading), justify=justify, min_width=width, max_width=width, overflow="fold")
    for row in block.rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table, width=max(console.width, console.measure(table).minimum), crop=False)


def print_line(text: str = "", bold: bool = False) -> None:
    """A line of plain text on stdout, wrapped to the terminal, `bold` on one; nothing in it acts."""
    from rich.text import Text

    _console().print(Text(printable(text), style="bold" if bold else ""))


def _console() -> Any:
    """Rich's console, as wide as COLUMNS or the terminal; in a pipe without COLUMNS, wide enough not to wrap tables."""
    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(highlight=False, width=None if known else _PIPE_WIDTH)


def _is_number(cell: str) -> bool:
    return cell in ("-", "", "–") or cell.lstrip("+-$~").replace(",", "")[:1].isdigit()
