"""Statistics of who takes what: lifts, typical rows, what a row predicts of the expert, which experts work together.

Tables of uses are (rows, E): row by row how much of it each expert took.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def lift(uses: Array) -> Array:
    """How many times more often than at random a row's uses go to an expert, (rows, E); NaN for an empty row."""
    whole = uses.sum()
    expected = uses.sum(1, keepdims=True) * uses.sum(0, keepdims=True) / whole
    return np.divide(uses, expected, out=np.full_like(uses, np.nan), where=expected > 0)


def typical(uses: Array, expert: int, top: int) -> list[tuple[int, float, float]]:
    """Rows an expert takes above all: (row, share of the expert's uses, lift), by what they add to its divergence.

    share x log lift is a row's part of the Kullback-Leibler divergence of the expert's rows from all rows.
    """
    mine = uses[:, expert]
    if not mine.sum():
        return []
    share, lifts = mine / mine.sum(), np.nan_to_num(lift(uses)[:, expert])
    score = share * np.log(np.maximum(lifts, 1e-12))
    rows = [int(row) for row in np.argsort(-score)[:top] if score[row] > 0]
    return [(row, float(share[row]), float(lifts[row])) for row in rows]


def known_from(uses: Array, own_entropy: float = 0.0) -> float:
    """The share of what can be known of a use's expert that its row predicts: 0 nothing, 1 all.

    Mutual information over the entropy of the load less `own_entropy`, with Miller and Madow's correction for counts
    that are few.
    """
    n, rows, columns = uses.sum(), int((uses.sum(1) > 0).sum()), int((uses.sum(0) > 0).sum())
    if columns < 2:
        return 0.0
    cells = int((uses > 0).sum())
    entropy = _entropy(uses.sum(0)) + (columns - 1) / (2 * n)
    joint = _entropy(uses.ravel()) + (cells - 1) / (2 * n)
    information = entropy + _entropy(uses.sum(1)) + (rows - 1) / (2 * n) - joint
    return float(np.clip(information / max(entropy - own_entropy, 1e-12), 0, 1))


def co_activation(together: Array) -> Array:
    """How many times more often than at random two experts take one token, (E, E); NaN on the diagonal and for none.

    At random a pair i != j has a_i a_j tokens, with weights a under which every expert has the pairs it has: no expert
    is its own partner, so the share that would fall to such pairs goes to the others. Of three experts or fewer the
    loads decide the pairs, and every lift is 1.
    """
    pairs = np.where(np.eye(len(together), dtype=bool), 0.0, together)
    mine = pairs.sum(1)
    weights = mine / np.sqrt(max(mine.sum(), 1e-30))
    for _ in range(200):
        others = weights.sum() - weights
        weights = np.sqrt(weights * np.divide(mine, others, out=np.zeros_like(mine), where=others > 0))
    expected = np.outer(weights, weights)
    np.fill_diagonal(expected, 0.0)
    return np.divide(pairs, expected, out=np.full_like(pairs, np.nan), where=expected > 0)


def entropies(uses_TE: Array) -> float:
    """The entropies (nats) of all rows, summed."""
    return float(-(uses_TE * np.log(np.where(uses_TE > 0, uses_TE, 1.0))).sum())


def _entropy(counts: Array) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
