"""How much wider than its draws a fit's intervals must be, measured where laws predict more expensive runs than theirs.

Draws show what the runs leave open of a law's coefficients. They do not show that a law is not quite right, which
counts most outside the fitted range. Two measures of that come from predictions of expensive runs by cheap ones:

- The drift: by how much laws go wrong for each e-fold of compute beyond the largest fitted run. The cheapest half and
  two thirds of the same runs predict the others; a prior brings what other tables show.
- With a prior, a factor on all deviations, the drift's among them, at which four of five of the same held-out runs lie
  inside their 80 % intervals (normalised split-conformal prediction, Lei et al. 2018, arXiv 1604.04173). It is never
  below 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import DENSE
from moelab.fitting.coefficients import LEVEL
from moelab.fitting.fitted_kinds import MARKS
from moelab.fitting.observations import Observations
from moelab.fitting.prediction import Prediction

Array = NDArray[Any]
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half the width of an 80 % interval, in standard deviations of a normal distribution."""


class Predicts(Protocol):
    """What a fit to a part of the runs is asked for."""

    def predict(self, table: Any = None, *, noise: bool = False) -> Prediction:
        """Losses with the intervals of one more measured run."""
        ...


SHARES = (1 / 2, 2 / 3)
"""Shares of the runs, cheapest first, that predict the others."""
FEWEST = 6
"""Runs from which this is measured: three predict three."""
MOST_RUNS, MOST_DRAWS = 1_000, 200
"""Of a larger table, so many runs evenly spaced in compute; and the draws of a fit to a part."""
SIZES = (
    "params_active",
    "params_active_non_embedding",
    "params_dense",
    "params_total",
    "params_non_embedding",
    "params_nonzero",
)
"""What a law may measure a model's size by; the first that it has stands for its compute."""
ALONE = (0.037, 1.0)
"""Drift of laws that are fitted without a prior, on other tables (benchmarks/extrapolation.py), and how many splits of
a user's own table it is worth."""
BETWEEN = 0.2
"""Share of the squared drift by which dense and MoE runs beyond the fitted ones differ from their common error, on
tables with both kinds (benchmarks/extrapolation.py)."""
SLACK = 1 - 1e-6
"""Runs of one budget stay together where their FLOPs differ by rounding."""


@dataclass(frozen=True)
class Widening:
    """Intervals of a fit from its draws: their deviations times `factor`, with a further relative deviation of `drift`
    (standard deviation) for each e-fold of compute beyond exp(`reach`), the most of the fitted runs by `log_scale`.
    `held_out` predictions of held-out runs are behind them."""

    factor: float = 1.0
    drift: float = 0.0
    reach: float = np.inf
    held_out: int = 0

    def of(self, losses: Array, values: Array, variables: Mapping[str, Array], far: Array | None = None) -> Array:
        """Draws' losses (R, n) about `values` (n,), widened. Of a draw's squared drift, `BETWEEN` differs between dense
        and MoE designs and the rest is common to all; so designs of one kind and compute keep their differences.
        `far` (n,) are the e-folds beyond the fitted runs, None: those of the law's variables."""
        far = beyond(variables, self.reach) if far is None else far
        with np.errstate(all="ignore"):
            if self.drift and far.any():
                losses = losses * np.exp(self.drift * far * _directions(len(losses), is_moe(variables)))
            return losses if self.factor == 1.0 else np.asarray(values * (losses / values) ** self.factor)

    def log_errors(self, count: int, variables: Mapping[str, Array]) -> Array:
        """(count, n): log errors of the law beyond the fitted runs, drawn as `of` draws them."""
        far = beyond(variables, self.reach)
        return np.asarray(self.factor * self.drift * far * _directions(count, is_moe(variables)))

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain data; a reach that is not known is None."""
        return {**asdict(self), "reach": self.reach if np.isfinite(self.reach) else None}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Widening":
        """The inverse of `to_dict`; what is missing is as without any widening."""
        known = {name: float(value[name]) for name in ("factor", "drift", "reach") if value.get(name) is not None}
        found = cls(**known, held_out=int(value.get("held_out", 0)))
        if not (found.factor >= 1 and 0 <= found.drift < np.inf) or np.isnan(found.reach):
            raise ValueError(f"widening: expected factor >= 1 and a drift of at least 0, got {dict(value)}")
        return found

    def notes(self, scale: str, others: str = "other tables") -> list[str]:
        """The notes of a fit whose compute is measured by `scale`; `others` names the tables beside its own."""
        found = []
        if self.drift:
            ten = np.expm1(Z * self.drift * np.log(10) * self.factor)
            tables = f"of this table and of {others}" if self.held_out else f"of {others}"
            found.append(
                f"at ten times the {scale} of the largest run the 80 % interval is at least +-{ten:.1%}: "
                f"so far off are predictions of held-out runs {tables}"
            )
        if (wider := f"{self.factor:.3g}") != "1":
            found.append(
                f"intervals of predictions are {wider} times as wide as the draws, "
                "which do not hold four fifths of this table's held-out runs"
            )
        return found


AS_DRAWN = Widening()
"""The draws as they are."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out runs of one split: log errors (n,), half-widths (n,) of the draws' intervals, e-folds (n,) beyond."""

    errors: Array
    halves: Array
    beyond: Array

    @property
    def squared_drift(self) -> float | None:
        """The mean square of what the draws leave unexplained per e-fold; None where nothing lies beyond. Runs nearer
        than an e-fold count as one away: what is wrong at a hair's breadth does not grow with the distance."""
        out = self.beyond > 0
        if not out.any():
            return None
        excess = float(np.sum(self.errors[out] ** 2 - (self.halves[out] / Z) ** 2))
        return max(excess, 0.0) / float(np.sum(np.maximum(self.beyond[out], 1.0) ** 2))

    def ratios(self, drift: float) -> Array:
        """|error| over half the width of the interval with this drift."""
        with np.errstate(all="ignore"):
            return np.asarray(np.abs(self.errors) / np.hypot(self.halves, Z * drift * self.beyond))


def _directions(count: int, moe: Array) -> Array:
    """(count, 1 or n): for each draw, in which direction and how far the law drifts, of standard deviation 1."""
    common, *kinds = np.random.default_rng(0).standard_normal((3, count, 1))
    return np.asarray(np.sqrt(1 - BETWEEN) * common + np.sqrt(BETWEEN) * np.where(moe, kinds[1], kinds[0]))


def is_moe(variables: Mapping[str, Array]) -> Array:
    """Designs (n,) that are MoE by a law's variables; (1,), dense, for a law without experts."""
    name = next((mark for mark in MARKS if mark in variables), None)
    return np.zeros(1, bool) if name is None else ~np.isclose(np.asarray(variables[name], float), DENSE[name])


def scale_words(variables: Mapping[str, Array]) -> str:
    """What `log_scale` measures."""
    if "train_flops" in variables:
        return "training FLOPs"
    return "parameters x tokens" if "tokens" in variables else "parameters"


def log_scale(variables: Mapping[str, Array]) -> Array | None:
    """The logarithm of a law's training FLOPs over 6; else of its active parameters (all, where it has no others) times
    tokens; without tokens, of the parameters; None for a law with none of them."""
    if "train_flops" in variables:
        with np.errstate(all="ignore"):
            return np.log(np.asarray(variables["train_flops"], float) / 6.0)
    size = next((name for name in SIZES if name in variables), None)
    if size is None:
        return None
    with np.errstate(all="ignore"):
        scale = np.log(np.asarray(variables[size], float))
        if size == "params_total" and "sparsity" in variables:
            scale = scale + np.log1p(-np.asarray(variables["sparsity"], float))
        return scale + np.log(np.asarray(variables["tokens"], float)) if "tokens" in variables else scale


def beyond(variables: Mapping[str, Array], reach: float) -> Array:
    """E-folds of compute, by `log_scale`, beyond `reach`; 0 within it and where there is no such scale."""
    scale = log_scale(variables)
    return np.zeros(1) if scale is None else np.maximum(scale - reach, 0.0)


def held_out(data: Observations, fit_part: Callable[[Observations], Predicts]) -> list[HeldOut]:
    """The more expensive runs as the cheaper ones predict them, a split for each of SHARES that the table allows.

    `fit_part` fits a part of the runs, without any widening; InputError where it cannot.
    """
    if data.order is None or len(data) < FEWEST:
        return []
    order = np.argsort(data.order, kind="stable")
    if len(order) > MOST_RUNS:
        order = order[np.linspace(0, len(order) - 1, MOST_RUNS).round().astype(int)]
    found = [_split(data.take(order), share, fit_part) for share in SHARES]
    return [split for split in found if split is not None]


def widening_of(data: Observations, splits: list[HeldOut], usual: tuple[float, float] = (0.0, 0.0)) -> Widening:
    """The widening of a fit to all runs.

    `usual` is the drift that other tables show, and how many splits of a table that is worth.
    """
    scale = log_scale(data.variables)
    own = [square for square in (split.squared_drift for split in splits) if square is not None]
    drift = 0.0
    if scale is not None and (own or usual[1]):
        drift = float(np.sqrt((usual[1] * usual[0] ** 2 + sum(own)) / (usual[1] + len(own))))
    ratios = np.concatenate([split.ratios(drift) for split in splits]) if splits else np.zeros(0)
    ratios = ratios[np.isfinite(ratios)]
    factor = max(1.0, conformal(ratios)) if len(ratios) else 1.0
    return Widening(factor, drift, np.inf if scale is None else float(scale.max()), len(ratios))


def conformal(ratios: Array, level: float = LEVEL) -> float:
    """The factor at which intervals hold a further run with this probability, from |error| / half-width (n,) of n."""
    rank = int(np.ceil((len(ratios) + 1) * level))
    return float(np.sort(ratios)[min(rank, len(ratios)) - 1])


def _split(data: Observations, share: float, fit_part: Callable[[Observations], Predicts]) -> HeldOut | None:
    assert data.order is not None
    held = data.order >= data.order[int(share * len(data))] * SLACK
    seen, unseen = data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))
    if len(seen) < FEWEST // 2 or np.ptp(seen.measured) == 0:
        return None
    try:
        found = fit_part(seen).predict(unseen.variables, noise=True)
    except InputError:
        return None
    scale = log_scale(seen.variables)
    far = beyond(unseen.variables, np.inf if scale is None else float(scale.max()))
    with np.errstate(all="ignore"):
        errors, halves = np.log(unseen.measured / found.value), 0.5 * np.log(found.high / found.low)
    good = np.isfinite(errors) & np.isfinite(halves)
    return HeldOut(errors[good], halves[good], np.broadcast_to(far, errors.shape)[good])
