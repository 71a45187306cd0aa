"""The fit page's work: what a visitor's table holds, and laws fitted to it, as parts of a page."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from polars.exceptions import NoDataError

from moelab.app.answers import rendered_sections
from moelab.app.fit_fields import UNITS, VARIABLES
from moelab.app.fit_words import fit_worded
from moelab.app.labels import worded_sections
from moelab.errors import InputError
from moelab.fitting.columns import columns_of, variable
from moelab.fitting.compare import compare_laws
from moelab.fitting.comparison import Comparison
from moelab.fitting.fit_file import save_fits
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import quoted, suggestions
from moelab.report import Figure, Section, Table, figures
from moelab.runs.json_tables import json_size
from moelab.runs.table import load_table
from moelab.runs.text_tables import header_width

HEADS = ("law", "error in sample", "held out", "bias held out", "80 % intervals hold", "reach", "weight")
"""Of the table of laws: errors, share of held-out runs inside their interval, held-out over fitted compute."""
LEAST_COVERAGE = 0.6
"""Share of held-out runs inside their 80 % intervals below which the summary warns."""
MOST_ROWS = 20_000
MOST_COLUMNS = 200
SHOWN_ROWS, MOST_WHOLE = 5, 1e15
REPLICATES, STARTS = 200, 64
"""Of fits on the page, which the page states: 200 rows with four laws take 11 s of a processor. Mean intervals of
predictions are within 3 % of those of 400 and 128; `moelab fit` takes 1,000 and 512."""

Mapped = Mapping[str, tuple[str, str]]


def examine(path: str, name: str) -> dict[str, Any]:
    """What is in a table: its size, columns, first rows, and the column (with its unit) suggested for each variable.

    Raises InputError for a file that is no table, in a line that names it as `name`.
    """
    table = _table(path, name)
    near = suggestions(table.columns)
    mapping = {}
    for variable_name in VARIABLES:
        if variable_name in table.columns:
            mapping[variable_name] = (variable_name, "1")
        elif variable_name in near:
            column, expression = near[variable_name]
            factor = float(expression.split(" * ")[0]) if " * " in expression else 1.0
            mapping[variable_name] = (column, next(unit for unit, size in UNITS.items() if size == factor))
    rows = [[_cell(cell) for cell in row] for row in table.head(SHOWN_ROWS).rows()]
    return {"n_rows": table.height, "columns": table.columns, "rows": rows, "mapping": mapping}


def _cell(cell: Any) -> str | None:
    """A cell as people write it: whole numbers without a decimal point."""
    whole = isinstance(cell, float) and cell.is_integer() and abs(cell) < MOST_WHOLE
    return None if cell is None else str(int(cell) if whole else cell)


def assignments(mapping: Mapped, columns: Sequence[str]) -> list[str]:
    """The `--let` assignments of a mapping. Raises InputError for a variable, column or unit that is not there."""
    lets = []
    for name, (column, unit) in mapping.items():
        if name not in VARIABLES:
            raise InputError(f"mapping: no such variable {name!r}; known: {', '.join(VARIABLES)}")
        if column not in columns:
            raise InputError(f"{name}: the table has no column {column!r}")
        if unit not in UNITS:
            raise InputError(f"{name}: expected a unit of {', '.join(UNITS)}, got {unit!r}")
        if name != column or UNITS[unit] != 1:
            factor = "" if UNITS[unit] == 1 else f"{UNITS[unit]:.0f} * "
            lets.append(f"{name} = {factor}{quoted(column)}")
    return lets


def checks(path: str, name: str, mapping: Mapped) -> dict[str, Any]:
    """What a fit with this mapping should be warned of."""
    found = check_table(_mapped(path, name, mapping))
    return {"notes": [fit_worded(str(finding), mapping) for finding in found]}


def fit_page(
    path: str, name: str, mapping: Mapped, laws: Sequence[str], progress: Callable[[float], None]
) -> dict[str, Any]:
    """Fit laws (none named: all that the table supports): a part of a page, and the fit file `moelab plan` reads."""
    table = _mapped(path, name, mapping)
    found = compare_laws(table, list(laws) or None, bootstrap=REPLICATES, starts=STARTS, progress=progress)
    sections = [_compared(found), _points(found), *_residuals(found, table), _coefficients(found)]
    sections += [*_slices(table), *_left_out(found)]
    with tempfile.TemporaryDirectory(prefix="moelab-") as folder:
        file = Path(folder) / "fit.json"
        save_fits(found.fits, file)
        shown = rendered_sections(worded_sections(sections, fit_worded), "fit").to_dict()
        return shown | {"answer": summary(found), "fits": file.read_bytes(), "flops": reach(table)}


def summary(found: Comparison) -> list[str]:
    """What a fit answers, in at most three sentences: which law predicts best, how well, and whether to rely on it."""
    law, best = next(iter(found.fits.items()))
    fitted = "1 law is fitted" if len(found.fits) == 1 else f"{len(found.fits)} laws are fitted"
    held = best.holdout
    if held is None:
        text = f"{fitted}; {law} describes the runs best, within {best.in_sample['mean_abs_rel']:.2%} on average."
        return [text, "No runs were held out, so nothing shows how well it predicts larger ones."]
    which = "it predicts" if len(found.fits) == 1 else f"{law} predicts"
    beyond = "" if held.max_extrapolation is None else f", up to {held.max_extrapolation:.2g} times the compute it saw,"
    runs = "run" if held.n_runs == 1 else f"{held.n_runs} runs"
    text = f"{fitted}; {which} the {runs} held out{beyond} within {held.mean_abs_rel:.2%} on average."
    if held.coverage_80 is None:
        return [text]
    short = held.coverage_80 < LEAST_COVERAGE
    trust = ", fewer than they should: its errors are larger than it states" if short else ""
    return [text, f"Its 80 % intervals hold {held.coverage_80:.0%} of them{trust}."]


def reach(table: Any) -> str:
    """Ten times the compute of the largest run, to one digit: what a plan by these fits is first asked for."""
    columns = columns_of(table)
    flops = variable(columns, "train_flops")
    if flops is None:
        sizes = [variable(columns, name) for name in ("params_active", "params_total")]
        tokens, size = variable(columns, "tokens"), next((each for each in sizes if each is not None), None)
        flops = None if tokens is None or size is None else 6 * size * tokens
    return "1e21" if flops is None else f"{10 * np.nanmax(flops):.0e}".replace("e+", "e")


def _table(path: str, name: str) -> Any:
    """The table of a file. Its columns are counted before it is made, for a column costs more than a row."""
    try:
        rows, wide = _size(Path(path))
        table = load_table(path) if rows <= MOST_ROWS and wide <= MOST_COLUMNS else None
    except InputError as error:
        raise InputError(str(error).replace(path, name)) from None
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if table is None or table.height > MOST_ROWS or table.width > MOST_COLUMNS:
        rows, wide = (rows, wide) if table is None else (table.height, table.width)
        got = f"{rows:,} rows and {wide:,} columns" if rows else f"{wide:,} columns"
        limits = f"at most {MOST_ROWS:,} rows and {MOST_COLUMNS} columns here"
        raise InputError(f"{name}: {limits}, got {got}; moelab fit has no such limit")
    return table


def _size(path: Path) -> tuple[int, int]:
    """Rows and columns of a table; of text, the columns alone."""
    if path.suffix in (".json", ".jsonl"):
        try:
            return json_size(path, lines=path.suffix == ".jsonl")
        except NoDataError:
            raise InputError(f"{path}: no rows") from None
    return 0, header_width(path)


def _mapped(path: str, name: str, mapping: Mapped) -> Any:
    table = _table(path, name)
    return load_table(table, assignments(mapping, table.columns))


def _compared(found: Comparison) -> Section:
    """The laws by rank."""
    caption = (
        "Errors are relative to the measured loss. The runs of most compute are held out; the reach is the compute of "
        "the largest of them over that of the largest fitted run. The weight is that in a plan's mean."
    )
    return Section("Laws side by side", tables=[Table(HEADS, found.rows(), caption)])


def _left_out(found: Comparison) -> list[Section]:
    """The laws that were not fitted, a row per reason."""
    reasons: dict[str, list[str]] = {}
    for law, reason in found.skipped.items():
        reasons.setdefault(reason, []).append(law)
    rows = [[", ".join(laws), reason] for reason, laws in reasons.items()]
    return [Section("Laws left out", tables=[Table(["laws", "why"], rows)])] if rows else []


def _points(found: Comparison) -> Section:
    charts = [Figure(found.plot(), "Predicted against measured loss, and the error of each run.")]
    if any(fitted.holdout is not None for fitted in found.fits.values()):
        charts.append(Figure(found.plot_holdout(), "Runs that a fit had not seen, by how far they lie beyond it."))
    return Section("Predicted against measured", figures=charts)


def _residuals(found: Comparison, table: Any) -> list[Section]:
    """Errors of the best law against every variable in which the runs differ."""
    best = next(iter(found.fits.values()))
    columns = columns_of(table)
    measured = np.asarray(columns["loss"], float)
    errors = best.predict(table).value / measured - 1
    points = []
    for name in dict.fromkeys((*best.law.variables, *VARIABLES)):
        values = variable(columns, name)
        if name == "loss" or values is None or np.ptp(values) == 0:
            continue
        points += [
            {"variable": name, "x": float(x), "error_rel": float(error), "law": best.law.id, "label": f"row {row + 1}"}
            for row, (x, error) in enumerate(zip(values, errors, strict=True))
            if np.isfinite(x) and np.isfinite(error)
        ]
    if not points:
        return []
    caption = f"Errors of {best.law.id}. A trend along a variable is what the law does not describe."
    diagnosis = [f"{note[:1].upper()}{note[1:]}." for note in best.diagnosis]
    return [Section("Errors by variable", diagnosis, [Figure(figures.residuals(points), caption)])]


def _coefficients(found: Comparison) -> Section:
    rows = [[law, *row] for law, fitted in found.fits.items() for row in fitted.coefficient_rows()]
    caption = (
        f"80 % intervals of {REPLICATES} bootstrap replicates, from {STARTS} starts: "
        f"`moelab fit --bootstrap {REPLICATES} --starts {STARTS}`. The command's own numbers are 1,000 and 512."
    )
    names = ["law", "coefficient", "value", "p10", "p90", "note"]
    shown = len(names) if any(row[-1] for row in rows) else len(names) - 1
    return Section("Coefficients", tables=[Table(names[:shown], [row[:shown] for row in rows], caption)])


def _slices(table: Any) -> list[Section]:
    """The isoFLOP slices of active parameters, where the table has budgets."""
    from moelab.fitting.budgets import isoflop_budgets, shown_key

    columns = columns_of(table)
    axis = "params_active" if variable(columns, "params_active") is not None else "params_total"
    try:
        found = isoflop_budgets(table, axis, draws=200)
    except InputError:
        return []
    rows = [[shown_key(key), count, *best.values()] for key, count, best, *_ in found.rows()]
    size = "active parameters" if axis == "params_active" else "parameters"
    head = [found.heading, "runs", f"best {size}", "p10", "p90"]
    return [Section("Slices of equal compute", figures=[Figure(found.plot())], tables=[Table(head, rows)])]
