"""Where a plan's predictions mean nothing: worse than guessing, or a factor of a thousand from any run."""

from typing import TYPE_CHECKING

import numpy as np

from moelab.errors import InputError
from moelab.planning.budget import LIMITS, Budget
from moelab.planning.ensemble import draw
from moelab.planning.feasible import scarce_data
from moelab.planning.lattice import Lattice
from moelab.planning.predictors import VOCABULARY
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.quantities import format_number

if TYPE_CHECKING:
    from moelab.planning.result import Plan

HOPELESS = 3.0
"""log10 distance outside the fitted range at which a law's number is only its formula's."""

STEPS = np.logspace(0.25, 15, 60)
"""Factors of a limit at which the first meaningful plan is sought."""

SOME = 20_000
"""Designs that stand for the lattice while seeking."""


def check_target(budget: Budget, vocab_size: int) -> None:
    """Raises InputError for a target loss that guessing reaches: every design would."""
    guess = float(np.log(max(vocab_size, VOCABULARY)))
    if budget.target_loss is not None and budget.target_loss >= guess:
        given = format_number(budget.target_loss, 4)
        raise InputError(f"target_loss {given}: must be below guessing's, ln(vocab_size) = {guess:.3g}")


def refuse_meaningless(plan: "Plan", ranking: Ranking, lattice: Lattice) -> None:
    """Raises InputError where every law that votes on the best design gives it a loss worse than guessing's.

    It names the limit to blame, compute or data, and a value of it that gives a meaningful plan.
    """
    guesses = guesses_of(plan.space.vocab_size, ranking)
    worse = worse_than_guessing(plan, guesses)
    if not worse or len(worse) < sum(plan.best.loss[law].value is not None for law in guesses):
        return
    law, loss = min(worse.items(), key=lambda item: item[1] - guesses[item[0]])
    field, limit = _to_blame(plan)
    nearest = _nearest(plan.budget, limit, lattice, ranking)
    better = (
        "the laws find no plan of this space meaningful"
        if nearest is None
        else f"{field} {format_number(nearest * 1.0005, 4)} gives a plan that is not"
    )
    raise InputError(
        f"{field}: predictions are meaningless here: {law} gives the best design, {plan.best.label} on "
        f"{format_number(plan.best.tokens)} tokens, a loss of {loss:.3g}, worse than guessing, ln(vocab_size) = "
        f"{guesses[law]:.3g}; {better}"
    )


def _to_blame(plan: "Plan") -> tuple[str, str]:
    """The field of the budget that keeps the best design's tokens few, and its name among the limits."""
    budget, (name, factor) = plan.budget, scarce_data(plan.budget)
    if name is not None and plan.best.tokens >= 0.999 * factor * getattr(budget, name):
        return name, "tokens" if name == "max_tokens" else "data"
    return ("flops" if budget.flops is not None else "days"), "compute"


def _nearest(budget: Budget, limit: str, lattice: Lattice, ranking: Ranking) -> float | None:
    """A value of the limit that gives a meaningful plan; None where the factors of `STEPS` find none."""
    some = lattice.take(draw(len(lattice), SOME)) if len(lattice) > SOME else lattice
    for factor in STEPS:
        easier = budget.scaled(limit, float(f"{factor:.2g}"))
        if _meaningful(easier, some, ranking) and (some is lattice or _meaningful(easier, lattice, ranking)):
            field = "days" if limit == "compute" and budget.flops is None else LIMITS[limit]
            return float(getattr(easier, field))
    return None


def _meaningful(budget: Budget, lattice: Lattice, ranking: Ranking) -> bool:
    """Whether some voting law gives the best design under this budget a loss below guessing's."""
    try:
        found = search(lattice, budget, ranking.predictors)
    except InputError:
        return False
    guesses = guesses_of(lattice.space.vocab_size, found)
    design = found.feasible.take(np.array([found.best])).design
    told = {v.id: float(v.loss(v.read(design))[0]) for v in ranking.predictors if v.id in guesses}
    return any(loss <= guesses[law] for law, loss in told.items())


def guesses_of(size: int, ranking: Ranking) -> dict[str, float]:
    """The loss of guessing for every voting law: over the space's vocabulary, for published laws a large one."""
    predictors = [predictor for member in ranking.ensemble for predictor in member.predictors]
    return {predictor.id: predictor.guessing_loss(size) for predictor in predictors}


def worse_than_guessing(plan: "Plan", guesses: dict[str, float]) -> dict[str, float]:
    """Voting laws whose loss for the best design exceeds guessing's."""
    told = {law: plan.best.loss[law].value for law in guesses}
    return {law: loss for law, loss in told.items() if loss is not None and loss > guesses[law]}
