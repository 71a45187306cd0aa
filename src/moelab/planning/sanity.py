"""Refusal of meaningless plans: a loss worse than guessing, with the limit to change and a value that works."""

import numpy as np

from moelab.errors import InputError
from moelab.fitting.implausible import guessing_loss
from moelab.planning.budget import Budget
from moelab.planning.ensemble import draw
from moelab.planning.feasible import scarce_data
from moelab.planning.lattice import Lattice
from moelab.planning.limits import LIMITS, wider
from moelab.planning.ranking import Ranking
from moelab.planning.result import Plan
from moelab.planning.search import search
from moelab.quantities import format_number

STEPS = np.logspace(0.25, 15, 60)
"""Factors of a limit that are tried until a plan is meaningful."""

SAMPLE = 20_000
"""Designs that represent the lattice while factors are tried."""


def check_target(budget: Budget, vocab_size: int) -> None:
    """Raises InputError for a target loss that guessing reaches, since every design reaches it."""
    guess = guessing_loss(vocab_size)
    if budget.target_loss is not None and budget.target_loss >= guess:
        given = format_number(budget.target_loss, 4)
        raise InputError(f"target_loss {given}: must be below guessing's, ln(vocab_size) = {guess:.3g}")


def refuse_meaningless(plan: Plan, ranking: Ranking, lattice: Lattice) -> None:
    """Raises InputError where every law of the ensemble predicts a loss worse than guessing's for the best design.

    The message names the limit to change, compute or data, and a value of it that gives a meaningful plan.
    """
    guesses = guesses_of(plan.space.vocab_size, ranking)
    worse = worse_than_guessing(plan, guesses)
    if not worse or len(worse) < sum(plan.best.loss[law].value is not None for law in guesses):
        return
    law, loss = min(worse.items(), key=lambda item: item[1] - guesses[item[0]])
    field, limit = _limiting_field(plan)
    nearest = _nearest(plan.budget, limit, lattice, ranking)
    remedy = (
        "no plan of this space is meaningful by these laws"
        if nearest is None
        else f"{field} {format_number(nearest * 1.0005, 4)} gives a meaningful plan"
    )
    raise InputError(
        f"{field}: predictions are meaningless here: {law} gives the best design, {plan.best.label} on "
        f"{format_number(plan.best.tokens)} tokens, a loss of {loss:.3g}, worse than guessing, ln(vocab_size) = "
        f"{guesses[law]:.3g}; {remedy}"
    )


def _limiting_field(plan: Plan) -> tuple[str, str]:
    """The field of the budget that limits the best design's tokens, and its name among the limits."""
    budget, (name, factor) = plan.budget, scarce_data(plan.budget)
    if name is not None and plan.best.tokens >= 0.999 * factor * getattr(budget, name):
        return name, "tokens" if name == "max_tokens" else "data"
    return ("flops" if budget.flops is not None else "days"), "compute"


def _nearest(budget: Budget, limit: str, lattice: Lattice, ranking: Ranking) -> float | None:
    """A value of the limit that gives a meaningful plan; None where the factors of `STEPS` find none."""
    some = lattice.take(draw(len(lattice), SAMPLE)) if len(lattice) > SAMPLE else lattice
    for factor in STEPS:
        raised = wider(budget, limit, float(f"{factor:.2g}"))
        if _meaningful(raised, some, ranking) and (some is lattice or _meaningful(raised, lattice, ranking)):
            field = "days" if limit == "compute" and budget.flops is None else LIMITS[limit]
            return float(getattr(raised, field))
    return None


def _meaningful(budget: Budget, lattice: Lattice, ranking: Ranking) -> bool:
    """Whether some law of the ensemble predicts a loss below guessing's for the best design under this budget."""
    try:
        found = search(lattice, budget, ranking.predictors)
    except InputError:
        return False
    guesses = guesses_of(lattice.space.vocab_size, found)
    design = found.feasible.take(np.array([found.best])).design
    losses = {law.id: float(law.loss(law.read(design))[0]) for law in ranking.predictors if law.id in guesses}
    return any(loss <= guesses[law] for law, loss in losses.items())


def guesses_of(size: int, ranking: Ranking) -> dict[str, float]:
    """The loss of guessing for every law of the ensemble, over the space's vocabulary or, if published, a large one."""
    return {law.id: law.guessing_loss(size) for law in ranking.ensemble_laws}


def worse_than_guessing(plan: Plan, guesses: dict[str, float]) -> dict[str, float]:
    """Laws of the ensemble whose loss for the best design exceeds guessing's."""
    losses = {law: plan.best.loss[law].value for law in guesses}
    return {law: loss for law, loss in losses.items() if loss is not None and loss > guesses[law]}
