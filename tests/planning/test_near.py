"""The space around one model: it holds the model itself, one step on every axis, and the model's other options."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moelab.architecture import ModelConfig, load_model
from moelab.architecture.presets import PRESETS
from moelab.errors import InputError
from moelab.planning import Budget
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.near import near_space
from moelab.planning.plan import plan


def positions_of(lattice: Lattice, model: ModelConfig) -> list[int]:
    sizes = (lattice.of_backbone("d_model") == model.d_model) & (lattice.of_backbone("n_layers") == model.n_layers)
    if model.moe is not None:
        sizes &= lattice.of_option("n_experts") == model.moe.n_experts
        sizes &= lattice.of_option("top_k") == model.moe.top_k
    return [int(i) for i in np.flatnonzero(sizes) if lattice.config(int(i)) == model]


@pytest.mark.parametrize("name", PRESETS)
def test_it_holds_the_very_model(name: str, counted_exactly: Callable[[Lattice, int], None]) -> None:
    lattice, model = enumerate_designs(near_space(name)), load_model(name)
    assert len(positions_of(lattice, model)) == 1
    counted_exactly(lattice, 5)


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("mixtral-8x7b", {"n_experts": (4, 8, 16), "top_k": (1, 2, 4), "d_model": (3584, 4096, 4608)}),
        ("llama3-8b", {"n_layers": (29, 32, 35), "d_ff": (13312, 14336, 15360), "n_heads": (24, 32, 40)}),
    ],
)
def test_one_step_on_every_axis(name: str, axes: dict[str, tuple[int, ...]]) -> None:
    lattice = enumerate_designs(near_space(name))
    for axis, values in axes.items():
        of = lattice.of_option if axis in ("n_experts", "top_k") else lattice.of_backbone
        assert tuple(np.unique(of(axis))) == values


def test_options_of_the_model_stay(small: dict[str, Any]) -> None:
    model = ModelConfig.parse(small)
    lattice = enumerate_designs(near_space(model))
    for i in range(0, len(lattice), len(lattice) // 20):
        config = lattice.config(i)
        assert (config.rope_theta, config.attention_bias, config.moe.routed_scaling) == (5e5, "qkv", 2.5)
        assert config.moe.n_experts % 4 == 0


def test_a_plan_near_a_model(small: dict[str, Any]) -> None:
    model = ModelConfig.parse(small)
    found = plan(Budget(flops=1e18), ["ludziejewski2025"], near_space(model, seq_len=256), extrapolate=True)
    assert found.space.seq_len == 256
    assert found.best.config.rope_theta == 5e5


def test_other_routers_are_refused(small: dict[str, Any]) -> None:
    moe = {"n_experts": 8, "top_k": 2, "d_expert": 64, "router": "expert_choice"}
    with pytest.raises(InputError, match=r"^near: the planner's designs route by token choice, this model by expert"):
        near_space(ModelConfig.parse(small | {"moe": moe}))


@pytest.fixture
def small() -> dict[str, Any]:
    moe = {
        "n_experts": 8, "top_k": 2, "d_expert": 64, "n_shared_experts": 1, "d_shared": 96, "score": "sigmoid",
        "routed_scaling": 2.5, "n_group": 4, "topk_group": 2,
    }  # fmt: skip
    return {
        "vocab_size": 512, "d_model": 128, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "d_ff": 256,
        "n_dense_layers": 1, "rope_theta": 5e5, "attention_bias": "qkv", "moe": moe,
    }  # fmt: skip
