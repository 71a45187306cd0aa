"""Settles what the ensemble leaves open: of near-equal designs, the one that laws of granularity, costs and practice
prefer, in this order, each step on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.equivalence import distance_from_rules
from moelab.planning.granularity import granularity_excess
from moelab.planning.practice import distance_from_practice
from moelab.planning.ranking import Ranking

Array = NDArray[Any]

TIE = 0.01
"""Excess compute (or cost) up to which designs are near-equal to the ensemble."""

GRANULARITY = 0.05
"""Excess compute by the laws of granularity that practice may still overrule."""

COST = 0.02
"""Share of the cost that practice may still overrule."""

SIZE = 0.05
"""Relative difference in active and in total parameters within which near-equal designs are one row."""

AXES = ("n_experts", "top_k", "granularity", "n_shared_experts", "n_layers", "d_model")
"""Axes named where near-equal designs differ on them."""


@dataclass(frozen=True)
class Settled:
    """The design to build of some near-equal ones, the range of every open axis, and the steps that led there."""

    chosen: int
    near: Array
    open_axes: dict[str, tuple[float, float]]
    options: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]


def settled_rows(ranking: Ranking, count: int) -> list[Settled]:
    """The best designs to build, at most `count`, best first, each of another size and settled among its near-equals.

    The first is settled among near-equal designs of all sizes, the others among those of their size; so is the first
    where loss is weighed against cost, since that fixes the size.
    """
    order, rows = ranking.order, list[Settled]()
    free = np.ones(len(order), bool)
    while len(rows) < count and free.any():
        best = int(order[np.argmax(free)])
        everywhere = not rows and ranking.lifetime is None
        near = near_equal(ranking, best, order if everywhere else order[_same_size(ranking, order, best)])
        row = settle(ranking, near)
        if all(row.chosen != other.chosen for other in rows):
            rows.append(row)
        free &= ~np.isin(order, near) & ~_same_size(ranking, order, best) & ~_same_size(ranking, order, row.chosen)
    return rows


def representative(ranking: Ranking, best: int) -> int:
    """The design to build of all those near-equal to `best` and of its size."""
    order = ranking.order
    return settle(ranking, near_equal(ranking, best, order[_same_size(ranking, order, best)])).chosen


def near_equal(ranking: Ranking, best: int, among: Array) -> Array:
    """Those of the positions that are near-equal to `best`, of its kind and covered by as many members, and it."""
    moe = ranking.feasible.lattice.is_moe
    near = among[(ranking.behind_at_equal_flops(among, best) <= TIE) & (moe[among] == moe[best])]
    return np.union1d(near, [best])


def _same_size(ranking: Ranking, positions: Array, best: int) -> Array:
    """Which of the positions have the kind of `best`, and its active and total parameters within `SIZE`."""
    lattice = ranking.feasible.lattice
    same = lattice.is_moe[positions] == lattice.is_moe[best]
    for column in (lattice.params_active, lattice.params_total):
        same &= np.abs(column[positions] - column[best]) <= SIZE * column[best]
    return np.asarray(same)


def settle(ranking: Ranking, near: Array) -> Settled:
    """The design to build among the near-equal positions.

    What granularity is worth in compute is weighed against the utilisation of training, where that is known, and
    against the lifetime cost, where loss is.
    """
    cost = ranking.dollars
    some = ranking.feasible.take(near)
    labels = option_labels(some.lattice)
    kept, steps = np.ones(len(near), bool), []
    moe = bool(some.lattice.is_moe[0])
    if moe and len(set(labels)) > 1:
        excess = granularity_excess(some.design)
        known = {name: values for name, values in excess.items() if np.isfinite(values).any()}
        if known:
            total = combined(list(known.values()))
            if ranking.log_bought is not None:
                total = total - ranking.log_bought[near]
            if ranking.lifetime is not None:
                total = total + ranking.lifetime.slope * (
                    ranking.lifetime.cost[near] - ranking.lifetime.cost[near].min()
                )
            kept, _ = _within(total, kept, GRANULARITY)
            weighed = ["utilisation"] * (ranking.log_bought is not None) + ["cost"] * (ranking.lifetime is not None)
            steps.append(_step("granularity", labels, kept, laws=list(known), weighed_against=weighed))
    if cost is not None and kept.sum() > 1:
        kept, step = _within(np.log(cost[near]), kept, COST)
        steps.append(_step("cost", labels, kept, best_cost=float(np.exp(step))))
    practice = distance_from_practice(some.lattice) if moe else np.zeros(len(near))
    if len(set(labels[kept])) > 1:
        least = practice[kept].min()
        kept &= practice <= least + 1e-9
        steps.append(_step("practice", labels, kept))
    penalty = np.where(kept, distance_from_rules(some.lattice), np.inf)
    chosen = int(near[np.argmin(penalty)])
    return Settled(chosen, near, _open(some), tuple(dict.fromkeys(labels)), tuple(steps))


def combined(columns: Sequence[Array]) -> Array:
    """Mean excess (n,) over the laws that cover a design; one that none covers is worse than all that some covers."""
    stacked = np.stack(columns)
    count = np.isfinite(stacked).sum(axis=0)
    mean = np.nansum(np.where(np.isfinite(stacked), stacked, 0.0), axis=0) / np.maximum(count, 1)
    worst = float(mean[count > 0].max()) if (count > 0).any() else 0.0
    return np.asarray(np.where(count > 0, mean, worst + 1.0))


def option_labels(lattice: Any) -> Array:
    """The experts of every design as text (n,): 128 top-8+1, or dense."""
    s, n = lattice.shape, len(lattice)
    experts, top_k, shared = (
        np.broadcast_to(np.asarray(column), n) for column in (s.n_experts, s.top_k, s.n_shared_experts)
    )
    parts = np.stack([experts, top_k, shared], axis=1)
    unique, inverse = np.unique(parts, axis=0, return_inverse=True)
    names = [f"{e} top-{k}" + (f"+{extra}" if extra else "") if e else "dense" for e, k, extra in unique.tolist()]
    return np.asarray(names, object)[np.ravel(inverse)]


def _within(values: Array, kept: Array, tolerance: float) -> tuple[Array, float]:
    """Of the kept ones, those at most `tolerance` above the least; and the least."""
    least = float(values[kept].min())
    return kept & (values <= least + tolerance), least


def _step(by: str, labels: Array, kept: Array, **facts: Any) -> dict[str, Any]:
    """A step on record: what was asked, how many designs it kept, and their experts."""
    return {"by": by, "kept": int(kept.sum()), "of": len(kept), "experts": sorted(set(labels[kept])), **facts}


def _open(some: Any) -> dict[str, tuple[float, float]]:
    """The least and largest value of every axis on which the designs differ."""
    s, n = some.lattice.shape, len(some)
    columns = {
        name: some.design.granularity if name == "granularity" else np.broadcast_to(np.asarray(getattr(s, name)), n)
        for name in AXES
    }
    ends = {name: (float(np.min(column)), float(np.max(column))) for name, column in columns.items()}
    return {name: pair for name, pair in ends.items() if pair[1] > pair[0] * 1.001}
