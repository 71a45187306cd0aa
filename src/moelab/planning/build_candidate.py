"""Builds the candidates of a ranking: real architectures with predictions, regret, rates and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.rules import FittedRule
from moelab.laws import Design
from moelab.planning import equivalence
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval, Prediction
from moelab.planning.costs import cost_of, served_with
from moelab.planning.curve import Curve
from moelab.planning.ensemble import Member
from moelab.planning.feasible import FeasibleSet, memory_bytes, training_price
from moelab.planning.prediction_table import PredictionTable
from moelab.planning.ranking import Ranking
from moelab.planning.rates import rates_of
from moelab.planning.trained import trainings_of
from moelab.planning.uncertainty import Decision

Array = NDArray[Any]


class CandidateBuilder:
    """Builds each candidate once. `curves` are every law's own optimum against compute."""

    def __init__(
        self,
        budget: Budget,
        ranking: Ranking,
        curves: Mapping[str, Curve],
        decision: Decision | None,
        rules: Sequence[FittedRule] = (),
    ) -> None:
        self.budget, self.ranking, self.curves, self.decision, self.rules = budget, ranking, curves, decision, rules
        self.feasible = ranking.feasible
        self.built, self.predicted = dict[int, Candidate](), dict[int, dict[str, Prediction]]()
        self.trained, self.prices = dict[int, dict[str, Any] | None](), dict[int, float]()

    def candidate(self, i: int) -> Candidate:
        """Design `i` with every law's prediction, built once."""
        if i not in self.built:
            self.built[i] = self._candidate(i)
        return self.built[i]

    def read(self, positions: list[int]) -> None:
        """Every law's predictions of these designs and how they train, all at once, for candidates built later."""
        numbers = list(dict.fromkeys(i for i in positions if i not in self.predicted))
        if not numbers:
            return
        some = self.feasible.take(np.array(numbers))
        read = self._predictions(some)
        self.predicted |= {i: read.of(at) for at, i in enumerate(numbers)}
        trained = trainings_of(some.lattice, some.tokens, self.budget.training_hour, self.budget)
        self.trained |= dict(zip(numbers, trained, strict=True))
        if self.budget.training_device is not None:
            prices = training_price(some.lattice, some.train_flops, self.budget)
            self.prices |= dict(zip(numbers, prices.tolist(), strict=True))

    def _predictions(self, some: FeasibleSet) -> PredictionTable:
        ranking = self.ranking
        optima = {law: result.loss for law, result in ranking.law_results.items()}
        return PredictionTable(some.design, ranking.predictors, self.curves, optima)

    def _candidate(self, i: int) -> Candidate:
        if i not in self.predicted:
            self.read([i])
        one, loss = self.feasible.take(np.array([i])), self.predicted[i]
        regret_loss, regret_compute, mean = self._regret(i, loss)
        same = equivalence.equivalents(self.ranking, i) if np.isfinite(self.ranking.score[i]) else np.array([i])
        plain = self.candidate_of(one, loss, self.trained[i])
        serving = None if self.ranking.serving is None else self.ranking.serving.to_dict(i)
        serving = served_with(serving, self.budget.serving)
        return replace(
            plain,
            regret_loss=regret_loss,
            regret_compute=regret_compute,
            mean_loss=mean,
            serving=serving,
            cost=self._cost(i, plain.training, serving),
            undetermined=self._undetermined(i, same),
        )

    def _undetermined(self, i: int, same: Array) -> tuple[str, ...]:
        """Axes that the laws do not determine for design `i`; granularity too where no law depends on it."""
        axes = equivalence.undetermined(self.feasible.lattice, same)
        granularity = self.feasible.lattice.is_moe[i] and not self.ranking.depends_on_granularity
        return (*axes, "granularity") if granularity else axes

    def candidate_of(
        self,
        one: FeasibleSet,
        loss: dict[str, Prediction] | None = None,
        training: dict[str, Any] | None = None,
    ) -> Candidate:
        """A feasible set of one design as a candidate: counts, tokens, predictions, learning rate and batch; the
        predictions and how it trains are computed where they are not given."""
        design, lattice = one.design, one.lattice
        tokens, unique = float(one.tokens[0]), float(one.unique_tokens[0])
        config, seq_len = lattice.config(0), lattice.space.seq_len
        rates = rates_of(Design.of(config, np.array([tokens]), seq_len, np.array([unique])), self.rules)
        batch = next((rate.batch_tokens for rate in rates if rate.batch_tokens is not None), 1)
        if loss is None:
            loss = self._predictions(one).of(0)
        if training is None:
            (training,) = trainings_of(lattice, one.tokens, self.budget.training_hour, self.budget)
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
            loss_tokens=round(float(np.ravel(design.tokens)[0])),
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
            training=training,
        )

    def _cost(self, i: int, training: dict[str, Any] | None, serving: dict[str, Any] | None) -> dict[str, Any] | None:
        """Dollars of training, of serving, and together, as far as the budget prices them."""
        if self.budget.training_device is None:
            return None
        wanted = self.budget.serving
        return cost_of(float(self.prices[i]), training, serving, None if wanted is None else wanted.tokens)

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
        loss_behind, share = self.decision.regret(i, extra)
        if self.ranking.lifetime is not None or self.ranking.slower is not None:
            assert share.low is not None
            assert share.high is not None
            share = Interval.around(excess, share.low, share.high)
        return loss_behind, share, self._loss(ensemble[0], i, mean, loss, self.decision)

    def _loss(self, member: Member, i: int, mean: float, loss: dict[str, Prediction], decision: Decision) -> Interval:
        """A member's loss: of one law, that law's own prediction; else over the pooled draws of its laws."""
        counted = [law.id for law, weight in zip(member.predictors, member.weights, strict=True) if weight]
        own = loss[counted[0]]
        if counted[1:] or own.low is None or own.high is None:
            return decision.loss(i, mean)
        return Interval.around(mean, own.low, own.high)
