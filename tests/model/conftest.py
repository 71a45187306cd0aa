"""Tiny models of today's families beside transformers' classes: how weights are named, and the comparison itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.architecture.huggingface import read_huggingface
from moelab.model import LanguageModel, build_model, native

SIZES = {"vocab_size": 40, "d_model": 32, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "head_dim": 12, "d_ff": 24}
THEIRS = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 12, "intermediate_size": 24, "max_position_embeddings": 256, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None, "attn_implementation": "eager",
}  # fmt: skip
Named = dict[str, Tensor]
CheckFamily = Callable[[str, dict[str, Any], dict[str, Any]], None]


def plain_names(named: Named) -> Named:
    """Ours by the names of most classes: gate and up projections apart."""
    found: Named = {}
    for name, tensor in named.items():
        if name.endswith("mlp.gate_up_proj.weight"):
            for part, half in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                found[name.replace("gate_up_proj", part)] = half
        else:
            found[name] = tensor
    return found


def llama4_names(named: Named) -> Named:
    return {name.replace(".mlp.", ".feed_forward."): tensor for name, tensor in plain_names(named).items()}


def qwen3_next_names(named: Named) -> Named:
    """The gate's rows stand behind each head's queries in one matrix."""
    found = plain_names(named)
    for name in [name for name in found if ".self_attn.gate_proj." in name]:
        queries = name.replace("gate_proj", "q_proj")
        both = [found[each].unflatten(0, (SIZES["n_heads"], -1)) for each in (queries, name)]
        found[queries] = torch.cat(both, 1).flatten(0, 1)
        del found[name]
    return found


def dbrx_names(named: Named) -> Named:
    found: Named = {}
    for name, tensor in named.items():
        new = name.replace("model.embed_tokens", "transformer.wte").replace("model.norm", "transformer.norm_f")
        new = new.replace("model.layers", "transformer.blocks").replace("input_layernorm", "norm_attn_norm.norm_1")
        new = new.replace("post_attention_layernorm", "norm_attn_norm.norm_2").replace("mlp", "ffn.inner")
        found[new.replace("self_attn.o_proj", "norm_attn_norm.attn.out_proj")] = tensor
    for name in [name for name in found if "self_attn.q_proj" in name]:
        parts = [found.pop(name.replace("q_proj", each)) for each in ("q_proj", "k_proj", "v_proj")]
        found[name.replace("self_attn.q_proj", "norm_attn_norm.attn.Wqkv")] = torch.cat(parts)
    return found


def own_names(named: Named) -> Named:
    """Of a class that computes with our feed-forward modules."""
    return {name.replace(".mlp.", ".mlp.inner."): tensor for name, tensor in named.items()}


class Borrowed(nn.Module):
    """Our feed-forward in a class whose own is a MoE: it returns what that class expects."""

    def __init__(self, inner: nn.Module, pair: bool) -> None:
        super().__init__()
        self.inner, self.pair = inner, pair

    def forward(self, x: Tensor) -> Any:
        return (self.inner(x), None) if self.pair else self.inner(x)


NAMES = {"llama4_text": llama4_names, "qwen3_next": qwen3_next_names, "dbrx": dbrx_names}
OWN = {"gpt_oss": ("mlp", True), "phimoe": ("mlp", False), "dbrx": ("ffn", False)}
"""Classes whose feed-forward is always a MoE: where layers keep it, and whether it returns router scores too."""


def random_model(changes: dict[str, Any]) -> LanguageModel:
    """Weights of ordinary size; norms, biases and sinks away from where they begin."""
    model = build_model(ModelConfig.parse({**SIZES, **changes}), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            if "embed" in name or "lm_head" in name:
                parameter *= 20
    return model


def their_config(model_type: str, settings: dict[str, Any]) -> Any:
    """The class's config of the sizes above, changed by these settings."""
    unset = settings.get("unset", ())
    sizes = {name: value for name, value in {**THEIRS, **settings}.items() if name not in (*unset, "unset")}
    return pytest.importorskip("transformers").AutoConfig.for_model(model_type, **sizes)


def their_model(model_type: str, settings: dict[str, Any], ours: LanguageModel) -> tuple[nn.Module, Any]:
    """The class with our weights, and the function that names ours as it does."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_config(their_config(model_type, settings))
    names = NAMES.get(model_type, plain_names)
    if model_type in OWN:
        place, pair = OWN[model_type]
        blocks = theirs.transformer.blocks if model_type == "dbrx" else theirs.model.layers
        for block, layer in zip(blocks, ours.model.layers, strict=True):
            setattr(block, place, Borrowed(layer.mlp, pair))
        names = dbrx_names if model_type == "dbrx" else own_names
    named = names({name: tensor.detach() for name, tensor in ours.named_parameters()})
    found = theirs.load_state_dict({name: tensor.clone() for name, tensor in named.items()}, strict=False)
    tied = {"lm_head.weight"} if ours.config.tie_embeddings else set()
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= tied
    return theirs, names


@pytest.fixture(params=["auto", "torch"])
def check_family(request: pytest.FixtureRequest) -> CheckFamily:
    """Logits, loss and every gradient of one family equal transformers', by each kind of kernels."""

    def check(model_type: str, changes: dict[str, Any], settings: dict[str, Any]) -> None:
        ours = random_model(changes)
        theirs, names = their_model(model_type, dict(settings), ours)
        tokens = torch.randint(0, 40, (2, 25), generator=torch.Generator().manual_seed(2))
        with native.using(request.param):
            torch.testing.assert_close(theirs(tokens[:, :-1]).logits, ours(tokens[:, :-1]), rtol=1e-5, atol=1e-5)
            loss = ours.loss(tokens[:, :-1], tokens[:, 1:]).loss
            loss.backward()
        wanted = names({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
        assert len(wanted) >= len(list(theirs.parameters()))
        for layer in ours.model.layers:
            layer.mlp.zero_grad()
        logits = theirs(tokens[:, :-1]).logits
        expected = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        for name, parameter in theirs.named_parameters():
            torch.testing.assert_close(
                wanted[name], parameter.grad, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )

    return check


@pytest.fixture
def read_theirs() -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Our fields as a test writes them, and as they are read from the class's own config."""

    def read(
        model_type: str, changes: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        found = read_huggingface(their_config(model_type, settings).to_dict())
        return ModelConfig.parse({**SIZES, **changes}).to_dict(), found.to_dict()

    return read
