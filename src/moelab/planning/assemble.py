"""Builds a plan from a ranking: candidates with predictions, regret and costs, the Pareto front, binding limits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.rules import FittedRule
from moelab.laws import Conversion, Design
from moelab.planning import equivalence
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval, Prediction
from moelab.planning.costs import cost_of, served_with
from moelab.planning.curve import Curve, curve_through
from moelab.planning.ensemble import Member
from moelab.planning.feasible import FeasibleSet, memory_bytes, training_hour, training_price
from moelab.planning.lattice import Lattice
from moelab.planning.lifetime import dollars_per_millinat, frontier_rows, implied_tokens
from moelab.planning.nearest import nearest_released
from moelab.planning.pareto import pareto_front, slice_rows
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.rates import rates_of
from moelab.planning.result import Plan
from moelab.planning.sanity import refuse_meaningless
from moelab.planning.sensitivity import binding, sensitivities
from moelab.planning.settle import option_labels, representative, settled_rows
from moelab.planning.training_rate import training_of
from moelab.planning.uncertainty import Decision, decide
from moelab.planning.warnings import warnings_of
from moelab.planning.what_if import what_if
from moelab.quantities import format_number

Array = NDArray[Any]

LAW_CURVE_DESIGNS = 4_000
"""Designs on which the curve of a single law is found."""

PARETO = 12
"""Most designs of the Pareto front that a plan holds."""

NEAR_WITHOUT_DRAWS = 0.01
"""Share of excess compute up to which designs count as near-equal where there are no bootstrap draws."""


class PlanBuilder:
    """Builds a plan from a ranking; holds what several of its parts share."""

    def __init__(
        self, budget: Budget, lattice: Lattice, ranking: Ranking, top: int, rules: Sequence[FittedRule] = ()
    ) -> None:
        self.rules = rules
        self.budget, self.lattice, self.ranking = budget, lattice, ranking
        self.feasible, self.built = ranking.feasible, dict[int, Candidate]()
        self.readings = dict[int, dict[str, Conversion]]()
        self.distinct = equivalence.distinct(ranking)
        moe = self.feasible.lattice.is_moe
        self.rows = settled_rows(ranking, top)
        self.listed = [row.chosen for row in self.rows]
        self.chosen = self.listed[0]
        self.dense, self.moe = (
            None if best is None else representative(ranking, best)
            for best in (ranking.best_of(~moe), ranking.best_of(moe))
        )
        covering = [law for law in ranking.predictors if ranking.law_results[law.id].best >= 0]
        self.law_best = {law.id: ranking.law_results[law.id].best for law in covering}
        self.curves = {law.id: self._law_curve(law) for law in covering}
        kept = [i for i in (*self.listed, self.dense, self.moe, *self.law_best.values()) if i is not None]
        ranked = np.array([i for i in kept if np.isfinite(ranking.score[i])])
        self.decision: Decision | None = decide(ranking, self.chosen, self.distinct, ranked)

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

    def plan(self) -> Plan:
        """The plan. Raises InputError where the loss of the best design is worse than guessing's."""
        gains = sensitivities(self.ranking, self.lattice, self.budget)
        front = pareto_front(self.ranking, PARETO, lifetime=self.budget.objective == "lifetime-cost")
        self._read([i for i in (*self.listed, *front, self.dense, self.moe, *self.law_best.values()) if i is not None])
        near, rule = self._near_equal()
        result = Plan(
            budget=self.budget,
            space=self.lattice.space,
            candidates=[self.candidate(i) for i in self.listed],
            best_dense=None if self.dense is None else self.candidate(self.dense),
            best_moe=None if self.moe is None else self.candidate(self.moe),
            pareto=[self.candidate(i) for i in front],
            near_equal=near,
            near_equal_rule=rule,
            p_moe_beats_dense=None if self.decision is None else self.decision.p_moe_beats_dense,
            optimum={} if self.decision is None else self.decision.optimum,
            choices={law: self.candidate(i) for law, i in self.law_best.items()},
            binding=binding(self.ranking, gains),
            sensitivity=gains,
            warnings=[],
            ensemble=[predictor.id for predictor in self.ranking.ensemble_laws],
            n_designs=len(self.lattice),
            n_feasible=len(self.feasible),
            slices=slice_rows(self.ranking),
            equivalent=list(self.rows[0].options),
            open_axes=self.rows[0].open_axes,
            settled_by=list(self.rows[0].steps),
            lifetime=self._lifetime(),
            nearest_released=nearest_released(self.ranking, self.budget, self.chosen),
            deferred_what_if=what_if(self.ranking, self.lattice, self.budget, self.rows[0].near),
        )
        refuse_meaningless(result, self.ranking, self.lattice)
        result.warnings.extend(warnings_of(result, self.ranking, self.decision, self._by_all()))
        return result

    def _lifetime(self) -> dict[str, Any] | None:
        """Loss against lifetime cost: the frontier and its knee, dollars by loss, and the implied lifetime tokens."""
        ranking = self.ranking
        if ranking.lifetime is None:
            return None
        rows = frontier_rows(ranking)
        for row in rows:
            row["design"] = self._label(row.pop("index"))
        return {
            "within": ranking.lifetime.within,
            "frontier": rows,
            "per_millinat": dollars_per_millinat(ranking, self.budget, self.chosen),
            "implied_lifetime_tokens": implied_tokens(ranking, self.budget, self.chosen),
        }

    def _label(self, i: int) -> str:
        """`Candidate.label` of design `i`."""
        lattice = self.feasible.lattice.take(np.array([i]))
        total, active = (format_number(int(n[0])) for n in (lattice.params_total, lattice.params_active))
        if not lattice.is_moe[0]:
            return f"{total} dense"
        return f"{active} of {total}, {option_labels(lattice)[0]}"

    def _by_all(self) -> Candidate | None:
        """The best design that every member of the ensemble covers."""
        best = self.ranking.best_of(self.ranking.covered_by == len(self.ranking.ensemble))
        return None if best is None else self.candidate(best)

    def _near_equal(self) -> tuple[int, str]:
        """How many distinct designs are as good as the recommended one, and by which criterion."""
        if self.decision is not None:
            partly = "at least: only the shortlist was checked; " if self.decision.capped else ""
            return self.decision.near_equal, f"{partly}no worse in at least a tenth of the draws"
        least = float(self.ranking.excess(np.array([self.ranking.best]))[0])
        near = self.ranking.comparable[self.distinct] & (
            self.ranking.excess(self.distinct) <= least + NEAR_WITHOUT_DRAWS
        )
        return int(near.sum()), f"no draws: at most {NEAR_WITHOUT_DRAWS:.0%} more excess compute than the best"

    def candidate(self, i: int) -> Candidate:
        """Design `i` with every law's prediction, built once."""
        if i not in self.built:
            self.built[i] = self._candidate(i)
        return self.built[i]

    def _read(self, positions: list[int]) -> None:
        """Every law's reading of these designs, all at once."""
        some = self.feasible.take(np.array(positions)).design
        read = {predictor.id: predictor.read(some) for predictor in self.ranking.predictors}
        for at, i in enumerate(positions):
            self.readings[i] = {law: reading.take(slice(at, at + 1)) for law, reading in read.items()}

    def _candidate(self, i: int) -> Candidate:
        if i not in self.readings:
            self._read([i])
        one = self.feasible.take(np.array([i]))
        loss = {law.id: self._prediction(law, self.readings[i][law.id]) for law in self.ranking.predictors}
        regret_loss, regret_compute, mean = self._regret(i, loss)
        same = equivalence.equivalents(self.ranking, i) if np.isfinite(self.ranking.score[i]) else np.array([i])
        plain = self.candidate_of(one, loss)
        serving = None if self.ranking.serving is None else self.ranking.serving.to_dict(i)
        serving = served_with(serving, self.budget.serving)
        return replace(
            plain,
            regret_loss=regret_loss,
            regret_compute=regret_compute,
            mean_loss=mean,
            serving=serving,
            cost=self._cost(one, plain.training, serving),
            undetermined=self._undetermined(i, same),
        )

    def _undetermined(self, i: int, same: Array) -> tuple[str, ...]:
        """Axes that the laws do not determine for design `i`; granularity too where no law depends on it."""
        axes = equivalence.undetermined(self.feasible.lattice, same)
        granularity = self.feasible.lattice.is_moe[i] and not self.ranking.depends_on_granularity
        return (*axes, "granularity") if granularity else axes

    def candidate_of(self, one: FeasibleSet, loss: dict[str, Prediction] | None = None) -> Candidate:
        """A feasible set of one design as a candidate: counts, tokens, predictions, learning rate and batch."""
        design, lattice = one.design, one.lattice
        tokens, unique = float(one.tokens[0]), float(one.unique_tokens[0])
        config, seq_len = lattice.config(0), lattice.space.seq_len
        rates = rates_of(Design.of(config, np.array([tokens]), seq_len, np.array([unique])), self.rules)
        batch = next((rate.batch_tokens for rate in rates if rate.batch_tokens is not None), 1)
        if loss is None:
            loss = {law.id: self._prediction(law, law.read(design)) for law in self.ranking.predictors}
        return Candidate(
            config=config,
            params_total=int(lattice.params_total[0]),
            params_active=int(lattice.params_active[0]),
            params_non_embedding=int(lattice.params_non_embedding[0]),
            params_active_non_embedding=int(lattice.params_active_non_embedding[0]),
            activation_rate=float(lattice.params_active_non_embedding[0] / lattice.params_non_embedding[0]),
            n_experts=int(design.n_experts[0]),
            top_k=int(design.top_k[0]),
            granularity=float(design.granularity[0]),
            sparsity=float(design.sparsity[0]),
            tokens=round(tokens),
            unique_tokens=round(unique),
            epochs=tokens / unique,
            train_flops=one.train_flops_at(0),
            loss=loss,
            regret_loss=Interval(float("nan")),
            regret_compute=Interval(float("nan")),
            memory_bytes=float(memory_bytes(lattice, self.budget)[0]),
            learning_rate=rates[0].learning_rate,
            batch_tokens=batch,
            rates=rates,
            training=training_of(lattice, tokens, training_hour(self.budget), self.budget),
        )

    def _cost(
        self, one: FeasibleSet, training: dict[str, Any] | None, serving: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Dollars of training, of serving, and together, as far as the budget prices them."""
        if self.budget.training_device is None:
            return None
        train = float(training_price(one.lattice, one.train_flops, self.budget)[0])
        wanted = self.budget.serving
        return cost_of(train, training, serving, None if wanted is None else wanted.tokens)

    def _regret(self, i: int, loss: dict[str, Prediction]) -> tuple[Interval, Interval, Interval | None]:
        """Extra loss, excess compute, and the ensemble's loss, with intervals where there are draws."""
        ensemble = self.ranking.ensemble
        mean = float(self.ranking.mean(ensemble[0], i)) if len(ensemble) == 1 else None
        excess = float(self.ranking.excess(np.array([i]))[0])
        if len(ensemble) > 1 or mean is None or not np.isfinite(mean):
            behind = [loss[predictor.id].behind_loss for predictor in self.ranking.ensemble_laws]
            known = [value for value in behind if value is not None]
            return Interval(float(np.median(known)) if known else float("nan")), Interval(excess), None
        extra = max(0.0, mean - float(np.nanmin(self.ranking.mean(ensemble[0]))))
        if self.decision is None or not self.decision.holds(i):
            return Interval(extra), Interval(excess), Interval(mean)
        return *self.decision.regret(i, extra), self.decision.loss(i, mean)

    def _prediction(self, predictor: Predictor, one: Conversion) -> Prediction:
        """One law's prediction for one design, as the law reads it."""
        loss = float(predictor.loss(one)[0])
        if not np.isfinite(loss):
            return Prediction(not_covered=one.why(0) or "its formula gives no finite loss")
        low, high = predictor.interval(one, loss)
        distance = float(np.atleast_1d(predictor.extrapolation(one))[0])
        excess = float(self.curves[predictor.id].log_excess(loss))
        return Prediction(
            value=loss,
            low=low,
            high=high,
            extrapolation=None if np.isnan(distance) else distance,
            behind_loss=loss - self.ranking.law_results[predictor.id].loss,
            behind_compute=float(-np.expm1(-max(excess, 0.0))),
        )
