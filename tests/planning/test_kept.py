"""What stays with a lattice is what would be computed anew, whatever was asked before."""

from typing import Any

import numpy as np
import pytest

from moelab.planning import Budget, Space, tradeoff
from moelab.planning.coverage import PART, median_of
from moelab.planning.feasible import fit_budget
from moelab.planning.kept import kept_columns
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.plan import Planner
from moelab.planning.served import served_lattice
from moelab.planning.training_rate import utilisation
from moelab.serving import serve

SPACE = Space(
    d_model=[1024, 1536, 2048], n_layers=[16, 24, 32], head_dim=(128,), n_experts=[8, 64], top_k=[1, 2, 8],
    vocab_size=32000,
)  # fmt: skip


def fresh() -> Lattice:
    """The designs of the space, with nothing kept."""
    some = enumerate_designs(SPACE)
    return some.join(some.take(np.arange(0)))


def test_only_designs_not_asked_for_before_are_computed() -> None:
    lattice, asked = fresh(), list[int]()

    def compute(some: Lattice) -> list[Any]:
        asked.append(len(some))
        return [some.params_total * 2, some.is_moe]

    def of(some: Lattice) -> None:
        double, moe = kept_columns(some, "double", "key", 1, compute)
        assert np.array_equal(double, some.params_total * 2)
        assert np.array_equal(moe, some.is_moe)

    half = np.arange(len(lattice)) % 2 == 0
    of(lattice.take(half))
    of(lattice.take(half).take(np.arange(3)))
    of(lattice.take(slice(0, 20)))
    of(lattice)
    of(lattice.take([4, 1]).join(lattice.take([7])))
    rest = len(lattice) - int(half.sum())
    assert asked == [int(half.sum()), 10, rest - 10]


def test_the_oldest_key_is_forgotten() -> None:
    lattice, asked = fresh(), list[str]()
    for key in ("a", "b", "a", "c", "b"):
        some = lattice.take(np.arange(len(lattice)))
        kept_columns(some, "name", key, 2, lambda part, key=key: [asked.append(key) or part.params_total])
    assert asked == ["a", "b", "c", "b"]


def test_costs_of_serving_do_not_depend_on_what_was_asked_before() -> None:
    wanted = Budget.parse({"flops": 1e21, "serving": {"hardware": "h100", "traffic": {"tpot": 0.05}}}).serving
    assert wanted is not None
    lattice = fresh()
    for index in (np.arange(40, 80), np.arange(0, 60), np.arange(len(lattice))[::-3]):
        some = lattice.take(index)
        found, anew = served_lattice(some, wanted), serve(some.shape, wanted.traffic, wanted.device, wanted.price)
        for name in ("gpus", "batch", "cost_per_million_tokens", "time_to_first_token", "interval_factor"):
            assert np.array_equal(getattr(found, name), getattr(anew, name), equal_nan=True)


def test_a_limit_does_not_change_how_the_designs_within_it_train() -> None:
    """A class trains on the layout that suits its largest design, within the limits or not."""
    budget = Budget.parse({"gpus": 64, "days": 10, "train_hardware": "h100"})
    whole, limited = fresh(), fresh()
    small = np.flatnonzero(limited.params_total < np.median(limited.params_total))
    assert np.array_equal(utilisation(limited.take(small), budget), utilisation(whole, budget)[small])


def test_a_frontier_of_many_designs_equals_the_sorted_one() -> None:
    chance = np.random.default_rng(0)
    cost = np.round(np.exp(chance.normal(0, 2, 5 * tradeoff.BINS)), 2)
    excess = np.round(np.maximum(2 - 0.4 * np.log(cost + 0.1), 0) + chance.exponential(0.3, len(cost)), 2)
    least, expected = np.inf, []
    for at in np.lexsort((excess, cost)):
        if excess[at] < least:
            least = excess[at]
            expected.append(at)
    assert tradeoff.frontier(excess, cost).tolist() == expected


def test_a_median_of_many_columns_equals_numpys() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2 * PART + 3))
    values[values > 1] = np.nan
    expected = np.nanmedian(np.where(np.isnan(values).all(axis=0), np.inf, values), axis=0)
    assert np.array_equal(median_of(values), expected)


@pytest.mark.parametrize("limit", [{}, {"max_params": 1e9}])
def test_data_without_a_limit_is_not_read_as_repeated(limit: dict[str, float]) -> None:
    design = fit_budget(enumerate_designs(SPACE), Budget.parse({"flops": 1e20, **limit})).design
    assert design.unique_tokens is design.tokens


def test_the_first_part_of_a_plan_is_the_plans() -> None:
    budget = Budget.parse({"flops": 1e20, "max_params": 1e9})
    begun = Planner(["ludziejewski2025", "abnar2025"], SPACE).begin(budget)
    first, whole = begun.first.to_dict(), begun.plan().to_dict()
    later = {"pareto", "binding", "relaxed", "nearest_released", "what_if"}
    assert {name for name in whole if first[name] != whole[name]} == later
    assert set(first["binding"]) <= set(whole["binding"])
    assert whole["candidates"] == Planner(["ludziejewski2025", "abnar2025"], SPACE).plan(budget).to_dict()["candidates"]
