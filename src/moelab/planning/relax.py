"""Which limits decide, and what ten per cent more of each would buy."""

from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.planning.budget import LIMITS, Budget
from moelab.planning.feasible import Field, affordable_tokens, fit_budget, fits
from moelab.planning.lattice import Lattice
from moelab.planning.ranking import Ranking, score_of
from moelab.planning.voices import outside_range

RELAX = 1.1
NOTICEABLE = 1e-4
"""A gain in compute below one part in ten thousand is rounding, not a constraint that binds."""

BEST = 20_000


def relaxed_gains(ranking: Ranking, lattice: Lattice, budget: Budget) -> dict[str, dict[str, float]]:
    """For every limit that is set: its relaxed value, the loss it saves, and the compute that saving is worth.

    `gain_compute` is a share: .02 means that the relaxed limit is worth 2 % more compute under the old ones.
    `gain_loss` is null where laws fitted to different runs vote.
    """
    now = float(ranking.score[ranking.best])
    gains: dict[str, dict[str, Any]] = {}
    for name, limit in LIMITS.items():
        if getattr(budget, limit) is None:
            continue
        easier = budget.scaled(name, 1 / RELAX if name == "tokens_per_active" else RELAX)
        field = _touched(ranking, lattice, budget, easier)
        if field is None:
            continue
        loss, lost = score_of(ranking, field)
        gain = max(0.0, float(np.expm1(-(np.min(lost) - _lost_now(ranking)))))
        gains[name] = {
            "to": getattr(easier, limit),
            "gain_loss": max(0.0, now - float(np.nanmin(loss))) if loss is not None else None,
            "gain_compute": gain,
        }
    return gains


def binding(ranking: Ranking, gains: dict[str, dict[str, float]]) -> list[str]:
    """Limits that decide: of the budget where relaxing helps, ends of the space's axes, laws' fitted ranges."""
    names = [name for name, gain in gains.items() if gain["gain_compute"] > NOTICEABLE]
    return names + _space_ends(ranking) + _law_ranges(ranking)


def _lost_now(ranking: Ranking) -> float:
    _, lost = score_of(ranking, ranking.field.take(np.array([ranking.best])))
    return float(lost[0])


def _touched(ranking: Ranking, lattice: Lattice, budget: Budget, easier: Budget) -> Field | None:
    """The best designs so far under the easier budget, and all those that only it admits."""
    best = ranking.field.take(ranking.order[:BEST])
    try:
        best = fit_budget(best.lattice, easier)
    except InputError:
        return None
    fields = [best]
    if easier.flops == budget.flops and easier.max_data == budget.max_data:
        admitted = _admitted(lattice, budget, easier)
        fields += [admitted] if admitted is not None else []
    return fields[0] if len(fields) == 1 else fields[0].join(fields[1])


def _admitted(lattice: Lattice, budget: Budget, easier: Budget) -> Field | None:
    """Designs that fit the easier budget and not the old one."""
    tokens = affordable_tokens(lattice, easier)
    new = np.flatnonzero(fits(lattice, easier, tokens) & ~fits(lattice, budget, affordable_tokens(lattice, budget)))
    return fit_budget(lattice.take(new), easier) if len(new) else None


def _space_ends(ranking: Ranking) -> list[str]:
    """Axes of the space on whose end the best design lies, where the axis has more than one value."""
    space, best = ranking.field.lattice.space, ranking.best
    shape = ranking.field.lattice.shape.take(best)
    ends = []
    for name in ("d_model", "n_layers", "n_experts"):
        axis, value = getattr(space, name), int(getattr(shape, name))
        if len(axis) > 1 and value and (value == axis[-1] or (value == axis[0] and name != "n_experts")):
            ends.append(f"space.{name}")
    return ends


def _law_ranges(ranking: Ranking) -> list[str]:
    """Voting laws that would prefer a design outside their fitted range."""
    found = []
    for juror in ranking.jury:
        for voice in juror.voices:
            reading = ranking.readings[voice.id]
            outside = outside_range(reading)
            if outside.any() and np.nanmin(voice.formula(reading)[outside]) < np.nanmin(ranking.losses[voice.id]):
                found.append(f"range.{voice.id}")
    return found
