"""Turns a ranking into a plan: representatives, predictions, regret, trade-off, what binds."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.laws import Design, get_rule
from moelab.planning import alike
from moelab.planning.absurd import refuse_absurd
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval, Prediction
from moelab.planning.curve import Curve, curve_through
from moelab.planning.feasible import Field, memory_bytes
from moelab.planning.jury import Juror
from moelab.planning.lattice import Lattice
from moelab.planning.money import training_price
from moelab.planning.pareto import pareto_front
from moelab.planning.plots import slice_rows
from moelab.planning.ranking import Ranking
from moelab.planning.relax import binding, relaxed_gains
from moelab.planning.result import Plan
from moelab.planning.uncertainty import Decision, decide
from moelab.planning.voices import Voice

Array = NDArray[Any]

LAW_CURVE_DESIGNS = 4_000
PARETO = 12
"""Designs shown of the trade-off between loss, size and price."""

NEAR_WITHOUT_DRAWS = 0.01
"""Without bootstrap draws, designs that waste at most this share of the compute count as near-equal."""


class Answer:
    """Turns a ranking into a plan; holds what several parts of the answer need."""

    def __init__(self, budget: Budget, lattice: Lattice, ranking: Ranking, top: int) -> None:
        self.budget, self.lattice, self.ranking = budget, lattice, ranking
        self.field, self.made = ranking.field, dict[int, Candidate]()
        self.distinct = alike.distinct(ranking)
        moe = self.field.lattice.is_moe
        self.listed = alike.listing(ranking, self.distinct, top)
        self.chosen = self.listed[0]
        self.dense, self.moe = (
            None if best is None else self._representative(best)
            for best in (ranking.best_of(~moe), ranking.best_of(moe))
        )
        speaking = [v for v in ranking.voices if ranking.opinions[v.id].best >= 0]
        self.law_best = {v.id: ranking.opinions[v.id].best for v in speaking}
        self.curves = {v.id: self._law_curve(v) for v in speaking}
        kept = [i for i in (*self.listed, self.dense, self.moe, *self.law_best.values()) if i is not None]
        ranked = np.array([i for i in kept if np.isfinite(ranking.score[i])])
        self.decision: Decision | None = decide(ranking, self.chosen, self.distinct, ranked)

    def _representative(self, index: int) -> int:
        return alike.preferred(self.field.lattice, alike.twins(self.ranking, index))

    def _law_curve(self, voice: Voice) -> Curve:
        """The law's own optimum against compute: the jury's where it is one, else over fewer designs."""
        ranking, alone = self.ranking, Juror((voice,))
        for juror, curve in zip(ranking.jury, ranking.curves, strict=True):
            if juror == alone:
                return curve
        index = np.arange(len(self.field)) if voice.law.covers_moe else np.flatnonzero(~self.field.lattice.is_moe)
        if len(index) > LAW_CURVE_DESIGNS:
            index = index[np.sort(np.random.default_rng(0).choice(len(index), LAW_CURVE_DESIGNS, replace=False))]
        opinion = ranking.opinions[voice.id]
        index = np.union1d(index, [opinion.best])
        return curve_through(
            alone, self.field.take(index), self.budget, opinion.loss, self.field.train_flops_at(opinion.best)
        )

    def plan(self) -> Plan:
        """Everything together. Raises InputError where the best design would be worse than guessing."""
        from moelab.planning.warnings import warnings_of

        gains = relaxed_gains(self.ranking, self.lattice, self.budget)
        near, rule = self._near_equal()
        lifetime = self.budget.objective == "lifetime-cost"
        result = Plan(
            budget=self.budget,
            space=self.lattice.space,
            candidates=[self.candidate(i) for i in self.listed],
            best_dense=None if self.dense is None else self.candidate(self.dense),
            best_moe=None if self.moe is None else self.candidate(self.moe),
            pareto=[self.candidate(i) for i in pareto_front(self.ranking, PARETO, lifetime=lifetime)],
            near_equal=near,
            near_equal_rule=rule,
            p_moe_beats_dense=None if self.decision is None else self.decision.p_moe_beats_dense,
            optimum={} if self.decision is None else self.decision.optimum,
            choices={law: self.candidate(i) for law, i in self.law_best.items()},
            binding=binding(self.ranking, gains),
            relaxed=gains,
            warnings=[],
            voting=[voice.id for juror in self.ranking.jury for voice in juror.voices],
            n_designs=len(self.lattice),
            n_feasible=len(self.field),
            slices=slice_rows(self.ranking),
        )
        refuse_absurd(result, self.ranking, self.lattice)
        result.warnings.extend(warnings_of(result, self.ranking, self.decision, self._by_all()))
        return result

    def _by_all(self) -> Candidate | None:
        """The best design that every voting law covers."""
        best = self.ranking.best_of(self.ranking.votes == len(self.ranking.jury))
        return None if best is None else self.candidate(best)

    def _near_equal(self) -> tuple[int, str]:
        if self.decision is not None:
            partly = "at least: only the shortlist was checked; " if self.decision.capped else ""
            return self.decision.near_equal, f"{partly}a tenth of the draws or more rate the design no worse"
        least = float(self.ranking.waste(np.array([self.ranking.best]))[0])
        near = self.ranking.heard[self.distinct] & (self.ranking.waste(self.distinct) <= least + NEAR_WITHOUT_DRAWS)
        return int(near.sum()), f"no draws: designs that waste at most {NEAR_WITHOUT_DRAWS:.0%} more than the best"

    def candidate(self, i: int) -> Candidate:
        """Design `i` with every law's word about it, made once."""
        if i not in self.made:
            self.made[i] = self._candidate(i)
        return self.made[i]

    def _candidate(self, i: int) -> Candidate:
        one = self.field.take(np.array([i]))
        loss = {voice.id: self._prediction(voice, one.design) for voice in self.ranking.voices}
        regret_loss, regret_compute, mean = self._regret(i, loss)
        same = alike.twins(self.ranking, i) if np.isfinite(self.ranking.score[i]) else np.array([i])
        return replace(
            self.candidate_of(one, loss),
            regret_loss=regret_loss,
            regret_compute=regret_compute,
            mean_loss=mean,
            serving=None if self.ranking.serving is None else self.ranking.serving.to_dict(i),
            cost=self._cost(i, one),
            undetermined=self._undetermined(i, same),
        )

    def _undetermined(self, i: int, same: Array) -> tuple[str, ...]:
        """Axes that the laws leave open for design `i`, granularity among them where none of them sees it."""
        axes = alike.undetermined(self.field.lattice, same)
        open_too = self.field.lattice.is_moe[i] and not self.ranking.sees_granularity
        return (*axes, "granularity") if open_too else axes

    def candidate_of(self, one: Field, loss: dict[str, Prediction] | None = None) -> Candidate:
        """A design by itself, of this field or another: counts, tokens, each law's word, learning rate and batch."""
        design, lattice = one.design, one.lattice
        tokens, unique = float(one.tokens[0]), float(one.unique_tokens[0])
        rule = get_rule("steplaw2025").apply(params_non_embedding=lattice.params_non_embedding[0], tokens=tokens)
        if loss is None:
            loss = {voice.id: self._prediction(voice, design) for voice in self.ranking.voices}
        return Candidate(
            config=lattice.config(0),
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
            learning_rate=float(rule["learning_rate"]),
            batch_tokens=max(1, round(float(rule["batch_tokens"]))),
        )

    def _cost(self, i: int, one: Field) -> dict[str, float] | None:
        """Dollars of training, of serving, and together, as far as the budget prices them."""
        if self.budget.training_device is None:
            return None
        train = float(training_price(one.lattice, one.train_flops, self.budget)[0])
        wanted, serving = self.budget.serving, self.ranking.serving
        if wanted is None or wanted.tokens is None or serving is None:
            return {"train": train}
        served = float(serving.cost_per_million_tokens[i]) * wanted.tokens / 1e6
        return {"train": train, "serve": served, "lifetime": train + served}

    def _regret(self, i: int, loss: dict[str, Prediction]) -> tuple[Interval, Interval, Interval | None]:
        """Extra loss, wasted compute, and the ensemble's loss, with intervals where there are draws."""
        jury = self.ranking.jury
        mean = float(self.ranking.mean(jury[0], i)) if len(jury) == 1 else None
        waste = float(self.ranking.waste(np.array([i]))[0])
        if len(jury) > 1 or mean is None or not np.isfinite(mean):
            behind = [loss[voice.id].behind_loss for juror in jury for voice in juror.voices]
            known = [value for value in behind if value is not None]
            return Interval(float(np.median(known)) if known else float("nan")), Interval(waste), None
        lost = max(0.0, mean - float(np.nanmin(self.ranking.mean(jury[0]))))
        if self.decision is None or not self.decision.holds(i):
            return Interval(lost), Interval(waste), Interval(mean)
        return *self.decision.regret(i, lost), self.decision.loss(i, mean)

    def _prediction(self, voice: Voice, design: Design) -> Prediction:
        """One law about one design."""
        one = voice.read(design)
        loss = float(voice.loss(one)[0])
        if not np.isfinite(loss):
            return Prediction(not_covered=one.why(0) or "its formula gives no number here")
        low, high = voice.interval(one, loss)
        stretched = float(np.atleast_1d(voice.extrapolation(one))[0])
        lost = float(self.curves[voice.id].lost(loss))
        return Prediction(
            value=loss,
            low=low,
            high=high,
            extrapolation=None if np.isnan(stretched) else stretched,
            behind_loss=loss - self.ranking.opinions[voice.id].loss,
            behind_compute=float(-np.expm1(-max(lost, 0.0))),
        )
