"""Cells of text that each hold a record, as JSON or as Python prints it: W&B's example writes config and summary so."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from moelab.files import MOST_NESTED
from moelab.runs.json_rows import table_of

MOST_CHARACTERS = 200_000
"""Characters of a cell that is still read as a record."""
_NOT_FINITE = re.compile(r"(?<=[:\s\[,])(nan|-?inf|NaN|-?Infinity)(?=\s*[,}\]])")


def with_fields(table: pl.DataFrame) -> pl.DataFrame:
    """The table with the fields of record cells as columns, `config.` and `summary.` before a name only where it is not
    unique; columns of other text stay."""
    for name in table.columns:
        records = _records(table[name]) if table[name].dtype == pl.String else None
        if records is None:
            continue
        fields = table_of([{name: record} for record in records])
        others = table.drop(name)
        fields.columns = [f"{name}.{field}" if field in others.columns else field for field in fields.columns]
        table = others.hstack(fields)
    return table


def _records(column: pl.Series) -> list[dict[str, Any]] | None:
    """The records of a column, {} for a missing one; None where a cell is none."""
    found: list[dict[str, Any]] = []
    for cell in column:
        record = {} if cell is None or not cell.strip() else _record(cell.strip())
        if record is None:
            return None
        found.append(record)
    return found if any(found) else None


def _record(cell: str) -> dict[str, Any] | None:
    if not (cell.startswith("{") and cell.endswith("}")) or len(cell) > MOST_CHARACTERS or _depth(cell) > MOST_NESTED:
        return None
    for read in (json.loads, _literal):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else None
    return None


def _literal(cell: str) -> Any:
    """A record as Python prints it: literals alone, nothing is run; nan and inf are missing."""
    return ast.literal_eval(_NOT_FINITE.sub("None", cell))


def _depth(cell: str) -> int:
    depth = most = 0
    for character in cell:
        if character in "[{(":
            depth += 1
            most = max(most, depth)
        elif character in "]})":
            depth -= 1
    return most
