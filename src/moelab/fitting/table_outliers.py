"""Losses far above those of the runs around them: diverged runs that are still below an untrained model's loss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, positive_numbers
from moelab.fitting.sweep_optimum import diverged
from moelab.fitting.table_columns import STEP_NAMES, SWEPT, codes, present, row_groups, setting_columns
from moelab.fitting.table_rows import design_columns
from moelab.fitting.table_runs import run_column, run_values

Array = NDArray[Any]
ABOVE, DEVIATIONS, SPREAD = 0.15, 10.0, 1.4826
"""Excess of the log loss over the surface, and of that in robust standard deviations, from which a run is an outlier;
1.4826 median absolute deviations are one."""
BELOW = 1.5
"""Times the largest deviation below the surface: where it is as wrong there, it does not describe these runs."""
AS_NEW = 4.0
"""Epochs up to which repeated data count as new ones (2305.16264); beyond, a loss may rise with tokens."""
MOST_SHARE = 0.2
"""Share of outliers above which the surface, not the runs, is at fault."""
PASSES, MOST_FITTED = 60, 4000
"""Passes of the surface's fit, and the rows it takes of a large table."""
_SIZES = ("params_active", "params_total", "params_non_embedding", "params_dense")
_FOLLOW = ("params_", "flops", "train_flops", "flops_per_token", "unique_tokens", "epochs", "seed")


def outliers(columns: Columns, target: str) -> Array:
    """Rows (n,) whose loss lies far above a quadratic surface in log size and log tokens (or FLOPs), fitted by least
    absolute deviations; other numeric settings enter linearly. In a sweep those far above the least of their design,
    of checkpoints those far above the least earlier one of their run."""
    losses = np.asarray(columns[target], float)
    none = np.zeros(len(losses), bool)
    usable = np.isfinite(losses) & (losses > 0)
    if (run := run_column(columns)) is not None:
        return _in_runs(columns, target, run) & usable & ~_repeated(columns)
    if _swept(columns):
        return _in_sweep(columns, target, usable)
    features = surface_features(columns, target)
    if features is None:
        return none
    usable &= np.isfinite(features).all(axis=1) & ~_repeated(columns)
    if usable.sum() < max(12, 2 * features.shape[1]) or np.linalg.matrix_rank(features[usable]) < 2:
        return none
    residuals = surface_residuals(features[usable], np.log(losses[usable]))
    noise = SPREAD * float(np.median(np.abs(residuals)))
    found = none.copy()
    found[usable] = residuals > max(ABOVE, DEVIATIONS * noise, BELOW * -float(residuals.min()))
    return none if found.mean() > MOST_SHARE else found


def _swept(columns: Columns) -> list[str]:
    """The columns of a learning rate or batch that vary."""
    names = [name for name in columns if name.lower() in SWEPT]
    return [name for name in names if (v := positive_numbers(columns, name)) is not None and len(np.unique(v)) > 1]


def _in_sweep(columns: Columns, target: str, usable: Array) -> Array:
    """Runs (n,) far above the least loss of their design: of larger rates, where a learning rate is swept."""
    losses, names = np.asarray(columns[target], float), _swept(columns)
    rate = next((name for name in names if not name.lower().endswith(("tokens", "size", "batch"))), None)
    label = row_groups(columns, design_columns(columns, target))
    found = np.zeros(len(losses), bool)
    for group in range(int(label.max()) + 1):
        rows = np.flatnonzero((label == group) & usable)
        if len(rows):
            values = np.asarray(columns[rate or names[0]], float)[rows]
            found[rows] = diverged(values, losses[rows], rate is not None)
    return found


def _in_runs(columns: Columns, target: str, run: str) -> Array:
    """Checkpoints (n,) far above the least loss of an earlier one of their run: the loss of training falls."""
    losses = np.asarray(columns[target], float)
    found = np.zeros(len(losses), bool)
    steps = (v for n in present(columns, STEP_NAMES) if (v := positive_numbers(columns, n)) is not None)
    step = next((v for v in steps if np.ptp(v) > 0), None)
    if step is None:
        return found
    label = codes(run_values(columns, run))[0]
    for group in range(int(label.max()) + 1):
        rows = np.flatnonzero((label == group) & np.isfinite(losses))
        rows = rows[np.argsort(step[rows], kind="stable")]
        least = np.minimum.accumulate(losses[rows])
        found[rows] = losses[rows] > least * (1 + ABOVE)
    return found


def surface_features(columns: Columns, target: str) -> Array | None:
    """(n, P): a constant, the logs, their squares and product, and the other settings; None without two variables."""
    size = next((v for n in _SIZES if (v := positive_numbers(columns, n)) is not None), None)
    data = next((v for n in ("tokens", "train_flops") if (v := positive_numbers(columns, n)) is not None), None)
    if size is None or data is None:
        return None
    names = [n for n in setting_columns(columns, target) if not n.startswith(_FOLLOW) and n != "tokens"]
    n, d = _scaled(np.log(size)), _scaled(np.log(data))
    terms = [np.ones_like(n), n, d, n * n, d * d, n * d]
    for name in names:
        other = positive_numbers(columns, name)
        if other is not None and np.ptp(other) > 0:
            terms.append(_scaled(np.log(other)))
    return np.stack(terms, axis=1)


def _repeated(columns: Columns) -> Array:
    """Rows that see their data more than four times."""
    tokens, unique = positive_numbers(columns, "tokens"), positive_numbers(columns, "unique_tokens")
    if tokens is None or unique is None or len(tokens) != len(unique):
        return np.array(False)
    return np.asarray(tokens > AS_NEW * unique * (1 + 1e-6))


def _scaled(values: Array) -> Array:
    known = values[np.isfinite(values)]
    spread = float(np.std(known)) if len(known) else 0.0
    return (values - np.mean(known)) / spread if spread > 0 else np.zeros_like(values)


def surface_residuals(features: Array, logs: Array) -> Array:
    """Residuals (n,) of least absolute deviations, by reweighted least squares."""
    few = slice(None, None, -(-len(logs) // MOST_FITTED))
    rows, values = features[few], logs[few]
    weights, surface = np.ones(len(values)), np.zeros(features.shape[1])
    for _ in range(PASSES):
        root = np.sqrt(weights)
        surface = np.linalg.lstsq(rows * root[:, None], values * root, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(values - rows @ surface), 1e-4)
    return np.asarray(logs - features @ surface)
