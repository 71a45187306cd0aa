"""The fit of coefficients to measured rows: robust, with priors, and its error on rows that were held out.

Residuals are differences of logarithms; a soft absolute value keeps single rows from deciding. Priors are log-normal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.serving.batch import largest_batch
from moelab.serving.calibration import Z80, Calibration
from moelab.serving.coefficients import PRIORS, Coefficients
from moelab.serving.loaded_step import step_of
from moelab.serving.measured import MeasuredRows, Row
from moelab.serving.step import Step
from moelab.serving.work import Work, timed, work_of

Array = NDArray[Any]
NOISE = 0.12
"""Scatter of the logarithm of repeated measurements that a residual is weighed against."""
ENGINE_SPREAD, DEVICE_SPREAD = 0.15, 0.2
"""Prior spread of an engine's fixed cost, and of a device's slowdown beside the one given for it."""
FIXED: dict[str, Any] = {"max_batch": 2048, "reserved": 1.0}
"""TensorRT-LLM's default largest batch; and memory reserved for the whole answer at admission, its default too."""
PROGRESS = (0.3, 0.5)
"""Prior median of the yearly decline of an engine's fixed cost (of its logarithm), and the spread of the median's own
logarithm: releases fuse kernels and overlap the host's work."""


@dataclass(frozen=True)
class Fitted:
    """Coefficients, engines' factors of the fixed cost and devices' slowdowns, with 80 % intervals of each.

    Engines' fixed cost falls by `progress` a year (of its logarithm); the coefficients are those of the `newest` row's
    date, in years.
    """

    coefficients: Coefficients
    engines: dict[str, float]
    slowdowns: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    progress: float = 0.0
    newest: float = 0.0

    def calibration(self, hardware: str, engine: str, year: float | None = None, **more: Any) -> Calibration:
        """What predicts one device and engine in a `year`; those without rows get 1 and the slowdown that was given."""
        age = 0.0 if year is None else self.newest - year
        fixed = self.engines.get(engine, 1.0) * math.exp(self.progress * age)
        coefficients = self.coefficients.model_copy(update={"kernel": self.coefficients.kernel * fixed})
        return Calibration.model_construct(
            id=f"{hardware}/{engine}",
            coefficients=coefficients,
            slowdown=self.slowdowns.get(hardware, 1.0),
            **more,
        )

    def predict(self, rows: Sequence[Row]) -> Array:
        """Seconds per output token, or output tokens per second and device, of each row (n,)."""
        return self.of(groups_of(rows))

    def of(self, groups: "Sequence[Group]") -> Array:
        """The same for rows that were grouped before (n,)."""
        result = np.empty(sum(len(group.members) for group in groups))
        for group in groups:
            row = group.row
            device = row.device.model_copy(update={"calibration": self.calibration(row.hardware, row.engine, row.year)})
            load = timed(group.work, row.traffic, device)
            found = largest_batch(load, row.layout, row.traffic, device)
            batch, seconds = found.largest, found.step
            if row.requests is not None:
                seconds = _in_waves(step_of(load, row.layout, device, row.traffic), batch, row.requests)
                batch = np.where(batch > 0, float(row.requests), 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                result[group.members] = found.token if row.rate is None else batch / seconds / row.layout.gpus
        return result


def _in_waves(step: Step, batch: Array, requests: int) -> Array:
    """Seconds of one token of every request of an offline run (n,). The requests are queued at once and of one length:
    those in flight begin and end together, in waves of `batch` requests, and the last wave holds what is left."""
    batch = np.minimum(np.maximum(batch, 1.0), requests)
    full = np.floor(requests / batch)
    left = requests - full * batch
    return full * step.seconds(batch) + (left > 0) * step.seconds(np.maximum(left, 1.0))


@dataclass(frozen=True)
class Group:
    """Rows that differ in the model alone: their positions, one of them, and the work of all."""

    members: list[int]
    row: Row
    work: Work


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """The rows in groups that are computed together."""
    found: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        key = (row.hardware, row.engine, row.layout, row.traffic, row.rate is None, row.requests, row.year)
        found.setdefault(key, []).append(i)
    return [Group(members, rows[members[0]], _work([rows[i] for i in members])) for members in found.values()]


def _work(rows: Sequence[Row]) -> Work:
    return work_of(stack([row.config for row in rows]), rows[0].traffic, FIXED["reserved"])


def stack(models: Sequence[ModelConfig]) -> Shape:
    """Several models as one lattice."""
    shapes = [Shape.of(model) for model in models]
    names = Shape.__dataclass_fields__
    return Shape(**{name: np.array([getattr(shape, name) for shape in shapes]) for name in names})


def fit_rows(
    measured: MeasuredRows,
    slowdowns: dict[str, tuple[float, float]] | None = None,
    prior: dict[str, tuple[float, float]] | None = None,
    progress: tuple[float, float] = PROGRESS,
) -> Fitted:
    """Fit to the newest row of each setup.

    Args:
        measured: The rows.
        slowdowns: Device -> slowdown beside its data sheet and the spread of its logarithm; others: 1, held.
        prior: Coefficient -> median and spread of its logarithm; `PRIORS` by default.
        progress: The same of the yearly decline of engines' fixed cost.
    """
    from scipy.optimize import least_squares

    rows = measured.newest().rows
    groups = groups_of(rows)
    target = np.log([row.value for row in rows])
    given, known = prior or PRIORS, slowdowns or {}
    devices = [name for name in known if any(row.hardware == name for row in rows)]
    engines = sorted({row.engine for row in rows})
    priors = {
        **given,
        **dict.fromkeys(engines, (1.0, ENGINE_SPREAD)),
        **{name: known[name] for name in devices},
        "progress": progress,
    }
    names = list(priors)
    centre, spread = np.log([median for median, _ in priors.values()]), np.array([s for _, s in priors.values()])
    newest = max((row.year for row in rows if row.year is not None), default=0.0)

    def at(z: Array) -> Fitted:
        values = dict(zip(names, np.exp(centre + z * spread).tolist(), strict=True))
        for name in given:
            field = Coefficients.model_fields[name]
            most = next((m.le for m in field.metadata if hasattr(m, "le")), None)
            values[name] = values[name] if most is None else min(values[name], most)
        return Fitted(
            coefficients=Coefficients.model_construct(**{n: values[n] for n in given}, **FIXED),
            engines={n: values[n] for n in engines},
            slowdowns={n: values[n] for n in devices} | {n: known[n][0] for n in known if n not in devices},
            intervals={},
            progress=values["progress"],
            newest=newest,
        )

    def residuals(z: Array) -> Array:
        off = (np.log(at(z).of(groups)) - target) / NOISE
        if not np.isfinite(off).all():
            bad = rows[int(np.flatnonzero(~np.isfinite(off))[0])]
            raise InputError(f"row {bad.number}: {bad.model} on {bad.layout.gpus} x {bad.hardware} does not fit memory")
        return np.concatenate([np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1)), z])

    found = least_squares(residuals, np.zeros(len(names)), xtol=1e-5, ftol=1e-6)
    fitted = at(found.x)
    jacobian = np.asarray(found.jac, float)
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    half = Z80 * np.sqrt(np.diag(covariance)) * spread
    middle = np.exp(centre + found.x * spread)
    intervals = {n: (float(m / np.exp(h)), float(m * np.exp(h))) for n, m, h in zip(names, middle, half, strict=True)}
    return Fitted(
        coefficients=Coefficients.parse(fitted.coefficients.model_dump(), "fit"),
        engines=fitted.engines,
        slowdowns=fitted.slowdowns,
        intervals=intervals,
        progress=fitted.progress,
        newest=newest,
    )


def held_out(
    measured: MeasuredRows,
    group: Callable[[Row], Any],
    fit: Callable[[MeasuredRows], Fitted],
) -> tuple[tuple[Row, ...], Array]:
    """The newest rows, and predicted over measured where each group was left out of the fit (n,)."""
    newest = measured.newest()
    ratio = np.full(len(newest.rows), np.nan)
    keys = [group(row) for row in newest.rows]
    for key in dict.fromkeys(keys):
        left = [i for i, other in enumerate(keys) if other == key]
        kept = newest.where(lambda row, key=key: group(row) != key)  # type: ignore[misc]
        if not kept.rows:
            continue
        some = [newest.rows[i] for i in left]
        ratio[left] = fit(kept).predict(some) / np.array([row.value for row in some])
    return newest.rows, ratio


def error_of(ratio: Array) -> tuple[float, float]:
    """The median absolute relative error, and the spread whose 80 % interval holds 80 % of new rows (n,).

    The interval is conformal (arXiv 2107.07511): the (n + 1) 0.8-th smallest absolute log error of the held-out rows.
    """
    known = ratio[np.isfinite(ratio)]
    if not len(known):
        return float("nan"), float("nan")
    sizes = np.sort(np.abs(np.log(known)))
    rank = min(int(np.ceil(0.8 * (len(sizes) + 1))), len(sizes)) - 1
    return float(np.median(np.abs(known - 1))), float(sizes[rank] / Z80)
