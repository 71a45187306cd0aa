"""How objects show themselves in a notebook: one short line of text, and a table in HTML."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from moelab.printable import printable

MOST = 400
"""Characters of the text of any public object."""
_MOST_VALUE = 80
_MOST_LISTED = 6
_STYLE = "text-align:left;vertical-align:top"


def short_repr(shown: object, **fields: Any) -> str:
    """`Name(field=value, ...)` in at most 400 characters; long values and what does not fit end in three dots."""
    text = ", ".join(f"{name}={_value(value)}" for name, value in fields.items())
    whole = f"{type(shown).__name__}({text})"
    return whole if len(whole) <= MOST else f"{whole[: MOST - 4]}...)"


class Shown:
    """A dataclass (with `repr=False`) whose text is short whatever it holds, and whose HTML is a row per field."""

    __slots__ = ()

    def __repr__(self) -> str:
        return short_repr(self, **_fields_of(self))

    def _repr_html_(self) -> str:
        rows = [(name, _value(value)) for name, value in _fields_of(self).items()]
        return html_table(["field", "value"], rows, title=type(self).__name__)


def _fields_of(shown: Any) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in shown.__dataclass_fields__}


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", note: str = "") -> str:
    """A table in HTML, with everything in it escaped; a caption above it and a line below where they are given."""
    head = "".join(f'<th style="{_STYLE}">{_safe(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_STYLE}">{_safe(_cell(cell))}</td>' for cell in row) + "</tr>" for row in rows
    )
    caption = f'<caption style="text-align:left">{_safe(title)}</caption>' if title else ""
    below = f"<p>{_safe(note)}</p>" if note else ""
    return f"<div><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"


def interval_text(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`2.103 [2.09, 2.12]`, without the brackets where the interval is not known; `-` for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{value:.4g}"
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"


def _safe(text: str) -> str:
    return escape(printable(text))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(value: Any) -> str:
    """One value in at most eighty characters; what holds many things is only counted."""
    if getattr(value, "shape", None):
        return f"array{tuple(value.shape)}"
    if isinstance(value, list | tuple | dict | set) and len(value) > _MOST_LISTED:
        return f"<{len(value)} entries>"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _MOST_VALUE else f"{text[: _MOST_VALUE - 3]}..."
