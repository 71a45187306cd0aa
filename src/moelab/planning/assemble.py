"""Builds a plan from a ranking: candidates with predictions, regret and costs, the Pareto front, binding limits."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.rules import FittedRule
from moelab.planning import equivalence
from moelab.planning.budget import Budget
from moelab.planning.build_candidate import CandidateBuilder
from moelab.planning.candidate import Candidate
from moelab.planning.costs import odd_prices, unpriced
from moelab.planning.curve import Curve, curve_through
from moelab.planning.ensemble import Member
from moelab.planning.fit_notes import ranked_note
from moelab.planning.lattice import Lattice
from moelab.planning.lifetime import dollars_per_millinat, frontier_rows, implied_tokens, point_of
from moelab.planning.lower_loss import no_more_expensive
from moelab.planning.nearest import nearest_released, released_rates
from moelab.planning.pareto import pareto_front, slice_rows
from moelab.planning.phrases import LIMIT_NAMES
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.result import Plan
from moelab.planning.sanity import refuse_meaningless
from moelab.planning.sensitivity import binding, sensitivities
from moelab.planning.settle import near_equal, open_axes, option_labels, representative, settled_rows, tie_of
from moelab.planning.uncertainty import Decision, decide
from moelab.planning.warnings import warnings_of
from moelab.planning.what_if import what_if
from moelab.quantities import format_number
from moelab.serving.doubts import doubts

Array = NDArray[Any]

LAW_CURVE_DESIGNS = 4_000
"""Designs on which the curve of a single law is found."""

PARETO = 12
"""Most designs of the Pareto front that a plan holds."""


class PlanBuilder:
    """Builds a plan from a ranking; holds what several of its parts share."""

    def __init__(
        self, budget: Budget, lattice: Lattice, ranking: Ranking, top: int, rules: Sequence[FittedRule] = ()
    ) -> None:
        self.budget, self.lattice, self.ranking = budget, lattice, ranking
        self.feasible = ranking.feasible
        self.distinct = equivalence.distinct(ranking)
        moe = self.feasible.lattice.is_moe
        self.rows = settled_rows(ranking, top)
        self.listed = [row.chosen for row in self.rows]
        self.chosen = self.listed[0]
        self.dense, self.moe = (self._best_of(~moe), self._best_of(moe))
        covering = [law for law in ranking.predictors if ranking.law_results[law.id].best >= 0]
        self.law_best = {law.id: ranking.law_results[law.id].best for law in covering}
        self.curves = {law.id: self._law_curve(law) for law in covering}
        kept = [i for i in (*self.listed, self.dense, self.moe, *self.law_best.values()) if i is not None]
        ranked = np.array([i for i in kept if np.isfinite(ranking.score[i])])
        self.decision: Decision | None = decide(ranking, self.chosen, self.distinct, ranked)
        self.builder = CandidateBuilder(budget, ranking, self.curves, self.decision, rules)
        self.candidate = self.builder.candidate

    def _best_of(self, kind: Array) -> int | None:
        """The best design of a kind. Where loss is weighed against cost and the kind is not the recommended one's: the
        least loss at no more than the recommended design's lifetime cost, if some design of the kind costs no more."""
        ranking, lifetime = self.ranking, self.ranking.lifetime
        if lifetime is not None and not kind[self.chosen]:
            usable = np.isfinite(lifetime.balance) & np.isfinite(ranking.score)
            where = np.flatnonzero(kind & usable & (lifetime.cost <= lifetime.cost[self.chosen]))
            if len(where):
                return int(where[np.argmin(ranking.log_excess[where])])
        best = ranking.best_of(kind)
        return None if best is None else representative(ranking, best)

    def _law_curve(self, predictor: Predictor) -> Curve:
        """The law's own optimum against compute: its member's curve where it is one, else over fewer designs."""
        ranking, alone = self.ranking, Member((predictor,))
        for member, curve in zip(ranking.ensemble, ranking.curves, strict=True):
            if member == alone:
                return curve
        index = (
            np.arange(len(self.feasible)) if predictor.law.covers_moe else np.flatnonzero(~self.feasible.lattice.is_moe)
        )
        if len(index) > LAW_CURVE_DESIGNS:
            index = index[np.sort(np.random.default_rng(0).choice(len(index), LAW_CURVE_DESIGNS, replace=False))]
        result = ranking.law_results[predictor.id]
        index = np.union1d(index, [result.best])
        return curve_through(
            alone, self.feasible.take(index), self.budget, result.loss, self.feasible.train_flops_at(result.best)
        )

    @cached_property
    def first(self) -> Plan:
        """The plan without its evidence: its recommendation, designs and doubts, but no gains from higher limits, no
        limits of the budget that bind (a part of them would read as all), no front, slices, released models or changes.

        Raises InputError where the loss of the best design is worse than guessing's.
        """
        shown = (*self.listed, self.dense, self.moe, *self.law_best.values())
        self.builder.read([i for i in shown if i is not None])
        near, rule = self._near_equal()
        result = Plan(
            budget=self.budget,
            space=self.lattice.space,
            candidates=[self.candidate(i) for i in self.listed],
            best_dense=None if self.dense is None else self.candidate(self.dense),
            best_moe=None if self.moe is None else self.candidate(self.moe),
            pareto=[],
            near_equal=near,
            near_equal_rule=rule,
            p_moe_beats_dense=None if self.decision is None else self.decision.p_moe_beats_dense,
            optimum={} if self.decision is None else self.decision.optimum,
            choices={law: self.candidate(i) for law, i in self.law_best.items()},
            binding=[name for name in binding(self.ranking, {}) if name not in LIMIT_NAMES],
            sensitivity={},
            warnings=[],
            ensemble=[predictor.id for predictor in self.ranking.ensemble_laws],
            n_designs=len(self.lattice),
            n_feasible=len(self.feasible),
            slices={},
            equivalent=list(self.rows[0].options),
            open_axes=self.rows[0].open_axes if self.decision is None else self._open_to_draws(self.decision.near),
            settled_by=list(self.rows[0].steps),
            lifetime=self._lifetime(),
            released_rates=self._released_rates(),
            ranked_note=ranked_note(self.ranking),
        )
        refuse_meaningless(result, self.ranking, self.lattice)
        result.warnings.extend(warnings_of(result, self.ranking, self.decision, self._by_all()))
        served, wanted = result.best.serving, self.budget.serving
        if served is not None and wanted is not None:
            result.warnings.extend(doubts(result.best.config, served, wanted.device, wanted.traffic))
        result.warnings.extend(unpriced(self.budget) + odd_prices(self.budget))
        return result

    def plan(self) -> Plan:
        """The plan with all its evidence. Raises InputError as `first` does."""
        first = self.first
        gains = sensitivities(self.ranking, self.lattice, self.budget)
        front = pareto_front(self.ranking, PARETO, lifetime=self.budget.objective == "lifetime-cost")
        self.builder.read(front)
        return replace(
            first,
            pareto=[self.candidate(i) for i in front],
            binding=binding(self.ranking, gains),
            sensitivity=gains,
            slices=slice_rows(self.ranking),
            nearest_released=nearest_released(self.ranking, self.budget, self.chosen),
            deferred_what_if=what_if(
                self.ranking, self.lattice, self.budget, self.rows[0].near, self.candidate(self.chosen), self.chosen
            ),
        )

    def _open_to_draws(self, near: Array) -> dict[str, tuple[float, float]]:
        """The axes on which designs differ that the draws cannot distinguish from the recommended one."""
        moe, both = self.feasible.lattice.is_moe, np.union1d(near, self.rows[0].near)
        return open_axes(self.feasible.take(both[moe[both] == moe[self.chosen]]))

    def _released_rates(self) -> list[dict[str, Any]]:
        """Learning rates of released models about as large as the recommended design."""
        best = self.candidate(self.chosen)
        return released_rates(best.params_active, best.params_total, best.is_moe)

    def _lifetime(self) -> dict[str, Any] | None:
        """Loss against lifetime cost: the frontier and its knee, dollars by loss, and the implied lifetime tokens."""
        ranking = self.ranking
        if ranking.lifetime is None:
            return None
        rows = frontier_rows(ranking)
        here = point_of(ranking, self.chosen)
        lower = no_more_expensive(ranking, self.chosen, self.rows[0].steps)
        for row in (*rows, here):
            row["recommended"] = row["index"] == self.chosen
        named = [*rows, here, *([] if lower is None else [lower])]
        for row, label in zip(named, self._labels([row.pop("index") for row in named]), strict=True):
            row["design"] = label
        return {
            "within": ranking.lifetime.within,
            "within_source": "stated" if self.budget.within is not None else ranking.lifetime.reference.source,
            "within_attainable": ranking.lifetime.attainable,
            "within_decides": ranking.lifetime.decides,
            "frontier": rows,
            "recommended": here,
            "per_millinat": dollars_per_millinat(ranking, self.budget, self.chosen),
            "lower_loss_at_no_more_cost": lower,
            "implied_lifetime_tokens": implied_tokens(ranking, self.budget, self.chosen),
        }

    def _labels(self, positions: list[int]) -> list[str]:
        """`Candidate.label` of these designs."""
        lattice = self.feasible.lattice.take(np.array(positions))
        sizes = zip(lattice.params_active, lattice.params_total, option_labels(lattice), lattice.is_moe, strict=True)
        return [
            f"{format_number(int(active))} of {format_number(int(total))}, {experts}"
            if moe
            else f"{format_number(int(total))} dense"
            for active, total, experts, moe in sizes
        ]

    def _by_all(self) -> Candidate | None:
        """The best design that every member of the ensemble covers."""
        best = self.ranking.best_of(self.ranking.covered_by == len(self.ranking.ensemble))
        return None if best is None else self.candidate(best)

    def _near_equal(self) -> tuple[int, str]:
        """How many distinct designs are as good as the recommended one, and by which criterion."""
        if self.decision is not None:
            partly = "at least: only the shortlist was checked; " if self.decision.capped else ""
            return self.decision.near_equal, f"{partly}no worse in at least a tenth of the draws"
        ranking, tie = self.ranking, tie_of(self.ranking)
        near = near_equal(ranking, ranking.best, self.distinct[ranking.comparable[self.distinct]])
        what = "more cost" if ranking.cost is not None else "more excess compute"
        if ranking.lifetime is not None:
            what = "behind on the balance of excess compute and lifetime cost"
            return len(near), f"without bootstrap draws: at most {tie:.0%} {what}"
        return len(near), f"without bootstrap draws: at most {tie:.0%} {what} than the best"
