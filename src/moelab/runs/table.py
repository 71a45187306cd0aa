"""Tables of runs: a folder of our own runs, CSV, Parquet or JSON lines; columns by expression, rows by condition."""

import glob
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.files import read_json, write_with
from moelab.printable import cut, short, warn
from moelab.runs.cells import has_separators, neutralise, restore
from moelab.runs.expressions import evaluate, holds
from moelab.runs.folder import RECORD, find_runs
from moelab.runs.json_rows import wandb_table
from moelab.runs.json_tables import MOST_DIGITS, read_json_table, unpacked
from moelab.runs.record import RunRecord
from moelab.runs.text_tables import parse_csv, separator_of, with_file
from moelab.runs.xlsx import read_xlsx

_AGAIN = re.compile(r"_duplicated_\d+\Z")
_MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
MOST_WHOLE = 2**63 - 1
"""The largest whole number that a record may hold."""
_EXPLAINED = 10
"""Damaged records of which the fault is printed; of more only the names."""
_LONGEST_LINE = 200
_LONG = rf"^[+-]?\d{{{MOST_DIGITS + 1},}}$"
_NAME = re.compile(r"\s*(?:\"([^\"]+)\"|([A-Za-z_]\w*))\s*\Z")


def load_table(
    source: str | Path | Sequence[str | Path] | pl.DataFrame,
    let: Sequence[str] = (),
    where: Sequence[str] = (),
    *,
    diverged: bool = False,
) -> pl.DataFrame:
    """Read runs into one table, numbers as 64-bit floats, true and false as 1 and 0.

    `source` is a folder of runs (or of W&B's), a file, a pattern such as 'sweep/*.csv', or several of them: then the
    column `file` names where a row is from.

    `let` adds columns, or changes those of that name ('tokens = "Training FLOP" / (6 * "Model Size")': the arithmetic
    of SQL, names with spaces in double quotes, POW for powers, every number a float) and `where` keeps the rows for
    which every condition holds. Runs that diverged have no loss and are left out of a folder's table unless
    `diverged`. Raises InputError naming the file, column or expression.
    """
    table = source if isinstance(source, pl.DataFrame) else _read_all(source, diverged)
    table = table.with_columns(pl.selectors.numeric().cast(pl.Float64))
    for assignment in let:
        table = _assign(table, assignment)
    for condition in where:
        table = _keep(table, condition)
    if not table.height:
        raise InputError(f"runs: no rows left{' by --where' if where else f' in {source}'}")
    return table.with_columns(pl.col(pl.Boolean).cast(pl.Float64))


def save_table(table: pl.DataFrame, path: str | Path) -> None:
    """Write a table as .csv, .parquet or .jsonl, whole or not at all. Raises InputError for any other ending.

    Text in a CSV file that a spreadsheet would take for a formula begins with an apostrophe; `load_table` drops it.
    """
    path = Path(path)
    writers: dict[str, Callable[[Path], None]] = {
        ".csv": lambda place: _write_csv(table, place),
        ".parquet": table.write_parquet,
        ".jsonl": table.write_ndjson,
    }
    if path.suffix not in writers:
        raise InputError(f"out: expected a name ending in {', '.join(writers)}, got {path.name!r}")
    try:
        write_with(path, lambda temporary: writers[path.suffix](temporary))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"out: cannot write {path}: {_first_line(error)}") from None


def _write_csv(table: pl.DataFrame, path: Path) -> None:
    neutralise(table).write_csv(path, quote_style="non_numeric" if has_separators(table) else "necessary")


def sort_rows(table: pl.DataFrame, by: str, descending: bool = False) -> pl.DataFrame:
    """The rows in the order of a column; those without a value (null, NaN) come last either way."""
    missing = table[by].is_null()
    if table[by].dtype.is_float():
        missing |= table[by].is_nan().fill_null(True)
    keys = pl.DataFrame({"missing": missing, "value": table[by]})
    order = pl.arg_sort_by("missing", "value", descending=[False, descending], maintain_order=True)
    return table[keys.select(order).to_series()]


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
        raise InputError(f"runs: {root} holds no finished run")
    return pl.DataFrame(rows, infer_schema_length=None)


def rows_where(table: pl.DataFrame, condition: str) -> NDArray[np.bool_]:
    """Which rows a condition holds for, (n,)."""
    return holds(table, condition, f"condition {short(condition)}").to_numpy()


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


def _read_all(source: str | Path | Sequence[str | Path], diverged: bool) -> pl.DataFrame:
    """One table of every file that the names and patterns stand for."""
    paths: list[Path] = []
    for name in [source] if isinstance(source, str | Path) else source:
        path = Path(name)
        matches = sorted(glob.glob(str(path))) if not path.exists() and glob.has_magic(str(path)) else []
        paths += [Path(match) for match in matches] or [path]
    if len(paths) == 1:
        return _read(paths[0], diverged)
    tables = [with_file(_read(path, diverged), path) for path in paths]
    numbers = [table.with_columns(pl.selectors.numeric().cast(pl.Float64)) for table in tables]
    try:
        return pl.concat(numbers, how="diagonal")
    except pl.exceptions.PolarsError as error:
        raise InputError(f"runs: {', '.join(map(str, paths[:3]))} do not fit together: {_first_line(error)}") from None


def _read(path: Path, diverged: bool) -> pl.DataFrame:
    if path.is_dir():
        kept = wandb_table(path) if not find_runs(path) and not (path / "runs").is_dir() else None
        return runs_table(path, diverged) if kept is None else kept
    if not path.exists():
        raise InputError(f"runs: no such file or folder: {path}")
    readers: dict[str, Any] = {
        ".csv": lambda: _read_csv(path, ","),
        ".tsv": lambda: _read_csv(path, "\t"),
        ".parquet": lambda: pl.read_parquet(path),
        ".jsonl": lambda: read_json_table(path, lines=True),
        ".ndjson": lambda: read_json_table(path, lines=True),
        ".json": lambda: read_json_table(path, lines=False),
        ".xlsx": lambda: _as_numbers(read_xlsx(path)),
    }
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    suffix = Path(name).suffix.lower()
    if suffix not in readers:
        raise InputError(f"runs: {path} is none of {', '.join(readers)} or a folder of runs")
    try:
        table: pl.DataFrame = readers[suffix]()
        return table
    except pl.exceptions.NoDataError:
        raise InputError(f"runs: {path} is empty") from None
    except (pl.exceptions.PolarsError, OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"runs: cannot read {path}: {_first_line(error)}") from None


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    """The table of a CSV file. Raises ValueError naming the row of a number that no 64-bit float can hold."""
    content = unpacked(path)
    try:
        table = parse_csv(content, separator)
    except pl.exceptions.ComputeError:
        _check_sizes(content, separator)
        raise
    table = _as_numbers(_each_once(table, path))
    if any(table[name].dtype.is_float() and table[name].is_infinite().any() for name in table.columns):
        _check_sizes(content, separator)
    return restore(table)


def _check_sizes(content: bytes, usual: str) -> None:
    """Raises ValueError naming the first number of the file that becomes infinite or no whole number can hold."""
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


def _as_numbers(table: pl.DataFrame) -> pl.DataFrame:
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


def _assign(table: pl.DataFrame, assignment: str) -> pl.DataFrame:
    left, equals, expression = assignment.partition("=")
    name = _NAME.match(left)
    if not equals or name is None or not expression.strip():
        raise InputError(f"--let: expected NAME = EXPRESSION, got {short(assignment)}")
    target = name.group(1) or name.group(2)
    column = evaluate(table, expression, f"--let {short(target)[1:-1]}")
    if column.dtype not in (pl.String, pl.Boolean):
        column = column.cast(pl.Float64)
    return table.with_columns(column.alias(target))


def _keep(table: pl.DataFrame, condition: str) -> pl.DataFrame:
    return table.filter(holds(table, condition, f"--where {short(condition)}"))


def _first_line(error: BaseException) -> str:
    """What went wrong, cut where a file's own content makes it long."""
    return cut(str(error).strip().split("\n")[0].rstrip("."), _LONGEST_LINE)
