"""What the rows of a table are: runs, checkpoints of runs, sweeps at one design, repeats, copies."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.columns import Columns
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import (
    AT_STEP,
    MODEL_NAMES,
    REVISIONS,
    RUN_NAMES,
    STEP_NAMES,
    SWEPT,
    codes,
    following,
    plain,
    quoted,
    row_groups,
    setting_columns,
)

Array = NDArray[Any]
_FEWEST, _SHOWN = 3, 4
"""Checkpoints of a run that no column names, and files that a note lists."""
_STEP = re.compile(
    r"(stage\d+[-_])?[-_/@:. ]*(global_?step|step|iteration|iter|checkpoint|ckpt)s?[-_= ]?"
    r"\d+[km]?([-_]tokens?\d+[kmbt]?)?(?![a-z0-9])",
    re.IGNORECASE,
)
"""A checkpoint's step within a name: -step1000, /checkpoint-500, stage1-step1000-tokens4B."""
_ROUNDED = 1e-9
"""Distance from three digits after the point below which most losses are rounded: equal ones are then no copies."""


def measured_runs(table: Any, loss: str) -> tuple[Any, Array | None, list[Finding]]:
    """A file's or data frame's rows that have a loss, which rows those are (None: all), and a note on the others.

    A mapping is left as it is: a number that is not finite is refused there.
    """
    if isinstance(table, str | Path):
        from moelab.runs.table import load_table  # polars takes a third of a second to load; a plan needs none

        table = load_table(table)
    if not hasattr(table, "get_columns") or loss not in table.columns or not table[loss].dtype.is_numeric():
        return table, None, []
    missing = np.isnan(table[loss].cast(float).to_numpy())
    if not missing.any():
        return table, None, []
    if missing.all():
        raise InputError(f"{loss}: no row has a value")
    text = f"{int(missing.sum())} of {len(missing)} rows have no {loss} and are left out"
    return table.filter(~missing), ~missing, [Finding(check="missing", text=text)]


def best_rows(columns: Columns, designs: Sequence[str], loss: str) -> Array:
    """The row of the lowest loss of each distinct combination of the `designs` columns, in the table's order.

    Raises InputError for a column that is not there.
    """
    for name in (*designs, loss):
        if name not in columns:
            raise InputError(f"best-of: the table has no column {name!r}; its columns: {', '.join(columns)}")
    values = numbers(columns[loss], loss)
    label = row_groups(columns, designs)
    order = np.lexsort((np.where(np.isfinite(values), values, np.inf), label))
    first = np.unique(label[order], return_index=True)[1]
    return np.sort(order[first])


def run_column(columns: Columns) -> str | None:
    """The column whose values name runs of which several checkpoints are rows; None for a table of whole runs."""
    named = present(columns, RUN_NAMES)
    stepped = [
        name for name in present(columns, (*RUN_NAMES, *MODEL_NAMES)) if _without_steps(columns[name]) is not None
    ]
    models = present(columns, MODEL_NAMES) if any(_steps(columns[n]) for n in present(columns, REVISIONS)) else []
    for name in (*named, *stepped, *models):
        if _has_checkpoints(columns, name):
            return name
    return None


def run_values(columns: Columns, name: str) -> Array:
    """The run (n,) of each row by this column: its values without the step that a checkpoint's name ends in."""
    without = _without_steps(columns[name])
    return columns[name] if without is None else without


def _without_steps(values: Array) -> Array | None:
    """Names without their steps; None where most name no step, or where nothing else is left."""
    if values.dtype.kind in "fiub":
        return None
    texts = [str(value) for value in values]
    kept = [_STEP.sub("", text) for text in texts]
    changed = sum(one != other for one, other in zip(texts, kept, strict=True))
    return np.array(kept) if 2 * changed > len(texts) and all(kept) else None


def _steps(values: Array) -> bool:
    """Whether a column's values are steps: step1000, 1000."""
    return all(_STEP.fullmatch(str(value)) or re.fullmatch(r"\d+(\.0)?|main", str(value)) for value in values)


def _has_checkpoints(columns: Columns, name: str) -> bool:
    """Whether rows that share a value differ in their tokens or steps, and in no size."""
    columns = {**columns, name: run_values(columns, name)}
    runs = codes(columns[name])[0]
    counts = np.bincount(runs)
    if counts.max() < 2:
        return False
    repeated = counts[runs] > 1
    sizes = [n for n in columns if n.startswith("params_") or n in ("n_experts", "d_model", "n_layers", "params")]
    if len(np.unique(row_groups(columns, [name, *sizes])[repeated])) > int(np.sum(counts > 1)):
        return False
    for step in present(columns, STEP_NAMES):
        if len(np.unique(row_groups(columns, [name, step])[repeated])) == int(repeated.sum()):
            return True
    return False


def present(columns: Columns, names: tuple[str, ...]) -> list[str]:
    """The columns of these names, in the names' order, whatever their case and with blanks for underscores."""
    by_name = {plain(name): name for name in reversed(list(columns))}
    return [by_name[name] for name in names if name in by_name]


def checkpoint_findings(columns: Columns, target: str) -> list[Finding]:
    name = run_column(columns)
    if name is None:
        return _unnamed_checkpoints(columns)
    runs, rows = len(codes(run_values(columns, name))[1]), len(columns[name])
    text = f"{rows} rows are checkpoints of {runs} runs (column {name}): bootstrap and hold-out take whole runs"
    return [Finding(check="checkpoints", text=text, mend="--group none takes every row as a run of its own")]


def _unnamed_checkpoints(columns: Columns) -> list[Finding]:
    """Steps that rise with the tokens of each size, where no column names a run: each size looks like one run."""
    sizes = [n for n in columns if n.startswith("params_") or n in ("n_experts", "d_model", "n_layers", "params")]
    steps = present(columns, AT_STEP)
    if not steps or not sizes or "tokens" not in columns:
        return []
    try:
        step, tokens = numbers(columns[steps[0]], steps[0]), numbers(columns["tokens"], "tokens")
    except InputError:
        return []
    label = row_groups(columns, sizes)
    rows = [np.flatnonzero(label == group) for group in range(int(label.max()) + 1)]
    if min(len(each) for each in rows) < _FEWEST or not all(_one_run(step[each], tokens[each]) for each in rows):
        return []
    fewest = next((n for n in sizes if len(codes(columns[n])[1]) == len(rows)), None)
    text = f"{len(label)} rows look like checkpoints of {len(rows)} runs ({steps[0]} and tokens rise together within"
    text += " each size), and no column names a run"
    return [Finding(check="checkpoints", text=text, mend=f"--group {quoted(fewest)}" if fewest else "")]


def _one_run(step: Array, tokens: Array) -> bool:
    """Whether steps differ and each holds the same number of tokens."""
    if len(np.unique(step)) < len(step) or not (step > 0).all():
        return False
    ratio = tokens / step
    return bool(np.ptp(ratio) <= 0.01 * np.median(ratio))


def copy_findings(columns: Columns, target: str) -> list[Finding]:
    rows = len(next(iter(columns.values())))
    if target in columns and len(codes(columns[target])[1]) == rows:
        return []
    same = row_groups(columns, columns)
    copies, where = rows - len(np.unique(same)), "in every column"
    if not copies and _measured_exactly(columns, target) and run_column(columns) is None:
        # A run that stands twice under two names, or in two files: noise gives no two runs the same loss.
        same = row_groups(columns, [*setting_columns(columns, target), target])
        copies, where = rows - len(np.unique(same)), f"in every setting and in {target}, to the last digit"
    if not copies:
        return []
    seeds = [name for name in columns if name.lower() in ("seed", "replicate") and len(codes(columns[name])[1]) > 1]
    keep = ",".join([*_fewest(columns, design_columns(columns, target)), *seeds])
    text = f"{copies} of {rows} rows are copies of another row {where}"
    return [Finding(check="copies", text=text, mend=f"--best-of {keep}" if keep else "")]


def _measured_exactly(columns: Columns, target: str) -> bool:
    """Whether a table has sizes or data, and losses of so many digits that no two runs share one by chance."""
    if target not in columns or not any(n.startswith("params_") or n == "tokens" for n in columns):
        return False
    try:
        values = numbers(columns[target], target)
    except InputError:
        return False
    values = values[np.isfinite(values)]
    return bool(len(values) and np.median(np.abs(values - np.round(values, 3))) > _ROUNDED)


def design_columns(columns: Columns, target: str) -> list[str]:
    """The setting columns that vary, without what is swept, FLOPs and what only follows from others."""
    settings = setting_columns(columns, target)
    left = (*SWEPT, "train_flops", "flops_per_token", *following(columns, settings))
    return [n for n in settings if n.lower() not in left and n not in left and len(codes(columns[n])[1]) > 1]


def _fewest(columns: Columns, names: Sequence[str]) -> list[str]:
    """Those of the columns, sizes and data first, that together distinguish as many designs as all of them."""
    first = ("params_total", "params_active", "params", "tokens", "n_experts", "top_k", "granularity")
    order = sorted(names, key=lambda name: first.index(name) if name in first else len(first))
    kept: list[str] = []
    most, found = len(np.unique(row_groups(columns, names))), 1
    for name in order:
        count = len(np.unique(row_groups(columns, [*kept, name])))
        if count > found:
            kept, found = [*kept, name], count
        if found == most:
            break
    return kept


def sweep_findings(columns: Columns, target: str) -> list[Finding]:
    swept = [name for name in present(columns, SWEPT) if len(codes(columns[name])[1]) > 1]
    designs = design_columns(columns, target)
    if not swept or not designs or run_column(columns) is not None:
        return []
    label = row_groups(columns, designs)
    varied = [n for n in swept if len(np.unique(row_groups(columns, [*designs, n]))) > len(np.unique(label))]
    if not varied:
        return []
    return [
        Finding(
            check="sweep",
            text=f"{len(label)} rows sweep {' and '.join(varied)} over {len(np.unique(label))} designs",
            mend=f"keep the best of each with --best-of {','.join(_fewest(columns, designs))}",
        )
    ]


def repeat_findings(columns: Columns, target: str) -> list[Finding]:
    """Rows that agree in every setting, where no column shows that their seeds differ."""
    settings = setting_columns(columns, target)
    if any(name.lower() in ("seed", "replicate") for name in columns) or run_column(columns) is not None:
        return []
    if target not in columns or not any(name in columns for name in ("tokens", "params_total", "params_active")):
        return []
    label = row_groups(columns, settings)
    if len(label) == label.max(initial=-1) + 1:
        return []
    distinct = len(np.unique(row_groups({**columns, "row of": label}, ["row of", target])))
    repeats = distinct - len(np.unique(label))
    if not repeats:
        return []
    text = f"{repeats} rows repeat the settings of another one with another loss"
    if _apart(columns, label):
        files = codes(columns["file"])[1]
        text += f" from another file ({', '.join(map(str, files[:_SHOWN]))}{', ...' if len(files) > _SHOWN else ''})"
        mend = f"do their losses compare? keep one file with --where \"file = '{files[0]}'\", or add a column seed"
        return [Finding(check="repeats", text=text, mend=mend)]
    text += ", and no column names a seed"
    return [Finding(check="repeats", text=text, mend="add a column seed, or whatever else differs between them")]


def _apart(columns: Columns, label: Array) -> bool:
    """Whether rows of equal settings stand in different files throughout."""
    if "file" not in columns:
        return False
    within = row_groups({"settings": label, "file": columns["file"]}, ["settings", "file"])
    return len(np.unique(within)) == len(within)
