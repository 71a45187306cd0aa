"""From a budget, laws and a space to the best architectures, with each law's word and how sure the choice is."""

from collections.abc import Sequence
from typing import Any

from moelab.errors import InputError
from moelab.planning.assemble import Answer
from moelab.planning.budget import Budget
from moelab.planning.chosen_laws import laws_of
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

    `weights` average fits to the same runs. Laws stay silent outside their fitted range of experts, sparsity and
    granularity unless `extrapolate`. Raises InputError where nothing fits, naming the limit and its nearest value.
    """
    if not isinstance(budget, Budget):
        raise InputError(f"budget: expected a Budget such as Budget(flops=1e21), got {type(budget).__name__}")
    space = space or Space()
    check_target(budget, space.vocab_size)
    predictors = predictors_of(laws_of(laws), weights, extrapolate)
    lattice = enumerate_designs(space)
    ranking = search(lattice, budget, predictors)
    return Answer(budget, lattice, ranking, max(1, top)).plan()
