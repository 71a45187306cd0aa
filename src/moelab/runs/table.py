"""Tables of runs: a folder of our own runs, CSV, Parquet or JSON lines; columns by expression, rows by condition."""

import glob
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.files import write_with
from moelab.printable import cut, short
from moelab.runs.cells import has_separators, neutralise
from moelab.runs.csv_tables import as_numbers, read_csv, without_words
from moelab.runs.expressions import evaluate, holds
from moelab.runs.folder import find_runs
from moelab.runs.json_rows import wandb_table
from moelab.runs.json_tables import read_json_table
from moelab.runs.record_table import runs_table
from moelab.runs.text_tables import with_file
from moelab.runs.xlsx import read_xlsx

_LONGEST_LINE = 200
_NAME = re.compile(r"\s*(?:\"([^\"]+)\"|([A-Za-z_]\w*))\s*\Z")


def load_table(
    source: str | Path | Sequence[str | Path] | pl.DataFrame | Mapping[str, Any],
    let: Sequence[str] = (),
    where: Sequence[str] = (),
    *,
    diverged: bool = False,
) -> pl.DataFrame:
    """Read runs into one table, numbers as 64-bit floats, true and false as 1 and 0.

    `source` is a folder of runs (or of W&B's), a file, a pattern such as 'sweep/*.csv', or several of them: then the
    column `file` names where a row is from. `book.xlsx:runs` is one sheet of a workbook. A data frame, or a mapping of
    columns by name, is taken as it is.

    `let` adds columns, or changes those of that name ('tokens = "Training FLOP" / (6 * "Model Size")': the arithmetic
    of SQL, names with spaces in double quotes, POW for powers, every number a float) and `where` keeps the rows for
    which every condition holds. Runs that diverged have no loss and are left out of a folder's table unless
    `diverged`. Raises InputError naming the file, column or expression.
    """
    table = _read_all(source, diverged) if isinstance(source, str | Path | Sequence) else _frame(source)
    table = _flat(table).with_columns(pl.selectors.numeric().cast(pl.Float64))
    early = [condition for condition in where if not _reads_new(condition, let)]
    for condition in early:
        table = _keep(table, condition)
    if early and table.height:
        table = as_numbers(table)  # a column whose only words were in the rows that are left out
    for assignment in let:
        table = _assign(table, assignment)
    for condition in where:
        if condition not in early:
            table = _keep(table, condition)
    if not table.height:
        raise InputError(f"runs: no rows {'left by --where' if where else f'in {_named(source)}'}")
    return table.with_columns(pl.col(pl.Boolean).cast(pl.Float64))


def _flat(table: pl.DataFrame) -> pl.DataFrame:
    """The table with the fields of records as columns of dotted names."""
    for name in [each for each in table.columns if isinstance(table[each].dtype, pl.Struct)]:
        fields = table[name].struct.unnest()
        table = table.drop(name).with_columns(
            _flat(fields.rename({field: f"{name}.{field}" for field in fields.columns}))
        )
    return table


def _reads_new(condition: str, let: Sequence[str]) -> bool:
    """Whether a condition may read a column that `let` makes: one that does not holds for the same rows before it."""
    names = (_NAME.match(assignment.partition("=")[0]) for assignment in let)
    return any((name.group(1) or name.group(2)) in condition for name in names if name is not None)


def _named(source: Any) -> str:
    """What a table was read from, for a message."""
    if isinstance(source, str | Path):
        return str(source)
    return ", ".join(map(str, source)) if isinstance(source, Sequence) else "the table"


def _frame(source: Any) -> pl.DataFrame:
    """A data frame of polars or pandas, or columns by name, as one of polars."""
    if isinstance(source, pl.DataFrame):
        return source
    if not hasattr(source, "keys"):
        raise InputError(f"runs: expected a file, a folder, a data frame or columns by name, got {short(source)}")
    try:
        return pl.DataFrame({str(name): np.asarray(source[name]) for name in source.keys()})  # noqa: SIM118
    except pl.exceptions.PolarsError as error:
        raise InputError(f"runs: {_first_line(error)}") from None


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


def rows_where(table: pl.DataFrame, condition: str) -> NDArray[np.bool_]:
    """Which rows a condition holds for, (n,)."""
    return holds(table, condition, f"condition {short(condition)}").to_numpy()


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
    path, sheet = _sheet_of(path)
    if path.is_dir():
        kept = wandb_table(path) if not find_runs(path) and not (path / "runs").is_dir() else None
        return runs_table(path, diverged) if kept is None else kept
    if not path.exists():
        raise InputError(f"runs: no such file or folder: {path}")
    readers: dict[str, Any] = {
        ".csv": lambda: read_csv(path, ","),
        ".tsv": lambda: read_csv(path, "\t"),
        ".txt": lambda: read_csv(path, "\t"),
        ".parquet": lambda: pl.read_parquet(path),
        ".jsonl": lambda: read_json_table(path, lines=True),
        ".ndjson": lambda: read_json_table(path, lines=True),
        ".json": lambda: read_json_table(path, lines=False),
        ".xlsx": lambda: without_words(as_numbers(read_xlsx(path, sheet)), path),
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


def _sheet_of(path: Path) -> tuple[Path, str | None]:
    """book.xlsx:runs is the sheet `runs` of a workbook."""
    book, colon, sheet = str(path).rpartition(":")
    if colon and book.lower().endswith(".xlsx") and not path.exists():
        return Path(book), sheet
    return path, None


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
