"""Loss balanced against lifetime cost: the knee, where a per cent of compute is worth a per cent of the cost.

The excess of compute is log(C/C') over the least loss under compute and data alone, whatever may be served: C' is the
compute at which the laws' own optimum reaches a design's loss. The knee has the least excess + log(cost). Up to it, a
lifetime cost lower by one per cent takes less than one per cent of compute; beyond it, more. No end of the frontier
enters, so a limit that the knee meets does not move it.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.budget import Budget
from moelab.planning.coverage import median_of
from moelab.planning.feasible import FeasibleSet, fit_budget, training_price
from moelab.planning.granularity import granularity_excess, mean_excess
from moelab.planning.lattice import Lattice
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking, rank, rank_ensemble
from moelab.planning.reference import Reference
from moelab.planning.tradeoff import Lifetime, frontier

Array = NDArray[Any]

LEAST_WITHIN = 0.10
"""Excess compute that is allowed, unless laws or predicted training times are further apart."""

MOST_WITHIN = 0.5
"""Largest excess compute that these alone admit."""

LEAST_BATCH = 8
"""Requests in flight below which no deployment runs; a choice there would only show the edge of memory."""

FEW_BEHIND = 0.1
"""Log of the excess that designs of so many requests may have over the others, beyond the excess allowed."""

OUTSIDE = 1e3
"""Added to the score of designs far beyond the excess allowed, or served at fewer requests: they are ranked last."""

UNCOVERED = 3.0
"""Excess log compute of experts that no law of granularity covers: more than these laws find up to 1e25 FLOPs."""

STEEP = 10.0
"""Per cent of the lifetime cost that every per cent of compute must save beyond the excess that laws allow. Where the
budget states the excess, nothing beyond it is chosen."""

LEAST_COST = 0.01
"""Dollars of a life that count at least: devices that cost nothing leave the choice to the loss."""

FAR = 1.5
"""Excess log compute from which on a design is no candidate, so that laws of granularity are not asked."""

KEPT = 4
"""References that stay with a lattice."""

OTHER_LIMITS = {
    "max_params": None,
    "max_active": None,
    "max_memory": None,
    "min_tokens_per_active": None,
    "min_tokens_per_total": None,
    "serving": None,
}
"""Limits that the reference does not have."""


def reference_budget(budget: Budget) -> Budget:
    """The budget's compute and data alone."""
    hour = budget.training_hour
    kept = {
        "objective": "loss",
        "within": None,
        "train_hardware": budget.train_hardware or (budget.serving.hardware if budget.serving else None),
        "train_gpu_price": hour,
    }
    return budget.model_copy(update=OTHER_LIMITS | kept)


def reference_of(lattice: Lattice, budget: Budget, predictors: Sequence[Predictor]) -> Reference:
    """The reference of a budget, over all designs of the lattice. Raises InputError where none fits.

    The lattice keeps the latest ones: limits, traffic and served tokens change none of them.
    """
    alone, kept = reference_budget(budget), vars(lattice).setdefault("_references", [])
    for asked, laws, found in kept:
        if asked == alone and len(laws) == len(predictors) and all(map(operator.is_, laws, predictors)):
            return found
    found = _reference(lattice, alone, predictors)
    kept[:] = [*kept[-KEPT + 1 :], (alone, list(predictors), found)]
    return found


def _reference(lattice: Lattice, alone: Budget, predictors: Sequence[Predictor]) -> Reference:
    ranking = rank_ensemble(fit_budget(lattice, alone), alone, predictors)
    least = float(ranking.log_excess.min())
    return Reference(
        ranking.ensemble,
        ranking.curves,
        ranking.coverage,
        ranking.top_share,
        least,
        float(with_granularity(ranking, least).min()),
        *unresolved(ranking),
    )


def balanced(ranking: Ranking, reference: Reference, budget: Budget) -> Ranking:
    """The ranking by loss, made with this reference, ordered anew by the excess of compute and the log of the lifetime
    cost. The budget has serving and the tokens to serve."""
    assert ranking.serving is not None
    assert budget.serving is not None
    assert budget.serving.tokens is not None
    train = training_price(ranking.feasible.lattice, ranking.feasible.train_flops, budget)
    price = np.nan_to_num(ranking.serving.cost_per_million_tokens, nan=np.inf)
    serve = price * (budget.serving.tokens / 1e6)
    cost = train + serve
    excess = with_granularity(ranking, reference.least) - reference.least_with_granularity
    ranked = np.where(ranking.comparable, excess, np.inf)
    within = reference.unresolved if budget.within is None else budget.within
    steep = STEEP if budget.within is None else np.inf
    usable = _usable(ranking, ranked, float(-np.log1p(-within)))
    least = float(-np.expm1(-max(float(ranked[usable].min()), 0.0)))
    if budget.within is not None and least > budget.within:
        raise InputError(
            f"within {budget.within:g}: no design within the other limits has so little excess compute; the nearest "
            f"feasible value is {least * 1.005:.3g}"
        )
    most, attainable = max(float(-np.log1p(-within)), float(ranked[usable].min())), least <= within
    balance = np.where(usable, ranked + np.log(np.maximum(cost, LEAST_COST)), np.inf)
    score = _scores(ranked, balance, usable, most, steep)
    decides = attainable and bool(np.argmin(score) != np.argmin(balance))
    front = frontier(ranked, cost)
    knee = int(front[np.argmin(score[front])])
    lifetime = Lifetime(
        train, serve, balance, most, within, attainable, decides, front, knee, ranking.log_excess, reference
    )
    score = np.where(np.isfinite(cost) & np.isfinite(ranking.score), score, np.inf)
    return replace(ranking, score=score, loss_score=excess, lifetime=lifetime)


def _usable(ranking: Ranking, excess: Array, most: float) -> Array:
    """Designs (n,) that are served at no fewer requests than deployments run. All where those lie beyond the excess
    allowed and farther behind than others: long prompts and tight limits leave few requests to every good model."""
    assert ranking.serving is not None
    batched = ranking.serving.batch >= LEAST_BATCH
    least = excess[batched].min(initial=np.inf)
    good = np.isfinite(least) and least <= max(most, float(excess.min()) + FEW_BEHIND)
    return np.asarray(batched if good else np.ones_like(batched))


def _scores(excess: Array, balance: Array, usable: Array, most: float, steep: float) -> Array:
    """The balance (n,), `steep` times the excess beyond `most` added. In the order of loss, later by `OUTSIDE`, is what
    lies far beyond it, and later by twice that what is not `usable`."""
    beyond = np.maximum(excess - most, 0.0)
    with np.errstate(invalid="ignore"):
        score = np.where(beyond > 0, balance + steep * beyond, balance)
    later = OUTSIDE * np.where(usable, 1, 2) + np.minimum(excess, OUTSIDE / 2)
    return np.where(usable & (score < OUTSIDE / 4), score, later)


def with_granularity(ranking: Ranking, least: float) -> Array:
    """log(C/C') of the ensemble, plus what laws of granularity find each design's experts behind (n,).

    Serving prefers few and wide experts, whose loss most members do not see: without these laws the price decides.
    Designs behind `least`, or the best there is, by more than `FAR` are left as they are. Experts that no such law
    covers count as `UNCOVERED`.
    """
    excess = ranking.log_excess.copy()
    near = np.flatnonzero(excess <= max(float(excess.min()), least) + FAR)
    found = granularity_excess(ranking.feasible.take(near).design)
    excess[near] += mean_excess(list(found.values()), UNCOVERED)
    return excess


def excess_of(
    feasible: FeasibleSet, budget: Budget, predictors: Sequence[Predictor], reference: Reference
) -> float | None:
    """The excess of compute of one design over a reference, with what laws of granularity add, as a logarithm; None
    where too few members of its ensemble cover it."""
    try:
        ranking = rank(feasible, budget, predictors, reference=reference)
    except InputError:
        return None
    excess = float(with_granularity(ranking, reference.least)[0]) - reference.least_with_granularity
    return excess if excess < OUTSIDE else None


def unresolved(ranking: Ranking) -> tuple[float, str]:
    """The excess compute below which no design is known to be behind, at most 50 %, and what gives it: `laws`, the
    largest that they disagree by; `times`, the paired error of the predicted training time; or `least`, 10 %."""
    timing = float(-np.expm1(-ranking.paired.training))
    laws = disagreement(ranking)
    source = "times" if timing > laws else "laws" if laws > LEAST_WITHIN else "least"
    return min(max(laws, timing), MOST_WITHIN), source


def disagreement(ranking: Ranking) -> float:
    """The largest excess, as a share of compute, that the median over the members finds in the optimum of one of them:
    from 10 % to 50 %. Optima are of the ranked designs that the most members cover, each member's excess over its own.
    """
    means = np.array([ranking.mean(member) for member in ranking.ensemble])
    means[:, ~ranking.comparable] = np.nan
    known = [(curve, mean) for curve, mean in zip(ranking.curves, means, strict=True) if np.isfinite(mean).any()]
    optima = [int(np.nanargmin(mean)) for _, mean in known]
    apart = [curve.log_excess(mean[optima]) - curve.log_excess(np.nanmin(mean)) for curve, mean in known]
    worst = float(-np.expm1(-np.max(median_of(np.array(apart))))) if apart else 0.0
    return float(np.clip(worst, LEAST_WITHIN, MOST_WITHIN))
