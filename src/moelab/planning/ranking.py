"""Ranks the designs that fit a budget, by a fitted ensemble's loss or by each law's distance from its own optimum.

Losses of laws fitted to different text and tokenizers are not comparable; compute is. C' is the compute at which a
law's own optimum (under the same limits) reaches the loss that the law predicts for a design. The excess log(C/C') is
0 at that law's optimum. Designs are ranked by the median excess over the members of the ensemble.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.budget import Budget
from moelab.planning.coverage import Coverage, median_of
from moelab.planning.curve import Curve, curve_of
from moelab.planning.ensemble import Member, choose_ensemble
from moelab.planning.feasible import FeasibleSet
from moelab.planning.law_results import LawResult, evaluate_laws
from moelab.planning.paired import EXACT, PairedErrors, unknown_share
from moelab.planning.predictors import Predictor
from moelab.planning.reference import Reference
from moelab.planning.tradeoff import Lifetime
from moelab.planning.training_rate import utilisation
from moelab.serving import ServingCost

Array = NDArray[Any]

KEPT = 40_000
"""Best designs that are sorted; of the rest it only matters that they are worse."""


@dataclass(frozen=True)
class Ranking:
    """The feasible designs with every law's result. `score` (n,) is lower for better designs, infinite if unranked.

    `inputs` holds, by name, the variables of the ensemble's laws for each design. Where a cost is minimised, `cost` is
    the score in dollars and `target` the loss to reach. Where loss is weighed against `lifetime` cost, `loss_score` is
    log(C/C') over the least loss under compute and data alone, and the score adds the log of that cost. Where the
    budget buys each design its own FLOPs, `slower` is the log of the best utilisation `top_share` over each design's;
    what of it lies within the `paired` error counts as a tie.
    """

    feasible: FeasibleSet
    law_results: dict[str, LawResult]
    inputs: dict[str, Array]
    predictors: tuple[Predictor, ...]
    ensemble: tuple[Member, ...]
    curves: tuple[Curve, ...]
    score: Array
    serving: ServingCost | None = None
    cost: Array | None = None
    target: float | None = None
    coverage: Coverage | None = None
    loss_score: Array | None = None
    slower: Array | None = None
    top_share: float | None = None
    paired: PairedErrors = EXACT
    lifetime: Lifetime | None = None

    @cached_property
    def order(self) -> Array:
        """Positions of the best ranked designs, best first (at most `KEPT`)."""
        kept = np.arange(len(self.score))
        if len(kept) > KEPT:
            kept = np.sort(np.argpartition(self.score, KEPT)[:KEPT])
        order = kept[np.argsort(self.score[kept], kind="stable")]
        return np.asarray(order[np.isfinite(self.score[order])])

    @cached_property
    def by_first_input(self) -> tuple[Array, Array]:
        """`order` sorted by the first of `criteria`, and the sorted values."""
        values = self.criteria[0][self.order]
        ascending = np.argsort(values)
        return self.order[ascending], values[ascending]

    @property
    def ensemble_laws(self) -> list[Predictor]:
        """The predictors of all members."""
        return [predictor for member in self.ensemble for predictor in member.predictors]

    @cached_property
    def criteria(self) -> list[Array]:
        """The ensemble's inputs, and the cost where it is minimised (each (n,)), on scales where ratios matter."""
        columns = [1 / (1 - column) if name == "sparsity" else column for name, column in self.inputs.items()]
        cost = self.dollars
        return columns if cost is None else [*columns, cost]

    @property
    def dollars(self) -> Array | None:
        """The cost that is minimised or weighed against the loss (n,); None where loss alone decides."""
        return self.cost if self.lifetime is None else self.lifetime.cost

    @property
    def depends_on_granularity(self) -> bool:
        """Whether the prediction of some law of the ensemble depends on granularity."""
        return any(predictor.depends_on_granularity for predictor in self.ensemble_laws)

    @cached_property
    def covered_by(self) -> Array:
        """How many members cover each design (n,)."""
        return np.asarray(sum(np.isfinite(self.mean(member)).astype(int) for member in self.ensemble))

    @cached_property
    def comparable(self) -> Array:
        """Ranked designs (n,) that as many members cover as any design of their kind, dense or MoE."""
        if self.coverage is None:
            return np.isfinite(self.score)
        return np.asarray(
            np.isfinite(self.score) & (self.covered_by >= self.coverage.most(self.feasible.lattice.is_moe))
        )

    @cached_property
    def best(self) -> int:
        """The recommended design."""
        return int(np.argmin(self.score))

    def best_of(self, mask: Array) -> int | None:
        """The best ranked design among those of the mask."""
        where = np.flatnonzero(mask & np.isfinite(self.score))
        return int(where[np.argmin(self.score[where])]) if len(where) else None

    def mean(self, member: Member, index: Any = slice(None)) -> Array:
        """A member's loss for designs `index`."""
        losses = {predictor.id: self.law_results[predictor.id].losses for predictor in member.predictors}
        return member.mean({name: column[index] for name, column in losses.items() if column is not None})

    def behind(self, index: Any, best: int) -> Array:
        """How far designs `index` are behind `best`, as a share of compute, or of the cost where it is minimised; not
        below 0 for those ahead of it."""
        if self.cost is not None:
            return np.asarray(np.maximum(1 - self.cost[best] / self.cost[index], 0))
        ahead = self.log_excess[best]
        return np.asarray(-np.expm1(np.minimum(ahead - self.log_excess[index], 0)))

    @cached_property
    def log_excess(self) -> Array:
        """log(C/C') of every design (n,), as the order of the ensemble has it; infinite where unranked."""
        if self.loss_score is not None:
            return self.loss_score
        if len(self.ensemble) > 1 or (self.slower is not None and self.cost is None):
            return self.score
        excess = self.curves[0].log_excess(self.mean(self.ensemble[0]))
        return np.where(np.isnan(excess), np.inf, excess)

    def excess(self, index: Any) -> Array:
        """Excess compute of each design over the optimum, as a share: 1 - C'/C by the median over the ensemble. Where a
        cost is minimised, the excess cost. Where designs train at their own utilisation, or loss is weighed against
        cost, it is what the order is made of: `log_excess`."""
        if self.cost is not None:
            return np.asarray(1 - self.score[self.best] / self.cost[index])
        if self.lifetime is not None or self.slower is not None:
            least = 0.0 if self.lifetime is not None else float(self.log_excess.min())
            return np.asarray(-np.expm1(-np.maximum(self.log_excess[index] - least, 0)))
        parts = zip(self.curves, self.ensemble, strict=True)
        excess = np.array([curve.log_excess(self.mean(member, index)) for curve, member in parts])
        return np.asarray(-np.expm1(-np.maximum(median_of(excess), 0)))


def rank(
    feasible: FeasibleSet,
    budget: Budget,
    predictors: Sequence[Predictor],
    serving: ServingCost | None = None,
    reference: Reference | None = None,
) -> Ranking:
    """Every law's loss for every design, and one order. Raises InputError where no law applies to any of them.

    With a `reference`, the excess is over its optima, and its ensemble, coverage and best utilisation hold.
    """
    ensemble = choose_ensemble(predictors, feasible) if reference is None else reference.ensemble
    law_results, inputs = evaluate_laws(feasible, predictors, ensemble)
    losses = {name: result.losses for name, result in law_results.items() if result.losses is not None}
    means = [member.mean(losses) for member in ensemble]
    if reference is None:
        curves = tuple(curve_of(member, mean, feasible, budget) for member, mean in zip(ensemble, means, strict=True))
    else:
        curves = reference.curves
    paired, slower, top_share = PairedErrors.of(budget), None, None
    if budget.flops is None and np.ndim(share := utilisation(feasible.lattice, budget)):
        top_share = float(np.max(share)) if reference is None else reference.top_share
        slower = np.log(top_share / np.maximum(share, 1e-300))
    coverage = None
    if len(ensemble) == 1:
        score = means[0] if slower is None else curves[0].log_excess(means[0])
        score = np.where(np.isnan(score), np.inf, score)
    else:
        excess = np.array([curve.log_excess(mean) for curve, mean in zip(curves, means, strict=True)])
        coverage = Coverage.of(excess, feasible.lattice.is_moe) if reference is None else reference.coverage
        assert coverage is not None
        score = coverage.score(excess, feasible.lattice.is_moe)
    if slower is not None:
        score = score - unknown_share(slower, paired.training)
    if not np.isfinite(score).any():
        raise InputError("law: no design that fits is covered by enough of these laws; give one of them alone")
    return Ranking(
        feasible,
        law_results,
        inputs,
        tuple(predictors),
        ensemble,
        curves,
        score,
        serving,
        coverage=coverage,
        slower=slower,
        top_share=top_share,
        paired=paired,
    )


def rank_ensemble(feasible: FeasibleSet, budget: Budget, predictors: Sequence[Predictor]) -> Ranking:
    """As `rank`, without the laws that are in no member of the ensemble."""
    members = choose_ensemble(predictors, feasible)
    return rank(feasible, budget, [predictor for member in members for predictor in member.predictors])


def score_designs(ranking: Ranking, feasible: FeasibleSet, budget: Budget) -> tuple[Array | None, Array]:
    """Other designs under the same ensemble and curves: losses (n,) where it has one member, and log(C/C') (n,), in
    which utilisation within the paired error is a tie.

    The logarithm is negative for designs better than the optimum under the ranking's limits, infinite where too few
    members cover a design.
    """
    means = [member.loss(feasible.design) for member in ranking.ensemble]
    excess = np.array([curve.log_excess(mean) for curve, mean in zip(ranking.curves, means, strict=True)])
    tied: Any = 0.0
    if ranking.top_share is not None:
        share = np.maximum(utilisation(feasible.lattice, budget), 1e-300)
        tied = unknown_share(np.maximum(np.log(ranking.top_share / share), 0.0), ranking.paired.training)
    if len(means) == 1:
        return means[0], np.where(np.isnan(excess[0]), np.inf, excess[0]) - tied
    assert ranking.coverage is not None
    return None, ranking.coverage.score(excess, feasible.lattice.is_moe) - tied
