"""What a reader of a plan must know before believing it, in plain sentences."""

from typing import TYPE_CHECKING

import numpy as np

from moelab.laws import get_rule
from moelab.planning.candidate import Candidate
from moelab.planning.ranking import Ranking
from moelab.planning.sanity import HOPELESS, guesses_of, worse_than_guessing
from moelab.planning.uncertainty import Decision
from moelab.quantities import format_number

if TYPE_CHECKING:
    from moelab.planning.result import Plan

FAR = 0.5
"""log10 distance outside the fitted range from which a prediction is called an extrapolation (a factor of three)."""


def warnings_of(
    plan: "Plan", ranking: Ranking, decision: Decision | None, by_all: Candidate | None = None
) -> list[str]:
    """Extrapolation, repeated data, ends of the space, laws that are silent or disagree, draws that failed.

    `by_all` is the best design that every voting law covers.
    """
    best = plan.best
    return [
        *_sanity(plan, ranking),
        *_extrapolations(plan, best),
        *_reuse(best),
        *_ends(plan),
        *_votes(plan, ranking, by_all),
        *_silence(plan, ranking),
        *_disagreement(plan),
        *_draws(decision),
        *_rules(best),
    ]


def _sanity(plan: "Plan", ranking: Ranking) -> list[str]:
    """Sentences for a plan that no run supports, or that some law thinks worse than guessing."""
    guesses, lines = guesses_of(plan.space.vocab_size, ranking), []
    told = [plan.best.loss[law].extrapolation for law in guesses if plan.best.loss[law].value is not None]
    known = [far for far in told if far is not None]
    if known and min(known) > HOPELESS:
        lines.append(
            "predictions are meaningless here: every voting law whose range is known is a factor of "
            f"{10 ** min(known):.3g} or more outside the runs it was fitted on"
        )
    for law, loss in worse_than_guessing(plan, guesses).items():
        lines.append(
            f"predictions are meaningless here: {law} gives the best design a loss of {loss:.3g}, worse than guessing, "
            f"ln(vocab_size) = {guesses[law]:.3g}"
        )
    return lines


def _extrapolations(plan: "Plan", best: Candidate) -> list[str]:
    far = {
        law: prediction.extrapolation
        for law, prediction in best.loss.items()
        if law in plan.voting and prediction.extrapolation is not None and prediction.extrapolation > FAR
    }
    return [
        f"{law} is used a factor of {10**distance:.3g} outside the range it was fitted on"
        for law, distance in far.items()
    ]


def _reuse(best: Candidate) -> list[str]:
    if best.epochs <= 1.001:
        return []
    return [
        f"data is repeated {best.epochs:.2g} times; what a repetition is worth was measured on dense models "
        "(arXiv 2305.16264), for MoE it is an assumption"
    ]


def _ends(plan: "Plan") -> list[str]:
    space = [name for name in plan.binding if name.startswith("space.")]
    ranges = [name.removeprefix("range.") for name in plan.binding if name.startswith("range.")]
    lines = [f"the best design lies at the end of {name}: the space decided, not the laws" for name in space]
    # A law that does not cover the winner did not hold it inside its range: the others decided without it.
    held = [law for law in ranges if plan.best.loss[law].value is not None]
    if held:
        lines.append(
            f"{', '.join(held)} would go beyond the fitted range of experts, sparsity or granularity "
            "(or of tokens, where its runs all saw as many): held inside"
        )
    return lines


def _votes(plan: "Plan", ranking: Ranking, by_all: Candidate | None) -> list[str]:
    """Where not every voting law covers the winner, or its dense rival: who is silent, and the best by all."""
    total, lines = len(ranking.ensemble), []
    if total < 2:
        return []
    shown = [("the winner", plan.best)]
    if plan.best_dense is not None and plan.best.is_moe:
        shown.append(("the best dense design", plan.best_dense))
    for name, design in shown:
        silent = [law for law in plan.voting if design.loss[law].value is None]
        if not silent:
            continue
        votes = sum(
            all(design.loss[predictor.id].value is not None for predictor in member.predictors)
            for member in ranking.ensemble
        )
        why = "; ".join(f"{law}: {design.loss[law].not_covered}" for law in silent)
        line = f"{name} has {votes} of {total} votes ({why})"
        if design is plan.best:
            best = (
                "no design that fits has all" if by_all is None else f"best design with all {total}: {_brief(by_all)}"
            )
            line = f"{line}; {best}"
        lines.append(line)
    return lines


def _silence(plan: "Plan", ranking: Ranking) -> list[str]:
    lines = []
    if ranking.cost is not None:
        kinds = [("dense", plan.best_dense), ("MoE", plan.best_moe)]
        return [
            f"no {kind} design reaches the target loss"
            for kind, best in kinds
            if best is None and kind.lower() in ranking.feasible.lattice.space.kinds
        ]
    if "dense" in ranking.feasible.lattice.space.kinds and plan.best_dense is None and plan.best.is_moe:
        lines.append("no voting law covers dense models: MoE and dense are not compared")
    if "moe" in ranking.feasible.lattice.space.kinds and plan.best_moe is None:
        lines.append("no voting law covers MoE models: only dense designs are ranked")
    return lines


def _disagreement(plan: "Plan") -> list[str]:
    """One sentence where the voting laws choose differently and it costs something."""
    own = {law: plan.choices[law] for law in plan.voting if law in plan.choices}
    if len(own) < 2:
        return []
    costs = {
        (chooser, judge): design.loss[judge].behind_compute
        for chooser, design in own.items()
        for judge in own
        if chooser != judge
    }
    known = [cost for cost in costs.values() if cost is not None]
    kinds = {design.is_moe for design in own.values()}
    if kinds == {True, False}:
        moe = [law for law, design in own.items() if design.is_moe]
        dense = [law for law, design in own.items() if not design.is_moe]
        return [f"the laws disagree on the kind of model: {', '.join(moe)} choose MoE, {', '.join(dense)} dense"]
    if known and max(known) < 0.05:
        return []
    picks = "; ".join(f"{law} would train {_brief(design)}" for law, design in own.items())
    cost = f", and a choice costs up to {max(known):.0%} of the compute by another law's account" if known else ""
    return [f"the laws disagree: {picks}{cost}"]


def _brief(design: Candidate) -> str:
    return f"{design.label} on {format_number(design.tokens)} tokens"


def _draws(decision: Decision | None) -> list[str]:
    if decision is None or not decision.dropped:
        return []
    total = decision.dropped + len(decision.weight)
    return [f"{decision.dropped} of {total} bootstrap draws gave no number somewhere and were dropped"]


def _rules(best: Candidate) -> list[str]:
    given = {"params_non_embedding": best.params_non_embedding, "tokens": best.tokens}
    ranges = get_rule("steplaw2025").ranges
    far = max(
        max(0.0, np.log10(given[name] / limits[1]), np.log10(limits[0] / given[name]))
        for name, limits in ranges.items()
        if limits
    )
    if far <= FAR:
        return []
    return [
        f"learning rate and batch come from the Step Law a factor of {10**far:.3g} outside its runs: "
        "sweep the rate before relying on it"
    ]
