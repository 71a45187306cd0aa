"""The finished runs of a folder as one table; damaged records among them are left out and named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from moelab.errors import InputError
from moelab.files import read_json
from moelab.printable import short, warn
from moelab.runs.folder import RECORD, find_runs
from moelab.runs.record import RunRecord

MOST_WHOLE = 2**63 - 1
"""The largest whole number that a record may hold."""
TABLES = (".csv", ".parquet", ".jsonl", ".xlsx")
"""Kinds of tables that a folder without runs may hold."""
_EXPLAINED = 10
"""Damaged records of which the fault is printed; of more only the names."""


def runs_table(root: str | Path, diverged: bool = False) -> pl.DataFrame:
    """The finished runs of a folder as one table, with `diverged` those too.

    The folder holds runs, or is one of a study, which keeps them in `runs`, or is that of one run. Damaged records
    among others are left out, named and counted on stderr. Raises InputError where no run is left.
    """
    path = Path(root)
    if (path / RECORD).exists():
        rows = [_row(path)]
    else:
        folders = find_runs(path)
        if not folders and (path / "runs").is_dir():
            folders = find_runs(path / "runs")
        rows = _whole_rows([run.path for run in folders if run.finished])
    rows = [row for row in rows if diverged or row["loss"] is not None]
    if not rows:
        raise InputError(f"runs: {root} holds no finished run{_tables_in(path)}")
    return pl.DataFrame(rows, infer_schema_length=None)


def _row(folder: Path) -> dict[str, Any]:
    """A run's record as a row. Raises InputError where it is damaged in any way."""
    path = folder / RECORD
    record = RunRecord.parse(read_json(path, "run"), str(path))
    try:
        row = record.row()
    except KeyError as error:
        raise InputError(f"{path}: routing: a layer lacks {error}") from None
    large = next((name for name, value in row.items() if isinstance(value, int) and abs(value) > MOST_WHOLE), None)
    if large is not None:
        raise InputError(f"{path}: {large}: expected at most {MOST_WHOLE}, got {short(row[large])}")
    return row


def _whole_rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of the records that can be read; the others are named and counted on stderr."""
    rows, damaged = [], []
    for folder in folders:
        try:
            rows.append(_row(folder))
        except InputError as error:
            damaged.append(folder.name)
            if len(damaged) <= _EXPLAINED:
                warn(f"left out: {error}")
    if damaged:
        more = f": {', '.join(damaged)}" if len(damaged) > _EXPLAINED else ""
        warn(f"{len(damaged)} of {len(folders)} records are damaged and left out{more}")
    return rows


def _tables_in(root: Path) -> str:
    """The pattern of the tables that a folder holds instead of runs; '' for none."""
    for kind in TABLES:
        if any(root.glob(f"*{kind}")):
            return f"; it holds tables: '{root}/*{kind}' reads them"
    return ""
