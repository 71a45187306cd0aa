"""Warnings about the laws of the ensemble: what they do not cover, and what they disagree about."""

from moelab.planning.candidate import Candidate
from moelab.planning.fit_notes import owed_warnings, unranked_kinds
from moelab.planning.ranking import Ranking
from moelab.planning.result import Plan
from moelab.planning.settle import tie_of
from moelab.quantities import format_number


def ensemble_warnings(plan: Plan, ranking: Ranking, by_all: Candidate | None) -> list[str]:
    """Sentences on members that do not cover a design, kinds without a law, priors, and optima that differ.

    `by_all` is the best design that every member covers.
    """
    return [
        *_missing_members(plan, ranking, by_all),
        *_missing_kinds(plan, ranking),
        *owed_warnings(ranking.ensemble_laws, plan.best_moe is not None),
        *_disagreement(plan),
        *_dense_alone(plan, ranking),
    ]


def _missing_members(plan: Plan, ranking: Ranking, by_all: Candidate | None) -> list[str]:
    """Members that do not cover the best design, or the best dense one, and the best design that all cover."""
    total, lines = len(ranking.ensemble), []
    if total < 2:
        return []
    shown = [("the best design", plan.best)]
    if plan.best_dense is not None and plan.best.is_moe:
        shown.append(("the best dense design", plan.best_dense))
    for name, design in shown:
        missing = [law for law in plan.ensemble if design.loss[law].value is None]
        if not missing:
            continue
        covering = sum(
            all(design.loss[predictor.id].value is not None for predictor in member.predictors)
            for member in ranking.ensemble
        )
        reasons = "; ".join(f"{law}: {design.loss[law].not_covered}" for law in missing)
        line = f"{name} is covered by {covering} of the {total} members of the ensemble ({reasons})"
        if design is plan.best:
            line += "; none is covered by all" if by_all is None else f"; the best covered by all: {_brief(by_all)}"
        lines.append(line)
    return lines


def _missing_kinds(plan: Plan, ranking: Ranking) -> list[str]:
    """Kinds of design, dense or MoE, without a ranked design."""
    lines, uncovered = [plan.ranked_note] if plan.ranked_note else [], unranked_kinds(ranking)
    for kind, best in (("dense", plan.best_dense), ("MoE", plan.best_moe)):
        if best is None and kind not in uncovered and kind.lower() in ranking.feasible.lattice.space.kinds:
            why = "fits the limits" if ranking.cost is None else "reaches the target loss"
            lines.append(f"no {kind} design {why}")
    return lines


def _disagreement(plan: Plan) -> list[str]:
    """A sentence where the optima of the ensemble's laws differ by more than 5 % of compute."""
    own = {law: plan.choices[law] for law in plan.ensemble if law in plan.choices}
    if len(own) < 2:
        return []
    costs = {
        (law, other): design.loss[other].behind_compute for law, design in own.items() for other in own if law != other
    }
    known = [cost for cost in costs.values() if cost is not None]
    kinds = {design.is_moe for design in own.values()}
    if kinds == {True, False}:
        moe = [law for law, design in own.items() if design.is_moe]
        dense = [law for law, design in own.items() if not design.is_moe]
        return [f"the laws disagree on the kind of model: {', '.join(moe)} prefer MoE, {', '.join(dense)} dense"]
    if known and max(known) < 0.05:
        return []
    optima = "; ".join(f"{_brief(design)} ({law})" for law, design in own.items())
    counted = known and not plan.confidence.meaningless
    cost = f". By another law, one of these has up to {max(known):.0%} excess compute" if counted else ""
    return [f"the laws disagree on the optimum: {optima}{cost}"]


def _dense_alone(plan: Plan, ranking: Ranking) -> list[str]:
    """Laws of dense models alone, which rank nothing, where they put the best dense design behind their own optimum by
    more than near-equal designs differ. Not where a cost is among what chose it."""
    dense, alone = plan.best_dense, [law.id for law in ranking.predictors if not law.law.covers_moe]
    if dense is None or plan.budget.objective != "loss" or plan.confidence.meaningless:
        return []
    behind = {law: dense.loss[law].behind_compute for law in alone if law not in plan.ensemble}
    known = {law: share for law, share in behind.items() if share is not None}
    if max(known.values(), default=0.0) <= tie_of(ranking):
        return []
    low, high = min(known.values()), max(known.values())
    ends = f"{high:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    several = len(known) > 1
    which = f"{'laws' if several else 'a law'} of dense models alone ({', '.join(known)}) put{'' if several else 's'}"
    own = "their own optima" if several else "its own optimum"
    asked = f": --kinds dense asks {'them' if several else 'it'}" if asks_dense_laws(plan, ranking) else ""
    return [
        f"{which} the best dense design ({format_number(dense.params_total)}) {ends} of compute behind {own}{asked}"
    ]


def asks_dense_laws(plan: Plan, ranking: Ranking) -> bool:
    """Whether a plan of dense designs alone is ranked by laws of dense models: fits of one's own rank before them."""
    fits = any(member.fitted for member in ranking.ensemble)
    return not fits and plan.best_moe is not None


def _brief(design: Candidate) -> str:
    """The design and its tokens in a few words."""
    return f"{design.label} on {format_number(design.tokens)} tokens"
