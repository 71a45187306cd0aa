"""The lattice: counts equal those of the emitted configs, the default space holds today's models, equal spaces once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from moelab.architecture import ModelConfig, load_preset
from moelab.architecture.released import released_models
from moelab.laws.design import Design
from moelab.planning import Budget, Space
from moelab.planning.counted import CountedDesign
from moelab.planning.credit import token_credit
from moelab.planning.held import in_default_space
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.plan import plan

Check = Callable[[Lattice, int], None]

MOST = 1_500_000

EVERY_AXIS = {
    "d_model": [96, 128],
    "n_layers": [3, 5, 6],
    "aspect": [8, 64],
    "attention": [
        "full",
        "window",
        "latent",
        {"kind": "full", "heads_ratio": [2.5], "heads_per_kv": 4, "head_dim": 16},
    ],
    "n_heads": [4, 6],
    "head_dim": [16, 32],
    "heads_per_kv": [1, 2],
    "sliding_pattern": [["window", "full"], ["chunk", "chunk", "full"]],
    "sliding_window": [24, 64],
    "mtp_layers": [0, 2],
    "ffn_ratio": 3,
    "n_experts": [4, 8],
    "top_k": [1, 3],
    "n_shared_experts": [0, 2],
    "n_dense_layers": [0, 1],
    "moe_every": [1, 2],
    "d_shared": [32, 48],
    "d_expert_step": 8,
    "d_ff_step": 8,
    "min_d_expert": 8,
    "vocab_size": 512,
    "seq_len": 100,
}
"""A few thousand designs with every axis of more than one value."""


def test_counts_of_random_designs_of_the_default_space_are_exact(counted_exactly: Check) -> None:
    lattice = enumerate_designs(Space(attention=["full", "window", "latent"]))
    assert len(lattice) <= MOST
    counted_exactly(lattice, 40)


@pytest.mark.parametrize("changes", [{}, {"kinds": ["moe"], "routing": "loss_free", "tie_embeddings": True}])
def test_counts_are_exact_on_every_axis(changes: dict[str, Any], counted_exactly: Check) -> None:
    lattice = enumerate_designs(Space.parse(EVERY_AXIS | changes))
    assert {pattern.kind for pattern in lattice.patterns} == {"full", "window", "latent"}
    counted_exactly(lattice, 60)


def test_counts_are_exact_with_a_template(counted_exactly: Check) -> None:
    """Biases, sinks, norms, groups of experts and hashed layers of the template are counted in every design."""
    template = ModelConfig.parse(
        {
            "vocab_size": 512, "d_model": 96, "n_layers": 4, "n_heads": 4, "head_dim": 16, "attention_bias": True,
            "attention_sinks": True, "norm_position": "both", "d_ff": 64, "tie_embeddings": False,
            "moe": {"n_experts": 8, "top_k": 2, "d_expert": 32, "router_bias": True, "expert_bias": True,
                    "n_group": 4, "topk_group": 2, "hash_layers": 1},
        }
    )  # fmt: skip
    axes = EVERY_AXIS | {"attention": ["full", "window"], "top_k": [2], "template": template, "mtp_layers": [0]}
    lattice = enumerate_designs(Space.parse(axes))
    assert lattice.of_backbone("n_layers").min() == 3
    assert lattice.config(len(lattice) - 1).moe.n_group == 4
    counted_exactly(lattice, 60)


def test_equal_spaces_are_counted_once_and_read_only() -> None:
    space = Space.parse(EVERY_AXIS)
    first = enumerate_designs(space)
    assert enumerate_designs(Space.parse(space.to_dict())) is first
    assert enumerate_designs(space.replace(seq_len=99)) is not first
    with pytest.raises(ValueError, match="read-only"):
        first.params_total[0] = 0.0


TODAY = sorted(
    name for name, public in released_models().items() if public.released >= "2024-12" and public.config.moe is not None
)
"""The MoE presets released from 2024-12 on."""


def test_the_models_of_today_are_these() -> None:
    assert len(TODAY) >= 12
    assert {"deepseek-v3", "kimi-k2", "glm-4.5", "gpt-oss-120b", "llama4-maverick", "qwen3-235b-a22b"} <= set(TODAY)


@pytest.mark.parametrize("name", [name for name in TODAY if name != "llama4-maverick"])
def test_the_default_space_holds_a_design_like_every_model_of_today(name: str) -> None:
    assert in_default_space(load_preset(name))


def test_dense_layers_between_moe_layers_are_outside_the_default_space() -> None:
    """No law was fitted to MoE in every second layer; one model of today has that."""
    model = load_preset("llama4-maverick")
    assert model.moe_every == 2
    assert not in_default_space(model)
    assert {layout.moe_every for layout in Space().expert_layouts} == {1}


def test_attention_that_no_law_sees_is_searched_where_it_is_named() -> None:
    opened = Space(attention=["full", "window", "latent"])
    assert {pattern.kind for pattern in enumerate_designs(Space()).patterns} == {"full"}
    assert {pattern.kind for pattern in enumerate_designs(opened).patterns} == {"full", "window", "latent"}
    assert Space(attention="full") == Space()
    assert set(Space().attention) < set(opened.attention)


def test_another_number_of_heads_or_layers_is_another_design() -> None:
    model = load_preset("qwen3-30b-a3b")
    assert not in_default_space(model.replace(n_layers=60))
    assert not in_default_space(model.replace(n_heads=28))
    assert not in_default_space(load_preset("llama3-8b"))


@pytest.mark.parametrize("changes", [{}, {"d_shared": None}])
def test_what_laws_read_of_a_lattice_equals_what_they_read_of_its_shapes(changes: dict[str, Any]) -> None:
    axes = {name: value for name, value in (EVERY_AXIS | changes).items() if value is not None}
    lattice = enumerate_designs(Space.parse(axes))
    tokens = np.geomspace(1e6, 1e9, len(lattice))
    credit = token_credit(lattice.shape, lattice.space.seq_len)
    assert 0.5 < credit.min() < credit.max() == 1
    counted = CountedDesign(lattice, tokens, tokens / 3)
    read, plain = (Design.of(lattice.shape, given, 100, tokens / 3) for given in (tokens * credit, tokens))
    names = [name for name, value in vars(Design).items() if isinstance(value, cached_property) and name[0] != "_"]
    assert len(names) > 15
    for name in names:
        if name != "count":
            dumb = plain if name.startswith("train_flops") else read
            np.testing.assert_allclose(getattr(counted, name), getattr(dumb, name), rtol=1e-13, err_msg=name)
    np.testing.assert_allclose(counted.tokens, tokens * credit, rtol=1e-13)
    np.testing.assert_allclose(counted.unique_tokens, np.minimum(tokens * credit, tokens / 3), rtol=1e-13)


def test_parts_of_a_lattice_keep_what_was_read_of_them() -> None:
    lattice = enumerate_designs(Space.parse(EVERY_AXIS))
    part = lattice.take(slice(10, 20))
    assert lattice.take(slice(10, 20)) is part
    assert part.of_experts("sparsity") is part.of_experts("sparsity")
    assert (part.n_experts == lattice.n_experts[10:20]).all()


def test_a_plan_over_a_kept_lattice_equals_one_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lattice keeps (counts, what laws read, costs of serving) changes no answer."""
    few = {"n_layers": [5], "head_dim": [16], "n_heads": [4], "sliding_window": [24], "mtp_layers": [0]}
    space = Space.parse(EVERY_AXIS | few)
    serving = {"hardware": "h100", "tokens": 1e10, "traffic": {"prompt": 64, "output": 16}}
    budgets = [Budget.parse({"flops": flops, "serving": serving}) for flops in (1e14, 3e14)]

    def answers() -> list[dict[str, Any]]:
        found = [plan(budget, ["ludziejewski2025"], space, top=2, extrapolate=True) for budget in budgets]
        return [each.to_dict() for each in found]

    kept = answers()
    monkeypatch.setattr("moelab.planning.lattice.MOST_KEPT", 0)
    assert enumerate_designs(space) is not enumerate_designs(space)
    assert answers() == kept
