"""Changes of a plan's budget and laws: limits halved and doubled, and a law's floor at its p10 and p90."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moelab.planning.budget import LEAST, LIMITS, Budget
from moelab.planning.predictors import Predictor

FACTORS = {"half": 0.5, "twice": 2.0}
TENTHS = {"a tenth of": 0.1, "ten times": 10.0}
MOST_WITHIN = 0.9
"""Largest excess compute that a what-if allows."""

FLOOR = "E_0"
"""The coefficient of a law that is its irreducible loss."""

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


def changed_budgets(budget: Budget, within: float | None) -> Iterator[tuple[str, Budget]]:
    """Each limit of the budget halved and doubled, in words, with the changed budget."""
    for name in _limits(budget):
        for word, factor in FACTORS.items():
            scaled = 1 / factor if name in LEAST else factor
            yield f"{word} the {TITLES[name]}", budget.scaled(name, scaled)
    wanted = budget.serving
    if wanted is None:
        return
    gpus = wanted.traffic.gpus
    for word, factor in FACTORS.items():
        if gpus is not None and gpus * factor >= 1:
            traffic = wanted.traffic.model_copy(update={"gpus": round(gpus * factor)})
            serving = wanted.model_copy(update={"traffic": traffic})
            yield f"{word} the devices of a replica", budget.model_copy(update={"serving": serving})
    if within is None or wanted.tokens is None:
        return
    for word, factor in TENTHS.items():
        serving = wanted.model_copy(update={"tokens": max(1, round(wanted.tokens * factor))})
        yield f"{word} the served tokens", budget.model_copy(update={"serving": serving})
    for word, factor in FACTORS.items():
        changed = min(within * factor, MOST_WITHIN)
        yield f"{word} the excess allowed ({changed:.0%})", budget.model_copy(update={"within": changed})


def _limits(budget: Budget) -> list[str]:
    """Limits of the budget that are set; the memory of the serving devices where their number is not."""
    named = [name for name, field in LIMITS.items() if name != "compute" and getattr(budget, field) is not None]
    memory = budget.serving is not None and budget.serving.traffic.gpus is None
    return ["compute", *(["serving_memory"] if memory else []), *named]


def changed_floors(members: list[Predictor]) -> Iterator[tuple[str, list[Predictor]]]:
    """Every fitted law of the ensemble replaced by the draw whose floor is its p10, and its p90."""
    for law in members:
        if FLOOR not in law.draws:
            continue
        usable = np.isfinite(np.stack([np.asarray(values) for values in law.draws.values()])).all(axis=0)
        if not usable.any():
            continue
        draws = {name: np.asarray(values)[usable] for name, values in law.draws.items()}
        for word, share in (("p10", 0.1), ("p90", 0.9)):
            at = int(np.argmin(np.abs(draws[FLOOR] - np.quantile(draws[FLOOR], share))))
            drawn = {name: float(values[at]) for name, values in draws.items()}
            changed = replace(law, coefficients={**law.coefficients, **drawn}, draws={})
            yield (
                f"{law.id} with its floor at {word} ({drawn[FLOOR]:.3f})",
                [changed if one is law else one for one in members],
            )
