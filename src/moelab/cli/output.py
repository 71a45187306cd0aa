"""What commands share when they print: JSON for machines, plain rich tables for people."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_PIPE_WIDTH = 200


def print_json(value: Any) -> None:
    """Write JSON to stdout; NaN and infinity become null because JSON has no such numbers."""
    json.dump(_finite(value), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A rich table on stdout: words left-aligned, columns of numbers right-aligned; the first column never wraps."""
    from rich.markup import escape
    from rich.table import Table

    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=index == 0, overflow="fold")
    for row in cells:
        table.add_row(*(escape(cell) for cell in row))
    _console().print(table)


def print_line(text: str = "") -> None:
    """A line of plain text on stdout, wrapped to the terminal."""
    _console().print(text, markup=False)


def _console() -> Any:
    """Rich's console, as wide as COLUMNS or the terminal; in a pipe without COLUMNS, wide enough not to wrap tables."""
    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(highlight=False, width=None if known else _PIPE_WIDTH)


def _is_number(cell: str) -> bool:
    return cell in ("-", "", "–") or cell.lstrip("+-$~").replace(",", "")[:1].isdigit()
