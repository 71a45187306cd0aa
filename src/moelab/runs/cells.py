"""Text cells of a CSV file that a spreadsheet would take for formulas: written with an apostrophe, read without it."""

import polars as pl

_FORMULA = r"^('*[=+\-@\t\r\n＝＋－＠])"
_NEUTRAL = r"^'('*[=+\-@\t\r\n＝＋－＠])"
_SEPARATORS = "[;\t]"


def neutralise(table: pl.DataFrame) -> pl.DataFrame:
    """Text cells and column names that begin with a sign of a formula get an apostrophe; numbers stay as they are."""
    return _replaced(table, _FORMULA, "'$1")


def restore(table: pl.DataFrame) -> pl.DataFrame:
    """The table as it was before `neutralise`."""
    return _replaced(table, _NEUTRAL, "$1")


def has_separators(table: pl.DataFrame) -> bool:
    """Whether a text holds what some spreadsheets split cells at: then every text is to be quoted."""
    texts = [table[name].str.contains(_SEPARATORS).any() for name in table.columns if table[name].dtype == pl.String]
    return any(texts) or pl.Series(table.columns, dtype=pl.String).str.contains(_SEPARATORS).any()


def _replaced(table: pl.DataFrame, pattern: str, by: str) -> pl.DataFrame:
    texts = [name for name in table.columns if table[name].dtype == pl.String]
    cells = table.with_columns(table[name].str.replace(pattern, by).alias(name) for name in texts)
    cells.columns = pl.Series(table.columns, dtype=pl.String).str.replace(pattern, by).to_list()
    return cells
