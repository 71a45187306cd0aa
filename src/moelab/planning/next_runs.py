"""The runs to train next: those that most reduce the expected regret of the decision per FLOP.

The bootstrap draws of the fits are the possible truths. Under draw s, a run of design x measures y_s(x) plus noise. The
measurement reweights the draws by their likelihood and may change the decision. Runs are chosen one after the other,
each given those before it, by the remaining expected regret, averaged over s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.notebook import Shown
from moelab.planning import equivalence
from moelab.planning.assemble import PlanBuilder
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate
from moelab.planning.confidence import LEAST_RATIO, MOST_RATIO
from moelab.planning.ensemble import Member
from moelab.planning.feasible import FeasibleSet, fit_budget, most_compute
from moelab.planning.fit_notes import ranked_note
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.planning.space import Space
from moelab.planning.uncertainty import draws_of
from moelab.quantities import format_number

Array = NDArray[Any]
OPTIONS, DECISIONS, TRUTHS = 150, 80, 200
"""Most runs considered, designs to decide between, and draws taken as the truth."""

MOST = 100
"""Most runs per call; with the default compute of each, together they cost as much as the plan."""

RATIO = 100.0
"""Compute of the budget over that of one run, unless `flops_each` is given."""


@dataclass(frozen=True, repr=False)
class NextRun(Shown):
    """A run to train, the expected regret (nats) that it leaves, and what it saves per FLOP, given those before it."""

    candidate: Candidate
    regret_after: float
    saved_per_flop: float


@dataclass(frozen=True, repr=False)
class NextRuns(Shown):
    """Runs in the order they should be trained."""

    runs: list[NextRun]
    regret_now: float
    noise: float
    warnings: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        after = self.runs[-1].regret_after if self.runs else self.regret_now
        return (
            f"The expected regret of the decision is {self.regret_now:.4f} nats now and {after:.4f} after these "
            f"{len(self.runs)} runs (assumed run-to-run noise: {self.noise:.2%})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `moelab plan --next-runs --json`."""
        return {
            "regret_now": self.regret_now,
            "noise": self.noise,
            "runs": [
                run.candidate.to_dict() | {"regret_after": run.regret_after, "saved_per_flop": run.saved_per_flop}
                for run in self.runs
            ],
            "warnings": list(self.warnings),
        }


def next_runs(
    budget: Budget,
    laws: Sequence[Any],
    space: Space | None = None,
    *,
    count: int = 5,
    flops_each: float | None = None,
    weights: Sequence[float] | None = None,
    extrapolate: bool = False,
) -> NextRuns:
    """The `count` runs of `flops_each` (default: a hundredth of the budget) that most reduce the expected regret.

    With `extrapolate`, also runs beyond the fitted ones in experts, sparsity and granularity. Raises InputError without
    a fitted law that has bootstrap draws, and for runs more expensive than the plan. Runs that together cost more than
    the plan carry a warning.
    """
    _check(count, flops_each, budget)
    predictors = predictors_of(laws, weights, extrapolate)
    lattice = enumerate_designs(space or Space())
    ranking = search(lattice, budget, predictors)
    member = ranking.ensemble[0]
    if len(ranking.ensemble) > 1 or not member.fitted or not any(predictor.n_draws for predictor in member.predictors):
        raise InputError("next_runs: needs laws fitted to one table of runs with bootstrap draws; give --law fit.json")
    each = flops_each if flops_each is not None else float(np.max(ranking.feasible.train_flops)) / RATIO
    small = Budget(flops=each, unique_tokens=budget.unique_tokens, max_epochs=budget.max_epochs)
    options = _options(fit_budget(lattice, small), member)
    truth, weight, losses = _draws(ranking, member, options)
    noise = _noise(member)
    chosen, regrets, now = choose_runs(truth, weight, np.log(losses), noise, count)
    builder = PlanBuilder(small, lattice, search(lattice, small, predictors), 1)
    runs = []
    for index, before, after in zip(chosen, [now, *regrets], regrets, strict=False):
        candidate = builder.builder.candidate_of(options.take(np.array([index])))
        runs.append(NextRun(candidate, after, max(0.0, before - after) / candidate.train_flops))
    note = ranked_note(ranking)
    return NextRuns(runs, now, noise, (*([note] if note else []), *_cost_warning(runs, budget)))


def _check(count: int, flops_each: float | None, budget: Budget) -> None:
    """Raises InputError for an impossible number of runs, or runs that cost more than the plan's recommendation."""
    if not 1 <= count <= MOST:
        raise InputError(f"next_runs: must be 1 to {MOST}, got {count}")
    whole = most_compute(budget)
    if flops_each is not None and not 0 < flops_each <= whole:
        raise InputError(
            f"flops_each: must be above 0 and at most the plan's own compute, {format_number(whole, 4)}, got "
            f"{format_number(flops_each, 4)}: training the recommendation costs no more"
        )


def _cost_warning(runs: list[NextRun], budget: Budget) -> tuple[str, ...]:
    """A warning where the runs together cost more than the plan."""
    spent, whole = sum(run.candidate.train_flops for run in runs), most_compute(budget)
    if spent <= whole * 1.0001:  # tokens are whole numbers, so a run may cost a little more than asked for
        return ()
    return (
        f"these runs together cost {format_number(spent)} FLOPs (full square), more than the plan's own compute "
        f"({format_number(whole)}); ask for fewer or smaller runs",
    )


def _options(feasible: FeasibleSet, member: Member) -> FeasibleSet:
    """Designs to consider at the small budget: covered by every law, 5 to 2,000 tokens per active parameter, or, where
    the space has none of these, as many as a plan is believed at. Raises InputError without any."""
    share = feasible.tokens / feasible.lattice.params_active
    usual = (share > 5) & (share < 2000)
    usual = usual if usual.any() else (share > LEAST_RATIO) & (share < MOST_RATIO)
    if not usual.any():
        raise InputError(
            f"next_runs: at this compute no design of the space has {LEAST_RATIO:g} to {MOST_RATIO:,.0f} tokens per "
            "active parameter; change --flops-each or the space"
        )
    feasible = feasible.take(np.flatnonzero(usual))
    covered = np.flatnonzero(np.isfinite(member.loss(feasible.design)))
    if not len(covered):
        raise InputError("next_runs: the fitted laws cover no design at this budget; change --flops-each or the space")
    if len(covered) > OPTIONS:
        covered = covered[np.sort(np.random.default_rng(0).choice(len(covered), OPTIONS, replace=False))]
    return feasible.take(covered)


def _draws(ranking: Ranking, member: Member, options: FeasibleSet) -> tuple[Array, Array, Array]:
    """Losses of the decisions (draws, m) and of the optional runs (draws, x) under every draw that gives numbers."""
    best = equivalence.top(ranking, equivalence.distinct(ranking), DECISIONS)
    joined = ranking.feasible.take(np.array(best)).join(options)
    losses, weight, _ = draws_of(member, joined)
    if not len(losses):
        raise InputError("next_runs: no bootstrap draw gives finite losses for these designs")
    if len(losses) > TRUTHS:
        kept = np.linspace(0, len(losses) - 1, TRUTHS).round().astype(int)
        losses, weight = losses[kept], weight[kept] / weight[kept].sum()
    return losses[:, : len(best)], weight, losses[:, len(best) :]


def _noise(member: Member) -> float:
    """Relative run-to-run noise: the least residual spread among the laws; the others' holds their own misfit."""
    return max(1e-3, min(predictor.noise for predictor in member.predictors))


def choose_runs(
    truth: Array, weight: Array, logs: Array, noise: float, count: int
) -> tuple[list[int], list[float], float]:
    """Choose runs one after the other. `truth` (r, m) decision losses, `logs` (r, x) log losses of the runs."""
    rng = np.random.default_rng(0)
    regret = truth - truth.min(axis=1, keepdims=True)
    now = float((weight @ regret).min())
    evidence = np.zeros((len(truth), len(truth)))
    chosen: list[int] = []
    left: list[float] = []
    for _ in range(min(count, logs.shape[1])):
        errors = rng.normal(0.0, noise, len(truth))
        best, best_regret, best_evidence = -1, np.inf, evidence
        for x in range(logs.shape[1]):
            if x in chosen:
                continue
            # Rows: the outcome under draw s; columns: the likelihood of that outcome under draw r.
            gap = (logs[:, x] + errors)[:, None] - logs[None, :, x]
            trial = evidence - 0.5 * (gap / noise) ** 2
            after = _expected_regret(trial, weight, regret)
            if after < best_regret:
                best, best_regret, best_evidence = x, after, trial
        chosen.append(best)
        left.append(best_regret)
        evidence = best_evidence
    return chosen, left, now


def _expected_regret(evidence: Array, weight: Array, regret: Array) -> float:
    """Average over outcomes of the least posterior regret."""
    posterior = weight * np.exp(evidence - evidence.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    return float(weight @ (posterior @ regret).min(axis=1))
