"""Loss against lifetime cost: the frontier, what a lower loss costs, and how many served tokens pay for a design.

Lifetime cost is training and serving in US dollars. Every design trains with all compute.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.budget import Budget
from moelab.planning.feasible import affordable_tokens, compute_of, training_price
from moelab.planning.ranking import Ranking, score_designs

Array = NDArray[Any]

SAMPLE = 8_000
"""Designs among which the training optimum at less compute is sought."""

MILLINAT = 0.001
TEN = 10
"""Thousandths of a nat over which what a higher loss saves is averaged too: the frontier has bends and gaps."""

LONGER = 1.1
"""Factor of a design's tokens over which the worth of longer training is taken."""


def extra_nats(ranking: Ranking, index: Array, base: int) -> Array:
    """Loss of designs `index` above that of `base`, in nats: what their excess compute is worth at each member's own
    optimum, the median over the ensemble. So it falls as the excess does."""
    parts = []
    for curve in ranking.curves:
        here, there = curve.loss_behind(ranking.log_excess[index]), curve.loss_behind(ranking.log_excess[base])
        parts.append(here - there)
    return np.asarray(np.median(np.array(parts), axis=0))


def frontier_rows(ranking: Ranking, most: int = 300) -> list[dict[str, Any]]:
    """The frontier, whole up to `most` designs: position, dollars, extra loss. Of a longer one, half of `most` are
    those of least loss, the others an even choice of the cheaper rest, the cheapest and the knee among them."""
    lifetime = ranking.lifetime
    assert lifetime is not None
    index = lifetime.frontier
    if len(index) > most:
        whole = len(index) - most // 2
        picked = np.linspace(0, whole - 1, most - most // 2).round().astype(int)
        picked = np.union1d(picked, np.flatnonzero(index == lifetime.knee))
        index = index[np.union1d(picked, np.arange(whole, len(index)))]
    return _points(ranking, index)


def point_of(ranking: Ranking, index: int) -> dict[str, Any]:
    """One design beside the frontier, as a row of it."""
    return _points(ranking, np.array([index]))[0]


def _points(ranking: Ranking, index: Array) -> list[dict[str, Any]]:
    """Rows of loss against lifetime cost. `extra_nats` is above the least loss on the frontier, `excess_compute` a
    share over the least loss under compute and data alone."""
    lifetime = ranking.lifetime
    assert lifetime is not None
    nats, behind = extra_nats(ranking, index, int(lifetime.frontier[-1])), ranking.excess(index)
    return [
        {
            "index": int(i),
            "lifetime": float(lifetime.cost[i]),
            "train": float(lifetime.train[i]),
            "serve": float(lifetime.serve[i]),
            "extra_nats": float(extra),
            "excess_compute": float(share),
            "knee": int(i) == lifetime.knee,
        }
        for i, extra, share in zip(index, nats, behind, strict=True)
    ]


def dollars_per_millinat(ranking: Ranking, budget: Budget, index: int) -> dict[str, float | None]:
    """Dollars that a loss lower by 0.001 nats costs beyond design `index`, and that one higher by it saves.

    From the frontier, interpolated; None beyond its ends. The first is negative where the frontier reaches the lower
    loss for less: the recommended design need not lie on it. `off_frontier` is what its own loss costs less on the
    frontier. `higher_by_ten_saves` is what one higher by ten times as much saves, per 0.001. `by_training` is what
    longer training of the design itself would cost for a loss lower by as much; None where the limits on data leave no
    more tokens.
    """
    lifetime = ranking.lifetime
    assert lifetime is not None
    front = lifetime.frontier
    nats = np.minimum.accumulate(extra_nats(ranking, front, int(front[-1])))
    here = float(extra_nats(ranking, np.array([index]), int(front[-1]))[0])
    cost = float(lifetime.cost[index])

    def at(value: float) -> float | None:
        if not nats[-1] <= value <= nats[0]:
            return None
        return float(np.interp(-value, -nats, lifetime.cost[front]))

    less, same, more = at(here - MILLINAT), at(here), at(here + MILLINAT)
    return {
        "lower_loss_costs": None if less is None else less - cost,
        "higher_loss_saves": None if more is None else cost - more,
        "higher_by_ten_saves": None if (ten := at(here + TEN * MILLINAT)) is None else (cost - ten) / TEN,
        "off_frontier": None if same is None else cost - same,
        "by_training": _millinat_by_training(ranking, budget, index),
    }


def _millinat_by_training(ranking: Ranking, budget: Budget, index: int) -> float | None:
    """Dollars of training design `index` longer for a loss lower by 0.001 nats, from the slope over `LONGER`."""
    one = ranking.feasible.take(np.array([index]))
    tokens = one.tokens * LONGER
    if tokens[0] > min(budget.max_data, budget.max_tokens or np.inf):
        return None
    longer = one.with_tokens(tokens, budget)
    gains = [float((member.loss(one.design) - member.loss(longer.design))[0]) for member in ranking.ensemble]
    known = [gain for gain in gains if np.isfinite(gain)]
    gain = float(np.median(known)) if known else 0.0
    if not gain > 0:
        return None
    extra = training_price(one.lattice, longer.train_flops - one.train_flops, budget)
    return float(extra[0]) * MILLINAT / gain


def implied_tokens(ranking: Ranking, budget: Budget, index: int) -> float | None:
    """Served tokens from which design `index` costs less over its life than the training optimum of equal loss.

    That optimum needs C' < C of compute and is larger, so it costs less to train and more to serve. 0 where the design
    is itself that optimum; None where it is no cheaper to serve.
    """
    assert ranking.serving is not None
    front = ranking.lifetime.frontier if ranking.lifetime is not None else np.array([ranking.best])
    share = 1 - float(ranking.behind(np.array([index]), int(front[-1]))[0])
    if share > 1 - 1e-3:
        return 0.0
    best, flops = _training_optimum(ranking, budget, share)
    price = ranking.serving.cost_per_million_tokens
    gained = float(price[best] - price[index])
    if gained <= 0:
        return None
    spent = training_price(
        ranking.feasible.lattice.take(np.array([index, best])),
        np.array([ranking.feasible.train_flops_at(index), flops]),
        budget,
    )
    return max(0.0, float(spent[0] - spent[1]) / gained * 1e6)


def _training_optimum(ranking: Ranking, budget: Budget, share: float) -> tuple[int, float]:
    """The design of least loss at this share of the compute, among the best and a sample of the rest; its FLOPs."""
    least = min(SAMPLE // 2, len(ranking.feasible))
    order = np.argpartition(ranking.log_excess, least - 1)[:least]
    rest = np.random.default_rng(0).choice(
        len(ranking.feasible), min(SAMPLE // 2, len(ranking.feasible)), replace=False
    )
    index = np.union1d(order, rest)
    some = ranking.feasible.take(index)
    compute = compute_of(some.lattice, budget) * share
    tokens = affordable_tokens(some.lattice, budget, compute)
    usable = np.flatnonzero(tokens >= some.lattice.space.seq_len)
    some = some.take(usable).with_tokens(tokens[usable], budget)
    _, excess = score_designs(ranking, some, budget)
    at = int(np.argmin(excess))
    return int(index[usable[at]]), some.train_flops_at(at)
