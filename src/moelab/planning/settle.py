"""Settles what the ensemble leaves open: of near-equal designs, the one that laws of granularity, costs and practice
prefer, in this order, each step on record."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.balance import OUTSIDE
from moelab.planning.equivalence import distance_from_rules
from moelab.planning.granularity import granularity_excess, mean_excess
from moelab.planning.paired import known_excess
from moelab.planning.practice import distance_from_practice
from moelab.planning.ranking import Ranking

Array = NDArray[Any]

TIE = 0.01
"""Excess compute (or cost) up to which designs are near-equal: to fits of one's own, to one law that is taken alone, or
by cost."""

PUBLISHED_TIE = 0.10
"""The same for an ensemble of published laws: 0.003 to 0.01 nats. The one such fit whose authors print its error misses
its own runs by 0.015 nats (arXiv 2402.07871)."""

GRANULARITY = 0.05
"""Excess compute by the laws of granularity that practice may still overrule."""

COST = 0.02
"""Share of the cost that practice may overrule."""

SIZE = 0.05
"""Relative difference in active and in total parameters within which near-equal designs are one row."""

AXES = ("n_experts", "top_k", "granularity", "n_shared_experts", "n_layers", "d_model")
"""Axes named where near-equal designs differ on them."""


@dataclass(frozen=True)
class Settled:
    """The design to build of some near-equal ones, the range of every open axis, and the steps that led there.

    `near` are positions: the best design of every choice of experts, and all that are near-equal to the chosen one.
    """

    chosen: int
    near: Array
    open_axes: dict[str, tuple[float, float]]
    options: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]


def settled_rows(ranking: Ranking, count: int) -> list[Settled]:
    """The best designs to build, at most `count`, best first, each of another size and settled among its near-equals.

    The first is settled among near-equal designs of all sizes, the others among those of their size.
    """
    order, rows = ranking.order, list[Settled]()
    size = _Sizes(ranking, order)
    free = np.ones(len(order), bool) if ranking.lifetime is None else ranking.score[order] < OUTSIDE / 2
    free[0], apart = True, np.ones(len(order), bool)
    while len(rows) < count and free.any():
        best = int(order[np.argmax(free)])
        near = near_equal(ranking, best, order[size.same_as(best) & apart] if rows else order)
        row = settle(ranking, near)
        if not rows:
            apart = ~np.isin(order, near)
            free &= apart
        if all(row.chosen != other.chosen for other in rows):
            rows.append(row)
        free &= ~size.same_as(best) & ~size.same_as(row.chosen)
    return rows


def representative(ranking: Ranking, best: int) -> int:
    """The design to build of all those near-equal to `best` and of its size."""
    order = ranking.order
    return settle(ranking, near_equal(ranking, best, order[_Sizes(ranking, order).same_as(best)])).chosen


def tie_of(ranking: Ranking) -> float:
    """The excess compute, or cost, below which this ranking cannot distinguish two designs."""
    published = len(ranking.ensemble) > 1 and not any(member.fitted for member in ranking.ensemble)
    return PUBLISHED_TIE if published and ranking.cost is None else TIE


def near_equal(ranking: Ranking, best: int, among: Array) -> Array:
    """Those of the positions that are near-equal to `best`, of its kind and covered by as many members, and it.

    Where loss is weighed against cost, both count: excess compute plus the log of the cost. What the laws cannot
    distinguish may then lie beyond the excess allowed, unless that is stated.
    """
    moe, tie, lifetime = ranking.feasible.lattice.is_moe, tie_of(ranking), ranking.lifetime
    if lifetime is None or ranking.score[best] > OUTSIDE / 2:
        near = _behind(ranking, among, best) <= tie
    else:
        room = -np.log1p(-tie)
        near = lifetime.balance[among] <= lifetime.balance[best] + room
        near &= ranking.log_excess[among] <= max(lifetime.most, float(ranking.log_excess[best])) + room
        near &= ranking.score[among] < OUTSIDE / 2
    return np.union1d(among[near & (moe[among] == moe[best])], [best])


def _behind(ranking: Ranking, positions: Array, best: int) -> Array:
    """How far the positions are behind `best` in what is ranked, as a share of compute or of cost (n,)."""
    if ranking.lifetime is None:
        return ranking.behind(positions, best)
    return np.asarray(-np.expm1(np.minimum(ranking.score[best] - ranking.score[positions], 0)))


class _Sizes:
    """Kind, active and total parameters of some positions, gathered once."""

    def __init__(self, ranking: Ranking, positions: Array) -> None:
        self.lattice = ranking.feasible.lattice
        self.moe = self.lattice.is_moe[positions]
        self.columns = [
            (column, column[positions]) for column in (self.lattice.params_active, self.lattice.params_total)
        ]

    def same_as(self, best: int) -> Array:
        """Which of the positions have the kind of `best`, and its active and total parameters within `SIZE`."""
        same = self.moe == self.lattice.is_moe[best]
        for column, here in self.columns:
            low, high = column[best] * (1 - SIZE), column[best] * (1 + SIZE)
            same &= (here >= low) & (here <= high)
        return np.asarray(same)


def settle(ranking: Ranking, near: Array) -> Settled:
    """The design to build among the near-equal positions: first its experts, then its shape by Li et al.'s rules.

    Each choice of experts stands for itself by its best design. What granularity is worth in compute is weighed against
    the utilisation of training, as far as its differences exceed the paired error; on a balance, against all that is in
    it.
    """
    near = near[np.argsort(ranking.score[near], kind="stable")]
    labels = option_labels(ranking.feasible.lattice.take(near))
    names, first, which = np.unique(labels.astype(str), return_index=True, return_inverse=True)
    heads = near[first]
    kept, steps = _experts(ranking, heads, names)
    same = near[kept[which]]
    best = same[0]
    same = same[_behind(ranking, same, best) <= TIE]
    chosen = int(same[np.argmin(distance_from_rules(ranking.feasible.lattice.take(same)))])
    options = tuple(names[np.argsort(first)].tolist())
    return Settled(chosen, np.union1d(heads, same), open_axes(ranking.feasible.take(near)), options, tuple(steps))


def _experts(ranking: Ranking, heads: Array, labels: Array) -> tuple[Array, list[dict[str, Any]]]:
    """Which choices of experts (n,) laws of granularity, cost and practice leave, and the steps; `heads` are the best
    design of each."""
    some, cost = ranking.feasible.take(heads), ranking.cost
    kept, steps = np.ones(len(heads), bool), list[dict[str, Any]]()
    if len(heads) == 1 or not some.lattice.is_moe[0]:
        return kept, steps
    known = {name: values for name, values in granularity_excess(some.design).items() if np.isfinite(values).any()}
    if known or ranking.lifetime is not None:
        total, weighed = _weighed(ranking, heads, known)
        kept, _ = _within(total, kept, GRANULARITY)
        steps.append(_step("granularity", labels, kept, laws=list(known), weighed_against=weighed))
    if cost is not None and kept.sum() > 1:
        kept, least = _within(np.log(cost[heads]), kept, COST)
        steps.append(_step("cost", labels, kept, best_cost=float(np.exp(least))))
    if kept.sum() > 1:
        practice = distance_from_practice(some.lattice)
        kept = kept & (practice <= practice[kept].min() + 1e-9)
        steps.append(_step("practice", labels, kept))
    return kept, steps


def _weighed(ranking: Ranking, heads: Array, known: dict[str, Array]) -> tuple[Array, list[str]]:
    """What granularity and all that it is weighed against come to for each design (n,), in log compute; and against
    what."""
    if ranking.lifetime is not None:  # granularity is in the balance
        return ranking.lifetime.balance[heads], ["utilisation", "cost"]
    total = mean_excess(list(known.values()))
    if ranking.slower is None:
        return total, []
    return total + known_excess(ranking.slower[heads], ranking.paired.training), ["utilisation"]


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
    return {"by": by, "kept": int(kept.sum()), "of": len(kept), "experts": sorted(set(labels[kept].tolist())), **facts}


def open_axes(some: Any) -> dict[str, tuple[float, float]]:
    """The least and largest value of every axis on which the designs differ."""
    s, n = some.lattice.shape, len(some)
    columns = {
        name: some.design.granularity if name == "granularity" else np.broadcast_to(np.asarray(getattr(s, name)), n)
        for name in AXES
    }
    ends = {name: (float(np.min(column)), float(np.max(column))) for name, column in columns.items()}
    return {name: pair for name, pair in ends.items() if pair[1] > pair[0] * 1.001}
