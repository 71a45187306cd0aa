"""How far training is from its prediction where no row of the fit has the device, or the arithmetic: measured by
leaving both the model of a row and its device, its precision or both out of the fit."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.training_calibration import BOTH, HARDWARE, PRECISION, OutsideRows, TrainingCalibration
from moelab.serving.training_fit import fit_coefficients, log_errors, residual_beside
from moelab.serving.training_rows import TrainingRow

Array = NDArray[np.float64]
STEPS: dict[str, Callable[[TrainingRow], tuple[Any, ...]]] = {
    PRECISION: lambda row: (row.setup.precision,),
    HARDWARE: lambda row: (row.hardware,),
    BOTH: lambda row: (row.hardware, row.setup.precision),
}
"""What is left out beside the model of a row."""


def outside_rows(rows: Sequence[TrainingRow], calibration: TrainingCalibration) -> TrainingCalibration:
    """The calibration with the setups of its rows, and its error and residual outside them."""
    found = {name: _outside(rows, calibration, step) for name, step in STEPS.items()}
    setups: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        kinds = setups.setdefault(row.hardware, {})
        kinds.setdefault("moe" if row.config.moe is not None else "dense", set()).add(row.setup.precision)
    listed = {name: {kind: tuple(sorted(kinds[kind])) for kind in sorted(kinds)} for name, kinds in setups.items()}
    return calibration.replace(outside=found, setups=listed)


def _outside(
    rows: Sequence[TrainingRow], calibration: TrainingCalibration, step: Callable[[TrainingRow], tuple[Any, ...]]
) -> OutsideRows:
    """The error of rows predicted from those that share neither their model nor any part of `step`; each model weighs
    the same. The residual is at least that inside the rows."""
    errors: dict[str, list[Array]] = {}
    spread: dict[str, list[Array]] = {}
    groups = {(row.model, step(row)) for row in rows}
    for model, parts in sorted(groups):
        kept = [r for r in rows if r.model != model and not any(a == b for a, b in zip(step(r), parts, strict=True))]
        left = [row for row in rows if row.model == model and step(row) == parts]
        errors.setdefault(model, []).append(log_errors(left, fit_coefficients(kept)))
        spread.setdefault(model, []).append(np.array([calibration.spread(r.shape, r.setup) for r in left], float))
    joined = {model: np.concatenate(parts) for model, parts in errors.items()}
    residual = residual_beside(joined, {model: np.concatenate(parts) for model, parts in spread.items()})
    medians = [float(np.median(np.abs(np.exp(-each) - 1))) for each in joined.values()]
    return OutsideRows(
        residual=max(residual, calibration.residual), error=max(float(np.median(medians)), calibration.error)
    )
