"""Arguments of Megatron-LM (`pretrain_gpt.py`) for a planned run: model, batch, rates, layout; no data.

Names were read in Megatron-LM's main branch of 2026-08-22 (megatron-core 0.20); a test holds them against its lists.
"""

from moelab.architecture import ModelConfig, MoEConfig
from moelab.architecture.buildable import options_of
from moelab.errors import InputError
from moelab.export.launch import Launch, stages_text
from moelab.export.megatron_speed import environment, speed_flags
from moelab.export.megatron_start import start_flags, start_reason

Arguments = dict[str, str | None]
"""Flag -> value; None for a flag without one."""

_OPTIONS = ("mla", "sliding_window", "mtp_layers", "rope_interleaved", "rotary_dim")
"""Options of a model that the arguments can express; `rope_interleaved` is that of latent attention."""

_FP8 = {"fp8": ("hybrid", "tensorwise"), "mxfp8": ("e4m3", "mxfp8")}
"""Arithmetic of training -> --fp8-format and --fp8-recipe."""


def megatron_text(launch: Launch) -> str:
    """The file: a flag a line. Raises InputError naming the field that Megatron-LM has no argument for."""
    reasons = {name: why for name, _, why in speed_flags(launch)} | {"--init-method-std": start_reason(launch.model)}
    lines = [
        "# Megatron-LM: torchrun ... pretrain_gpt.py $(grep -v '^#' megatron.args) DATA",
        "# DATA: --data-path, --tokenizer-type and --tokenizer-model, --save are yours to choose.",
        f"# Learning rate and batch: {launch.rule}.",
        *(f"# {line}" for line in environment(launch)),
    ]
    for name, value in megatron_arguments(launch).items():
        lines += [f"# {reasons[name]}"] if name in reasons else []
        lines.append(name if value is None else f"{name} {value}")
    return "\n".join(lines) + "\n"


def megatron_arguments(launch: Launch) -> Arguments:
    """Every flag with its value. Raises InputError for a design that they cannot express."""
    _refuse(launch.model)
    return {
        **_model(launch.model, launch.train.seq_len),
        **_experts(launch.model),
        **start_flags(launch.model),
        **_training(launch),
        **_layout(launch),
        **{name: value for name, value, _ in speed_flags(launch)},
    }


def _refuse(model: ModelConfig) -> None:
    for name, words in options_of(model).items():
        if name not in _OPTIONS or (name == "rope_interleaved" and model.mla is None):
            raise InputError(f"{name}: Megatron-LM's arguments have no {words}")
    if model.activation != "swiglu":
        raise InputError(f"activation: moelab writes Megatron-LM's arguments for swiglu, got {model.activation}")
    if model.qk_norm == "full":
        raise InputError("qk_norm: Megatron-LM normalises queries and keys by head, got full")
    if model.sliding_window and (model.sliding_n_kv_heads or model.sliding_rope_theta):
        raise InputError("sliding_window: Megatron-LM's window layers have the heads and positions of the full ones")
    if any(kind == "chunk" for kind in _kinds(model)):
        raise InputError("sliding_pattern: Megatron-LM has windows, no chunks")
    moe = model.moe
    if moe is None:
        return
    if moe.router != "token_choice":
        raise InputError(f"router: Megatron-LM has token choice, got {moe.router}")
    unusual = ("router_bias", "expert_bias", "output_norm", "normalize_scores", "hash_layers", "d_latent")
    for name in unusual:
        if getattr(moe, name):
            raise InputError(f"{name}: moelab writes no Megatron-LM argument for it")
    if moe.score == "sigmoid" and not moe.normalize_gates and moe.top_k > 1:
        raise InputError("normalize_gates: Megatron-LM normalises sigmoid gates")


def _kinds(model: ModelConfig) -> list[str]:
    return [model.layer_kind(layer) for layer in range(model.n_layers)]


def _model(model: ModelConfig, seq_len: int) -> Arguments:
    own: Arguments = {
        "--num-layers": str(model.n_layers),
        "--hidden-size": str(model.d_model),
        "--ffn-hidden-size": str(model.d_ff or (model.moe.d_expert if model.moe else model.d_ff)),
        "--num-attention-heads": str(model.n_heads),
        "--seq-length": str(seq_len),
        "--max-position-embeddings": str(seq_len),
        "--position-embedding-type": "rope",
        "--rotary-base": f"{model.rope_theta:.0f}",
        "--vocab-size": str(model.vocab_size),
        "--normalization": "RMSNorm",
        "--norm-epsilon": f"{model.norm_eps:g}",
        "--swiglu": None,
        "--attention-dropout": "0.0",
        "--hidden-dropout": "0.0",
    }
    if model.attention_bias is not True:
        own["--disable-bias-linear"] = None
    if model.attention_bias == "qkv":
        own["--add-qkv-bias"] = None
    if not model.tie_embeddings:
        own["--untie-embeddings-and-output-weights"] = None
    if model.qk_norm == "head":
        own["--qk-layernorm"] = None
    if model.rotary_dim:
        own["--rotary-percent"] = f"{model.rotary_dim / model.head_dim:g}"
    if model.mtp_layers:
        own["--mtp-num-layers"] = str(model.mtp_layers)
    return {**own, **_attention(model), **_windows(model)}


def _attention(model: ModelConfig) -> Arguments:
    if model.mla is None:
        own: Arguments = {"--kv-channels": str(model.head_dim)}
        if model.n_kv_heads != model.n_heads:
            own |= {"--group-query-attention": None, "--num-query-groups": str(model.n_kv_heads)}
        return own
    mla = model.mla
    ranks: Arguments = {} if mla.q_lora_rank is None else {"--q-lora-rank": str(mla.q_lora_rank)}
    return {
        "--multi-latent-attention": None,
        **ranks,
        "--kv-lora-rank": str(mla.kv_lora_rank),
        "--qk-head-dim": str(mla.qk_nope_head_dim),
        "--qk-pos-emb-head-dim": str(mla.qk_rope_head_dim),
        "--v-head-dim": str(mla.v_head_dim),
        "--qk-layernorm": None,
        "--rope-type": "rope",
    }


def _windows(model: ModelConfig) -> Arguments:
    """A window counts the tokens before a token; a list has 1 for every layer that sees one."""
    if not model.sliding_window:
        return {}
    skipped = ",".join("1" if kind == "window" else "0" for kind in _kinds(model))
    return {"--window-size": f"{model.sliding_window - 1},0", "--window-attn-skip-freq": f"[{skipped}]"}


def _experts(model: ModelConfig) -> Arguments:
    moe = model.moe
    if moe is None:
        return {}
    layers = ",".join("1" if model.is_moe_layer(layer) else "0" for layer in range(model.n_layers))
    own: Arguments = {
        "--num-experts": str(moe.n_experts),
        "--moe-router-topk": str(moe.top_k),
        "--moe-ffn-hidden-size": str(moe.d_expert),
        "--moe-layer-freq": f"[{layers}]",
        "--moe-grouped-gemm": None,
        "--moe-token-dispatcher-type": "alltoall",
        "--moe-router-dtype": "fp32",
        **_router(moe),
    }
    if moe.n_shared_experts:
        own["--moe-shared-expert-intermediate-size"] = str(moe.d_shared)
    if moe.shared_gate:
        own["--moe-shared-expert-gate"] = None
    if moe.capacity_factor:
        own["--moe-expert-capacity-factor"] = f"{moe.capacity_factor:g}"
    return own


def _router(moe: MoEConfig) -> Arguments:
    """Scores, gates and balance. A softmax over all experts whose gates are not normalised comes before the choice."""
    own: Arguments = {"--moe-router-score-function": moe.score}
    if moe.score == "softmax" and not moe.normalize_gates:
        own["--moe-router-pre-softmax"] = None
    if moe.routed_scaling != 1:
        own["--moe-router-topk-scaling-factor"] = f"{moe.routed_scaling:g}"
    if moe.n_group:
        own |= {"--moe-router-num-groups": str(moe.n_group), "--moe-router-group-topk": str(moe.topk_group)}
    if moe.bias_update:
        own |= {"--moe-router-enable-expert-bias": None, "--moe-router-bias-update-rate": f"{moe.bias_update:g}"}
    if moe.balance_loss:
        # Formed over the whole optimiser batch and 1 at perfect balance, as moelab's is.
        own |= {"--moe-router-load-balancing-type": "global_aux_loss", "--moe-aux-loss-coeff": f"{moe.balance_loss:g}"}
    else:
        own["--moe-router-load-balancing-type"] = "none"
    if moe.z_loss:
        own["--moe-z-loss-coeff"] = f"{moe.z_loss:g}"
    return own


def _training(launch: Launch) -> Arguments:
    train = launch.train
    own: Arguments = {
        "--micro-batch-size": str(launch.micro_batch),
        "--global-batch-size": str(launch.batch),
        "--train-iters": str(train.steps),
        "--optimizer": "adam",
        "--lr": f"{train.learning_rate:.6g}",
        "--min-lr": f"{train.learning_rate * train.final_lr_fraction:.6g}",
        "--lr-decay-style": "cosine",
        "--lr-decay-iters": str(train.steps),
        "--lr-warmup-iters": str(train.warmup),
        "--weight-decay": f"{train.weight_decay:g}",
        "--adam-beta1": f"{train.beta1:g}",
        "--adam-beta2": f"{train.beta2:g}",
        "--adam-eps": f"{train.epsilon:g}",
        "--clip-grad": f"{train.grad_clip:g}",
    }
    if launch.precision == "fp16":
        return own | {"--fp16": None}
    if launch.precision != "fp32":
        own["--bf16"] = None
    if launch.precision in _FP8:
        own["--fp8-format"], own["--fp8-recipe"] = _FP8[launch.precision]
    if launch.precision == "nvfp4":
        own["--fp4-format"] = "e2m1"
    return own


def _layout(launch: Launch) -> Arguments:
    layout = launch.layout
    if layout is None:
        return {"--use-distributed-optimizer": None}
    own: Arguments = {
        "--tensor-model-parallel-size": str(layout.tp),
        "--pipeline-model-parallel-size": str(layout.pp),
        "--context-parallel-size": str(layout.cp),
        "--expert-model-parallel-size": str(layout.ep),
    }
    if launch.model.moe is not None:
        own["--expert-tensor-parallel-size"] = "1"
    if layout.tp > 1:
        own["--sequence-parallel"] = None
    if layout.zero == 1:
        own["--use-distributed-optimizer"] = None
    elif layout.zero > 1:
        strategy = "optim_grads" if layout.zero == 2 else "optim_grads_params"
        own |= {"--use-megatron-fsdp": None, "--data-parallel-sharding-strategy": strategy}
        own["--ckpt-format"] = "fsdp_dtensor"
    if layout.pp > 1:
        own["--pipeline-model-parallel-layout"] = stages_text(launch.model, layout.pp * layout.vp)
    return own | _recomputed(launch)


def _recomputed(launch: Launch) -> Arguments:
    if launch.recompute == "full":
        return {"--recompute-granularity": "full", "--recompute-method": "uniform", "--recompute-num-layers": "1"}
    if launch.recompute == "selective":
        activation = "mlp" if launch.model.moe is None else "moe_act"
        return {"--recompute-granularity": "selective", "--recompute-modules": f"layernorm {activation}"}
    return {}
