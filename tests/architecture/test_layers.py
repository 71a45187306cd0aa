"""The counting formulas against a reference that walks over layers, queries and keys one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters, load_preset
from moelab.architecture.memory import kv_elements, training_memory

MOE = {"n_experts": 8, "top_k": 2, "d_expert": 6}
BASE = {"vocab_size": 30, "d_model": 8, "n_layers": 5, "n_heads": 4, "head_dim": 6, "n_kv_heads": 2, "d_ff": 10}
MLA = {"kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 3}
WINDOW = {"sliding_window": 3}
ZOO: dict[str, dict[str, Any]] = {
    "dense": {},
    "biases on q, k, v": {"attention_bias": "qkv", "qk_norm": "none"},
    "biases, sinks": {"attention_bias": True, "attention_sinks": True, "qk_norm": "full"},
    "windows": WINDOW,
    "windows, alternating": {**WINDOW, "sliding_pattern": ["window", "full"]},
    "windows, own heads": {
        **WINDOW,
        "sliding_pattern": ["window", "window", "full"],
        "sliding_n_kv_heads": 4,
        "qk_norm": "full",
        "attention_bias": True,
        "mtp_layers": 2,
    },
    "chunks": {**WINDOW, "sliding_pattern": ["chunk", "chunk", "chunk", "full"], "mtp_layers": 1},
    "chunks, last layer": {**WINDOW, "sliding_pattern": ["full", "chunk", "window", "full", "chunk"], "mtp_layers": 1},
    "latent": {"mla": MLA, "attention_bias": True},
    "latent, windows": {"mla": {**MLA, "q_lora_rank": 5}, **WINDOW, "attention_bias": "qkv", "mtp_layers": 1},
    "gate by head": {"attention_gate": "head"},
    "gate by element": {"attention_gate": "element", **WINDOW, "sliding_n_kv_heads": 1},
    "layer norm, biases": {"norm": "layer", "norm_bias": True, "head_bias": True, "mtp_layers": 1},
    "layer norm": {"norm": "layer", "tie_embeddings": False, "head_bias": True},
    "norms before and after": {"norm": "rms_plus_one", "norm_position": "both"},
    "norms after": {"norm_position": "post"},
    "plain": {"activation": "gelu"},
    "clamped": {"activation": "clamped_swiglu", "swiglu_limit": 7.0},
    "moe": {"moe": MOE},
    "moe, biases": {"moe": {**MOE, "router_bias": True, "expert_bias": True}, "mtp_layers": 1},
    "moe, latent": {"moe": {**MOE, "d_latent": 4, "expert_bias": True, "n_shared_experts": 1, "d_shared": 7}},
    "moe, latent, prediction": {"moe": {**MOE, "d_latent": 4}, "mtp_layers": 2},
    "moe, hashed": {"moe": {**MOE, "hash_layers": 2}, "n_dense_layers": 1, "mtp_layers": 1},
    "moe, hashed but for one": {"moe": {**MOE, "hash_layers": 4}},
    "moe, bias that balances": {
        "moe": {**MOE, "score": "sigmoid", "bias_update": 0.001, "n_group": 2, "topk_group": 1}
    },
    "moe, every second": {"moe": MOE, "moe_every": 2, "mtp_layers": 1},
    "moe, every third": {"moe": MOE, "n_dense_layers": 1, "moe_every": 3, "mtp_layers": 1},
    "moe, shared": {"moe": {**MOE, "n_shared_experts": 2, "d_shared": 8, "shared_gate": True, "output_norm": True}},
}


def norm(config: ModelConfig) -> int:
    return config.d_model * (2 if config.norm_bias else 1)


def attention(config: ModelConfig, kind_kv_heads: int) -> tuple[int, int, int]:
    """One layer's matrix elements, further parameters but norms, and norm parameters."""
    d, q, kv, mla = config.d_model, config.n_heads * config.head_dim, kind_kv_heads * config.head_dim, config.mla
    sinks = config.n_heads if config.attention_sinks else 0
    bias = {False: (0, 0), "qkv": (1, 0), True: (1, 1)}[config.attention_bias]
    if mla is None:
        matrices = [d * q, d * kv, d * kv, q * d]
        matrices += {None: [], "head": [d * config.n_heads], "element": [d * q]}[config.attention_gate]
        norms = {"none": 0, "head": 2 * config.head_dim, "full": q + kv, "l2": 0}[config.qk_norm]
        return sum(matrices), bias[0] * (q + 2 * kv) + bias[1] * d + sinks, norms
    wide = config.n_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    rank = mla.q_lora_rank
    matrices = [d * wide] if rank is None else [d * rank, rank * wide]
    matrices += [d * (mla.kv_lora_rank + mla.qk_rope_head_dim)]
    matrices += [mla.kv_lora_rank * config.n_heads * (mla.qk_nope_head_dim + mla.v_head_dim)]
    matrices += [config.n_heads * mla.v_head_dim * d]
    inputs = (rank or 0) + mla.kv_lora_rank + mla.qk_rope_head_dim
    return sum(matrices), bias[0] * inputs + bias[1] * d + sinks, (rank or 0) + mla.kv_lora_rank


def feed_forward(config: ModelConfig, is_moe: bool, hashed: bool) -> tuple[int, int, int]:
    """One layer's parameters, those of them that one token uses, and the matrix elements that it multiplies."""
    d, m, moe = config.d_model, 2 if config.activation in ("relu", "gelu") else 3, config.moe
    if not is_moe:
        return m * d * config.d_ff, m * d * config.d_ff, m * d * config.d_ff
    width = moe.d_latent or d
    matrices = m * width * moe.d_expert
    biases = ((m - 1) * moe.d_expert + width) if moe.expert_bias else 0
    around = 2 * d * moe.d_latent if moe.d_latent else 0
    shared = m * d * moe.d_shared + (d if moe.shared_gate else 0)
    router = 0 if hashed else d * moe.n_experts
    others = around + shared + router
    more = (moe.n_experts if moe.router_bias and not hashed else 0) + (2 * d if moe.output_norm else 0)
    total = moe.n_experts * (matrices + biases) + others + more
    return total, moe.top_k * (matrices + biases) + others + more, moe.top_k * matrices + others


def keys_of(kind: str, window: int | None, seq_len: int, causal: bool) -> int:
    """Pairs of query and key that one layer scores over a sequence; of the full square, what a block of it spans."""
    pairs = 0
    for query in range(seq_len):
        start = {"full": 0, "window": query + 1 - (window or 0), "chunk": query - query % (window or 1)}[kind]
        if causal:
            pairs += query + 1 - max(start, 0)
        elif kind == "full":
            pairs += seq_len
        elif kind == "window":
            pairs += min(window, seq_len)
        else:
            pairs += min(start + window, seq_len) - start
    return pairs


def reference(config: ModelConfig, seq_len: int, causal: bool, decode: bool = False) -> dict[str, float]:
    mla, d = config.mla, config.d_model
    total = active = 0
    flops, moe_layers = 0.0, 0
    if mla is None:
        score_width = 2 * config.head_dim
    elif decode:
        score_width = 2 * mla.kv_lora_rank + mla.qk_rope_head_dim
    else:
        score_width = mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim
    cached, block_norms = 0, {None: 2, "pre": 2, "post": 2, "both": 4}[config.norm_position]
    last: tuple[float, float] = 0, 0
    for layer in range(config.n_layers):
        kind, heads, is_moe = config.layer_kind(layer), config.kv_heads(layer), config.is_moe_layer(layer)
        hashed = is_moe and config.moe.hash_layers is not None and moe_layers < config.moe.hash_layers
        moe_layers += is_moe
        for target in ("model", "prediction") if layer == config.n_layers - 1 else ("model",):
            matrices, extra, inner = attention(config, heads)
            params, used, products = feed_forward(config, is_moe, hashed and target == "model")
            pairs = keys_of(kind, config.sliding_window, seq_len, causal)
            scores = pairs / seq_len * config.n_heads * score_width
            around = matrices + extra + inner + block_norms * norm(config)
            work = 2 * (matrices + products + scores)
            if target == "prediction":
                last = around + params + 2 * d * d + 3 * norm(config), work + 4 * d * d + 2 * config.vocab_size * d
            else:
                total, active, flops = total + around + params, active + around + used, flops + work
        per_token = 2 * heads * config.head_dim if mla is None else mla.kv_lora_rank + mla.qk_rope_head_dim
        cached += per_token * (seq_len if kind == "full" else min(seq_len, config.sliding_window))
    ends = norm(config) + config.vocab_size * d * (1 if config.tie_embeddings else 2)
    ends += config.vocab_size if config.head_bias else 0
    flops += 2 * config.vocab_size * d
    mtp = config.mtp_layers or 0
    return {
        "total": total + ends,
        "active": active + ends,
        "trained": total + ends + mtp * last[0],
        "forward": flops,
        "train": 3 * (flops + mtp * last[1]),
        "cached": cached,
    }


def counted(model: ModelConfig | Shape, seq_len: int, causal: bool, decode: bool = False) -> dict[str, Any]:
    params, flops = count_parameters(model), count_flops(model, seq_len, causal=causal, decode=decode)
    return {
        "total": params.params_total,
        "active": params.params_active,
        "trained": params.params_trained,
        "forward": flops.forward,
        "train": flops.train,
        "cached": kv_elements(model, seq_len),
    }


@pytest.mark.parametrize("name", ZOO)
def test_formulas_equal_a_walk_over_layers(name: str) -> None:
    config = ModelConfig.parse({**BASE, **ZOO[name]})
    for seq_len in (1, 2, 3, 4, 10):
        for causal in (False, True):
            assert counted(config, seq_len, causal) == pytest.approx(reference(config, seq_len, causal), rel=1e-12)
    params = count_parameters(config)
    assert sum(params.parts.values()) == params.params_total
    assert isinstance(params.params_trained, int)
    assert training_memory(config).total == 18 * params.params_trained


@pytest.mark.parametrize("name", ["latent", "latent, windows"])
def test_latent_attention_decodes_over_its_latents(name: str) -> None:
    config = ModelConfig.parse({**BASE, **ZOO[name], "mtp_layers": None})
    reached, wanted = counted(config, 7, False, True), reference(config, 7, False, True)
    assert reached == pytest.approx(wanted)
    assert count_flops(config, 7, decode=True).attention_projections == count_flops(config, 7).attention_projections


def test_a_lattice_of_every_kind_counts_like_its_members() -> None:
    shapes = [Shape.of(ModelConfig.parse({**BASE, **options})) for options in ZOO.values()]
    lattice = Shape(**{name: np.array([getattr(s, name) for s in shapes]) for name in Shape.__dataclass_fields__})
    for seq_len in (2, 10):
        for causal in (False, True):
            together = counted(lattice, seq_len, causal)
            for index, shape in enumerate(shapes):
                for name, value in counted(shape, seq_len, causal).items():
                    assert together[name][index] == value, (name, index)


@given(
    window=st.integers(1, 12),
    seq_len=st.integers(1, 30),
    pattern=st.lists(st.sampled_from(["window", "chunk", "full"])),
)
def test_any_pattern_of_windows(window: int, seq_len: int, pattern: list[str]) -> None:
    options = {"sliding_window": window, "sliding_pattern": [*pattern, "window"]}
    config = ModelConfig.parse({**BASE, "n_layers": 7, **options})
    for causal in (False, True):
        assert counted(config, seq_len, causal) == pytest.approx(reference(config, seq_len, causal), rel=1e-12)


def test_windows_of_a_real_model() -> None:
    """gpt-oss-120b at 128k by hand: 18 layers keep all, 18 keep 128 tokens of 2 x 8 x 64 numbers in two bytes."""
    preset = load_preset("gpt-oss-120b").replace(sliding_window=128, sliding_pattern=["window", "full"])
    per_token, context = 2 * 8 * 64, 131_072
    assert kv_elements(preset, context) * 2 == 18 * per_token * (context + 128) * 2 == 4_836_556_800
    scores = count_flops(preset, context).attention_scores
    assert scores == 2 * 18 * (context + 128) * 64 * 128 == pytest.approx(38.69e9, rel=1e-3)
