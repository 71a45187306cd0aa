"""From a budget, laws and a space to the best architectures, with each law's prediction and the uncertainty."""

from collections.abc import Sequence
from typing import Any

from moelab.errors import InputError
from moelab.planning.assemble import PlanBuilder
from moelab.planning.budget import Budget
from moelab.planning.lattice import enumerate_designs
from moelab.planning.predictors import predictors_of
from moelab.planning.result import Plan
from moelab.planning.sanity import check_target
from moelab.planning.search import search
from moelab.planning.space import Space


def plan(
    budget: Budget,
    laws: Sequence[Any] | None = None,
    space: Space | None = None,
    *,
    top: int = 10,
    weights: Sequence[float] | None = None,
    extrapolate: bool = False,
) -> Plan:
    """The best designs of `space` under `budget` by `laws` (each a Law, its id, or a FittedLaw; None: all published).

    `weights` average fits to the same runs. A law does not apply outside its fitted range of experts, sparsity and
    granularity unless `extrapolate` is set. Raises InputError where no design fits, naming the limit and its nearest
    feasible value.
    """
    if not isinstance(budget, Budget):
        raise InputError(f"budget: expected a Budget such as Budget(flops=1e21), got {type(budget).__name__}")
    space = space or Space()
    check_target(budget, space.vocab_size)
    predictors = predictors_of(published_laws() if laws is None else laws, weights, extrapolate)
    lattice = enumerate_designs(space)
    ranking = search(lattice, budget, predictors)
    return PlanBuilder(budget, lattice, ranking, max(1, top)).plan()


def published_laws() -> list[Any]:
    """Every published law that predicts a loss and ships with coefficients."""
    from moelab.laws import all_laws

    return [law for law in all_laws().values() if law.kind == "loss" and law.published is not None]
