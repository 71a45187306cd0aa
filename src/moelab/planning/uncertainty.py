"""The uncertainty of a choice, from bootstrap draws of the fitted laws, each with its own best design.

A draw is one law with one replicate's coefficients. An ensemble pools the draws of its laws by their weights. So every
interval (low and high are p10 and p90) holds the noise of the runs and the uncertainty of the law's form.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.candidate import Interval
from moelab.planning.curve import Curve
from moelab.planning.ensemble import Member
from moelab.planning.equivalence import equivalents
from moelab.planning.feasible import FeasibleSet
from moelab.planning.ranking import Ranking

Array = NDArray[Any]

SHORTLIST = 4000
"""Best designs on which the draws are evaluated, beside a sample of the rest."""

MAX_DRAWS = 300


@dataclass(frozen=True)
class Decision:
    """The draws' losses of m shortlisted designs. `rows` (draws, m) are losses, `weight` (draws,) sums to 1."""

    shortlist: Array
    rows: Array
    weight: Array
    curve: Curve
    near_equal: int
    capped: bool
    p_moe_beats_dense: float | None
    optimum: dict[str, Interval]
    dropped: int
    near: Array

    def regret(self, index: int, value: float) -> tuple[Interval, Interval]:
        """Extra loss of design `index` over each draw's own best, and the same as a share of excess compute.

        The ensemble's own optimum against compute turns extra loss into compute, for the value and for the draws.
        """
        column = self.rows[:, np.flatnonzero(self.shortlist == index)[0]]
        extra = Interval.around(value, *quantiles(column - self.rows.min(axis=1), self.weight))
        assert extra.low is not None
        assert extra.high is not None
        return extra, Interval(self._excess(value), self._excess(extra.low), self._excess(extra.high))

    def _excess(self, extra: float) -> float:
        """The share of excess compute that an extra loss over the optimum amounts to."""
        return float(-np.expm1(-max(float(self.curve.log_excess(self.curve.loss[-1] + extra)), 0.0)))

    def loss(self, index: int, value: float) -> Interval:
        """The ensemble's loss for design `index`."""
        column = self.rows[:, np.flatnonzero(self.shortlist == index)[0]]
        return Interval.around(value, *quantiles(column, self.weight))

    def holds(self, index: int) -> bool:
        """Whether design `index` was shortlisted."""
        return bool((self.shortlist == index).any())


def quantiles(values: Array, weight: Array, at: tuple[float, float] = (0.1, 0.9)) -> tuple[float, float]:
    """Weighted p10 and p90 (the step function's inverse)."""
    order = np.argsort(values)
    below = np.cumsum(weight[order]) / weight.sum()
    low, high = (values[order][min(int(np.searchsorted(below, q - 1e-12)), len(values) - 1)] for q in at)
    return float(low), float(high)


def shortlist(ranking: Ranking, distinct: Array, extra: Array) -> tuple[Array, Array, bool]:
    """Designs on which the draws are evaluated, which of them count as distinct, and whether some were left out.

    The shortlist holds the best of the distinct ones, the best of each kind, every k-th of the rest, and `extra`, the
    designs to be shown. A shown design that is equivalent to a distinct one is not counted again.
    """
    order = distinct[np.argsort(ranking.score[distinct], kind="stable")]
    capped = len(order) > SHORTLIST + 1500
    kept = order
    if capped:
        moe = ranking.feasible.lattice.is_moe[order]
        rest = order[SHORTLIST:]
        kept = np.concatenate(
            [order[:SHORTLIST], order[moe][:300], order[~moe][:300], rest[:: max(1, len(rest) // 1500)]]
        )
    index = np.union1d(kept, extra)
    return index, np.isin(index, kept), capped


def decide(ranking: Ranking, chosen: int, distinct: Array, extra: Array) -> Decision | None:
    """The draws' statistics, or None where no single set of runs was fitted with draws, or where a cost is minimised.

    `distinct` are designs that differ in some law input, `extra` those that will be shown beside them.
    """
    ensemble = ranking.ensemble
    if (
        ranking.cost is not None
        or len(ensemble) != 1
        or not ensemble[0].fitted
        or not any(predictor.n_draws for predictor in ensemble[0].predictors)
    ):
        return None
    index, counted, capped = shortlist(ranking, distinct, extra)
    some = ranking.feasible.take(index)
    rows, weight, dropped = draws_of(ensemble[0], some)
    if not len(rows):
        return None
    near = _no_worse(rows, weight, int(np.flatnonzero(index == chosen)[0])) & counted
    beyond = ranking.score[index] > np.sort(ranking.score[distinct])[min(SHORTLIST, len(distinct)) - 1]
    return Decision(
        shortlist=index,
        rows=rows,
        weight=weight,
        curve=ranking.curves[0],
        near_equal=max(1, int(near.sum())),
        capped=capped and bool((near & beyond).any()),
        p_moe_beats_dense=_p_moe_beats_dense(rows, weight, some.lattice.is_moe),
        optimum=_optimum(ranking, chosen, some, rows.argmin(axis=1), weight),
        dropped=dropped,
        near=index[near],
    )


def _no_worse(rows: Array, weight: Array, chosen: int) -> Array:
    """Designs (m,) that are no worse than column `chosen` by at least a tenth of the draws."""
    behind = rows - rows[:, [chosen]]
    order = np.argsort(behind, axis=0)
    below = np.cumsum(weight[order], axis=0)
    at = np.argmax(below >= 0.1 - 1e-12, axis=0)
    p10 = np.take_along_axis(np.take_along_axis(behind, order, axis=0), at[None], axis=0)[0]
    return np.asarray(p10 <= 1e-12)


def _p_moe_beats_dense(rows: Array, weight: Array, moe: Array) -> float | None:
    """The share of draws in which the best MoE beats the best dense design; None without designs of both kinds."""
    if moe.all() or not moe.any():
        return None
    share = float(weight[rows[:, moe].min(axis=1) < rows[:, ~moe].min(axis=1)].sum())
    return min(max(share, 0.0), 1.0)  # weights add up to 1 but for rounding


def draws_of(member: Member, some: FeasibleSet) -> tuple[Array, Array, int]:
    """Losses of every usable draw of every law (draws, m), their weights, and how many draws were dropped."""
    rows, weights, dropped = [], [], 0
    for share, predictor in zip(member.weights, member.predictors, strict=True):
        if share == 0 or not predictor.n_draws:
            continue
        losses = predictor.draw_losses(predictor.read(some.design), some.train_flops, MAX_DRAWS)
        dropped += min(predictor.n_draws, MAX_DRAWS) - len(losses)
        if len(losses):
            rows.append(np.where(np.isnan(losses), np.inf, losses))
            weights.append(np.full(len(losses), share / len(losses)))
    if not rows:
        return np.zeros((0, len(some))), np.zeros(0), dropped
    weight = np.concatenate(weights)
    return np.concatenate(rows), weight / weight.sum(), dropped


def _optimum(ranking: Ranking, chosen: int, some: FeasibleSet, optima: Array, weight: Array) -> dict[str, Interval]:
    """Location of the optimum: for each property, the chosen design's value, with p10 and p90 of the draws' optima.

    The interval of a property holds at least the values of all designs equivalent to the chosen one.
    """
    tied = ranking.feasible.take(equivalents(ranking, chosen))
    columns = {
        "params_total": lambda f: f.lattice.params_total,
        "params_active": lambda f: f.lattice.params_active,
        "n_experts": lambda f: np.maximum(f.lattice.n_experts, 1),
        "granularity": lambda f: f.design.granularity,
        "tokens": lambda f: f.tokens,
    }
    result = {}
    for name, column in columns.items():
        low, high = quantiles(np.asarray(column(some), float)[optima], weight)
        same = np.asarray(column(tied), float)
        value = float(column(ranking.feasible)[chosen])
        if name == "granularity" and not ranking.depends_on_granularity:
            result[name] = Interval(value)  # these laws do not determine granularity, so it has no interval
            continue
        result[name] = Interval.around(value, min(low, float(same.min())), max(high, float(same.max())))
    return result
