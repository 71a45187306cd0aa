"""From a budget, laws and a space to the best architectures, with each law's prediction and the uncertainty."""

from collections.abc import Sequence
from typing import Any

from moelab.errors import InputError
from moelab.machine import freed_memory_kept
from moelab.planning.assemble import PlanBuilder
from moelab.planning.budget import Budget
from moelab.planning.chosen_laws import laws_of, rules_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.result import Plan
from moelab.planning.sanity import check_target
from moelab.planning.search import search
from moelab.planning.space import Space


class Planner:
    """Plans for many budgets over one space with the same laws: what no budget changes is counted once.

    The first plan counts the designs and what laws read of them; `plan` for another budget starts from there.

    >>> import moelab
    >>> planner = moelab.Planner(["ludziejewski2025"], moelab.Space(d_model=[512, 768, 1024], n_experts=[8, 32]))
    >>> [planner.plan(moelab.Budget(flops=flops)).best.is_moe for flops in (1e18, 1e19)]
    [True, True]
    """

    def __init__(
        self,
        laws: Sequence[Any] | None = None,
        space: Space | None = None,
        *,
        weights: Sequence[float] | None = None,
        extrapolate: bool = False,
    ) -> None:
        """The arguments are those of `plan`. Raises InputError for a law that cannot be used or an empty space."""
        self.space = space or Space()
        self.predictors = predictors_of(laws_of(laws), weights, extrapolate)
        self.rules = rules_of(laws)
        self.lattice = enumerate_designs(self.space)

    def plan(self, budget: Budget, *, top: int = 10) -> Plan:
        """The best designs under this budget, as `plan` returns them. Raises InputError where nothing fits."""
        with freed_memory_kept():
            return self.begin(budget, top=top).plan()

    def begin(self, budget: Budget, *, top: int = 10) -> PlanBuilder:
        """The search alone: its `first` is the plan without its evidence, its `plan()` the whole. It holds all ranked
        designs. Raises InputError where nothing fits."""
        check_target(budget, self.space.vocab_size)
        with freed_memory_kept():
            ranking = search(self.lattice, budget, self.predictors)
            return PlanBuilder(budget, self.lattice, ranking, max(1, top), self.rules)


def plan(
    budget: Budget,
    laws: Sequence[Any] | None = None,
    space: Space | None = None,
    *,
    top: int = 10,
    weights: Sequence[float] | None = None,
    extrapolate: bool = False,
) -> Plan:
    """Find the best designs under a budget, ranked by every law that applies, with how sure the choice is.

    Args:
        budget: The limits: training FLOPs, parameters, bytes of memory, tokens, serving (a Budget names each unit).
        laws: Laws, ids, fitted laws, fit files or "all"; None: every published law. Files of
            fitted rules (or FittedRule) give learning rate and batch. A law is not used outside its range
            of experts, sparsity and granularity unless `extrapolate`.
        space: The architectures to search; None: the default space, about 317,000 designs of practice.
        top: How many candidates to return, best first.
        weights: One number per law: how much each fit to the same runs weighs in their mean; None: by held-out error.
        extrapolate: Use laws outside their fitted range of experts, sparsity and granularity.

    Returns:
        A Plan: `best` and `candidates` (each a real ModelConfig with tokens, loss in nats per token under each law,
        excess compute, bytes, US dollars), `best_dense`, `near_equal`, `optimum`, `pareto`, `warnings`.

    Raises:
        InputError: Nothing fits (the message names the limit and its nearest feasible value), or a law or budget that
            cannot be used.

    >>> import moelab
    >>> space = moelab.Space(d_model=[512, 768, 1024], n_experts=[8, 32])
    >>> found = moelab.plan(moelab.Budget(flops=1e19, max_params="1B"), ["ludziejewski2025"], space)
    >>> found.best.params_total <= 1e9, found.best.is_moe
    (True, True)
    """
    if not isinstance(budget, Budget):
        raise InputError(f"budget: expected a Budget such as Budget(flops=1e21), got {type(budget).__name__}")
    check_target(budget, (space or Space()).vocab_size)
    return Planner(laws, space, weights=weights, extrapolate=extrapolate).plan(budget, top=top)
