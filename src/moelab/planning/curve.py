"""A law's own optimum against compute, which makes laws with different losses comparable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.budget import Budget
from moelab.planning.counted import CountedDesign
from moelab.planning.ensemble import Member, draw
from moelab.planning.feasible import FeasibleSet, affordable_tokens, compute_of

Array = NDArray[Any]

CURVE = np.logspace(-1.5, 0.0, 7)
"""Fractions of the budget's compute at which a law's own optimum is found."""

CURVE_DESIGNS = 8_000
"""Designs that represent the lattice at less compute: half the best at the budget, half drawn at random."""


@dataclass(frozen=True)
class Curve:
    """A law's compute-optimal loss against the compute it spends, both (k,): compute ascending, loss descending."""

    log_compute: Array
    loss: Array

    @classmethod
    def of(cls, compute: Array, loss: Array) -> "Curve":
        """Keep the points at which the optimum improves."""
        kept_c: list[float] = []
        kept_l: list[float] = []
        for c, value in sorted(zip(np.log(compute), loss, strict=True)):
            if np.isfinite(value) and (not kept_l or value < kept_l[-1] - 1e-12):
                kept_c.append(float(c))
                kept_l.append(float(value))
        return cls(np.array(kept_c), np.array(kept_l))

    def log_compute_at(self, loss: Any) -> Array:
        """Log of the compute at which the optimum reaches `loss`; beyond the curve's ends, along its last slope."""
        if len(self.loss) == 1:
            return np.where(np.isnan(loss), np.nan, self.log_compute[0])
        xs, ys = self.loss[::-1], self.log_compute[::-1]
        inside = np.interp(loss, xs, ys)
        worst, best = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]), (ys[1] - ys[0]) / (xs[1] - xs[0])
        above = ys[-1] + (np.asarray(loss) - xs[-1]) * worst
        below = ys[0] + (np.asarray(loss) - xs[0]) * best
        return np.asarray(np.where(loss > xs[-1], above, np.where(loss < xs[0], below, inside)))

    def loss_behind(self, excess: Any) -> Array:
        """The optimum's loss at an excess of log compute, the inverse of `log_excess`, beyond the ends too."""
        xs, ys, at = self.log_compute, self.loss, self.log_compute[-1] - np.asarray(excess)
        inside = np.interp(at, xs, ys)
        if len(xs) == 1:
            return np.asarray(inside)
        below = ys[0] + (at - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0])
        above = ys[-1] + (at - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
        return np.asarray(np.where(at < xs[0], below, np.where(at > xs[-1], above, inside)))

    def log_excess(self, loss: Any) -> Array:
        """log(C/C'), the excess compute of a loss: 0 at the optimum, negative for a loss below the optimum's."""
        return np.asarray(self.log_compute[-1] - self.log_compute_at(loss))


def curve_of(
    member: Member, at_budget: Array, feasible: FeasibleSet, budget: Budget, designs: int = CURVE_DESIGNS
) -> Curve:
    """The member's own optimum at fractions of the compute; its last point is exact, over all designs.

    `at_budget` is its loss for every feasible design, NaN where it does not apply.
    """
    covered = np.flatnonzero(np.isfinite(at_budget))
    chosen, everything = covered, len(covered) <= designs
    if not everything:
        best = covered[np.argpartition(at_budget[covered], designs // 2)[: designs // 2]]
        chosen = np.union1d(best, covered[draw(len(covered), designs // 2)])
    top = int(covered[np.argmin(at_budget[covered])])
    return curve_through(
        member, feasible.take(chosen), budget, float(at_budget[top]), float(feasible.train_flops_at(top))
    )


def curve_through(member: Member, some: FeasibleSet, budget: Budget, best_loss: float, best_spent: float) -> Curve:
    """The optimum over `some` designs at fractions of the compute that the known optimum spends, shifted onto it.

    Where data is scarce, the known optimum spends less than the budget's compute.
    """
    seq_len, compute = some.lattice.space.seq_len, compute_of(some.lattice, budget)
    share = min(1.0, best_spent / float(np.max(compute)))
    shares = [share * f for f in CURVE[:-1]] + [1.0]
    tokens = np.stack([affordable_tokens(some.lattice, budget, compute * f) for f in shares])
    usable = tokens >= seq_len
    tokens = np.where(usable, tokens, seq_len)
    unique = None if budget.unique_tokens is None else np.minimum(tokens, budget.unique_tokens)
    losses = member.loss(CountedDesign(some.lattice, tokens, unique))
    losses = np.where(usable & np.isfinite(losses), losses, np.inf)
    best, rows = losses.argmin(axis=1), np.arange(len(CURVE))
    spent, found = (some.lattice.flops_train * tokens)[rows, best], losses[rows, best]
    if np.isfinite(found[-1]):
        found = found + (best_loss - found[-1])
    found[-1], spent[-1] = best_loss, best_spent
    return Curve.of(spent, found)
