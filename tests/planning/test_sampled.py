"""The search on a sample and near its answer gives the answer of the whole search."""

from typing import Any

import numpy as np
import pytest

from moelab.planning import Budget, Space, sampled
from moelab.planning.balance import reference_of
from moelab.planning.chosen_laws import laws_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.sampled import SampledSearch
from moelab.planning.search import search
from moelab.planning.settle import settled_rows

SPACE = Space(
    d_model={"from": 512, "to": 4096, "step": 256}, n_layers={"from": 8, "to": 40, "step": 2}, head_dim=(128,),
    ffn_ratio=(3, 4), n_experts=(8, 16, 32, 64, 128), top_k=(1, 2, 4, 8), n_shared_experts=(0, 1),
    n_dense_layers=(0, 1), vocab_size=32000,
)  # fmt: skip
BASE: dict[str, Any] = {"flops": 1e21, "serving": {"hardware": "h100", "tokens": 1e13}, "mfu": 0.4}


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to this space as the default ones to the default space."""
    monkeypatch.setattr(sampled, "BEST", 200)
    monkeypatch.setattr(sampled, "REST", 400)


def chosen(ranking: Any, at: int) -> tuple[float, ...]:
    lattice = ranking.feasible.lattice
    return tuple(float(getattr(lattice, name)[at]) for name in ("params_active", "params_total", "n_experts"))


@pytest.mark.parametrize(
    "changes",
    [
        {"flops": 2.5e20}, {"flops": 4e21}, {"within": 0.05}, {"unique_tokens": 2e10}, {"max_params": 1e10},
        {"serving": {"hardware": "h100", "tokens": 1e10}}, {"objective": "loss"},
    ],
)  # fmt: skip
def test_a_changed_budget_has_the_answer_of_the_whole_search(changes: dict[str, Any]) -> None:
    lattice, laws = enumerate_designs(SPACE), predictors_of(laws_of(["ludziejewski2025", "abnar2025"]))
    budget, changed = Budget.parse(BASE), Budget.parse(BASE | changes)
    ranking = search(lattice, budget, laws)
    part = SampledSearch.around(ranking, lattice, budget, settled_rows(ranking, 1)[0].near)
    assert len(part.some) < len(lattice) / 5
    found, at = part.search(changed, list(part.predictors))
    whole = search(lattice, changed, laws)
    assert chosen(found, at) == chosen(whole, settled_rows(whole, 1)[0].chosen)


def test_what_neither_compute_nor_data_changes_has_the_same_reference() -> None:
    lattice, laws = enumerate_designs(SPACE), predictors_of(laws_of(["ludziejewski2025"]))
    budget = Budget.parse(BASE)
    served, more = (
        Budget.parse(BASE | {"serving": {"hardware": "h200", "tokens": 1e9}}),
        Budget.parse({**BASE, "flops": 2e21}),
    )
    here, same, other = (reference_of(lattice, asked, laws) for asked in (budget, served, more))
    assert (here.least, here.unresolved) == (same.least, same.unresolved)
    assert np.array_equal(here.curves[0].loss, same.curves[0].loss)
    assert other.curves[0].loss[-1] < here.curves[0].loss[-1]
