"""Tables of runs: a folder of our own runs, CSV, Parquet or JSON lines; columns by expression, rows by condition."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.files import write_with
from moelab.runs.folder import RECORD, find_runs
from moelab.runs.record import RunRecord

_QUOTED = re.compile(r"('[^']*'|\"[^\"]*\")")
_NUMBER = re.compile(r"(?<![\w.])\d[\w.]*(?:(?<=[eE])[+-]\d+)?")
_PLAIN = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d+)?\Z")
_LARGE_WHOLE = re.compile(r"(?<![\w.])\d{7,}(?![\w.])")
_PLACE = re.compile(r" at Line: \d+, Column: \d+")
_AGAIN = re.compile(r"_duplicated_\d+\Z")
_MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
_NAME = re.compile(r"\s*(?:\"([^\"]+)\"|([A-Za-z_]\w*))\s*\Z")


def load_table(
    source: str | Path | pl.DataFrame, let: Sequence[str] = (), where: Sequence[str] = (), *, diverged: bool = False
) -> pl.DataFrame:
    """Read runs into one table, numbers as 64-bit floats.

    `let` adds columns, or changes those of that name ('tokens = "Training FLOP" / (6 * "Model Size")': SQL, names with
    spaces in double quotes, POW for powers) and `where` keeps the rows for which every condition holds. Runs that
    diverged have no loss and are left out of a folder's table unless `diverged`. Raises InputError naming the file,
    column or expression.
    """
    table = source if isinstance(source, pl.DataFrame) else _read(Path(source), diverged)
    table = table.with_columns(pl.col(pl.Boolean).cast(pl.Int8)).with_columns(pl.selectors.numeric().cast(pl.Float64))
    for assignment in let:
        table = _assign(table, assignment)
    for condition in where:
        table = _keep(table, condition)
    if not table.height:
        raise InputError(f"runs: no rows left{' by --where' if where else f' in {source}'}")
    return table


def save_table(table: pl.DataFrame, path: str | Path) -> None:
    """Write a table as .csv, .parquet or .jsonl, whole or not at all. Raises InputError for any other ending."""
    path = Path(path)
    writers: dict[str, Callable[[Path], None]] = {
        ".csv": table.write_csv,
        ".parquet": table.write_parquet,
        ".jsonl": table.write_ndjson,
    }
    if path.suffix not in writers:
        raise InputError(f"out: expected a name ending in {', '.join(writers)}, got {path.name!r}")
    write_with(path, lambda temporary: writers[path.suffix](temporary))


def sort_rows(table: pl.DataFrame, by: str, descending: bool = False) -> pl.DataFrame:
    """The rows in the order of a column; those without a value (null, NaN) come last either way."""
    missing = table[by].is_null()
    if table[by].dtype.is_float():
        missing |= table[by].is_nan().fill_null(True)
    ordered = table.with_columns(missing.alias("moelab_missing")).sort(
        "moelab_missing", by, descending=[False, descending], maintain_order=True
    )
    return ordered.drop("moelab_missing")


def runs_table(root: str | Path, diverged: bool = False) -> pl.DataFrame:
    """The finished runs of a folder as one table, with `diverged` those too.

    The folder holds runs, or is one of a study, which keeps them in `runs`, or is that of one run. A damaged record
    among others is left out, with a warning on stderr. Raises InputError where no run is left.
    """
    path = Path(root)
    if (path / RECORD).exists():
        records = [_record(path)]
    else:
        folders = find_runs(path)
        if not folders and (path / "runs").is_dir():
            folders = find_runs(path / "runs")
        records = [record for run in folders if run.finished and (record := _whole_record(run.path))]
    rows = [record.row() for record in records if diverged or record.loss is not None]
    if not rows:
        raise InputError(f"runs: {root} holds no finished run")
    return pl.DataFrame(rows, infer_schema_length=None)


def rows_where(table: pl.DataFrame, condition: str) -> NDArray[np.bool_]:
    """Which rows a condition holds for, (n,)."""
    checked = _checked(condition, "condition")
    held = _sql(table, f"SELECT ({checked}) AS held FROM self", f"condition {condition!r}")["held"]
    if held.dtype != pl.Boolean or held.len() != table.height:
        raise InputError(f"condition {condition!r}: expected true or false for each row")
    return held.fill_null(False).to_numpy()


def _record(folder: Path) -> RunRecord:
    from moelab.files import read_json

    return RunRecord.parse(read_json(folder / RECORD, "run"), str(folder / RECORD))


def _whole_record(folder: Path) -> RunRecord | None:
    """The record, or None after a warning that it is left out."""
    try:
        return _record(folder)
    except InputError as error:
        print(f"warning: left out: {error}", file=sys.stderr)
        return None


def _read(path: Path, diverged: bool) -> pl.DataFrame:
    if path.is_dir():
        return runs_table(path, diverged)
    if not path.exists():
        raise InputError(f"runs: no such file or folder: {path}")
    readers: dict[str, Any] = {
        ".csv": lambda: pl.read_csv(path, infer_schema_length=None),
        ".tsv": lambda: pl.read_csv(path, separator="\t", infer_schema_length=None),
        ".parquet": lambda: pl.read_parquet(path),
        ".jsonl": lambda: pl.read_ndjson(path, infer_schema_length=None),
        ".ndjson": lambda: pl.read_ndjson(path, infer_schema_length=None),
        ".json": lambda: pl.read_json(path, infer_schema_length=None),
    }
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix not in readers:
        raise InputError(f"runs: {path} is none of {', '.join(readers)} or a folder of runs")
    try:
        table: pl.DataFrame = readers[suffix]()
        return _as_numbers(_each_once(table, path)) if suffix in (".csv", ".tsv") else table
    except pl.exceptions.NoDataError:
        raise InputError(f"runs: {path} is empty") from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise InputError(f"runs: cannot read {path}: {_first_line(error)}") from None


def _each_once(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Raises InputError for a header that names a column twice, which the reader renames."""
    for name in table.columns:
        first = _AGAIN.sub("", name)
        if first != name and first in table.columns:
            raise InputError(f"runs: {path} names the column {first!r} twice; rename or leave out one of them")
    return table


def _as_numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Text columns of numbers and words for a missing one (nan, NA, -) as numbers: conditions must compare them."""
    found = []
    for name in table.columns:
        if table[name].dtype != pl.String:
            continue
        bare = table[name].str.strip_chars()
        missing = bare.str.to_lowercase().is_in(_MISSING).fill_null(True)
        values = bare.cast(pl.Float64, strict=False)
        if ((values.is_not_null()) | missing).all() and values.is_finite().any():
            # Missing becomes NaN, not null: a fit then says which rows to drop.
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
        raise InputError(f"--let: expected NAME = EXPRESSION, got {assignment!r}")
    target = name.group(1) or name.group(2)
    expression = _checked(expression, "--let")
    result = _sql(table, f"SELECT ({expression}) AS moelab_let FROM self", f"--let {target}")
    if result.height == 1:
        result = pl.DataFrame({"moelab_let": [result.item()] * table.height})
    column = result["moelab_let"]
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        column = column.cast(pl.Float64)
    return table.with_columns(column.alias(target))


def _keep(table: pl.DataFrame, condition: str) -> pl.DataFrame:
    checked = _checked(condition, "--where")
    return _sql(table, f"SELECT * FROM self WHERE ({checked})", f"--where {condition!r}")


def _sql(table: pl.DataFrame, query: str, option: str) -> pl.DataFrame:
    try:
        return table.sql(query)
    except pl.exceptions.PolarsError as error:
        # The place is one in the query around the expression, which nobody wrote.
        raise InputError(f"{option}: {_PLACE.sub('', _first_line(error))}") from None


def _checked(expression: str, option: str) -> str:
    """Refuse what SQL misreads (`300B` is 300 with an alias) and make large whole numbers floats: they overflow."""
    bare = _QUOTED.sub("''", expression)
    odd = next((number for number in _NUMBER.findall(bare) if not _PLAIN.match(number)), None)
    if odd is not None:
        raise InputError(f"{option}: write {odd!r} as a plain number such as 3e11 inside an expression")
    if "^" in bare or "**" in bare:
        raise InputError(f"{option}: write powers as POW(x, y), got {expression.strip()!r}")
    if ";" in bare or "--" in bare:
        raise InputError(f"{option}: one expression only, got {expression.strip()!r}")
    parts = _QUOTED.split(expression)
    parts[::2] = [_LARGE_WHOLE.sub(lambda whole: f"{float(whole.group()):.16e}", part) for part in parts[::2]]
    return "".join(parts)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
