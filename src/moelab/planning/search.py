"""The search: designs within every limit, those of serving included, ranked by loss or by cost.

Yun et al.'s two algorithms (arXiv 2404.02852) are settings of it. The least price at bounded loss is the objective
serving-cost with `target_experts`; the least loss at bounded price is the objective loss with `price_like_experts`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.balance import balanced, reference_of
from moelab.planning.budget import Budget, Serving
from moelab.planning.counted import CountedDesign
from moelab.planning.ensemble import Member
from moelab.planning.feasible import FeasibleSet, fit_budget, training_price
from moelab.planning.lattice import Lattice
from moelab.planning.law_results import evaluate_laws
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking, rank
from moelab.planning.reference import Reference
from moelab.planning.served import served_lattice
from moelab.quantities import format_number
from moelab.serving import ServingCost, serve_one

Array = NDArray[Any]

SHORTEST = 1e-4
"""Least share of the budget's tokens to which the bisection shortens a training run."""

HALVINGS = 18
"""Steps of that bisection."""


def search(
    lattice: Lattice, budget: Budget, predictors: Sequence[Predictor], reference: Reference | None = None
) -> Ranking:
    """All designs that fit, ranked. Raises InputError naming the limit that excludes them all.

    Where loss is balanced against cost, excess compute is over the `reference`; None: that of the lattice.
    """
    feasible = fit_budget(lattice, budget)
    feasible, serving = served(feasible, budget)
    if budget.objective == "balance" and reference is None:
        reference = reference_of(lattice, budget, predictors)
    ranking = rank(feasible, budget, predictors, serving, reference)
    if budget.serving is not None and budget.serving.price_like_experts is not None:
        ranking = _bounded_price(ranking, budget, budget.serving.price_like_experts, predictors, reference)
    if reference is not None:
        return balanced(ranking, reference, budget)
    return ranking if budget.objective == "loss" else by_cost(ranking, budget)


def served(feasible: FeasibleSet, budget: Budget) -> tuple[FeasibleSet, ServingCost | None]:
    """The designs that can be served within the limits, with the cost of serving; None without serving."""
    wanted = budget.serving
    if wanted is None:
        return feasible, None
    cost = served_lattice(feasible.lattice, wanted)
    fits = cost.feasible
    if not fits.any():
        raise InputError(f"serving: no design that fits the other limits can be served; {_slowest(feasible, wanted)}")
    if wanted.max_price is not None:
        affordable = fits & (np.nan_to_num(cost.cost_per_million_tokens, nan=np.inf) <= wanted.max_price)
        if not affordable.any():
            least = float(np.nanmin(cost.cost_per_million_tokens))
            raise InputError(
                f"max_price ${wanted.max_price:g} per million tokens: no design that fits is served at this price; "
                f"the nearest feasible value is ${least * 1.0005:.4g} per million tokens"
            )
        fits = affordable
    index = np.flatnonzero(fits)
    return (feasible, cost) if fits.all() else (feasible.take(index), cost.take(index))


def _slowest(feasible: FeasibleSet, wanted: Serving) -> str:
    """The reason for which the smallest design cannot be served."""
    smallest = int(np.argmin(feasible.lattice.params_total))
    try:
        serve_one(feasible.lattice.config(smallest), wanted.traffic, wanted.device, wanted.price)
    except InputError as error:
        return f"the smallest: {error}"
    return "give more devices"


def single_member(ranking: Ranking, field: str) -> Member:
    """The ensemble's only member. Raises InputError naming `field` where several have losses that do not compare."""
    if len(ranking.ensemble) > 1:
        names = ", ".join(predictor.id for predictor in ranking.ensemble_laws)
        raise InputError(f"{field}: losses of laws fitted to different runs are not comparable; give one of {names}")
    return ranking.ensemble[0]


def _best_with(ranking: Ranking, n_experts: int, field: str) -> int:
    """The best design with this many experts (1: dense). Raises InputError naming `field` where there is none."""
    experts = np.maximum(ranking.feasible.lattice.n_experts, 1)
    best = ranking.best_of(experts == n_experts)
    if best is None:
        known = ", ".join(str(k) for k in np.unique(experts[np.isfinite(ranking.score)]))
        raise InputError(f"{field}: no ranked design has {n_experts} experts; those with: {known}")
    return best


def _bounded_price(
    ranking: Ranking, budget: Budget, n_experts: int, predictors: Sequence[Predictor], reference: Reference | None
) -> Ranking:
    """Least loss at bounded price: designs served at most at the price of the best one with `n_experts`."""
    assert ranking.serving is not None
    price = ranking.serving.cost_per_million_tokens
    index = np.flatnonzero(price <= price[_best_with(ranking, n_experts, "price_like_experts")])
    return rank(ranking.feasible.take(index), budget, predictors, ranking.serving.take(index), reference)


def by_cost(ranking: Ranking, budget: Budget, target: float | None = None) -> Ranking:
    """Least cost at bounded loss. Raises InputError with the lowest loss where no design reaches the target."""
    member = single_member(ranking, "target_loss")
    if target is None:
        target = budget.target_loss
    if target is None:
        assert budget.target_experts is not None
        target = float(ranking.mean(member)[_best_with(ranking, budget.target_experts, "target_experts")])
    feasible, cost = costs(member, ranking.feasible, ranking.serving, budget, target)
    if not np.isfinite(cost).any():
        best = float(np.nanmin(ranking.mean(member)))
        raise InputError(
            f"target_loss {format_number(target, 4)}: no design reaches it; the nearest feasible value is "
            f"{best * 1.00005:.4f}"
        )
    if feasible is not ranking.feasible:
        law_results, inputs = evaluate_laws(feasible, ranking.predictors, ranking.ensemble)
        ranking = replace(ranking, feasible=feasible, law_results=law_results, inputs=inputs)
    return replace(ranking, score=cost, cost=cost, target=target)


def costs(
    member: Member, feasible: FeasibleSet, serving: ServingCost | None, budget: Budget, target: float
) -> tuple[FeasibleSet, Array]:
    """Dollars per million tokens served, or over the lifetime (n,); infinite where the loss stays above `target`.

    For the lifetime cost, each design trains only until it reaches the target.
    """
    assert serving is not None
    loss = member.loss(feasible.design)
    reaches = loss <= target
    if budget.objective == "serving-cost":
        return feasible, np.where(reaches, serving.cost_per_million_tokens, np.inf)
    assert budget.serving is not None
    assert budget.serving.tokens is not None
    index = np.flatnonzero(reaches)
    tokens = feasible.tokens.copy()
    tokens[index] = shortest_training(member, feasible.take(index), budget, target)
    feasible = feasible.with_tokens(tokens, budget)
    train = training_price(feasible.lattice, feasible.train_flops, budget)
    total = train + serving.cost_per_million_tokens * (budget.serving.tokens / 1e6)
    return feasible, np.where(reaches, total, np.inf)


def shortest_training(member: Member, feasible: FeasibleSet, budget: Budget, target: float) -> Array:
    """The fewest tokens (n,) that reach `target`, by bisection. Every design must reach it with its `tokens`."""
    if not len(feasible):
        return feasible.tokens
    seq_len = feasible.lattice.space.seq_len
    high = np.log(feasible.tokens)
    low = np.maximum(high + np.log(SHORTEST), np.log(seq_len))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tokens = np.exp(middle)
        unique = tokens if budget.unique_tokens is None else np.minimum(tokens, budget.unique_tokens)
        ok = member.loss(CountedDesign(feasible.lattice, tokens, unique)) <= target
        low, high = np.where(ok, low, middle), np.where(ok, middle, high)
    return np.asarray(np.exp(high))
