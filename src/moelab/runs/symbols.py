"""The symbols of `--let` and `--where`: numbers, names, text, signs and words; what no expression has is refused."""

import re
from typing import NamedTuple

from moelab.errors import InputError
from moelab.printable import short
from moelab.runs.operations import FUNCTIONS

MOST_SYMBOLS = 10_000
"""Numbers, names, signs and words of one expression."""
_SYMBOL = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>\.?[0-9][\w.]*(?:(?<=[eE])[+-][0-9]+)?)
    |(?P<name>[^\W\d]\w*)
    |"(?P<quoted>(?:[^"]|"")+)"
    |'(?P<text>(?:[^']|'')*)'
    |(?P<sign><>|<=|>=|!=|==|\|\||\*\*|//|--|/\*|[-+*/%=<>(),^;])""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_KEYWORDS = ("AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "LIKE", "ILIKE", "CASE", "WHEN", "THEN", "ELSE", "END")
COMPARISONS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
_REFUSED = {
    "^": "write powers as POW(x, y)",
    "**": "write powers as POW(x, y)",
    "//": "write whole division as FLOOR(x / y)",
    ";": "one expression only",
    "--": "one expression only, without comments (a minus before a minus needs a space)",
    "/*": "one expression only, without comments",
}
_AGGREGATES = (
    "ARRAY_AGG", "AVG", "CORR", "COUNT", "COVAR", "FIRST", "LAST", "MAX", "MEAN", "MEDIAN", "MIN", "QUANTILE",
    "QUANTILE_CONT", "QUANTILE_DISC", "RANK", "ROW_NUMBER", "STDDEV", "STDEV", "STD", "SUM", "VAR", "VARIANCE",
)  # fmt: skip
TABLES = (
    "ALL", "ANY", "EXCEPT", "EXISTS", "FROM", "GROUP", "HAVING", "INTERSECT", "JOIN", "ORDER", "OVER", "READ_CSV",
    "READ_IPC", "READ_JSON", "READ_NDJSON", "READ_PARQUET", "SCAN_CSV", "SCAN_PARQUET", "SELECT", "SOME", "TABLE",
    "UNION", "UNNEST", "VALUES", "WHERE", "WITH",
)  # fmt: skip
_INSTEAD = {
    "CAST": "numbers are 64-bit floats; whole ones by FLOOR or ROUND",
    "TRY_CAST": "numbers are 64-bit floats; whole ones by FLOOR or ROUND",
    "LOG": "write LN, LOG2 or LOG10",
    "MAX": "a row's largest value is GREATEST(x, y)",
    "MIN": "a row's smallest value is LEAST(x, y)",
}


class Symbol(NamedTuple):
    """A piece of an expression: its kind (number, name, quoted, text, sign, word, end) and what stands there."""

    kind: str
    value: str


END = Symbol("end", "")


def read_symbols(expression: str) -> list[Symbol]:
    """Raises InputError for what no expression has: other signs, open quotes, suffixed numbers, too many symbols."""
    found, place = [], 0
    while place < len(expression):
        match = _SYMBOL.match(expression, place)
        if match is None:
            odd = expression[place]
            raise InputError(
                f"the quote {odd} is never closed" if odd in "'\"" else f"{odd!r} is not part of an expression"
            )
        place, kind = match.end(), str(match.lastgroup)
        if kind != "space":
            found.append(_symbol(kind, match.group(kind)))
        if len(found) > MOST_SYMBOLS:
            raise InputError(f"an expression has at most {MOST_SYMBOLS:,} symbols")
    return found


def _symbol(kind: str, value: str) -> Symbol:
    if value in _REFUSED and kind == "sign":
        raise InputError(f"{_REFUSED[value]}, got {value}")
    if kind == "number" and not _PLAIN.match(value):
        raise InputError(f"write {short(value)} as a plain number such as 3e11 inside an expression")
    if kind == "number" and float(value) == float("inf"):
        raise InputError(f"{short(value)} is beyond the largest 64-bit float")
    if kind == "name" and value.upper() in _KEYWORDS:
        return Symbol("word", value.upper())
    return Symbol(kind, value.replace('""', '"') if kind == "quoted" else value.replace("''", "'"))


def one_table(word: str) -> str:
    return f"{word.upper()} is not part of an expression: it sees the columns of this table alone, row by row"


def no_function(name: str) -> str:
    name = name.upper()
    if name in _INSTEAD:
        return f"no function {name}: {_INSTEAD[name]}"
    if name in TABLES:
        return one_table(name)
    if name in _AGGREGATES:
        return f"{name} is over many rows; an expression sees one row, and only {', '.join(FUNCTIONS)}"
    return f"no function {short(name)}; allowed: {', '.join(FUNCTIONS)}"
