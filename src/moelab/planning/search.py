"""The one optimisation: designs that fit every limit, served within theirs, ranked by loss or by money.

Yun et al.'s two algorithms (arXiv 2404.02852) are settings of it: the least price at bounded loss is the objective
serving-cost with `target_experts`, the least loss at bounded price the objective loss with `price_like_experts`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.laws.design import Design
from moelab.planning.budget import Budget, Serving
from moelab.planning.feasible import Field, fit_budget
from moelab.planning.jury import Juror
from moelab.planning.lattice import Lattice
from moelab.planning.money import training_price
from moelab.planning.ranking import Ranking, consult, rank
from moelab.planning.voices import Voice
from moelab.quantities import format_number
from moelab.serving import ServingCost, serve, serve_one

Array = NDArray[Any]

SHORTEST = 1e-4
"""A training run for a target loss is sought down to this share of the tokens the budget allows."""

HALVINGS = 18


def search(lattice: Lattice, budget: Budget, voices: Sequence[Voice]) -> Ranking:
    """All designs that fit, ranked. Raises InputError naming the limit that excludes them all."""
    field = fit_budget(lattice, budget)
    field, serving = served(field, budget)
    ranking = rank(field, budget, voices, serving)
    if budget.serving is not None and budget.serving.price_like_experts is not None:
        ranking = _no_dearer_than(ranking, budget, budget.serving.price_like_experts, voices)
    return ranking if budget.objective == "loss" else by_cost(ranking, budget)


def served(field: Field, budget: Budget) -> tuple[Field, ServingCost | None]:
    """The designs that can be served within the limits, and what that costs; None without serving."""
    wanted = budget.serving
    if wanted is None:
        return field, None
    cost = ServingCost.join(
        [
            serve(field.lattice.take(chunk).shape, wanted.traffic, wanted.device, wanted.price)
            for chunk in field.lattice.chunks()
        ]
    )
    fits = cost.feasible
    if not fits.any():
        raise InputError(f"serving: no design that fits the other limits can be served; {_slowest(field, wanted)}")
    if wanted.max_price is not None:
        cheap = fits & (np.nan_to_num(cost.cost_per_million_tokens, nan=np.inf) <= wanted.max_price)
        if not cheap.any():
            least = float(np.nanmin(cost.cost_per_million_tokens))
            raise InputError(
                f"max_price ${wanted.max_price:g} per million tokens: no design is that cheap to serve; the nearest "
                f"feasible value is {least * 1.0005:.4g}"
            )
        fits = cheap
    index = np.flatnonzero(fits)
    return (field, cost) if fits.all() else (field.take(index), cost.take(index))


def _slowest(field: Field, wanted: Serving) -> str:
    """Why not even the smallest design can be served."""
    smallest = int(np.argmin(field.lattice.params_total))
    try:
        serve_one(field.lattice.config(smallest), wanted.traffic, wanted.device, wanted.price)
    except InputError as error:
        return f"the smallest: {error}"
    return "give more devices"


def juror_of(ranking: Ranking, why: str) -> Juror:
    """The single juror. Raises InputError where several laws vote whose losses are not comparable."""
    if len(ranking.jury) > 1:
        names = ", ".join(voice.id for juror in ranking.jury for voice in juror.voices)
        raise InputError(f"{why}: losses of laws fitted to different runs are not comparable; give one of {names}")
    return ranking.jury[0]


def _best_with(ranking: Ranking, n_experts: int, field: str) -> int:
    """The best design with this many experts (1: dense)."""
    experts = np.maximum(ranking.field.lattice.n_experts, 1)
    best = ranking.best_of(experts == n_experts)
    if best is None:
        known = ", ".join(str(k) for k in np.unique(experts[np.isfinite(ranking.score)]))
        raise InputError(f"{field}: no ranked design has {n_experts} experts; those with: {known}")
    return best


def _no_dearer_than(ranking: Ranking, budget: Budget, n_experts: int, voices: Sequence[Voice]) -> Ranking:
    """Least loss at bounded price: only designs that serve at most as dear as the best one with `n_experts`."""
    assert ranking.serving is not None
    price = ranking.serving.cost_per_million_tokens
    index = np.flatnonzero(price <= price[_best_with(ranking, n_experts, "price_like_experts")])
    return rank(ranking.field.take(index), budget, voices, ranking.serving.take(index))


def by_cost(ranking: Ranking, budget: Budget, target: float | None = None) -> Ranking:
    """Least money at bounded loss. Raises InputError where no design reaches the target, with the best loss reached."""
    juror = juror_of(ranking, "target_loss")
    if target is None:
        target = budget.target_loss
    if target is None:
        assert budget.target_experts is not None
        target = float(ranking.mean(juror)[_best_with(ranking, budget.target_experts, "target_experts")])
    field, cost = costs(juror, ranking.field, ranking.serving, budget, target)
    if not np.isfinite(cost).any():
        best = float(np.nanmin(ranking.mean(juror)))
        raise InputError(
            f"target_loss {format_number(target, 4)}: no design reaches it; the nearest feasible value is "
            f"{best * 1.00005:.4f}"
        )
    if field is not ranking.field:
        opinions, inputs = consult(field, ranking.voices, ranking.jury)
        ranking = replace(ranking, field=field, opinions=opinions, inputs=inputs)
    return replace(ranking, score=cost, cost=cost, target=target)


def costs(
    juror: Juror, field: Field, serving: ServingCost | None, budget: Budget, target: float
) -> tuple[Field, Array]:
    """Dollars per million tokens served, or over the whole life (n,); infinite where the loss stays above `target`.

    For the lifetime, each design trains only until it reaches the target.
    """
    assert serving is not None
    loss = juror.loss(field.design)
    reaches = loss <= target
    if budget.objective == "serving-cost":
        return field, np.where(reaches, serving.cost_per_million_tokens, np.inf)
    assert budget.serving is not None
    assert budget.serving.tokens is not None
    index = np.flatnonzero(reaches)
    tokens = field.tokens.copy()
    tokens[index] = shortest_training(juror, field.take(index), budget, target)
    field = field.with_tokens(tokens, budget)
    train = training_price(field.lattice, field.train_flops, budget)
    total = train + serving.cost_per_million_tokens * (budget.serving.tokens / 1e6)
    return field, np.where(reaches, total, np.inf)


def shortest_training(juror: Juror, field: Field, budget: Budget, target: float) -> Array:
    """The fewest tokens (n,) that reach `target`, by bisection; every design given reaches it with its most."""
    if not len(field):
        return field.tokens
    seq_len = field.lattice.space.seq_len
    high = np.log(field.tokens)
    low = np.maximum(high + np.log(SHORTEST), np.log(seq_len))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tokens = np.exp(middle)
        unique = tokens if budget.unique_tokens is None else np.minimum(tokens, budget.unique_tokens)
        ok = juror.loss(Design.of(field.lattice.shape, tokens, seq_len, unique)) <= target
        low, high = np.where(ok, low, middle), np.where(ok, middle, high)
    return np.asarray(np.exp(high))
