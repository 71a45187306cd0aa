"""What the operators and functions of `--let` and `--where` do: columns in, a column out, row by row.

A column holds numbers (64-bit floats), text, or true and false, which are 1 and 0 in arithmetic. A missing number
(null or NaN) satisfies no condition; arithmetic keeps it missing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from moelab.errors import InputError
from moelab.runs import times

NUMBER, TEXT, TRUTH = "a number", "text", "true or false"
MOST_PATTERN = 1_000
"""Characters of a LIKE pattern; the engine refuses those of some ten thousand in words of its own."""
_TYPES: dict[str, pl.DataType] = {NUMBER: pl.Float64(), TEXT: pl.String(), TRUTH: pl.Boolean()}


def constant(value: float | str | bool | None, rows: int) -> pl.Series:
    """One value for every row."""
    kinds = {bool: TRUTH, float: NUMBER, str: TEXT}
    one = pl.Series([value], dtype=_TYPES[kinds[type(value)]] if value is not None else pl.Null())
    return one.new_from_index(0, rows)


def read_column(column: pl.Series) -> pl.Series:
    """A table's column as expressions see it, times without their empty ends: '2024-01-31', '2024-01-31 10:00:00'.

    Raises InputError for one that holds lists or records.
    """
    kind = column.dtype
    if kind.is_numeric():
        return column.cast(pl.Float64)
    if isinstance(kind, pl.Datetime):
        return column.cast(pl.String).str.replace(r"\.0+$", "").str.replace(r" 00:00:00$", "")
    if kind.is_temporal() or isinstance(kind, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if kind in (pl.String, pl.Boolean, pl.Null):
        return column
    raise InputError(f"the column {column.name!r} holds neither numbers nor text ({kind})")


def kind_of(column: pl.Series) -> str | None:
    """`a number`, `text` or `true or false`; None for a column of which no value is known."""
    return next((name for name, kind in _TYPES.items() if column.dtype == kind), None)


def as_kind(column: pl.Series, kind: str, what: str) -> pl.Series:
    """The column, if it is of this kind or all missing. Raises InputError naming `what` wants it."""
    found = kind_of(column)
    if found not in (kind, None):
        hint = f" (compare it: {column.name or 'x'} = 1)" if (kind, found) == (TRUTH, NUMBER) else ""
        raise InputError(f"{what} takes {kind}, got {found}{hint}")
    return column if found else column.cast(_TYPES[kind])


def one_kind(columns: Sequence[pl.Series], what: str) -> list[pl.Series]:
    """Columns of one kind; truth beside numbers is 1 and 0. Raises InputError where they differ."""
    kinds = {kind for column in columns if (kind := kind_of(column)) is not None}
    if kinds == {NUMBER, TRUTH}:
        kinds = {NUMBER}
    if len(kinds) > 1:
        dates = any(kind_of(column) == TEXT and times.are_times(column) for column in columns)
        advice = times.ADVICE if dates else "text stands in 'quotes'"
        raise InputError(f"{what} takes values of one kind, got {' and '.join(sorted(kinds))}; {advice}")
    common = _TYPES[next(iter(kinds), NUMBER)]
    return [column if column.dtype == common else column.cast(common) for column in columns]


def known(column: pl.Series) -> pl.Series:
    """The column with NaN as null: a missing number."""
    has_nan = column.dtype.is_float() and np.isnan(column.to_numpy()).any()
    return column.fill_nan(None) if has_nan else column


def numeric(function: Callable[..., Any], what: str, *columns: pl.Series) -> pl.Series:
    """A NumPy function of columns of numbers; null where one of them is."""
    read = [as_kind(_as_number(column), NUMBER, what) for column in columns]
    with np.errstate(all="ignore"):
        result = pl.Series(function(*(column.to_numpy() for column in read)), dtype=pl.Float64)
    present = [column.is_not_null() for column in read if column.null_count()]
    for mask in present:
        result = result.zip_with(mask, pl.Series([None], dtype=pl.Float64))
    return result


def _as_number(column: pl.Series) -> pl.Series:
    """True and false as 1 and 0; every other column as it is."""
    return column.cast(pl.Float64) if column.dtype == pl.Boolean else column


def compare(sign: str, left: pl.Series, right: pl.Series) -> pl.Series:
    """`=`, `!=`, `<`, `<=`, `>` or `>=`; null where a side is missing."""
    a, b = (known(column) for column in one_kind([left, right], sign))
    if kind_of(a) == kind_of(b) == TEXT:
        a, b = times.comparable(sign, a, b)
    result: pl.Series = getattr(a, _COMPARED[sign])(b)
    return result


def choose(condition: pl.Series, then: pl.Series, otherwise: pl.Series, what: str) -> pl.Series:
    """`then` where the condition holds, else `otherwise`."""
    a, b = one_kind([then, otherwise], what)
    return a.zip_with(as_kind(condition, TRUTH, what).fill_null(False), b)


def matches(column: pl.Series, pattern: str, any_case: bool) -> pl.Series:
    """LIKE: % stands for any text, _ for one character. Raises InputError for a pattern that is too long."""
    if len(pattern) > MOST_PATTERN:
        raise InputError(f"LIKE: a pattern has at most {MOST_PATTERN:,} characters, got {len(pattern):,}")
    wild = {"%": ".*", "_": "."}
    body = "".join(wild.get(part) or re.escape(part) for part in re.split("([%_])", pattern))
    return as_kind(column, TEXT, "LIKE").str.contains(f"(?s{'i' if any_case else ''})^(?:{body})$")


_COMPARED = {
    "=": "eq", "==": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
}  # fmt: skip
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod,
}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """One function: how many columns it takes at least and at most, and what it makes of them."""

    least: int
    most: int
    apply: Callable[..., pl.Series]


def _numeric(name: str, function: Callable[..., Any], count: int = 1) -> Function:
    return Function(count, count, lambda *columns: numeric(function, name, *columns))


def _rounded(*columns: pl.Series) -> pl.Series:
    def round_to(x: Any, digits: Any = 0.0) -> Any:
        scale = np.power(10.0, np.floor(digits))
        return np.round(x * scale) / scale

    return numeric(round_to, "ROUND", *columns)


def _extreme(name: str, sign: str) -> Function:
    """The largest or smallest of a row's values; missing where one is."""

    def apply(*columns: pl.Series) -> pl.Series:
        best, *others = (known(column) for column in one_kind(columns, name))
        for other in others:
            chosen = best.zip_with(compare(sign, best, other).fill_null(False), other)
            best = chosen.zip_with(best.is_not_null(), best)
        return best

    return Function(2, 20, apply)


def _first_known(*columns: pl.Series) -> pl.Series:
    first, *others = (known(column) for column in one_kind(columns, "COALESCE"))
    for other in others:
        first = first.zip_with(first.is_not_null(), other)
    return first


def _unless_equal(column: pl.Series, other: pl.Series) -> pl.Series:
    nothing = pl.Series([None] * column.len(), dtype=column.dtype)
    return choose(compare("=", column, other), nothing, column, "NULLIF")


def _text(name: str, function: Callable[..., pl.Series], count: int = 1) -> Function:
    return Function(count, count, lambda *columns: function(*(as_kind(column, TEXT, name) for column in columns)))


def _edge(name: str) -> Function:
    def apply(column: pl.Series, edge: pl.Series) -> pl.Series:
        frame = pl.DataFrame({"text": column, "edge": edge})
        return frame.select(getattr(pl.col("text").str, name)(pl.col("edge"))).to_series()

    return _text(name.upper(), apply, 2)


FUNCTIONS: dict[str, Function] = {
    "ABS": _numeric("ABS", np.abs),
    "CBRT": _numeric("CBRT", np.cbrt),
    "CEIL": _numeric("CEIL", np.ceil),
    "COALESCE": Function(1, 20, _first_known),
    "ENDS_WITH": _edge("ends_with"),
    "EXP": _numeric("EXP", np.exp),
    "FLOOR": _numeric("FLOOR", np.floor),
    "GREATEST": _extreme("GREATEST", ">="),
    "IF": Function(3, 3, lambda condition, then, otherwise: choose(condition, then, otherwise, "IF")),
    "LEAST": _extreme("LEAST", "<="),
    "LENGTH": _text("LENGTH", lambda column: column.str.len_chars().cast(pl.Float64)),
    "LN": _numeric("LN", np.log),
    "LOG10": _numeric("LOG10", np.log10),
    "LOG1P": _numeric("LOG1P", np.log1p),
    "LOG2": _numeric("LOG2", np.log2),
    "LOWER": _text("LOWER", lambda column: column.str.to_lowercase()),
    "MOD": _numeric("MOD", np.fmod, 2),
    "NULLIF": Function(2, 2, _unless_equal),
    "POW": _numeric("POW", np.power, 2),
    "POWER": _numeric("POWER", np.power, 2),
    "ROUND": Function(1, 2, _rounded),
    "SIGN": _numeric("SIGN", np.sign),
    "SQRT": _numeric("SQRT", np.sqrt),
    "STARTS_WITH": _edge("starts_with"),
    "UPPER": _text("UPPER", lambda column: column.str.to_uppercase()),
}
"""Everything an expression can call. None of it reads a file, the environment, a clock or another row."""
