"""Binding limits, and the gain from ten per cent more of each limit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.balance import balanced, reference_budget
from moelab.planning.budget import Budget
from moelab.planning.feasible import FeasibleSet, affordable_tokens, fit_budget, fits
from moelab.planning.lattice import Lattice
from moelab.planning.limits import LIMITS, wider
from moelab.planning.ranking import Ranking, rank, score_designs
from moelab.planning.search import costs, served
from moelab.planning.space import Space
from moelab.serving import ServingCost

Array = NDArray[Any]
FACTOR = 1.1
"""Factor by which each limit is raised."""
NOTICEABLE = 1e-4
"""Least gain of a limit that binds; smaller ones are rounding."""

MOST_GAIN = 9.0
"""Largest gain that is reported, ten times the compute: beyond it the limit excluded nearly all good designs."""

BEST = 20_000
"""Best ranked designs that are evaluated again under the raised limit."""


def sensitivities(ranking: Ranking, lattice: Lattice, budget: Budget) -> dict[str, dict[str, Any]]:
    """For every limit that is set, the gain from ten per cent more of it.

    `gain_compute` is a share of compute: 0.02 means that the raised limit is worth 2 % more compute under the budget's
    limits; where loss is balanced against lifetime cost, as much compute at the same cost, and `gain_balance` is the
    share of the lifetime cost that counts as much there: what improves may be the cost, the loss or both. `gain_loss`
    is null on a balance, and where the ensemble has several members, whose losses do not compare. Where a cost is
    minimised there is `gain_cost`, a share of it, instead.
    """
    gains: dict[str, dict[str, Any]] = {}
    for name in _limits(budget):
        raised = wider(budget, name, FACTOR)
        try:
            feasible = _affected(ranking, lattice, budget, raised, name)
            gains[name] = {"factor": FACTOR, **_gain(ranking, feasible, budget, raised)}
        except InputError:
            continue
    return gains


def _limits(budget: Budget) -> list[str]:
    """Limits that are set."""
    named = [name for name, field in LIMITS.items() if name != "compute" and getattr(budget, field) is not None]
    wanted = budget.serving
    limited = wanted is not None and any((wanted.max_price, wanted.traffic.tpot, wanted.traffic.ttft))
    memory = ["serving_memory"] if wanted is not None else []
    return ["compute", *named, *memory, *(["serving"] if limited else [])]


def _gain(ranking: Ranking, feasible: FeasibleSet, budget: Budget, raised: Budget) -> dict[str, float | None]:
    """The gain of the best of these designs over the recommended one."""
    feasible, serving = served(feasible, raised)
    if ranking.cost is not None:
        assert ranking.target is not None
        _, cost = costs(ranking.ensemble[0], feasible, serving, raised, ranking.target)
        return {"gain_cost": max(0.0, float(1 - np.min(cost) / ranking.score[ranking.best]))}
    if ranking.lifetime is not None and serving is not None and _same_reference(budget, raised):
        gain = _gain_of_balance(ranking, feasible, serving, raised)
        weighed = {"gain_balance": gain / (1 + gain)} if ranking.lifetime.attainable else {}
        return {"gain_loss": None, "gain_compute": gain, **weighed}
    loss, excess = score_designs(ranking, feasible, raised)
    own = ranking.log_excess if ranking.lifetime is None else ranking.lifetime.ensemble_excess
    ranked = ranking.order[:BEST]  # those of `feasible`: on a balance the least loss of all may be far from them
    least = int(ranked[np.argmin(own[ranked])])
    now_loss, now = score_designs(ranking, ranking.feasible.take(np.array([least])), budget)
    gain = float(np.expm1(min(max(0.0, float(now[0] - np.min(excess))), np.log1p(MOST_GAIN))))
    if loss is None or now_loss is None:
        return {"gain_loss": None, "gain_compute": gain}
    return {"gain_loss": max(0.0, float(now_loss[0] - np.nanmin(loss))), "gain_compute": gain}


def _gain_of_balance(ranking: Ranking, feasible: FeasibleSet, serving: ServingCost, raised: Budget) -> float:
    """What the balance gains, as a share of compute; where no design was within the excess allowed, what that gains."""
    lifetime = ranking.lifetime
    assert lifetime is not None
    found = balanced(
        rank(feasible, raised, ranking.ensemble_laws, serving, lifetime.reference), lifetime.reference, raised
    )
    saved = float(ranking.score[ranking.best] - found.score[found.best])
    if not lifetime.attainable:
        saved = float(ranking.log_excess[ranking.best] - found.log_excess[found.best])
    return float(np.expm1(np.clip(saved, 0.0, np.log1p(MOST_GAIN))))


def _same_reference(budget: Budget, raised: Budget) -> bool:
    """Whether the raised budget has the compute and data of the other, so that excess compute is over the same loss."""
    return reference_budget(budget) == reference_budget(raised)


def binding(ranking: Ranking, gains: dict[str, dict[str, Any]]) -> list[str]:
    """What binds: limits of the budget that have a gain, ends of the space's axes, and laws' fitted ranges."""
    names = [name for name, gain in gains.items() if gain.get("gain_cost", gain.get("gain_compute", 0)) > NOTICEABLE]
    if ranking.lifetime is not None and ranking.lifetime.decides:
        names.append("within")
    return names + _space_ends(ranking) + _law_ranges(ranking)


def _affected(ranking: Ranking, lattice: Lattice, budget: Budget, raised: Budget, name: str) -> FeasibleSet:
    """The best ranked designs under the raised limit, and all those that only it admits."""
    best = fit_budget(ranking.feasible.lattice.take(ranking.order[:BEST]), raised)
    if name in ("compute", "data", "tokens", "most_tokens_per_active"):
        return best
    if name in ("serving", "serving_memory"):
        return fit_budget(lattice.take(_sample(ranking, lattice, budget)), raised)
    new = fits(lattice, raised, affordable_tokens(lattice, raised))
    new &= ~fits(lattice, budget, affordable_tokens(lattice, budget))
    return best.join(fit_budget(lattice.take(np.flatnonzero(new)), raised)) if new.any() else best


def _sample(ranking: Ranking, lattice: Lattice, budget: Budget) -> Array:
    """Positions in the lattice that raised serving limits may admit: an even sample of active sizes near the best's,
    and the best ranked designs, whose cost falls."""
    best = int(np.argmin(ranking.log_excess)) if ranking.lifetime is None else ranking.best
    near = np.abs(np.log(lattice.params_active / ranking.feasible.lattice.params_active[best])) < 0.5
    index = np.flatnonzero(near & fits(lattice, budget, affordable_tokens(lattice, budget)))
    ranked = ranking.feasible.lattice.positions(ranking.order[: BEST // 4])
    return np.union1d(index[:: max(1, len(index) // BEST)], ranked)


def _space_ends(ranking: Ranking) -> list[str]:
    """`space_ends` of the best design."""
    shape = ranking.feasible.lattice.take([ranking.best]).shape.take(0)
    sizes = (int(size) for size in (shape.d_model, shape.n_layers, shape.n_experts))
    return space_ends(ranking.feasible.lattice.space, *sizes)


def space_ends(space: Space, d_model: int, n_layers: int, n_experts: int) -> list[str]:
    """Axes of the space, of more than one value, at whose end a design lies; `n_experts` is 0 for a dense one."""
    ends = []
    for name, value in (("d_model", d_model), ("n_layers", n_layers), ("n_experts", n_experts)):
        axis = getattr(space, name)
        if len(axis) > 1 and value and (value == axis[-1] or (value == axis[0] and name != "n_experts")):
            ends.append(f"space.{name}")
    aspect = d_model / n_layers
    if space.aspect[0] < space.aspect[1] and not space.aspect[0] * 1.02 < aspect < space.aspect[1] / 1.02:
        ends.append("space.aspect")
    return ends


def _law_ranges(ranking: Ranking) -> list[str]:
    """Laws of the ensemble with a better design outside their fitted range or window of tokens."""
    if ranking.cost is not None:
        return []
    results = {law.id: ranking.law_results[law.id] for law in ranking.ensemble_laws}
    return [f"range.{name}" for name, result in results.items() if result.outside < result.loss]
