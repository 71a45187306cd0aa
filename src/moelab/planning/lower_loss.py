"""A design of lower loss that costs no more than the recommended one, and why it was not taken."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from moelab.planning.balance import LEAST_BATCH, OUTSIDE
from moelab.planning.lifetime import MILLINAT, extra_nats
from moelab.planning.ranking import Ranking
from moelab.planning.settle import option_labels


def no_more_expensive(ranking: Ranking, chosen: int, steps: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The design of least loss on the frontier that is below design `chosen` by 0.001 nats or more and costs no more.

    Args:
        ranking: A ranking that weighs loss against lifetime cost.
        chosen: Position of the recommended design.
        steps: The steps that settled the near-equal designs, `Settled.steps`.

    Returns:
        `index`, `lifetime` (dollars), `nats` (how much lower its loss is) and `not_taken`: the `by` of the step that
        dropped its experts, `shape` (no step did), `kind` (dense against MoE), `requests` (served at fewer requests in
        flight than any deployment runs) or `within` (beyond the excess allowed). None where there is no such design.
    """
    lifetime = ranking.lifetime
    assert lifetime is not None
    front, base = lifetime.frontier, int(lifetime.frontier[-1])
    here = float(extra_nats(ranking, np.array([chosen]), base)[0])
    nats = here - extra_nats(ranking, front, base)
    better = np.flatnonzero((nats >= MILLINAT) & (lifetime.cost[front] <= lifetime.cost[chosen]))
    if not len(better):
        return None
    at = better[np.argmax(nats[better])]
    found = int(front[at])
    return {
        "index": found,
        "lifetime": float(lifetime.cost[found]),
        "nats": float(nats[at]),
        "not_taken": _not_taken(ranking, found, chosen, steps),
    }


def _not_taken(ranking: Ranking, found: int, chosen: int, steps: Sequence[dict[str, Any]]) -> str:
    lattice = ranking.feasible.lattice
    if lattice.is_moe[found] != lattice.is_moe[chosen]:
        return "kind"
    assert ranking.serving is not None
    if ranking.serving.batch[found] < LEAST_BATCH:
        return "requests"
    if ranking.score[found] > ranking.score[chosen] + OUTSIDE / 2:
        return "within"
    experts = str(option_labels(lattice.take(np.array([found])))[0])
    return next((step["by"] for step in steps if experts not in step["experts"]), "shape")
