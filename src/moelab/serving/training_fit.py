"""The coefficients of `training_time` fitted to measured runs, with one model left out at a time for their error."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.serving.replicates import Replicates, residual_of, widths_apart
from moelab.serving.training_calibration import NAMES, NORMAL, TrainingCalibration
from moelab.serving.training_rows import TrainingRow
from moelab.serving.training_time import seconds_per_token

PRIORS = {
    "products": (0.6, 0.3),
    "narrow": (0.7, 0.4),
    "power": (0.5, 0.5),
    "stream": (150.0, 1.0),
    "hidden": (30.0, 1.0),
    "launch": (2e-3, 1.5),
    "older": (2.0, 0.5),
    "waited": (0.7, 0.5),
}
"""Where each coefficient is expected, and the standard deviation of its logarithm: wide, since rows decide.
`products`: library products reach 0.5 to 0.75 of a peak. `stream`, `hidden`: 15 to 75 bf16 numbers read or written for
each one of the layer's. `launch`: a hundred kernels of 20 microseconds."""
NOISE = 0.15
"""Standard deviation of log seconds at which a row's weight begins to fall (soft L1)."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One row predicted without its model: log of predicted over measured seconds, and the 80 % half-width in log."""

    row: TrainingRow
    log_error: float
    half_width: float

    @property
    def error(self) -> float:
        """Absolute relative error of the MFU, predicted over measured less 1."""
        return abs(float(np.exp(-self.log_error)) - 1.0)

    @property
    def covered(self) -> bool:
        """Whether the interval holds the measurement."""
        return abs(self.log_error) <= self.half_width


def fit_coefficients(rows: Sequence[TrainingRow]) -> dict[str, float]:
    """The coefficients at the least sum of soft-L1 errors of log seconds, and of priors."""
    from scipy.optimize import least_squares

    if not rows:
        raise InputError("training rows: there are none to fit")
    centre = np.log([PRIORS[name][0] for name in NAMES])
    spread = np.array([PRIORS[name][1] for name in NAMES])

    def residuals(theta: Array) -> Array:
        return _residuals(rows, np.exp(theta))

    found = least_squares(residuals, centre, x_scale=spread)
    return {name: float(value) for name, value in zip(NAMES, np.exp(found.x), strict=True)}


def misfit(rows: Sequence[TrainingRow], coefficients: dict[str, float]) -> float:
    """What `fit_coefficients` minimises."""
    return float((_residuals(rows, np.array([coefficients[name] for name in NAMES])) ** 2).sum())


def _residuals(rows: Sequence[TrainingRow], values: Array) -> Array:
    """Roots of soft-L1 errors of rows, and distances from the priors in their standard deviations."""
    z = log_errors(rows, dict(zip(NAMES, values, strict=True))) / NOISE
    soft = np.sign(z) * np.sqrt(2.0 * (np.sqrt(1.0 + z * z) - 1.0))
    return np.concatenate([soft, [np.log(v / PRIORS[n][0]) / PRIORS[n][1] for n, v in zip(NAMES, values, strict=True)]])


def log_errors(rows: Sequence[TrainingRow], coefficients: dict[str, float]) -> Array:
    """Log of predicted over measured seconds per token (n,)."""
    return np.array([np.log(seconds_per_token(r.shape, r.setup, coefficients) / r.seconds) for r in rows], float)


def calibrate_training(rows: Sequence[TrainingRow], name: str, source: str) -> TrainingCalibration:
    """Coefficients from all rows, the fits without each model, and what is left of held-out errors beside their spread.

    Raises InputError with fewer than three models.
    """
    models = sorted({row.model for row in rows})
    if len(models) < 3:
        raise InputError(f"training rows: need at least three models to hold one out, got {len(models)}")
    members = {model: fit_coefficients([row for row in rows if row.model != model]) for model in models}
    calibration = TrainingCalibration(
        id=name, source=source, coefficients=fit_coefficients(rows), members=tuple(members.values()), residual=0.0,
        n_rows=len(rows), models=tuple(models), hardware=tuple(sorted({row.hardware for row in rows})), error=0.0,
    )  # fmt: skip
    errors = {model: log_errors([row for row in rows if row.model == model], members[model]) for model in models}
    medians = [float(np.median(np.abs(np.exp(-e) - 1))) for e in errors.values()]
    spread = {m: np.array([calibration.spread(r.shape, r.setup) for r in rows if r.model == m]) for m in models}
    return calibration.replace(
        residual=residual_beside(errors, spread),
        error=float(np.median(medians)),
        pair_residual=_pair_residual(calibration, rows, errors),
    )


def _pair_residual(calibration: TrainingCalibration, rows: Sequence[TrainingRow], errors: dict[str, Array]) -> float:
    """What the jackknife error of the ratio of two models lacks, from models that were each predicted without it."""
    shapes = {row.model: row.shape for row in rows}
    logs = np.stack(
        [
            np.mean([calibration.replicates(r.shape, r.setup).logs[:, 0] for r in rows if r.model == model], axis=0)
            for model in errors
        ],
        axis=1,
    )
    widths = np.array([float(np.max(shapes[model].d_expert)) for model in errors])
    off = np.array([errors[model].mean() for model in errors])
    first, second = np.triu_indices(len(off), 1)
    variances = Replicates(logs, widths, 0.0).jackknife(first, second)
    return residual_of(np.abs(off[first] - off[second]), variances, widths_apart(widths[first], widths[second]))


def residual_beside(errors: dict[str, Array], spread: dict[str, Array]) -> float:
    """The standard deviation that, beside the fits' spread, makes 80 % intervals hold 80 % of the held-out rows; each
    model weighs the same."""
    grid = np.geomspace(0.01, 2.0, 400)
    covered = [
        np.mean([
            np.mean(np.abs(e) <= NORMAL * np.sqrt(size**2 + spread[model] ** 2)) for model, e in errors.items()
        ])
        for size in grid
    ]  # fmt: skip
    enough = np.flatnonzero(np.array(covered) >= 0.8)
    return float(grid[enough[0]]) if enough.size else float(grid[-1])


def left_out(rows: Sequence[TrainingRow], by: str = "model") -> Iterator[tuple[TrainingRow, TrainingCalibration]]:
    """Every row with the calibration from the rows of the other models (or `hardware`) alone."""
    for group in sorted({getattr(row, by) for row in rows}):
        calibration = calibrate_training([row for row in rows if getattr(row, by) != group], "held out", "")
        yield from ((row, calibration) for row in rows if getattr(row, by) == group)


def hold_out(rows: Sequence[TrainingRow], by: str = "model") -> list[HeldOut]:
    """Every row predicted from the rows of the other models (or `hardware`) alone: coefficients and interval."""
    return [held_out(row, calibration) for row, calibration in left_out(rows, by)]


def held_out(row: TrainingRow, calibration: TrainingCalibration) -> HeldOut:
    """One row predicted by a calibration that has not used it."""
    predicted = calibration.predict(row.shape, row.setup)
    return HeldOut(
        row=row,
        log_error=float(np.log(predicted.seconds / row.seconds)),
        half_width=float(np.log(predicted.seconds_high / predicted.seconds_low) / 2),
    )
