"""Loss balanced against lifetime cost: the knee, where a per cent of compute is worth a per cent of the cost.

The excess of compute is log(C/C') over the least loss under compute and data alone, whatever may be served: C' is the
compute at which the laws' own optimum reaches a design's loss. The knee has the least excess + log(cost). Up to it, a
lifetime cost lower by one per cent takes less than one per cent of compute; beyond it, more. No end of the frontier
enters, so a limit that the knee meets does not move it.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.budget import Budget
from moelab.planning.coverage import median_of
from moelab.planning.feasible import training_price
from moelab.planning.granularity import granularity_excess, mean_excess
from moelab.planning.ranking import Ranking
from moelab.planning.tradeoff import Lifetime, frontier

Array = NDArray[Any]

LEAST_WITHIN = 0.10
"""Excess compute that is allowed, unless laws or predicted training times are further apart."""

MOST_WITHIN = 0.5
"""Largest excess compute that these alone admit."""

LEAST_BATCH = 8
"""Requests in flight below which no deployment runs; a choice there would only show the edge of memory."""

OUTSIDE = 1e3
"""Added to the score of designs far beyond the excess allowed, or served at fewer requests: they are ranked last."""

UNCOVERED = 3.0
"""Excess log compute of experts that no law of granularity covers: more than these laws find up to 1e25 FLOPs."""

STEEP = 10.0
"""Per cent of the lifetime cost that every per cent of compute must save beyond the excess that laws allow. Where the
budget states the excess, nothing beyond it is chosen."""

FAR = 1.5
"""Excess log compute from which on a design is no candidate, so that laws of granularity are not asked."""

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


def balanced(ranking: Ranking, reference: Ranking, budget: Budget, within: float | None = None) -> Ranking:
    """The ranking by loss ordered anew, by the excess of compute and the log of the lifetime cost.

    Args:
        ranking: The designs within all limits, with the curves of `reference`.
        reference: The designs under compute and data alone, ranked by loss.
        budget: With serving and the tokens to serve.
        within: The excess that laws allow, as a share, where the budget states none; None: from `reference`.
    """
    assert ranking.serving is not None
    assert budget.serving is not None
    assert budget.serving.tokens is not None
    train = training_price(ranking.feasible.lattice, ranking.feasible.train_flops, budget)
    price = np.nan_to_num(ranking.serving.cost_per_million_tokens, nan=np.inf)
    serve = price * (budget.serving.tokens / 1e6)
    cost = train + serve
    excess = with_granularity(ranking, reference) - float(with_granularity(reference, reference).min())
    ranked = np.where(ranking.comparable, excess, np.inf)
    stated = budget.within
    within = stated or within or unresolved(reference)
    steep = np.inf if stated else STEEP
    score, decides = _scores(ranking, ranked, np.log(cost), float(-np.log1p(-within)), steep)
    front = frontier(ranked, cost)
    knee = int(front[np.argmin(score[front])])
    lifetime = Lifetime(train, serve, within, decides, front, knee, ranking.log_excess)
    score = np.where(np.isfinite(cost) & np.isfinite(ranking.score), score, np.inf)
    return replace(ranking, score=score, loss_score=excess, lifetime=lifetime)


def _scores(ranking: Ranking, excess: Array, cost: Array, allowed: float, steep: float) -> tuple[Array, bool]:
    """Excess of compute plus log cost (n,), and whether the excess allowed changes the least.

    In the order of loss, later by `OUTSIDE`, is what lies beyond the excess allowed (or the least there is), and later
    by twice that what is served at fewer requests than any deployment.
    """
    assert ranking.serving is not None
    batched = ranking.serving.batch >= LEAST_BATCH
    usable = batched if (batched & np.isfinite(excess)).any() else np.ones_like(batched)
    beyond = np.maximum(excess - max(allowed, float(excess[usable].min())), 0.0)
    plain = np.where(usable, excess + cost, np.inf)
    with np.errstate(invalid="ignore"):
        score = np.where(beyond > 0, plain + steep * beyond, plain)
    decides = bool(np.argmin(score) != np.argmin(plain))
    later = OUTSIDE * np.where(usable, 1, 2) + np.minimum(excess, OUTSIDE / 2)
    return np.where(usable & (score < OUTSIDE / 4), score, later), decides


def with_granularity(ranking: Ranking, reference: Ranking) -> Array:
    """log(C/C') of the ensemble, plus what laws of granularity find each design's experts behind (n,).

    Serving prefers few and wide experts, whose loss most members do not see: without these laws the price decides.
    Designs behind by more than `FAR` are left as they are. Experts that no such law covers count as `UNCOVERED`.
    """
    excess = ranking.log_excess.copy()
    near = np.flatnonzero(excess <= max(float(excess.min()), float(reference.log_excess.min())) + FAR)
    found = granularity_excess(ranking.feasible.take(near).design)
    excess[near] += mean_excess(list(found.values()), UNCOVERED)
    return excess


def unresolved(ranking: Ranking) -> float:
    """The excess compute below which no design is known to be behind: 10 %, what the laws disagree by, or the paired
    error of the predicted training time, whichever is largest; at most 50 %."""
    timing = float(-np.expm1(-ranking.paired.training))
    return min(max(disagreement(ranking), timing), MOST_WITHIN)


def disagreement(ranking: Ranking) -> float:
    """How far behind its median over the ensemble's members puts the optimum of some member, as a share of compute: from
    10 % to 50 %. Optima are of the ranked designs that the most members cover, and each member's excess over its own."""
    means = np.array([ranking.mean(member) for member in ranking.ensemble])
    means[:, ~ranking.comparable] = np.nan
    known = [(curve, mean) for curve, mean in zip(ranking.curves, means, strict=True) if np.isfinite(mean).any()]
    optima = [int(np.nanargmin(mean)) for _, mean in known]
    apart = [curve.log_excess(mean[optima]) - curve.log_excess(np.nanmin(mean)) for curve, mean in known]
    worst = float(-np.expm1(-np.max(median_of(np.array(apart))))) if apart else 0.0
    return float(np.clip(worst, LEAST_WITHIN, MOST_WITHIN))
