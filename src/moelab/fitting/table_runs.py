"""Which rows of a table are checkpoints of one run: the column that names runs, and steps within names."""

import re
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
    codes,
    present,
    quoted,
    row_groups,
)

Array = NDArray[Any]
_FEWEST = 3
"""Checkpoints of a run that no column names."""
_STEP = re.compile(
    r"(stage\d+[-_])?[-_/@:. ]*(global_?step|step|iteration|iter|checkpoint|ckpt)s?[-_= ]?"
    r"\d+[km]?([-_]tokens?\d+[kmbt]?)?(?![a-z0-9])",
    re.IGNORECASE,
)
"""A checkpoint's step within a name: -step1000, /checkpoint-500, stage1-step1000-tokens4B."""


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
