"""Columns by the names that expressions give them, and the advice where a name stands for none."""

from difflib import get_close_matches

import polars as pl

from moelab.errors import InputError
from moelab.printable import cut, short
from moelab.runs.operations import constant, read_column
from moelab.runs.symbols import END, TABLES, Symbol, one_table


def named_column(table: pl.DataFrame, name: str, quoted: bool) -> pl.Series:
    """The column of this name, else TRUE or FALSE for every row. Raises InputError naming the columns there are."""
    if name in table.columns:
        return read_column(table[name])
    if not quoted and name.upper() in ("TRUE", "FALSE"):
        return constant(name.upper() == "TRUE", table.height)
    if not quoted and name.upper() in TABLES:
        raise InputError(one_table(name))
    lower = {column.lower(): column for column in table.columns}
    close = [lower[match] for match in get_close_matches(name.lower(), lower, n=4, cutoff=0.4)]
    near = close or table.columns[:12]
    text = "; text stands in 'single quotes'" if quoted else ""
    raise InputError(f'unable to find column "{cut(name)}"; valid columns: {", ".join(map(cut, near))}{text}')


def breaks_off(table: pl.DataFrame, wanted: str, last: Symbol, found: Symbol) -> InputError:
    """What is wrong where `found` stands in the place of what is wanted, after the symbol `last`."""
    words = [name for name in table.columns if Symbol("word", name.upper()) in (last, found)]
    place = "its end" if found == END else short(found.value)
    if words:
        return InputError(f'{place} cannot stand here; the column "{cut(words[0])}" needs its quotes')
    if found.kind in ("name", "word") and found.value.upper() in TABLES:
        return InputError(one_table(found.value))
    return InputError(f"the expression breaks off: expected {wanted}, got {place}")
