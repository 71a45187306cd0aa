"""Gradients in bf16 beside transformers' with the same weights: how far both are from fp32's, on a CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model

SIZES: dict[str, Any] = {
    "vocab_size": 400, "d_model": 64, "n_layers": 3, "n_heads": 4, "d_ff": 192, "tie_embeddings": False,
}  # fmt: skip
MOE = {"n_experts": 8, "top_k": 8, "d_expert": 32, "normalize_gates": False}
"""Every token goes to every expert: rounding flips no route, and eight rows are added up."""
FARTHER = {"dense": 1.05, "moe": 1.2}
"""How many times as far as transformers' ours may be. Three batches have 1.01 to 1.04 in a dense model and 1.10 to 1.15
in a MoE: gates multiply hidden rows, in bf16, and a layer's output is rounded to bf16, which transformers' is not."""
THEIRS: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
    "tie_word_embeddings": False, "use_cache": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    "max_position_embeddings": 64,
}  # fmt: skip


def models(kind: str) -> tuple[LanguageModel, Any]:
    """Ours, and their Llama or OLMoE, whose weights are ours."""
    transformers = pytest.importorskip("transformers")
    own = {"qk_norm": "none"} if kind == "dense" else {"qk_norm": "full", "moe": MOE}
    config = ModelConfig.parse({**SIZES, **own})
    ours = build_model(config, seed=0, dispatch="none" if kind == "dense" else "grouped")
    how = {**THEIRS, "rms_norm_eps": config.norm_eps, "rope_theta": config.rope_theta}
    if kind == "dense":
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(intermediate_size=192, **how))
    else:
        experts = {"intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 8, "norm_topk_prob": False}
        theirs = transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**experts, **how))
    theirs.load_state_dict(their_names(ours.state_dict()))
    return ours, theirs


def their_names(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """A dense feed-forward's gate and up are apart there, and the router is `gate`."""
    found = {}
    for name, tensor in named.items():
        if name.endswith("mlp.gate_up_proj.weight"):
            gate, up = tensor.chunk(2)
            found |= {name.replace("gate_up_proj", "gate_proj"): gate, name.replace("gate_up_proj", "up_proj"): up}
        else:
            found[name.replace("mlp.router.weight", "mlp.gate.weight")] = tensor
    return found


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def error(found: dict[str, Tensor], exact: dict[str, Tensor], names: list[str]) -> float:
    """|found - exact| / |exact| over these."""
    apart, size = (torch.cat([each.flatten().double() for each in tensors]) for tensors in (
        [found[name].double() - exact[name].double() for name in names], [exact[name] for name in names]
    ))  # fmt: skip
    return float(apart.norm() / size.norm())


@pytest.mark.parametrize("kind", FARTHER)
def test_how_far_from_fp32_beside_transformers(kind: str) -> None:
    ours, theirs = models(kind)
    tokens = torch.randint(0, 400, (4, 65), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def their_loss() -> Tensor:
        logits = theirs(input_ids=inputs).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    exact = their_names(gradients(ours, ours.loss(inputs, targets).loss))
    names = list(exact)
    assert error(gradients(theirs, their_loss()), exact, names) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        own_loss, loss = ours.loss(inputs, targets).loss, their_loss()
    found = their_names(gradients(ours, own_loss)), gradients(theirs, loss)
    parts = {"all": names}
    if kind == "moe":
        parts |= {part: [name for name in names if part in name] for part in ("experts.gate_up", "experts.down")}
    for part, chosen in parts.items():
        off, theirs_off = (error(each, exact, chosen) for each in found)
        print(f"{kind}, {part}: {off:.5f} from fp32, transformers {theirs_off:.5f}")
        assert 0 < off <= FARTHER[kind] * theirs_off, part
