"""The recommended experts follow the budget, not its last per cent: with and without limits on size and data."""

import numpy as np
import pytest

from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import laws_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.planning.settle import near_equal, settled_rows, tie_of

CAPS: dict[str, tuple[str, ...]] = {"no caps": (), "caps": ("max_params", "max_active", "unique_tokens")}

Choice = tuple[int, int, bool]


def limits_of(flops: float, caps: tuple[str, ...]) -> dict[str, float]:
    """Limits that bind: half of the active size at 20 tokens per active parameter, ten times that in all."""
    active = float(np.sqrt(flops / 120))
    values = {"max_active": active / 2, "max_params": 5 * active, "unique_tokens": 20 * active}
    return {"flops": flops} | {name: values[name] for name in caps}


def choice_of(limits: dict[str, float]) -> Choice:
    """(E, K, kind) that the plan of these limits would recommend, which must be near-equal to the best."""
    lattice, predictors = enumerate_designs(Space()), predictors_of(laws_of(None))
    ranking: Ranking = search(lattice, Budget.parse(limits), predictors)
    chosen = settled_rows(ranking, 1)[0].chosen
    assert chosen in near_equal(ranking, ranking.best, ranking.order)
    assert ranking.behind(np.array([chosen]), ranking.best)[0] <= tie_of(ranking)
    experts, kinds = ranking.feasible.lattice.of_option("n_experts"), ranking.feasible.lattice.is_moe
    return int(experts[chosen]), int(ranking.feasible.lattice.of_option("top_k")[chosen]), bool(kinds[chosen])


def flips(budgets: np.ndarray, jitters: int) -> tuple[int, set[Choice]]:
    """How many plans of jittered limits differ from that of the limits themselves, and the choices met."""
    rng, found, flipped = np.random.default_rng(0), set[Choice](), 0
    for caps in CAPS.values():
        for flops in budgets:
            limits = limits_of(float(flops), caps)
            chosen = choice_of(limits)
            found.add(chosen)
            for _ in range(jitters):
                near = {name: value * (1 + rng.uniform(-0.01, 0.01)) for name, value in limits.items()}
                flipped += choice_of(near) != chosen
    return flipped, found


def test_the_experts_follow_the_size_and_not_a_jitter_of_the_budget() -> None:
    flipped, found = flips(np.array([1e21, 1e24]), 1)
    assert flipped == 0
    assert len(found) > 1
    assert all(top_k > 1 and moe for _, top_k, moe in found)


@pytest.mark.slow
def test_at_most_two_per_cent_of_the_jitters_flip_over_five_decades() -> None:
    """`benchmarks/stability.py` prints the choices."""
    flipped, found = flips(np.geomspace(1e20, 1e25, 20), 10)
    assert flipped <= 0.02 * 2 * 20 * 10
    assert len(found) > 1
