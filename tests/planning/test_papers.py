"""What the papers claim, through the planner: memory decides the experts, sparsity pays, few experts serve cheaply."""

import numpy as np
import pytest

from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.budget import Serving
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan
from moelab.planning.search import search

JOINT, ABNAR = get_law("ludziejewski2025"), get_law("abnar2025")

PAPER = Space(
    d_model=tuple(range(640, 4097, 64)),
    n_layers=tuple(range(10, 65)),
    aspect=(64.0, 64.0),
    head_dim=(64,),
    heads_per_kv=(1,),
    ffn_ratio=(3.0,),
    n_experts=(2, 4, 8, 16, 32),
    top_k=(1,),
    n_shared_experts=(0,),
    n_dense_layers=(0,),
    vocab_size=50257,
    seq_len=2048,
)
"""The joint law's models: d = 64 n, multi-head attention, top-1 experts of width 3 d in every layer."""


@pytest.mark.parametrize(("memory", "experts"), [(24e9, 4), (80e9, 16), (640e9, 32)])
def test_memory_decides_the_experts(memory: float, experts: int) -> None:
    """arXiv 2502.05172, the row of 1e22 FLOPs: 4, 16 and 32 experts in 24, 80 and 640 GB."""
    result = plan(Budget(flops=1e22, max_memory=memory, context=16384), [JOINT], PAPER, top=1)
    assert result.best.n_experts == experts
    assert result.best.memory_bytes <= memory


def test_sparser_models_are_larger_and_use_a_smaller_part() -> None:
    """arXiv 2501.12370: along the compute optimum N rises and N (1 - S), its active size, falls with sparsity.

    The exact active size, with attention and embeddings that are not sparse, stays within 15 % instead.
    """
    totals, approximate, actives = [], [], []
    for experts in (2, 4, 8, 16):
        space = Space(n_experts=(experts,), top_k=(1,), n_shared_experts=(0,), n_dense_layers=(0,), kinds=("moe",))
        best = plan(Budget(flops=1e20), [ABNAR], space, top=1).choices[ABNAR.id]
        totals.append(best.params_total)
        approximate.append(best.params_total / experts)
        actives.append(best.params_active)
    assert totals == sorted(totals)
    assert approximate == sorted(approximate, reverse=True)
    assert max(actives) < 1.15 * min(actives)


def test_at_a_fixed_size_the_best_sparsity_is_interior() -> None:
    """arXiv 2501.12370: at fixed N neither dense nor the sparsest model wins."""
    result = plan(Budget(flops=1e21, max_params=1.5e9), [ABNAR], Space(top_k=(1,), n_shared_experts=(0,)), top=1)
    assert 0 < result.best.sparsity < 0.94


EVERY = (1, 2, 4, 8, 16, 32)


def _yun_space() -> Space:
    return Space(
        n_experts=EVERY[1:], top_k=(1,), n_shared_experts=(0,), n_dense_layers=(0,), head_dim=(128,), ffn_ratio=(4.0,)
    )


def test_few_experts_serve_cheapest_at_equal_loss() -> None:
    """arXiv 2404.02852 in shape: at the dense model's loss and budget, every MoE serves cheaper than it."""
    serving = Serving.parse({"hardware": "a100", "traffic": {"prompt": 512, "output": 128}})
    ranking = search(enumerate_designs(_yun_space()), Budget(flops=1e21, serving=serving), predictors_of([JOINT]))
    loss, experts = ranking.score, np.maximum(ranking.feasible.lattice.n_experts, 1)
    assert ranking.serving is not None
    price = ranking.serving.cost_per_million_tokens
    target = loss[experts == 1].min()
    dense = price[(experts == 1) & (loss <= target)].min()
    cheapest = {e: price[(experts == e) & (loss <= target)].min() / dense for e in EVERY[1:]}
    assert max(cheapest.values()) < 1
    # Fewer, over-trained: the cheapest MoE at that loss is far smaller than the loss-optimal one with as many experts.
    active = ranking.feasible.lattice.params_active
    for e in (8, 16, 32):
        best = active[np.flatnonzero(experts == e)[np.argmin(loss[experts == e])]]
        served = np.flatnonzero((experts == e) & (loss <= target))
        assert active[served[np.argmin(price[served])]] < 0.6 * best


def test_least_loss_at_bounded_price() -> None:
    """The second algorithm of arXiv 2404.02852: at no more than the price of the dense optimum, MoE has less loss."""
    serving = Serving.parse({"hardware": "a100", "price_like_experts": 1})
    anyhow = serving.replace(price_like_experts=None)
    bounded = plan(Budget(flops=1e21, serving=serving, mfu=0.4), [JOINT], _yun_space(), top=1)
    free = plan(Budget(flops=1e21, serving=anyhow, mfu=0.4), [JOINT], _yun_space(), top=1)
    assert bounded.best.is_moe
    assert bounded.best_dense is not None
    assert (
        bounded.best.serving["cost_per_million_tokens"] <= free.best_dense.serving["cost_per_million_tokens"] * 1.0001
    )
    assert free.best.mean_loss.value <= bounded.best.mean_loss.value < free.best_dense.mean_loss.value


def test_compute_that_also_pays_for_serving() -> None:
    """6 N_a D + 2 N_a D_served = F (arXiv 2502.05172): the more is served, the smaller the model."""
    sizes = [
        plan(Budget(flops=1e22, serve_flops_tokens=served), [JOINT], _yun_space(), top=1).best.params_active
        for served in (0, 10**12, 10**13)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
