"""The search on a sample of the lattice, then on all designs near its answer: what the whole search gives, for less."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.balance import reference_budget, reference_of
from moelab.planning.budget import Budget
from moelab.planning.lattice import Lattice
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.reference import Reference
from moelab.planning.search import search
from moelab.planning.settle import settled_rows

Array = NDArray[Any]

BEST, REST = 1_000, 4_000
"""Designs on which a lattice is searched first: the best ranked, and an even sample of the lattice."""

NEAR = 0.25
"""Log of active and of total parameters within which all designs are then searched: around the answer on the sample,
the best of its scores and the least loss."""

AMPLE = 2.0
"""Times the tokens of the recommended design from which on data limits none of the designs that compete with it."""

MOST_STEPS = 3
"""Times that the designs near an answer are added at most."""


@dataclass(frozen=True)
class SampledSearch:
    """`some` are positions in the lattice. `reference` is what excess compute is over for `budget` and `predictors`,
    where loss is balanced against cost, and `tokens` the most that a near-equal design trains on."""

    lattice: Lattice
    some: Array
    budget: Budget
    predictors: Sequence[Predictor]
    reference: Reference | None
    tokens: float

    @classmethod
    def around(cls, ranking: Ranking, lattice: Lattice, budget: Budget, near: Array) -> "SampledSearch":
        """Samples the lattice around the designs `near` of a ranking of it."""
        reference = None if ranking.lifetime is None else ranking.lifetime.reference
        tokens = float(ranking.feasible.tokens[near].max())
        return cls(lattice, _sample(ranking, lattice, near), budget, ranking.ensemble_laws, reference, tokens)

    def search(self, budget: Budget, predictors: Sequence[Predictor]) -> tuple[Ranking, int]:
        """The ranking on the sample and on all designs near its answer, and the answer's position.

        Where the answer moves by more than half of `NEAR`, the designs near the new one are searched too.
        """
        if len(self.some) == len(self.lattice):
            found = search(self.lattice, budget, predictors)
            return found, settled_rows(found, 1)[0].chosen
        reference, some = self.reference_of(budget, predictors), self.some
        found = search(self.lattice.take(some), budget, predictors, reference)
        chosen = settled_rows(found, 1)[0].chosen
        for _ in range(MOST_STEPS):
            lattice, before = found.feasible.lattice, _log_sizes(found.feasible.lattice, chosen)
            around = {chosen, found.best, int(np.argmin(found.log_excess))}
            near = [self._near(_log_sizes(lattice, i)) for i in around]
            some = np.union1d(some, np.flatnonzero(np.any(near, axis=0)))
            found = search(self.lattice.take(some), budget, predictors, reference)
            chosen = settled_rows(found, 1)[0].chosen
            if np.max(np.abs(_log_sizes(found.feasible.lattice, chosen) - before)) < NEAR / 2:
                break
        return found, chosen

    def _near(self, sizes: Array) -> Array:
        """Which designs of the lattice are near these logs of active and total parameters (n,)."""
        active, total = self._log_sizes
        return np.asarray((abs(active - sizes[0]) < NEAR) & (abs(total - sizes[1]) < NEAR))

    def reference_of(self, budget: Budget, predictors: Sequence[Predictor]) -> Reference | None:
        """What excess compute is over; that of the plan where laws and compute are its own, and data too or far from
        scarce in both."""
        if budget.objective != "balance":
            return None
        asked, own = reference_budget(budget), reference_budget(self.budget)
        if AMPLE * self.tokens <= min(asked.max_data, own.max_data):
            asked = asked.model_copy(update={"unique_tokens": own.unique_tokens})
        if list(predictors) == list(self.predictors) and asked == own:
            return self.reference
        return reference_of(self.lattice, budget, predictors)

    @cached_property
    def _log_sizes(self) -> tuple[Array, Array]:
        """Logs of active and of total parameters of all designs."""
        return np.log(self.lattice.params_active), np.log(self.lattice.params_total)


def _sample(ranking: Ranking, lattice: Lattice, near: Array) -> Array:
    """Positions in the lattice of the best ranked designs, of each kind, and of every k-th of all."""
    if len(lattice) <= BEST + REST:
        return np.arange(len(lattice))
    rest = np.arange(0, len(lattice), max(1, len(lattice) // REST))
    least = _least(ranking.log_excess, BEST)
    best = np.union1d(np.union1d(ranking.order[:BEST], near), least[np.isfinite(ranking.log_excess[least])])
    if ranking.lifetime is not None:
        best = np.union1d(best, ranking.lifetime.frontier)
    dense = np.flatnonzero(~ranking.feasible.lattice.is_moe)
    dense = dense[_least(ranking.score[dense], BEST // 10)]
    return np.union1d(ranking.feasible.lattice.positions(np.union1d(best, dense)), rest)


def _least(values: Array, count: int) -> Array:
    """Positions of the least values, at most `count`, in no order."""
    return np.argpartition(values, count)[:count] if len(values) > count else np.arange(len(values))


def _log_sizes(lattice: Lattice, i: int) -> Array:
    """Logs of active and of total parameters of design `i`."""
    return np.log([float(lattice.params_active[i]), float(lattice.params_total[i])])
