"""Which limits decide, and what ten per cent more of each would buy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.budget import LIMITS, Budget
from moelab.planning.feasible import FeasibleSet, affordable_tokens, fit_budget, fits
from moelab.planning.lattice import Lattice
from moelab.planning.ranking import Ranking, score_of
from moelab.planning.search import costs, served

Array = NDArray[Any]
RELAX = 1.1
NOTICEABLE = 1e-4
"""A gain below one part in ten thousand is rounding, not a constraint that binds."""

BEST = 20_000


def sensitivities(ranking: Ranking, lattice: Lattice, budget: Budget) -> dict[str, dict[str, Any]]:
    """For every limit that is set, what ten per cent more of it buys.

    `gain_compute` is the saving in compute: .02 means the relaxed limit is worth 2 % more compute under the old ones.
    `gain_loss` is null where laws fitted to different runs vote. Where money is the objective: `gain_cost`, a share.
    """
    gains: dict[str, dict[str, Any]] = {}
    for name in _limits(budget):
        easier = budget.scaled(name, 1 / RELAX if name == "tokens_per_active" else RELAX)
        try:
            feasible = _touched(ranking, lattice, budget, easier, name)
            gains[name] = {"factor": RELAX, **_gain(ranking, feasible, easier)}
        except InputError:
            continue
    return gains


def _limits(budget: Budget) -> list[str]:
    """Limits that are set."""
    named = [name for name, field in LIMITS.items() if name != "compute" and getattr(budget, field) is not None]
    wanted = budget.serving
    limited = wanted is not None and any((wanted.max_price, wanted.traffic.tpot, wanted.traffic.ttft))
    return ["compute", *named, *(["serving"] if limited else [])]


def _gain(ranking: Ranking, feasible: FeasibleSet, easier: Budget) -> dict[str, float | None]:
    feasible, serving = served(feasible, easier)
    if ranking.cost is not None:
        assert ranking.target is not None
        _, cost = costs(ranking.ensemble[0], feasible, serving, easier, ranking.target)
        return {"gain_cost": max(0.0, float(1 - np.min(cost) / ranking.score[ranking.best]))}
    loss, lost = score_of(ranking, feasible)
    _, now = score_of(ranking, ranking.feasible.take(np.array([ranking.best])))
    gain = max(0.0, float(np.expm1(now[0] - np.min(lost))))
    if loss is None:
        return {"gain_loss": None, "gain_compute": gain}
    return {"gain_loss": max(0.0, float(ranking.score[ranking.best] - np.nanmin(loss))), "gain_compute": gain}


def binding(ranking: Ranking, gains: dict[str, dict[str, Any]]) -> list[str]:
    """Limits that decide: of the budget where relaxing helps, ends of the space's axes, laws' fitted ranges."""
    names = [name for name, gain in gains.items() if gain.get("gain_cost", gain.get("gain_compute", 0)) > NOTICEABLE]
    return names + _space_ends(ranking) + _law_ranges(ranking)


def _touched(ranking: Ranking, lattice: Lattice, budget: Budget, easier: Budget, name: str) -> FeasibleSet:
    """The best designs so far under the easier budget, and all those that only it admits."""
    best = fit_budget(ranking.feasible.lattice.take(ranking.order[:BEST]), easier)
    if name in ("compute", "data", "tokens"):
        return best
    if name == "serving":
        return fit_budget(lattice.take(_sample(ranking, lattice, budget)), easier)
    new = fits(lattice, easier, affordable_tokens(lattice, easier))
    new &= ~fits(lattice, budget, affordable_tokens(lattice, budget))
    return best.join(fit_budget(lattice.take(np.flatnonzero(new)), easier)) if new.any() else best


def _sample(ranking: Ranking, lattice: Lattice, budget: Budget) -> Array:
    """Positions in the lattice that relaxed serving limits may admit: active sizes near the best's."""
    near = np.abs(np.log(lattice.params_active / ranking.feasible.lattice.params_active[ranking.best])) < 0.5
    index = np.flatnonzero(near & fits(lattice, budget, affordable_tokens(lattice, budget)))
    return index[:: max(1, len(index) // (5 * BEST))]


def _space_ends(ranking: Ranking) -> list[str]:
    """Axes of the space on whose end the best design lies, where the axis has more than one value."""
    space, best = ranking.feasible.lattice.space, ranking.best
    shape = ranking.feasible.lattice.take([best]).shape.take(0)
    ends = []
    for name in ("d_model", "n_layers", "n_experts"):
        axis, value = getattr(space, name), int(getattr(shape, name))
        if len(axis) > 1 and value and (value == axis[-1] or (value == axis[0] and name != "n_experts")):
            ends.append(f"space.{name}")
    aspect = shape.d_model / shape.n_layers
    if space.aspect[0] < space.aspect[1] and not space.aspect[0] * 1.02 < aspect < space.aspect[1] / 1.02:
        ends.append("space.aspect")
    return ends


def _law_ranges(ranking: Ranking) -> list[str]:
    """Voting laws that would prefer a design outside their fitted range or window of tokens."""
    if ranking.cost is not None:
        return []
    voting = [predictor.id for member in ranking.ensemble for predictor in member.predictors]
    return [f"range.{name}" for name in voting if ranking.law_results[name].outside < ranking.law_results[name].loss]
