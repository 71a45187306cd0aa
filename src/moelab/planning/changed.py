"""Changes of a plan's budget and laws: limits halved and doubled, and a law of a low and of a high floor."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moelab.fitting.floor import FLOOR, PARTS
from moelab.planning.budget import Budget
from moelab.planning.limits import LEAST, LIMITS, wider
from moelab.planning.predictors import Predictor
from moelab.planning.served_design import USUAL_TPOT, unlimited
from moelab.quantities import format_seconds

FACTORS = {"half": 0.5, "twice": 2.0}
TENTHS = {"a tenth of": 0.1, "ten times": 10.0}
MOST_WITHIN = 0.9
"""Largest excess compute that a what-if allows."""

TITLES = {
    "compute": "compute",
    "data": "data",
    "tokens": "limit on tokens",
    "params": "limit on parameters",
    "active": "limit on active parameters",
    "memory": "memory",
    "serving_memory": "memory of the serving devices",
    "tokens_per_active": "minimum of tokens per active parameter",
    "most_tokens_per_active": "maximum of tokens per active parameter",
    "tokens_per_total": "minimum of tokens per parameter",
}


def changed_budgets(budget: Budget, within: float | None, high: float | None = None) -> Iterator[tuple[str, Budget]]:
    """Each limit of the budget halved and doubled, in words, with the changed budget.

    `high` is the upper end of the 80 % interval of a time over the time: a limit lower by it is met with 90 %.
    """
    for name in _limits(budget):
        for word, factor in FACTORS.items():
            scaled = 1 / factor if name in LEAST else factor
            yield f"{word} the {TITLES[name]}", wider(budget, name, scaled)
    wanted = budget.serving
    if wanted is None:
        return
    gpus = wanted.traffic.gpus
    for word, factor in FACTORS.items():
        if gpus is not None and gpus * factor >= 1:
            traffic = wanted.traffic.model_copy(update={"gpus": round(gpus * factor)})
            serving = wanted.model_copy(update={"traffic": traffic})
            yield f"{word} the devices of a replica", budget.model_copy(update={"serving": serving})
    yield from _latency(budget, high)
    if within is None or wanted.tokens is None:
        return
    for word, factor in TENTHS.items():
        serving = wanted.model_copy(update={"tokens": max(1, round(wanted.tokens * factor))})
        yield f"{word} the served tokens", budget.model_copy(update={"serving": serving})
    for word, factor in FACTORS.items():
        changed = min(within * factor, MOST_WITHIN)
        yield f"{word} the excess allowed ({changed:.0%})", budget.model_copy(update={"within": changed})


def _latency(budget: Budget, high: float | None) -> Iterator[tuple[str, Budget]]:
    """The limit on the time per output token met with 90 %, halved and doubled; a usual one where a lifetime cost has
    none."""
    wanted = budget.serving
    assert wanted is not None
    limit = wanted.traffic.tpot
    if limit is not None:
        changes = {f"{word} the limit on the time per output token": limit * by for word, by in FACTORS.items()}
        if high is not None:
            changes = {
                f"the limit of {format_seconds(limit)} per output token met with 90 %": limit / high,
                **changes,
            }
    elif unlimited(wanted) and wanted.tokens is not None:
        changes = {f"a limit of {format_seconds(USUAL_TPOT)} per output token": USUAL_TPOT}
    else:
        changes = {}
    for change, seconds in changes.items():
        traffic = wanted.traffic.model_copy(update={"tpot": seconds})
        yield change, budget.model_copy(update={"serving": wanted.model_copy(update={"traffic": traffic})})


def _limits(budget: Budget) -> list[str]:
    """Limits of the budget that are set; the memory of the serving devices where their number is not."""
    named = [name for name, field in LIMITS.items() if name != "compute" and getattr(budget, field) is not None]
    memory = budget.serving is not None and budget.serving.traffic.gpus is None
    return ["compute", *(["serving_memory"] if memory else []), *named]


def changed_floors(members: list[Predictor]) -> Iterator[tuple[str, list[Predictor]]]:
    """Every fitted law of the ensemble replaced by its law of a low floor, and by that of a high one.

    No law without draws: a published law's floor, swept at a fixed prediction in the middle of its runs, maps all its
    losses by one rising line, which leaves every order of designs and every excess compute as they are.
    """
    for law in members:
        if FLOOR not in law.draws:
            continue
        for word, high in (("p10", False), ("p90", True)):
            drawn = law_of_floor(law, high)
            if drawn is None:
                continue
            changed = replace(law, coefficients={**law.coefficients, **drawn}, draws={})
            yield (
                f"{law.id} with its floor at {word} ({drawn[FLOOR]:.3f})",
                [changed if one is law else one for one in members],
            )


def law_of_floor(law: Predictor, high: bool) -> dict[str, float] | None:
    """The coefficients of the middle draw among the fifth with the lowest floors, or with the highest.

    The median of that fifth is the floor's p10, or p90. Its middle draw is the one whose coefficients, in units of
    their spread within the fifth (of logarithms, where positive), are nearest to their mean: a law of this floor whose
    other coefficients are not drawn far off. None without usable draws.
    """
    draws = np.stack([np.asarray(law.draws[name], float) for name in law.law.coefficients], axis=1)
    draws = draws[np.isfinite(draws).all(axis=1)]
    if not len(draws):
        return None
    floors = draws[:, law.law.coefficients.index(FLOOR)]
    order = np.argsort(floors, kind="stable")
    part = np.array_split(order, PARTS)[-1 if high else 0] if len(order) >= PARTS else order[[-1 if high else 0]]
    positive = np.array([name in law.law.positive for name in law.law.coefficients])
    with np.errstate(all="ignore"):
        columns = np.where(positive, np.log(draws[part]), draws[part])
    spread = columns.std(axis=0)
    usable = np.isfinite(spread) & (spread > 0)
    far = np.square((columns - columns.mean(axis=0))[:, usable] / spread[usable]).sum(axis=1)
    chosen = draws[part[int(np.argmin(far))]]
    return {name: float(value) for name, value in zip(law.law.coefficients, chosen, strict=True)}
