"""Our routers and experts against the modules of transformers: choices, gates, outputs and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model import MoELayer, build_model

D, E, K = 16, 8, 3
SIZES = {"n_experts": E, "top_k": K, "d_expert": 8}
SHARED = {"n_shared_experts": 1, "d_shared": 8}


def layer(activation: str = "swiglu", **moe: Any) -> MoELayer:
    shape = {"vocab_size": 32, "d_model": D, "n_layers": 1, "n_heads": 2, "activation": activation}
    found: Any = build_model(ModelConfig.parse({**shape, "moe": {**SIZES, **moe}}), seed=3).model.layers[0].mlp
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in (*found.named_parameters(), *found.named_buffers()):
            if name.endswith("bias"):
                tensor.normal_(0, 0.2, generator=generator)
    return found


def tokens() -> Tensor:
    return torch.randn(2, 40, D, generator=torch.Generator().manual_seed(5))


def gradients(module: nn.Module, x: Tensor, y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weight = torch.linspace(-1, 2, y.numel()).sin().view_as(y)
    return list(torch.autograd.grad((y * weight).sum(), [x, *leaves]))


def assert_same(moe: MoELayer, theirs: nn.Module, gate: nn.Module, weight: Tensor, output: Any) -> None:
    """The choices and gates of the router, the layer's output, and the gradients of input and router."""
    x = tokens().requires_grad_()
    routing = moe.router(x.flatten(0, 1))
    _, gates, chosen = gate(x.flatten(0, 1))
    order, their_order = routing.chosen.argsort(1), chosen.argsort(1)
    assert torch.equal(routing.chosen.gather(1, order), chosen.gather(1, their_order))
    torch.testing.assert_close(routing.gates.gather(1, order), gates.gather(1, their_order), rtol=1e-5, atol=1e-6)
    ours, found = moe(x)[0], output(theirs(x))
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    own, other = gradients(moe, x, ours, [moe.router.weight]), gradients(theirs, x, found, [weight])
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def take(moe: MoELayer, theirs: nn.Module) -> None:
    """Our weights in a DeepSeek-like layer of transformers."""
    state = {"gate.weight": moe.router.weight, **{f"experts.{k}": v for k, v in moe.experts.state_dict().items()}}
    gate, up = moe.shared_experts.gate_up_proj.weight.chunk(2)
    state |= {"shared_experts.gate_proj.weight": gate, "shared_experts.up_proj.weight": up}
    state |= {"shared_experts.down_proj.weight": moe.shared_experts.down_proj.weight}
    if moe.config.bias_update:
        state["gate.e_score_correction_bias"] = moe.router.balance_bias
    theirs.load_state_dict(state)


@pytest.mark.parametrize("groups", [{"n_group": 4, "topk_group": 2}, {"n_group": 2, "topk_group": 1}, {}])
def test_deepseek_v3(groups: dict[str, int]) -> None:
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    moe = layer(score="sigmoid", bias_update=0.1, routed_scaling=2.5, **SHARED, **groups)
    own = DeepseekV3Config(
        hidden_size=D, moe_intermediate_size=8, n_routed_experts=E, num_experts_per_tok=K, n_shared_experts=1,
        num_attention_heads=2, routed_scaling_factor=2.5, **{"n_group": 1, "topk_group": 1, **groups},
    )  # fmt: skip
    theirs: Any = DeepseekV3MoE(own)
    take(moe, theirs)
    assert_same(moe, theirs, theirs.gate, theirs.gate.weight, lambda y: y)


@pytest.mark.parametrize("groups", [{"n_group": 4, "topk_group": 2}, {}])
def test_deepseek_v2(groups: dict[str, int]) -> None:
    pytest.importorskip("transformers")
    from transformers import DeepseekV2Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe

    moe = layer(normalize_gates=False, routed_scaling=1.5, **SHARED, **groups)
    own = DeepseekV2Config(
        hidden_size=D, moe_intermediate_size=8, n_routed_experts=E, num_experts_per_tok=K, n_shared_experts=1,
        routed_scaling_factor=1.5, topk_method="group_limited_greedy" if groups else "greedy",
        num_attention_heads=2, **groups,
    )  # fmt: skip
    theirs: Any = DeepseekV2Moe(own)
    take(moe, theirs)
    assert_same(moe, theirs, theirs.gate, theirs.gate.weight, lambda y: y)


def test_ernie_balances_softmax_scores_by_a_bias() -> None:
    pytest.importorskip("transformers")
    from transformers import Ernie4_5_MoeConfig
    from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import Ernie4_5_MoeTopKRouter

    moe = layer(bias_update=0.1)
    theirs: Any = Ernie4_5_MoeTopKRouter(Ernie4_5_MoeConfig(hidden_size=D, moe_num_experts=E, moe_k=K))
    theirs.load_state_dict(
        {"weight": moe.router.weight, "moe_statics.e_score_correction_bias": moe.router.balance_bias[None]}
    )
    x = tokens().flatten(0, 1)
    routing, (_, gates, chosen) = moe.router(x), theirs(x)
    assert torch.equal(routing.chosen, chosen)
    torch.testing.assert_close(routing.gates, gates, rtol=1e-5, atol=1e-6)
    assert not torch.equal(routing.scores.topk(K).indices, chosen)
    moe.router.load += torch.arange(E)
    before = moe.router.balance_bias.clone()
    moe.router.update_bias()
    assert (moe.router.balance_bias - before)[0] > 0 > (moe.router.balance_bias - before)[-1]


def test_llama_4_gates_the_input() -> None:
    pytest.importorskip("transformers")
    from transformers import Llama4TextConfig
    from transformers.models.llama4.modeling_llama4 import Llama4TextMoe

    moe = layer(top_k=1, score="sigmoid", normalize_gates=False, input_gates=True, **SHARED)
    own = Llama4TextConfig(hidden_size=D, intermediate_size=8, num_local_experts=E, num_experts_per_tok=1)
    theirs: Any = Llama4TextMoe(own)
    gate, up = moe.shared_experts.gate_up_proj.weight.chunk(2)
    theirs.load_state_dict(
        {
            "router.weight": moe.router.weight,
            "experts.gate_up_proj": moe.experts.first.mT,
            "experts.down_proj": moe.experts.down_proj.mT,
            "shared_expert.gate_proj.weight": gate,
            "shared_expert.up_proj.weight": up,
            "shared_expert.down_proj.weight": moe.shared_experts.down_proj.weight,
        }
    )
    x = tokens().requires_grad_()
    ours, found = moe(x)[0], theirs(x)[0].view_as(x)
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    own_slopes = gradients(moe, x, ours, [moe.router.weight])
    for a, b in zip(own_slopes, gradients(theirs, x, found, [theirs.router.weight]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gpt_oss_has_biased_routers_and_experts() -> None:
    pytest.importorskip("transformers")
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP

    shape = {"vocab_size": 32, "d_model": D, "n_layers": 1, "n_heads": 2}
    activation = {"activation": "clamped_swiglu", "swiglu_limit": 0.5}
    moe_config = {**SIZES, "router_bias": True, "expert_bias": True}
    moe: Any = build_model(ModelConfig.parse({**shape, **activation, "moe": moe_config}), seed=3).model.layers[0].mlp
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    own = GptOssConfig(hidden_size=D, intermediate_size=8, num_local_experts=E, num_experts_per_tok=K, swiglu_limit=0.5)
    own._experts_implementation = "eager"
    theirs: Any = GptOssMLP(own)
    gates, ups = moe.experts.first.chunk(2, 1)
    bias_gates, bias_ups = moe.experts.biases[0].chunk(2, 1)
    theirs.load_state_dict(
        {
            "router.weight": moe.router.weight,
            "router.bias": moe.router.bias,
            "experts.gate_up_proj": torch.stack((gates, ups), 2).flatten(1, 2).mT,
            "experts.gate_up_proj_bias": torch.stack((bias_gates, bias_ups), 2).flatten(1, 2),
            "experts.down_proj": moe.experts.down_proj.mT,
            "experts.down_proj_bias": moe.experts.down_proj_bias,
        }
    )
    x = tokens().requires_grad_()
    ours, found = moe(x)[0], theirs(x)[0]
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    leaves = [moe.router.weight, moe.router.bias, moe.experts.down_proj_bias]
    others = [theirs.router.weight, theirs.router.bias, theirs.experts.down_proj_bias]
    for a, b in zip(gradients(moe, x, ours, leaves), gradients(theirs, x, found, others), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
