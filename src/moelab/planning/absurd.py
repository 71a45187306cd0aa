"""Where a plan's predictions mean nothing: worse than guessing, or a factor of a thousand from any run."""

from typing import TYPE_CHECKING

import numpy as np

from moelab.errors import InputError
from moelab.planning.ranking import Ranking
from moelab.quantities import format_number

if TYPE_CHECKING:
    from moelab.planning.result import Plan

HOPELESS = 3.0
"""log10 distance outside the fitted range at which a law's number is only its formula's."""

VOCABULARY = 65_536
"""Published laws hold for vocabularies of their own, of which the published ones of the time are no larger."""


def refuse_absurd(plan: "Plan", ranking: Ranking) -> None:
    """Raises InputError where every law that votes on the best design gives it a loss worse than guessing's."""
    guesses = _guesses(plan, ranking)
    worse = _worse(plan, guesses)
    if worse and len(worse) == sum(plan.best.loss[law].value is not None for law in guesses):
        law, loss = min(worse.items(), key=lambda item: item[1] - guesses[item[0]])
        compute = "flops" if plan.budget.flops is not None else "days"
        raise InputError(
            f"{compute}: predictions are meaningless here: {law} gives the best design, {plan.best.label} on "
            f"{format_number(plan.best.tokens)} tokens, a loss of {loss:.3g}, worse than guessing, ln(vocab_size) = "
            f"{guesses[law]:.3g}; give more compute, or a space of smaller designs"
        )


def warn_absurd(plan: "Plan", ranking: Ranking) -> list[str]:
    """Sentences for a plan that no run supports, or that some law thinks worse than guessing."""
    guesses, lines = _guesses(plan, ranking), []
    told = [plan.best.loss[law].extrapolation for law in guesses if plan.best.loss[law].value is not None]
    known = [far for far in told if far is not None]
    if known and min(known) > HOPELESS:
        lines.append(
            "predictions are meaningless here: every voting law whose range is known is a factor of "
            f"{10 ** min(known):.3g} or more outside the runs it was fitted on"
        )
    for law, loss in _worse(plan, guesses).items():
        lines.append(
            f"predictions are meaningless here: {law} gives the best design a loss of {loss:.3g}, worse than guessing, "
            f"ln(vocab_size) = {guesses[law]:.3g}"
        )
    return lines


def _guesses(plan: "Plan", ranking: Ranking) -> dict[str, float]:
    """The loss of guessing for every voting law: over the space's vocabulary, for published laws a large one."""
    size = plan.space.vocab_size
    voices = [voice for juror in ranking.jury for voice in juror.voices]
    return {v.id: float(np.log(max(size, VOCABULARY) if v.published else size)) for v in voices}


def _worse(plan: "Plan", guesses: dict[str, float]) -> dict[str, float]:
    """Voting laws whose loss for the best design exceeds guessing's."""
    told = {law: plan.best.loss[law].value for law in guesses}
    return {law: loss for law, loss in told.items() if loss is not None and loss > guesses[law]}
