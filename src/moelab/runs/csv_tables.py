"""CSV and other files of text as tables: numbers, truth values and missing cells by what all of a column holds."""

import re
from pathlib import Path

import polars as pl

from moelab.errors import InputError
from moelab.printable import short, warn
from moelab.runs.cells import restore
from moelab.runs.json_tables import MOST_DIGITS, unpacked
from moelab.runs.record_cells import with_fields
from moelab.runs.text_tables import parse_csv, separator_of, utf8, without_comments

_AGAIN = re.compile(r"_duplicated_\d+\Z")
_MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
MOST_WORDS = 0.2
"""Share of a column's cells that are words and may be no measurements."""
_LONG = rf"^[+-]?\d{{{MOST_DIGITS + 1},}}$"


def read_csv(path: Path, separator: str) -> pl.DataFrame:
    """The table of a CSV file. Raises ValueError naming the row of a number that no 64-bit float can hold."""
    content = utf8(unpacked(path))
    try:
        table = parse_csv(content, separator)
    except pl.exceptions.ComputeError:
        _check_sizes(content, separator)
        raise
    table = with_fields(without_words(as_numbers(_each_once(table, path)), path))
    if any(table[name].dtype.is_float() and table[name].is_infinite().any() for name in table.columns):
        _check_sizes(content, separator)
    return restore(table)


def _check_sizes(content: bytes, usual: str) -> None:
    """Raises ValueError naming the first number of the file that becomes infinite or no whole number can hold."""
    content, usual, _ = without_comments(content, usual)
    separator = separator_of(content.split(b"\n", 1)[0].decode("utf-8", "replace"), usual)
    texts = pl.read_csv(content, separator=separator, infer_schema=False)
    for name in texts.columns:
        bare = texts[name].str.strip_chars()
        wrong = bare.str.contains(_LONG) | (
            bare.str.contains(r"\d") & bare.cast(pl.Float64, strict=False).is_infinite()
        )
        for row in wrong.arg_true()[:1]:
            raise ValueError(f"row {row + 1}, column {short(name)}: {short(bare[row])[1:-1]} is too large a number")


def _each_once(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Raises InputError for a header that names a column twice, which the reader renames."""
    for name in table.columns:
        first = _AGAIN.sub("", name)
        if first != name and first in table.columns:
            raise InputError(f"runs: {path} names the column {first!r} twice; rename or leave out one of them")
    return table


def without_words(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table without rows that hold no number, and words in two columns or more where nearly all others hold
    numbers: units below the names, the names again, a rule of dashes. A warning names them."""
    texts = [name for name in table.columns if table[name].dtype == pl.String]
    bare = {name: table[name].str.strip_chars() for name in texts}
    words = {name: text.cast(pl.Float64, strict=False).is_null() & (text != "") for name, text in bare.items()}
    mostly = [name for name in texts if 0 < words[name].sum() <= MOST_WORDS * table.height]
    if len(mostly) < 2:
        return table
    off = pl.select(pl.all_horizontal([words[name].fill_null(False).alias(name) for name in mostly])).to_series()
    numbers = [name for name in table.columns if table[name].dtype.is_numeric()]
    for name in numbers:
        off &= table[name].is_null() | table[name].is_nan()
    if not off.any():
        return table
    rows = (off.arg_true() + 1).to_list()
    shown = ", ".join(short(bare[name].filter(off)[0]) for name in mostly)
    more = f" and {len(rows) - 1} rows more" if len(rows) > 1 else ""
    warn(f"{path}: row {rows[0]} ({shown}){more} left out: words where the other rows hold numbers")
    return as_numbers(table.filter(~off))


def as_numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Text columns of numbers, or of true and false, and words for a missing one (nan, NA, -) as what they mean."""
    found = []
    for name in table.columns:
        if table[name].dtype != pl.String:
            continue
        bare = table[name].str.strip_chars()
        lower = bare.str.to_lowercase()
        missing = lower.is_in(_MISSING).fill_null(True)
        truth = lower.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
        if (truth.is_not_null() | missing).all() and truth.count():
            found.append(truth.alias(name))
            continue
        values = bare.cast(pl.Float64, strict=False)
        if ((values.is_not_null()) | missing).all() and values.is_finite().any():
            # Missing becomes NaN, not null: a fit then names the rows to drop.
            found.append(
                pl.select(pl.when(missing & bare.is_not_null()).then(float("nan")).otherwise(values))
                .to_series()
                .alias(name)
            )
    return table.with_columns(found)
