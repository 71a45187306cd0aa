"""Tables of text: CSV with other separators and decimal commas, and the line that has too many fields."""

import csv
import io
import re
from pathlib import Path

import polars as pl

from moelab.printable import short

SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"


def separator_of(header: str, usual: str) -> str:
    """What separates the names of a header: the usual separator, unless it has none of those and some of another."""
    names = re.sub(r'"[^"]*"', "", header)
    counts = {separator: names.count(separator) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    return usual if counts[usual] or not counts[best] else best


def parse_csv(content: bytes, usual: str) -> pl.DataFrame:
    """The table of a CSV file's content. Names lose the blanks around them; behind another separator than a comma,
    3,5 is a number. Raises ValueError naming the first line with another number of fields than the header."""
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    separator = separator_of(header, usual)
    try:
        table = pl.read_csv(io.BytesIO(content), separator=separator, infer_schema_length=None)
    except pl.exceptions.ComputeError:
        check_fields(content, separator)
        raise
    stripped = [name.strip() for name in table.columns]
    if len(set(stripped)) == len(stripped):
        table.columns = stripped
    return table if separator == "," else _decimal_points(table)


def check_fields(content: bytes, separator: str) -> None:
    """Raises ValueError naming the first line that has more fields than the header names columns."""
    reader = csv.reader(io.StringIO(content.decode("utf-8", "replace")), delimiter=separator)
    header: list[str] = next(reader, [])
    for fields in reader:
        if len(fields) > len(header):
            raise ValueError(
                f"line {reader.line_num} has {len(fields)} fields, the header names {len(header)} columns: "
                f"{short(separator.join(fields))}"
            )


def _decimal_points(table: pl.DataFrame) -> pl.DataFrame:
    """Columns of text that are numbers with decimal commas, with points."""
    found = []
    for name in table.columns:
        if table[name].dtype != pl.String:
            continue
        bare = table[name].str.strip_chars()
        given = bare.filter(bare.is_not_null() & (bare != ""))
        if len(given) and given.str.contains(_DECIMAL_COMMA).all():
            found.append(bare.str.replace(",", ".", literal=True).alias(name))
    return table.with_columns(found)


def with_file(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table with its file's name as the column `file`, unless it has one."""
    return table if "file" in table.columns else table.with_columns(pl.lit(path.name).alias("file"))
