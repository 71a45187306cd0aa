"""How well the ratio of two designs' costs is known: costs under the calibration and under its replicates.

The interval of one price holds what all predictions share: the device, the engine, the release. In a ratio of two
designs on the same devices that cancels, and what is left is how differently the coefficients act on them. The
replicates are the fits that left one measured model out, so the spread of a ratio over them is its jackknife error.
No fit sees how efficiency depends on the width of experts alone, so designs whose experts differ in width add a
`residual`, in full from a factor of two on and for MoE beside dense. It is the one with which 80 % intervals held 80 %
of the ratios of measured models, each pair predicted without both.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.serving.calibration import STATED, Z80, Calibration, shipped
from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout
from moelab.serving.loaded_step import step_of
from moelab.serving.prompts import reading_time
from moelab.serving.serving_columns import ServingCost
from moelab.serving.traffic import Traffic
from moelab.serving.work import Work, timed, work_of

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Replicates:
    """`logs` (m, n): logarithms of the costs of n designs under m replicates, over those under the calibration.

    `widths` (n,) are of their experts, 0 for dense designs; `residual` is a standard deviation of the log of a ratio.
    """

    logs: Array
    widths: Array
    residual: float

    def variance(self, first: Any, second: Any, first_share: Any = 1.0, second_share: Any = 1.0) -> Array:
        """Variance of the logarithm of the ratio of designs `first` and `second` (indices).

        The shares weigh a cost that is a part of what is compared, such as serving in a lifetime (first order).
        """
        share = (np.asarray(first_share) + second_share) / 2
        apart = widths_apart(self.widths[first], self.widths[second])
        return np.asarray(
            self.jackknife(first, second, first_share, second_share) + (self.residual * share * apart) ** 2
        )

    def jackknife(self, first: Any, second: Any, first_share: Any = 1.0, second_share: Any = 1.0) -> Array:
        """The part of the variance that the coefficients have."""
        m = len(self.logs)
        apart = self.logs[:, first] * first_share - self.logs[:, second] * second_share
        return np.asarray((m - 1) / m * ((apart - apart.mean(0)) ** 2).sum(0))

    def ratio(self, value: Any, first: Any, second: Any) -> tuple[Array, Array]:
        """The 80 % interval, low and high, of the ratio `value` of the costs of designs `first` and `second`."""
        factor = np.exp(Z80 * np.sqrt(self.variance(first, second)))
        return np.asarray(value / factor), np.asarray(value * factor)


def widths_apart(first: Any, second: Any) -> Array:
    """How far experts differ in width: octaves, at most 1; 1 for MoE beside dense, whose width is 0."""
    first, second = np.broadcast_arrays(np.asarray(first, float), np.asarray(second, float))
    both = (first > 0) & (second > 0)
    octaves = np.abs(np.log2(np.where(both, first, 1.0) / np.where(both, second, 1.0)))
    return np.where(both, np.minimum(octaves, 1.0), np.where(first == second, 0.0, 1.0))


def residual_of(errors: Any, variances: Any, apart: Any) -> float:
    """The residual at which 80 % intervals hold 80 % of pairs, from logarithms of their `errors`, jackknife `variances`
    and how far their experts are `apart`, each (pairs,). Pairs that are not apart and miss are helped by no residual:
    where they are too many, it is the largest that another pair needs."""
    missing = np.maximum((np.asarray(errors) / Z80) ** 2 - variances, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.sort(np.where(missing > 0, np.sqrt(missing) / np.asarray(apart), 0.0))
    wanted = min(int(np.ceil(0.8 * (len(needed) + 1))), len(needed), int(np.isfinite(needed).sum()))
    return float(needed[wanted - 1]) if wanted else 0.0


def serving_replicates(
    model: ModelConfig | Shape, cost: ServingCost, traffic: Traffic, hardware: Hardware
) -> Replicates | None:
    """The replicates of the prices in `cost`, as `serve` found them for these n shapes: layouts and batches stay.

    NaN where no limit can be met; None where no measured rows support a calibration. About 5 us a shape: for the few
    that are to be compared, rather than for a lattice.
    """
    calibration = hardware.calibrated(traffic.engine)
    if calibration.id == STATED or calibration.error is None:
        return None
    shape = Shape.of(model) if isinstance(model, ModelConfig) else model
    work = work_of(shape, traffic, calibration.coefficients.reserved)
    fits = [calibration, *(replaced(calibration, member) for member in shipped()["members"].values())]
    seconds = np.stack([_device_seconds(work, cost, traffic, hardware.replace(calibration=fit)) for fit in fits])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(seconds)
    widths = np.broadcast_to(np.asarray(shape.d_expert, float), logs[0].shape)
    return Replicates(logs[1:] - logs[0], widths, float(shipped()["pair_residual"]))


def replaced(calibration: Calibration, member: dict[str, float]) -> Calibration:
    """The calibration with its coefficients multiplied by a replicate's over those of the fit to all rows."""
    coefficients = calibration.coefficients
    values = {name: getattr(coefficients, name) * factor for name, factor in member.items()}
    shares = {"matmul", "experts", "bandwidth", "cache", "latent_cache", "attention", "link"}
    values |= {name: min(value, 1.0) for name, value in values.items() if name in shares}
    values["imbalance"] = max(values.get("imbalance", coefficients.imbalance), 1.0)
    return calibration.model_copy(update={"coefficients": coefficients.model_copy(update=values)})


def _device_seconds(work: Work, cost: ServingCost, traffic: Traffic, device: Hardware) -> Array:
    """Seconds of a device of the group per output token (n,)."""
    load = timed(work, traffic, device)
    seconds = np.full(len(cost.gpus), np.nan)
    columns = (cost.gpus, cost.expert_parallel, cost.overlapped)
    for chosen in {*zip(*(column.tolist() for column in columns), strict=True)}:
        layout = Layout(*chosen)
        if layout.gpus == 0:
            continue
        where = np.flatnonzero(np.all([column == value for column, value in zip(columns, chosen, strict=True)], axis=0))
        some = load.take(where)
        step = step_of(some, layout, device, traffic, mixed=not traffic.disaggregated)
        seconds[where] = step.seconds(cost.batch[where]) / cost.batch[where]
        if traffic.disaggregated:
            seconds[where] += reading_time(some, layout, device, traffic) / traffic.output
    return seconds
