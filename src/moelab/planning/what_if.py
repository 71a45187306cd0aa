"""What changes the answer: limits halved and doubled, each law alone, and the law's floor at its p10 and p90."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.budget import LEAST, LIMITS, Budget
from moelab.planning.candidate import Candidate
from moelab.planning.costs import cost_of, served_with
from moelab.planning.lattice import Lattice
from moelab.planning.other_attention import attention_rows
from moelab.planning.predictors import ONE_EPOCH, Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.planning.settle import SIZE, option_labels, settled_rows
from moelab.planning.training_rate import training_of

Array = NDArray[Any]
Row = dict[str, Any]

BEST, REST = 5_000, 15_000
"""Designs on which a what-if is searched: the best ranked, and an even sample of the lattice."""

FACTORS = {"half": 0.5, "twice": 2.0}

REUSE = "repeated tokens worth less (R_D at a third)"
"""The change for data that is repeated: its value was measured on dense models, and MoE is reported to lose more."""

FLOOR = "E_0"
"""The coefficient of a law that is its irreducible loss."""


def what_if(
    ranking: Ranking, lattice: Lattice, budget: Budget, near: Array, best: Candidate
) -> Callable[[], list[Row]]:
    """A function that computes a row per change: `change`, the design that is then recommended or the reason for which
    there is none, and whether that `changes` the answer. It keeps a sample of the lattice and not the ranking.

    `near` are positions of the designs among which `best`, the recommended one, was settled.

    Changes of a limit are searched on a sample of the lattice, so sizes are resolved to a few per cent.
    """
    some = _sample(ranking, lattice, near)
    if ranking.lifetime is not None:
        budget = budget.model_copy(update={"within": ranking.lifetime.within})
    repeated = bool((ranking.feasible.tokens[near] > ranking.feasible.unique_tokens[near] * ONE_EPOCH).any())
    return partial(_rows, some, budget, ranking.predictors, ranking.ensemble_laws, repeated, best)


def _rows(
    some: Lattice,
    budget: Budget,
    predictors: Sequence[Predictor],
    members: list[Predictor],
    repeated: bool,
    best: Candidate,
) -> list[Row]:
    """A row per change on the sample `some`; `members` are the laws of the ensemble."""
    asked = _row("as asked", some, budget, predictors)
    rows = []
    for name in _limits(budget):
        for word, factor in FACTORS.items():
            scaled = 1 / factor if name in LEAST else factor
            rows.append(_row(f"{word} the {TITLES[name]}", some, budget.scaled(name, scaled), predictors))
    if budget.objective not in ("serving-cost", "lifetime-cost"):
        rows += [_row(f"{law.id} alone", some, budget, [law]) for law in (members if len(members) > 1 else [])]
        rows += [_row(change, some, budget, laws) for change, laws in _floors(members)]
    if repeated:
        rows.append(_row(REUSE, some, budget, [law.with_reuse(1 / 3) for law in predictors]))
    rows = [row | {"changes": _changes(row, asked)} for row in rows]
    if budget.serving is not None and best.cost is not None:
        experts = best.label.partition(", ")[2]
        rows += attention_rows(best.config, float(best.tokens), experts, budget.serving, best.cost["train"])
    return rows


def _changes(row: Row, asked: Row) -> bool:
    """Whether the experts differ, or a size by more than two rows of one size do."""
    if "why_not" in row or "why_not" in asked:
        return "why_not" in row
    sizes = ("params_active", "params_total", "tokens")
    return bool(row["experts"] != asked["experts"] or any(abs(np.log(row[n] / asked[n])) > SIZE for n in sizes))


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


def _limits(budget: Budget) -> list[str]:
    """Limits of the budget that are set."""
    named = [name for name, field in LIMITS.items() if name != "compute" and getattr(budget, field) is not None]
    return ["compute", *(["serving_memory"] if budget.serving is not None else []), *named]


def _sample(ranking: Ranking, lattice: Lattice, near: Array) -> Lattice:
    """The best ranked designs, of each kind, and every k-th of the lattice."""
    if len(lattice) <= BEST + REST:
        return lattice
    rest = lattice.take(np.arange(0, len(lattice), max(1, len(lattice) // REST)))
    least = _least(ranking.log_excess, BEST)
    best = np.union1d(np.union1d(ranking.order[:BEST], near), least[np.isfinite(ranking.log_excess[least])])
    if ranking.lifetime is not None:
        best = np.union1d(best, ranking.lifetime.frontier)
    dense = np.flatnonzero(~ranking.feasible.lattice.is_moe)
    dense = dense[_least(ranking.score[dense], BEST // 10)]
    return ranking.feasible.lattice.take(np.union1d(best, dense)).join(rest)


def _least(values: Array, count: int) -> Array:
    """Positions of the least values, at most `count`, in no order."""
    return np.argpartition(values, count)[:count] if len(values) > count else np.arange(len(values))


def _row(change: str, lattice: Lattice, budget: Budget, predictors: Sequence[Predictor]) -> Row:
    """The recommendation under a changed budget or other laws."""
    try:
        found = search(lattice, budget, predictors)
    except InputError as error:
        return {"change": change, "why_not": str(error)}
    at = settled_rows(found, 1)[0].chosen
    one = found.feasible.take(np.array([at]))
    row: Row = {
        "change": change,
        "experts": str(option_labels(one.lattice)[0]),
        "params_active": float(one.lattice.params_active[0]),
        "params_total": float(one.lattice.params_total[0]),
        "tokens": float(one.tokens[0]),
    }
    if found.dollars is not None:
        row |= {"cost": float(found.dollars[at]), **_interval(found, budget, at)}
    return row


def _interval(found: Ranking, budget: Budget, at: int) -> Row:
    """The ends of the 80 % interval of a design's lifetime cost; none where another cost is minimised."""
    wanted = budget.serving
    if found.lifetime is None or found.serving is None or wanted is None:
        return {}
    one = found.feasible.take(np.array([at])).lattice
    training = training_of(one, float(found.feasible.tokens[at]), budget.training_hour, budget)
    cost = cost_of(
        float(found.lifetime.train[at]), training, served_with(found.serving.to_dict(at), wanted), wanted.tokens
    )
    return {f"cost_{end}": cost[f"lifetime_{end}"] for end in ("low", "high")}


def _floors(members: list[Predictor]) -> Iterator[tuple[str, list[Predictor]]]:
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
