"""The Pareto front: designs that no other beats in loss, total parameters and price of serving at once.

With the lifetime cost as the objective, every design trains to the same loss, and the cost takes the loss's place.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.ranking import Ranking
from moelab.serving import ServingCost

Array = NDArray[Any]
Row = dict[str, Any]
SLICES = ("activation_rate", "sparsity", "granularity")
BINS, FEWEST_BINS, PER_BIN = 24, 6, 200
"""Bins of a slice, the fewest of them, and designs per bin. The best of a few designs depends on which sizes exist, so
few designs get fewer bins of activation rate."""

CELLS = 40
"""Bins of each quantity, on a logarithmic scale; only the best design of each is compared."""


def pareto_front(ranking: Ranking, most: int = 40, *, lifetime: bool = False) -> list[int]:
    """Positions of the designs on the front, smallest first, at most `most`; with serving, price is a third quantity.

    Only the best design of each cell of a logarithmic grid over parameters (and price) is compared, so the front is
    resolved to a fortieth of its range.
    """
    traded = _traded(ranking, lifetime)
    index = np.flatnonzero(ranking.comparable & np.isfinite(traded))
    loss = traded[index]
    axes = [np.log(ranking.feasible.lattice.params_total[index])]
    if ranking.serving is not None:
        axes.append(np.log(np.maximum(_price(ranking.serving)[index], 1e-12)))
    kept = _best_of_cells(loss, axes)
    points = np.stack([loss[kept], *(axis[kept] for axis in axes)], axis=1)
    front = kept[_undominated(points)]
    front = front[np.argsort(axes[0][front])]
    return [int(index[i]) for i in _thin(front, most)]


def _traded(ranking: Ranking, lifetime: bool) -> Array:
    """The quantity traded against size and price (n,): the lifetime cost in dollars, or the loss of the only member.
    With several members, it is the log of the excess compute."""
    if lifetime and ranking.cost is not None:
        return ranking.cost
    return ranking.mean(ranking.ensemble[0]) if len(ranking.ensemble) == 1 else ranking.score


def _price(serving: ServingCost) -> Array:
    """Dollars per million tokens (n,); device-seconds per output token where no price of the devices is known."""
    price = serving.cost_per_million_tokens
    return (serving.gpus + serving.prefill_gpus) / serving.tokens_per_second if np.isnan(price).all() else price


def _best_of_cells(loss: Array, axes: list[Array]) -> Array:
    """The position of the least loss in every cell."""
    cell = np.zeros(len(loss), np.int64)
    for axis in axes:
        span = max(float(np.ptp(axis)), 1e-12)
        cell = cell * CELLS + np.minimum((axis - axis.min()) / span * CELLS, CELLS - 1).astype(np.int64)
    return least_by_cell(cell, loss)


def least_by_cell(cell: Array, values: Array) -> Array:
    """The position of the least value in every occupied cell (small whole numbers), NaN and empty cells left out."""
    least = np.full(int(cell.max()) + 1, np.inf)
    np.fmin.at(least, cell, values)
    hits = np.flatnonzero(values == least[cell])
    _, first = np.unique(cell[hits], return_index=True)
    return np.asarray(hits[first])


def _undominated(points: Array) -> Array:
    """Rows (m, k) that no other row matches or beats everywhere and beats somewhere."""
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))


def _thin(front: Array, most: int) -> Array:
    if len(front) <= most:
        return front
    return front[np.unique(np.linspace(0, len(front) - 1, most).round().astype(int))]


def slice_rows(ranking: Ranking) -> dict[str, list[Row]]:
    """For activation rate, sparsity and granularity: the best loss at the budget among designs near each value, by law.

    Dense designs (rate 1, sparsity 0) are part of it; values are binned on the scale of the axis. A law that does not
    depend on granularity has no curve over it, which would only show the sizes of the lattice.
    """
    lattice = ranking.feasible.lattice
    options = lattice.options[lattice.option]
    moe = options[:, 0] > 0
    columns = {
        "activation_rate": lattice.params_active_non_embedding / lattice.params_non_embedding,
        "sparsity": np.where(moe, 1 - options[:, 1] / np.maximum(options[:, 0], 1), 0.0),
        "granularity": np.where(moe, options[:, 1] + options[:, 2], 1).astype(float),
    }
    laws = {
        name: [law.id for law in ranking.ensemble_laws if name != "granularity" or law.depends_on_granularity]
        for name in SLICES
    }
    return {
        name: [row for law in laws[name] for row in _slice(name, columns[name], ranking.law_results[law].losses, law)]
        for name in SLICES
    }


def _slice(name: str, x: Any, losses: Any, law: str) -> list[Row]:
    """The best design of each bin; dense ones, at rate 1, have a bin of their own. None where all designs that the law
    covers have one value."""
    rate = name == "activation_rate"
    scale = np.log(x) if rate else x
    span = max(float(np.ptp(scale)), 1e-12)
    bins = min(BINS, max(FEWEST_BINS, len(x) // PER_BIN)) if rate else BINS
    covered = x[np.isfinite(losses)]
    if not len(covered) or not np.ptp(covered) > 0:
        return []
    cell = np.minimum((scale - float(scale.min())) / span * bins, bins - 1)
    if rate:
        cell = np.where(x >= 1, bins, cell)
    best = least_by_cell(cell.astype(np.int64), losses)
    return [{name: float(x[at]), "loss": float(losses[at]), "law": law} for at in best]
