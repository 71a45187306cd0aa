"""The decode step as one call of the compiled library: one new token per sequence through all layers.

The modules' own forward pass is its reference. Of the experts only those that were chosen are read.
"""

from typing import Any

import torch
from torch import Tensor

from moelab.architecture.buildable import options_of
from moelab.model.cache import KVCache
from moelab.model.feed_forward import FeedForward
from moelab.model.language_model import LanguageModel
from moelab.model.moe import MoELayer
from moelab.model.native import usable
from moelab.model.native.ops import call
from moelab.model.rotary import rotary_table

MOST_SEQUENCES = 64
"""From more sequences on, products with packed weights are faster."""
_NOT_NATIVE = (
    "shared_gate", "output_norm", "router_bias", "expert_bias", "d_latent", "n_group", "hash_layers", "input_gates",
)  # fmt: skip
"""Options of a MoE layer that the compiled step does not know."""
_QK_NORM = {"none": 0, "head": 1, "full": 2}


def decodes_natively(model: LanguageModel, batch: int) -> bool:
    """Whether `NativeDecode` can run it: fp32 on the CPU, SwiGLU, plain attention, dense or plain token choice."""
    config, moe = model.config, model.config.moe
    plain = moe is None or (moe.router == "token_choice" and not any(getattr(moe, name) for name in _NOT_NATIVE))
    fits = config.activation == "swiglu" and not config.attention_bias and config.head_dim % 2 == 0
    fits = fits and not options_of(config).keys() - {"mtp_layers"}
    return plain and fits and batch <= MOST_SEQUENCES and usable(*model.parameters())


class NativeDecode:
    """step(tokens (B, 1)) -> logits (B, V), appending to `cache`; buffers and pointers are made once.

    `start` (B,) counts the padding before each sequence. The weights must stay where they are meanwhile.
    """

    def __init__(self, model: LanguageModel, cache: KVCache, start: Tensor) -> None:
        self.model, self.cache = model, cache
        self.start = start.to(torch.int64).contiguous()
        config, moe, batch = model.config, model.config.moe, len(start)
        self.capacity = cache.layers[0].keys.shape[2]
        values = {
            "n_layers": config.n_layers,
            "batch": batch,
            "d": config.d_model,
            "vocab": config.vocab_size,
            "heads": config.n_heads,
            "kv": config.n_kv_heads,
            "a": config.head_dim,
            "capacity": self.capacity,
            "d_ff": config.d_ff,
            "n_experts": moe.n_experts if moe else 0,
            "top_k": moe.top_k if moe else 0,
            "d_expert": moe.d_expert if moe else 0,
            "d_shared": moe.d_shared if moe else 0,
            "qk_norm": _QK_NORM[config.qk_norm],
            "sigmoid": int(moe is not None and moe.score == "sigmoid"),
            "normalize_scores": int(bool(moe and moe.normalize_scores)),
            "normalize_gates": int(bool(moe and moe.normalize_gates)),
        }
        self.scaling = moe.routed_scaling if moe else 1.0
        self.sizes = torch.tensor(list(values.values()), dtype=torch.int64)
        self.scratch = torch.empty(_scratch_floats(values))
        self.logits = torch.empty(batch, config.vocab_size)
        self.held = [_layer_tensors(model, index, cache) for index in range(config.n_layers)]
        self.layers = torch.tensor([[0 if t is None else t.data_ptr() for t in row] for row in self.held])

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of the next token; the tensor is overwritten by the next call."""
        model, position = self.model, self.cache.length
        config = model.config
        assert position < self.capacity
        cos, sin = rotary_table(position, 1, config.head_dim, config.rope_theta, tokens.device)
        norm = model.model.norm.get_parameter("weight")
        weights = (model.model.embed_tokens.weight, norm, model.head_weight)
        numbers = (position, config.norm_eps, self.scaling, torch.get_num_threads())
        tensors = (tokens.contiguous(), self.start, cos, sin, self.scratch, self.logits)
        call("decode", self.layers, self.sizes, *weights, *tensors, *numbers)
        for layer in self.cache.layers:
            layer.length += 1
        return self.logits


def _layer_tensors(model: LanguageModel, index: int, cache: KVCache) -> list[Tensor | None]:
    """The tensors of one layer in the order of `Layer` in decode.c."""
    layer: Any = model.model.layers[index]
    attention, feed_forward, stored = layer.self_attn, layer.mlp, cache.layers[index]
    norms = [attention.q_norm.weight, attention.k_norm.weight] if model.config.qk_norm != "none" else [None, None]
    projections = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, attention.o_proj.weight]
    router: Any = None
    bias: Any = None
    first: Tensor | None
    down: Tensor | None
    shared: list[Tensor | None] = [None, None]
    if isinstance(feed_forward, MoELayer):
        router, first, down = feed_forward.router.weight, feed_forward.experts.first, feed_forward.experts.down_proj
        if feed_forward.config.bias_update:
            bias = feed_forward.router.balance_bias
        if feed_forward.config.n_shared_experts:
            shared = _dense(feed_forward.shared_experts)
    else:
        first, down = _dense(feed_forward)
    tensors = [layer.input_layernorm.weight, *projections, *norms, layer.post_attention_layernorm.weight]
    return [*tensors, first, down, router, bias, *shared, stored.keys, stored.values]


def _dense(module: FeedForward) -> list[Tensor | None]:
    return [module.get_parameter(f"{module.first_name}.weight"), module.down_proj.weight]


def _scratch_floats(z: dict[str, int]) -> int:
    """Floats that `decode` works in: x and its norm, q, k, v, attention's output, scores, hidden and activations."""
    widest = max(z["d_ff"], z["d_expert"], z["d_shared"])
    attention = z["a"] * (2 * z["heads"] + 2 * z["kv"])
    return z["batch"] * (2 * z["d"] + attention + z["n_experts"] + z["capacity"] + 3 * widest)
