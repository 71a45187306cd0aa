"""Messages about a table in the fit page's own words: an option of `moelab fit` becomes what the page offers for it.

Columns and their units are mapped by hand. What the page cannot do is done in the table, or with `moelab fit`.
"""

import re
from collections.abc import Mapping

from moelab.app.fit_fields import UNITS, VARIABLES

_LET = re.compile(r"(map one with )?--let '([^']*)'")
_FACTOR = re.compile(r"(?:(\d[\d.e+]*) \* )?([A-Za-z_]\w*|\"(?:[^\"]|\"\")+\")")
_WHERE = re.compile(
    r"(?:(drop|leave) (?:them|it)(?: out)?|keep one(?: \w+)?) with --where(?: \"(.+?)\"(?=$|[;,)]| or | --))?"
)
_LOSSES = re.compile(r"fit one: ((?:--loss (?:\"[^\"]+\"|\S+)(?: or )?)+)")
_LOSS = re.compile(r"(?:fit one with )?--loss (NAME|\"[^\"]+\"|\w+)")
_INSIDE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_CODE = re.compile(r"(`[^`]*`)")
_PLAIN = (
    (r"hold (its|an) exponent with --fix \S+", r"moelab fit can hold \1 exponent"),
    (r"hold some with --fix NAME=VALUE", "hold some with moelab fit"),
    (r"--prior none fits without", "moelab fit can fit without"),
    (r"; (add|hold it with) --prior none", ""),
    (r"add a law with --law-file", "moelab fit can add a law of one's own"),
    (r"--group none takes every row", "moelab fit can take every row"),
    (r"--group (\"[^\"]+\"|\S+)", r"moelab fit can group them by \1"),
    (r"keep the best of each with --best-of (\S+)", r"keep in the table the best row of each (\1)"),
    (r"--best-of (\S+)", r"keep in the table one row of each (\1)"),
    (r"--law all fits laws with repeated data", "with no law ticked, laws with repeated data are fitted"),
    (r"hold out a group with --holdout-by COLUMN instead", "moelab fit can hold out a group instead"),
    (r"ask for it by its id", "tick it to fit it"),
)
"""Patterns of advice that takes an option of the command, and what stands for them."""


def fit_worded(text: str, mapping: Mapping[str, tuple[str, str]] | None = None) -> str:
    """The text with the page's own fields and words, but for `code`; `mapping` gives each variable's present column
    and unit."""
    return "".join(part if part[:1] == "`" else _plain(part, mapping or {}) for part in _CODE.split(text))


def _plain(text: str, mapping: Mapping[str, tuple[str, str]]) -> str:
    text = _LET.sub(lambda match: _let(match, mapping), text)
    text = _WHERE.sub(_where, text)
    text = _LOSSES.sub(lambda match: f"map one to {_label('loss')}: {match[1].replace('--loss ', '')}", text)
    text = _LOSS.sub(lambda match: f"map {'a column' if match[1] == 'NAME' else match[1]} to {_label('loss')}", text)
    for pattern, plain in _PLAIN:
        text = re.sub(pattern, plain, text)
    text = _INSIDE.sub(lambda match: _label(match[0]) if match[0] in VARIABLES else match[0], text)
    return _OPTION.sub(r"`--\1` of moelab fit", text)


def _let(match: re.Match[str], mapping: Mapping[str, tuple[str, str]]) -> str:
    """What an assignment becomes: a mapping, a unit, or a change of the table."""
    name, _, expression = match[2].partition(" = ")
    name = name.strip('"')
    if expression == "...":
        return f"map a column to {_label(name)} by hand" if name in VARIABLES else f"add a column {name} to the table"
    simple = _FACTOR.fullmatch(expression)
    if name not in VARIABLES:
        return f"add a column {name} = {expression} to the table"
    if simple is None:
        return f"replace {_label(name)} in the table by {expression}"
    column = simple[2].strip('"').replace('""', '"')
    if column == name:
        unit = _unit(float(simple[1] or 1) * UNITS[mapping.get(name, ("", "1"))[1]])
        return f"choose the unit {unit} for {_label(name)}" if unit else f"multiply {_label(name)} by {simple[1]}"
    unit = _unit(float(simple[1] or 1))
    return f"map “{column}” to {_label(name)}" + (f", in {unit}" if unit not in ("", "1") else "")


def _where(match: re.Match[str]) -> str:
    """Rows are left out in the table."""
    if match[2] is None:
        return "leave them out of the table" if match[1] else "keep one in the table"
    return f"keep only the rows with {match[2]} in the table"


def _unit(factor: float) -> str:
    return next((unit for unit, size in UNITS.items() if abs(size / factor - 1) < 1e-9), "")


def _label(name: str) -> str:
    return f"“{VARIABLES[name]}”"
