"""Text and table cells of the page: escaped, with numbers written the same way down a column."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from moelab.printable import printable
from moelab.quantities import format_number

LEAST = 100
"""In units of the last decimal of a column: a smaller number would keep fewer than three significant digits."""
INTERVAL = ("p10", "p90")
"""Headings of the columns that follow a value's with the ends of its interval."""
FEWEST, USUAL, MOST = 3, 5, 8
"""Significant digits of a value with an interval: at least, without a width to choose them by, and at most."""
_CODE = re.compile(r"`([^`]+)`")
# A number with a sign, units of up to four letters and perhaps a range: "+1.0 %", "2.98 – 3.09", "4 min 05 s".
_NUMERIC = re.compile(r"\s*[<>≤≥~≈±+\-−–$]?\s*[\d.][^A-Za-z]*(?:[A-Za-zµ]{1,4}[^A-Za-z]*){0,3}|[\-–—]?\s*")


def rich(text: object) -> Markup:
    """Escaped text in which `backticks` mark code; control characters are shown."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(printable(text)))))


def shown(value: Any) -> Any:
    """What a template prints: text with its control characters shown; markup as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


class Column(NamedTuple):
    """A column of a table as the page prints it: heading, CSS classes, cells, and exact numbers where cells round."""

    name: str
    side: str
    cells: list[str]
    exact: list[str]


def page_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Column]:
    """The columns of a table; `exact` is empty where the cell already is the number."""
    columns = []
    for place, name in enumerate(names):
        first = next((at for at in (place, place - 1, place - 2) if at >= 0 and _has_interval(names, at)), None)
        cells = column_cells(rows, place) if first is None else interval_cells(rows, first)[place - first]
        exact = [_exact(row[place] if place < len(row) else None, cell) for row, cell in zip(rows, cells, strict=True)]
        columns.append(Column(name, column_alignment(rows, place), cells, exact))
    return columns


def _exact(value: Any, cell: str) -> str:
    value = getattr(value, "item", lambda: value)()
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return repr(value) if number and repr(value) != cell else ""


def column_cells(rows: Sequence[Sequence[Any]], column: int) -> list[str]:
    """One column as text: floats of ordinary size share their decimals, None is a dash, counts beside large ones read
    43K and 1.28B. Where some would keep fewer than three significant digits beside the largest, each has its own."""
    values = [row[column] if column < len(row) else None for row in rows]
    values = [getattr(value, "item", lambda value=value: value)() for value in values]
    floats = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v]
    ordinary = bool(floats) and 1e-2 <= max(floats) < 1e4
    decimals = max(0, min(4, 3 - math.floor(math.log10(max(floats))))) if ordinary else 0
    ordinary = ordinary and all(v * 10**decimals >= LEAST or v == round(v, decimals) for v in floats)
    counts = [abs(v) for v in values if isinstance(v, int) and not isinstance(v, bool)]
    if max(counts, default=0) >= 1e6:
        return [format_number(v) if isinstance(v, int) and not isinstance(v, bool) else _cell(v, None) for v in values]
    return [_cell(value, decimals if ordinary else None) for value in values]


def interval_cells(rows: Sequence[Sequence[Any]], first: int) -> list[list[str]]:
    """Columns of a value and the ends of its interval as text: the three cells of a row share as many significant
    digits as leave two of the interval's width."""
    columns: list[list[str]] = [[], [], []]
    for row in rows:
        values = [row[at] if at < len(row) else None for at in range(first, first + 3)]
        values = [getattr(value, "item", lambda value=value: value)() for value in values]
        digits, width = _digits(values), _width(values)
        for cells, value in zip(columns, values, strict=True):
            cells.append(_significant(value, digits, width) if isinstance(value, float) else _cell(value, None))
    return columns


def _has_interval(names: Sequence[str], place: int) -> bool:
    return tuple(names[place + 1 : place + 3]) == INTERVAL


def _digits(values: Sequence[Any]) -> int:
    """Significant digits of a value, its p10 and its p90."""
    numbers = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]
    size, width = max(map(abs, numbers), default=0.0), _width(values)
    if not 0 < width <= size:
        return FEWEST if width else USUAL
    return min(MOST, max(FEWEST, math.ceil(math.log10(size / width)) + 2))


def _width(values: Sequence[Any]) -> float:
    """From p10 to p90; 0 where one of a value, its p10 and its p90 is not known."""
    known = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    return float(abs(values[2] - values[1])) if known else 0.0


def _significant(value: float, digits: int, width: float) -> str:
    """A float in so many significant digits, zeros at the end included; nothing beside its interval's width is 0."""
    if not math.isfinite(value):
        return "–"
    if width and abs(value) < width * 10.0**-digits:
        return f"{0:.{max(0, digits - 1 - math.floor(math.log10(width)))}f}"
    if value and not 1e-3 <= abs(value) < min(1e4, 10**digits):
        return format_number(value, digits)
    return f"{value:#.{digits}g}".rstrip(".")


def column_alignment(rows: Sequence[Sequence[Any]], column: int) -> str:
    """The CSS classes of a column: right for numbers or text that reads like them, else left, or left long."""
    values = [row[column] for row in rows if column < len(row) and row[column] is not None]
    numeric = all(not isinstance(v, bool) and (not isinstance(v, str) or _NUMERIC.fullmatch(v)) for v in values)
    if values and numeric:
        return "right"
    return "left long" if any(len(str(value)) > 40 for value in values) else "left"


def _cell(value: Any, decimals: int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 1e6 else format_number(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        return format_number(value) if decimals is None else f"{value:.{decimals}f}"
    return "–" if value == "-" else str(value)
