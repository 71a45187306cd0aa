"""The axes of a space: what they may be, what follows from them, and what is refused."""

from typing import Any

import numpy as np
import pytest

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.planning import Budget, Space
from moelab.planning.attention_axis import nearest_heads
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan

ONE = {
    "d_model": 128, "n_layers": 4, "aspect": [8, 64], "head_dim": 32, "heads_per_kv": 2, "ffn_ratio": 2,
    "kinds": ["moe"], "n_experts": 8, "top_k": 2, "n_shared_experts": 0, "n_dense_layers": 0, "d_expert_step": 8,
    "d_ff_step": 8, "min_d_expert": 8, "vocab_size": 512,
}  # fmt: skip


def configs(**changes: Any) -> list[ModelConfig]:
    lattice = enumerate_designs(Space.parse({k: v for k, v in (ONE | changes).items() if v is not None}))
    return [lattice.config(i) for i in range(len(lattice))]


def test_heads_are_free_of_the_width() -> None:
    """Qwen3-235B has 64 heads of 128 on a width of 4,096."""
    axes = {
        "d_model": 4096, "n_layers": 94, "aspect": [40, 160], "n_heads": 64, "head_dim": 128, "heads_per_kv": 16,
        "ffn_ratio": 3, "kinds": ["moe"], "n_experts": 128, "top_k": 8, "n_shared_experts": 0, "n_dense_layers": 0,
        "vocab_size": 151936,
    }  # fmt: skip
    lattice = enumerate_designs(Space.parse(axes))
    found = lattice.config(0)
    assert len(lattice) == 1
    assert (found.n_heads, found.n_kv_heads, found.head_dim, found.moe.d_expert) == (64, 4, 128, 1536)


def test_heads_follow_the_width_by_a_ratio() -> None:
    option = {"kind": "full", "heads_ratio": [1, 2], "head_dim": 16, "heads_per_kv": 8}
    assert [(c.n_heads, c.n_kv_heads) for c in configs(attention=[option], head_dim=None, heads_per_kv=None)] == [
        (8, 1),
        (16, 2),
    ]
    assert [nearest_heads(n) for n in (0.3, 56, 80, 45, 1e6)] == [1, 64, 96, 48, 256]


def test_windows_have_patterns_and_sizes() -> None:
    found = configs(sliding_pattern=["window", "full"], sliding_window=[64, 128])
    assert [(c.sliding_window, c.sliding_pattern) for c in found] == [
        (64, ("window", "full")),
        (128, ("window", "full")),
    ]
    assert len(configs(attention=["full", "window"], sliding_window=64)) == 2


def test_latent_attention_has_the_sizes_that_released_models_have() -> None:
    (small,) = configs(attention=["latent"], head_dim=128)
    wide = {"d_model": 7168, "n_layers": 61, "aspect": [100, 120], "attention": ["latent"], "n_heads": 128}
    (large,) = configs(**wide, head_dim=128)
    assert small.mla.to_dict() == {
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128
    }  # fmt: skip
    assert large.mla.q_lora_rank == 1536
    assert large.n_kv_heads == large.n_heads == 128


def test_shared_experts_of_their_own_width_leave_the_rest_to_the_routed() -> None:
    found = configs(n_shared_experts=[0, 2], d_shared=[64, 128])
    widths = [(c.moe.n_shared_experts, c.moe.d_shared, c.moe.d_expert) for c in found]
    assert widths == [(0, 0, 128), (2, 64, 96), (2, 128, 64)]


def test_widths_of_experts_and_dense_layers_may_be_given() -> None:
    (found,) = configs(d_expert=40, d_ff=200, n_dense_layers=1)
    assert (found.moe.d_expert, found.d_ff) == (40, 200)


def test_layers_alternate_and_predict_further_tokens() -> None:
    found = configs(moe_every=[1, 2], mtp_layers=[0, 1])
    assert [(c.moe_every, c.n_moe_layers, c.mtp_layers) for c in found] == [
        (1, 4, None), (2, 2, None), (1, 4, 1), (2, 2, 1)
    ]  # fmt: skip


def test_layouts_list_their_combinations() -> None:
    layouts = [{"n_shared_experts": 1}, {"n_dense_layers": 1, "moe_every": 2}]
    found = configs(layouts=layouts, n_shared_experts=None, n_dense_layers=None)
    assert [(c.moe.n_shared_experts, c.n_dense_layers, c.moe_every) for c in found] == [(1, 0, 1), (0, 1, 2)]


def test_experts_per_choice_bounds_the_ratio() -> None:
    found = configs(n_experts=[8, 64], top_k=[1, 2, 4], experts_per_choice=[4, 16])
    assert {(c.moe.n_experts, c.moe.top_k) for c in found} == {(8, 1), (8, 2), (64, 4)}


def test_the_emitted_routing_is_a_choice() -> None:
    (plain,), (free,) = configs(), configs(routing="loss_free")
    assert (plain.moe.score, plain.moe.bias_update) == ("softmax", None)
    assert (free.moe.score, free.moe.bias_update, free.moe.normalize_gates) == ("sigmoid", 0.001, True)


def test_a_space_without_axes_is_the_default_space() -> None:
    default = Space()
    assert default.layouts is not None
    assert Space(seq_len=8192).replace(seq_len=4096) == default
    assert Space.parse(default.to_dict()) == default
    assert Space(n_experts=[8]).layouts is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": ["linear"]}, "attention.0.kind: input should be 'full', 'window' or 'latent', got 'linear'"),
        ({"attention": ["window"]}, "sliding_window: windows need a size in tokens"),
        ({"attention": ["full"], "sliding_window": 8}, "need the kind window in attention"),
        ({"sliding_pattern": ["full"], "sliding_window": 8}, "sliding_pattern: needs a `window` or `chunk` layer"),
        ({"attention": []}, "attention: needs at least one kind"),
        ({"attention": [{"kind": "full", "head_dim": 16}], "head_dim": 8}, "head_dim: every kind of attention sets"),
        ({"attention": [{"kind": "full", "n_heads": 4, "heads_ratio": 1}]}, "heads_ratio: contradicts n_heads"),
        ({"layouts": [{}], "n_dense_layers": 1}, "n_shared_experts: contradicts layouts"),
        ({"layouts": []}, "layouts: needs at least one value"),
        ({"routing": "sigmoid"}, "routing: input should be 'softmax', 'loss_free' or 'released', got 'sigmoid'"),
        ({"n_heads": 0}, "n_heads.0: input should be greater than 0, got 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"^space: ") as error:
        Space.parse(ONE | changes, "space")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_attention_that_no_law_sees_is_a_warning() -> None:
    budget = Budget(flops=1e15)
    for changes, words in (
        (
            {"sliding_window": 64, "sliding_pattern": ["window", "full"]},
            "1 of 2 layers of the best design see 64",
        ),
        ({"sliding_window": 64}, "every layer of the best design see 64 tokens"),
        ({"attention": ["latent"]}, "the best design has latent attention"),
        ({"sliding_window": 4096}, None),
        ({}, None),
    ):
        found = plan(budget, ["ludziejewski2025"], Space.parse(ONE | changes), extrapolate=True)
        about = [line for line in found.warnings if "which no law sees" in line]
        assert (about == []) if words is None else (len(about) == 1 and words in about[0])


def test_default_heads_are_those_that_tensor_parallelism_divides() -> None:
    """Engines such as vLLM need query heads that the devices divide, and key-value heads that they divide or repeat."""
    lattice = enumerate_designs(Space())
    heads, kv = lattice.of_backbone("n_heads"), lattice.of_backbone("n_kv_heads")
    assert (heads % kv == 0).all()
    assert set(np.unique(kv)) <= {1, 2, 4, 8}
    for devices in (2, 4, 8):
        wide = heads >= 8
        assert (heads[wide] % devices == 0).all()
        assert ((kv % devices == 0) | (devices % kv == 0)).all()
