"""How much wider than its draws a fit's intervals must be, measured where laws predict more expensive runs than theirs.

Draws show what the runs leave open of a law's coefficients. They do not show that a law is not quite right, which
counts most outside the fitted range. Two measures of that come from predictions of expensive runs by cheap ones:

- The drift: by how much laws go wrong for each e-fold of compute beyond the largest fitted run. What other tables show
  of it comes with the prior; the cheapest half and two thirds of the same runs predict the others and correct it.
- A factor on all deviations, the drift's among them, at which four of five of the same held-out runs lie inside their
  80 % intervals (normalised split-conformal prediction, Lei et al. 2018, arXiv 1604.04173). It is never below 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.coefficients import LEVEL
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
SLACK = 1 - 1e-6
"""Runs of one budget stay together where their FLOPs differ by rounding."""


@dataclass(frozen=True)
class Widening:
    """Intervals of a fit from its draws: their deviations times `factor`, with a further relative deviation of `drift`
    (standard deviation) for each e-fold of parameters times tokens beyond exp(`reach`), that of the fitted runs."""

    factor: float = 1.0
    drift: float = 0.0
    reach: float = np.inf

    def of(self, losses: Array, values: Array, variables: Mapping[str, Array]) -> Array:
        """Draws' losses (R, n) about `values` (n,), widened. A draw has one drift in all designs, so that designs of
        one compute keep their differences."""
        far = beyond(variables, self.reach) if self.drift else np.zeros(1)
        with np.errstate(all="ignore"):
            if far.any():
                losses = losses * np.exp(self.drift * far * _directions(len(losses))[:, None])
            return losses if self.factor == 1.0 else np.asarray(values * (losses / values) ** self.factor)

    def notes(self, held_out: int) -> list[str]:
        """The notes of a fit whose own runs gave so many held-out predictions."""
        found = []
        if self.drift:
            ten = np.expm1(Z * self.drift * np.log(10) * self.factor)
            tables = "of this table and of those of the prior" if held_out else "of the prior's tables"
            found.append(
                f"at ten times the parameters x tokens of the largest run the 80 % interval is at least +-{ten:.1%}: "
                f"so much do held-out runs {tables} differ"
            )
        if self.factor > 1:
            found.append(
                f"intervals of predictions are {self.factor:.2g} times as wide as the draws, "
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


def _directions(count: int) -> Array:
    return np.random.default_rng(0).standard_normal(count)


def log_scale(variables: Mapping[str, Array]) -> Array | None:
    """The logarithm of active parameters times tokens, which stands for compute; None for a law without them."""
    names = ("params_active", "tokens")
    if any(name not in variables for name in names):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(sum(np.log(np.asarray(variables[name], float)) for name in names))


def beyond(variables: Mapping[str, Array], reach: float) -> Array:
    """E-folds of parameters times tokens beyond `reach`; 0 within it and for a law without them."""
    scale = log_scale(variables)
    return np.zeros(1) if scale is None else np.maximum(scale - reach, 0.0)


def held_out(data: Observations, fit_part: Callable[[Observations], Predicts]) -> list[HeldOut]:
    """The more expensive runs as the cheaper ones predict them, a split for each of SHARES that the table allows.

    `fit_part` fits a part of the runs, without any widening.
    """
    if data.order is None or len(data) < FEWEST:
        return []
    order = np.argsort(data.order, kind="stable")
    if len(order) > MOST_RUNS:
        order = order[np.linspace(0, len(order) - 1, MOST_RUNS).round().astype(int)]
    found = [_split(data.take(order), share, fit_part) for share in SHARES]
    return [split for split in found if split is not None]


def widening_of(
    data: Observations, splits: list[HeldOut], usual: tuple[float, float] = (0.0, 0.0)
) -> tuple[Widening, int]:
    """The widening of a fit to all runs, and from how many predictions of held-out ones it was measured.

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
    return Widening(factor, drift, np.inf if scale is None else float(scale.max())), len(ratios)


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
    found = fit_part(seen).predict(unseen.variables, noise=True)
    scale = log_scale(seen.variables)
    far = beyond(unseen.variables, np.inf if scale is None else float(scale.max()))
    with np.errstate(all="ignore"):
        errors, halves = np.log(unseen.measured / found.value), 0.5 * np.log(found.high / found.low)
    good = np.isfinite(errors) & np.isfinite(halves)
    return HeldOut(errors[good], halves[good], np.broadcast_to(far, errors.shape)[good])
