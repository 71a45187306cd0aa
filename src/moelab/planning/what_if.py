"""What changes the answer: limits halved and doubled, each law alone, and the law's floor at its p10 and p90."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.balance import excess_of
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate
from moelab.planning.changed import changed_budgets, changed_floors
from moelab.planning.costs import cost_of, served_with
from moelab.planning.ensemble import Member
from moelab.planning.feasible import FeasibleSet
from moelab.planning.lattice import Lattice
from moelab.planning.other_attention import attention_rows
from moelab.planning.predictors import ONE_EPOCH, Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.reference import Reference
from moelab.planning.sampled import SampledSearch
from moelab.planning.settle import SIZE, option_labels
from moelab.planning.trained import trainings_of

Array = NDArray[Any]
Row = dict[str, Any]

REUSE = "repeated tokens worth less (R_D at a third)"
"""The change for data that is repeated: its value was measured on dense models, and MoE is reported to lose more."""


def what_if(ranking: Ranking, lattice: Lattice, budget: Budget, near: Array, best: Candidate, chosen: int) -> "WhatIf":
    """Computes a row per change when it is called: `change`, the design that is then recommended or the reason for
    which there is none, its `extra_nats` over the recommended one, and whether that `changes` the answer. It keeps a
    sample of the lattice and not the ranking.

    `near` are positions of the designs among which `best`, the recommended one at position `chosen`, was settled.
    """
    base = ranking.feasible.take(np.array([chosen]))
    repeated = bool((ranking.feasible.tokens[near] > ranking.feasible.unique_tokens[near] * ONE_EPOCH).any())
    within = None if ranking.lifetime is None else ranking.lifetime.within
    sampled = SampledSearch.around(ranking, lattice, budget, near)
    return WhatIf(sampled, ranking.ensemble, base, best, repeated, within)


@dataclass(frozen=True)
class WhatIf:
    """`base` is the recommended design, `within` the excess allowed where loss is balanced against cost. `found` are
    the rows so far."""

    sampled: SampledSearch
    ensemble: Sequence[Member]
    base: FeasibleSet
    best: Candidate
    repeated: bool
    within: float | None
    found: list[Row] = field(default_factory=list)

    def __call__(self) -> list[Row]:
        """A row per change."""
        while self.advance():
            pass
        return list(self.found)

    def advance(self) -> bool:
        """Compute one more row; whether there was one to compute."""
        row = next(self._rows, None)
        self.found.extend([] if row is None else [row])
        return row is not None

    @cached_property
    def _rows(self) -> Iterator[Row]:
        return self._each()

    def _each(self) -> Iterator[Row]:
        budget, best, members = self.sampled.budget, self.best, list(self.sampled.predictors)
        asked = [(change, changed, members) for change, changed in changed_budgets(budget, self.within, self._factor)]
        if budget.objective not in ("serving-cost", "lifetime-cost"):
            asked += [(f"{law.id} alone", budget, [law]) for law in (members if len(members) > 1 else [])]
            asked += [(change, budget, laws) for change, laws in changed_floors(members)]
        if self.repeated:
            asked.append((REUSE, budget, [law.with_reuse(1 / 3) for law in members]))
        for change, changed, laws in asked:
            row = self._row(change, changed, laws, laws if change == REUSE else members)
            yield row | {"changes": self._changes(row)}
        if budget.serving is not None and best.cost is not None:
            yield from attention_rows(best, budget.serving)

    @property
    def _factor(self) -> float | None:
        """The upper end of the 80 % interval of the time per output token over the time; None without one."""
        served = self.best.serving or {}
        high = served.get("time_per_output_token_high")
        return None if high is None else float(high) / float(served["time_per_output_token"])

    def _changes(self, row: Row) -> bool:
        """Whether the experts differ, or a size by more than two rows of one size do."""
        if "why_not" in row:
            return True
        here = (("params_active", self.best.params_active), ("params_total", self.best.params_total),
                ("tokens", self.best.tokens))  # fmt: skip
        experts = str(option_labels(self.base.lattice)[0])
        return bool(row["experts"] != experts or any(abs(np.log(row[name] / own)) > SIZE for name, own in here))

    def _row(self, change: str, budget: Budget, predictors: Sequence[Predictor], judges: Sequence[Predictor]) -> Row:
        """The recommendation under a changed budget or other laws; `judges` give its loss: this plan's laws, or these
        where the change is in what they read of a design."""
        try:
            found, at = self.sampled.search(budget, predictors)
        except InputError as error:
            little = str(error).startswith("within ")
            why_not = "no design within the limits has so little excess compute" if little else str(error)
            return {"change": change, "why_not": why_not}
        one = found.feasible.take(np.array([at]))
        judged = (budget, None if found.lifetime is None else found.lifetime.reference)
        if list(predictors) != list(self.sampled.predictors):  # by this plan's laws
            judged = (self.sampled.budget, self.sampled.reference)
        row: Row = {
            "change": change,
            "experts": str(option_labels(one.lattice)[0]),
            "params_active": float(one.lattice.params_active[0]),
            "params_total": float(one.lattice.params_total[0]),
            "tokens": float(one.tokens[0]),
            "extra_nats": self._extra_nats(one, judges, *judged),
        }
        if found.dollars is not None:
            row |= {"cost": float(found.dollars[at]), **_interval(found, budget, at)}
        return row

    def _extra_nats(
        self, one: FeasibleSet, judges: Sequence[Predictor], budget: Budget, reference: Reference | None
    ) -> float | None:
        """Loss by `judges` above the recommended design's, the median over the ensemble: on a balance as its frontier
        has it, what the excess of compute over the budget's `reference` is worth at each member's own optimum."""
        own = self.sampled.predictors
        if reference is not None:
            here = self._losses(one, budget, judges, reference)
            base = self._losses(self.base, self.sampled.budget, own, self.sampled.reference)
            apart = [] if here is None or base is None else list(here - base)
        else:
            by_id = {law.id: law for law in judges}
            changed = [Member(tuple(by_id[law.id] for law in member.predictors)) for member in self.ensemble]
            pairs = zip(changed, self.ensemble, strict=True)
            apart = [float((new.loss(one.design) - old.loss(self.base.design))[0]) for new, old in pairs]
        known = [value for value in apart if np.isfinite(value)]
        return float(np.median(known)) if known else None

    def _losses(
        self, one: FeasibleSet, budget: Budget, judges: Sequence[Predictor], reference: Reference | None
    ) -> Array | None:
        """Each member's optimum at a design's excess of compute; None where too few members cover it."""
        assert reference is not None
        excess = excess_of(one, budget, judges, reference)
        if excess is None:
            return None
        return np.array([float(curve.loss_behind(excess)) for curve in reference.curves])


def _interval(found: Ranking, budget: Budget, at: int) -> Row:
    """The ends of the 80 % interval of a design's lifetime cost; none where another cost is minimised."""
    wanted = budget.serving
    if found.lifetime is None or found.serving is None or wanted is None:
        return {}
    one = found.feasible.take(np.array([at]))
    (training,) = trainings_of(one.lattice, one.tokens, budget.training_hour, budget)
    cost = cost_of(
        float(found.lifetime.train[at]), training, served_with(found.serving.to_dict(at), wanted), wanted.tokens
    )
    return {f"cost_{end}": cost.get(f"lifetime_{end}") for end in ("low", "high")}
