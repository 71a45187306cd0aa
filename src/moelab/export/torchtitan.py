"""A configuration of torchtitan for a planned run: a Python file that builds torchtitan's own config classes.

Names are of torchtitan 0.3.0; a test holds every class and field used against a list, a slow one against the package.
"""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.architecture.buildable import options_of
from moelab.errors import InputError
from moelab.export.launch import EMBEDDING_STD, Launch
from moelab.export.torchtitan_parts import GROUPED, HEAD, LATENT, MODEL, RUN

BIAS_UPDATE = 1e-3
"""torchtitan's own step of the balancing bias, for designs that have none."""

_OPTIONS = ("mla", "rope_interleaved")


def torchtitan_text(launch: Launch) -> str:
    """The file. Raises InputError naming the field that torchtitan's classes have no place for."""
    _refuse(launch.model)
    sizes = "\n".join(f"{name} = {value!r}" for name, value in torchtitan_numbers(launch).items())
    parts = [HEAD.format(rule=launch.rule, notes=_notes(launch)), sizes, MODEL]
    parts.append(LATENT if launch.model.mla is not None else GROUPED)
    return "\n".join([*parts, RUN.rstrip()]) + "\n"


def _refuse(model: ModelConfig) -> None:
    for name, words in options_of(model).items():
        if name not in _OPTIONS:
            raise InputError(f"{name}: torchtitan's classes have no {words}")
    if model.activation != "swiglu":
        raise InputError(f"activation: torchtitan's feed-forwards are swiglu, got {model.activation}")
    if model.qk_norm not in ("none", "head") and model.mla is None:
        raise InputError(f"qk_norm: torchtitan normalises queries and keys by head, got {model.qk_norm}")
    if model.attention_bias:
        raise InputError("attention_bias: torchtitan's attention has no biases")
    moe = model.moe
    if moe is None:
        return
    if moe.router != "token_choice":
        raise InputError(f"router: torchtitan has token choice, got {moe.router}")
    unusual = (
        "router_bias",
        "expert_bias",
        "output_norm",
        "normalize_scores",
        "hash_layers",
        "d_latent",
        "shared_gate",
    )
    for name in (*unusual, "input_gates", "capacity_factor"):
        if getattr(moe, name):
            raise InputError(f"{name}: torchtitan's MoE layer has no such option")


def torchtitan_numbers(launch: Launch) -> dict[str, Any]:
    """The constants of the file, by name."""
    model, train = launch.model, launch.train
    numbers: dict[str, Any] = {
        "VOCAB": model.vocab_size, "DIM": model.d_model, "LAYERS": model.n_layers, "HEADS": model.n_heads,
        "KV_HEADS": model.n_kv_heads, "HEAD_DIM": model.head_dim, "FFN": model.d_ff, "TIED": model.tie_embeddings,
        "QK_NORM": model.qk_norm == "head", "ROPE_THETA": model.rope_theta, "EPS": model.norm_eps,
        "EMBEDDING_STD": EMBEDDING_STD,
        "MOE_LAYERS": [layer for layer in range(model.n_layers) if model.is_moe_layer(layer)],
        **_experts(model), **_latent(model),
        "SEQ_LEN": train.seq_len, "STEPS": train.steps, "BATCH_TOKENS": train.batch_tokens,
        "LOCAL_BATCH": _local_batch(launch), "LEARNING_RATE": float(f"{train.learning_rate:.6g}"),
        "WARMUP": train.warmup, "FINAL_RATE": train.final_lr_fraction,
        "ADAMW": {"betas": (train.beta1, train.beta2), "eps": train.epsilon, "weight_decay": train.weight_decay},
        "CLIP": train.grad_clip, "RECOMPUTE": launch.recompute or "none",
        "FP8": launch.precision == "fp8", "PARALLEL": _parallel(launch),
    }  # fmt: skip
    return numbers


def _experts(model: ModelConfig) -> dict[str, Any]:
    moe = model.moe
    if moe is None:
        return {"EXPERTS": 0, "TOP_K": 0, "EXPERT_FFN": 0, "SHARED_FFN": 0, "ROUTER": {}, "BIAS_UPDATE": None}
    router: dict[str, Any] = {"score_func": moe.score, "route_norm": moe.normalize_gates and moe.top_k > 1}
    router["route_scale"] = moe.routed_scaling
    if moe.n_group:
        router |= {"num_expert_groups": moe.n_group, "num_limited_groups": moe.topk_group}
    return {
        "EXPERTS": moe.n_experts, "TOP_K": moe.top_k, "EXPERT_FFN": moe.d_expert,
        "SHARED_FFN": moe.d_shared if moe.n_shared_experts else 0, "ROUTER": router,
        "BIAS_UPDATE": moe.bias_update or BIAS_UPDATE,
    }  # fmt: skip


def _latent(model: ModelConfig) -> dict[str, Any]:
    if model.mla is None:
        return {}
    sizes = {name: getattr(model.mla, name) for name in type(model.mla).model_fields}
    return {"LATENT": {**sizes, "q_lora_rank": sizes["q_lora_rank"] or 0}}


def _local_batch(launch: Launch) -> int:
    """Sequences of a device between two accumulations of gradients: with a pipeline all of its micro-batches."""
    layout = launch.layout
    return launch.micro_batch if layout is None or layout.pp == 1 else launch.batch // layout.dp


def _parallel(launch: Launch) -> dict[str, Any]:
    """Fields of ParallelismConfig. torchtitan divides parameters over data-parallel devices (ZeRO 3)."""
    layout = launch.layout
    if layout is None:
        return {}
    own: dict[str, Any] = {
        "data_parallel_shard_degree": layout.dp,
        "tensor_parallel_degree": layout.tp,
        "pipeline_parallel_degree": layout.pp,
        "context_parallel_degree": layout.cp,
        "expert_parallel_degree": layout.ep,
    }
    if layout.pp > 1:
        own["pipeline_parallel_microbatch_size"] = launch.micro_batch
        own |= _pipeline(launch.model.n_layers, layout.pp, layout.vp)
    return own


def _pipeline(n_layers: int, pp: int, vp: int) -> dict[str, Any]:
    """The schedule whose stages torchtitan can form: it counts embedding and head as a layer each."""
    for pieces in range(vp, 1, -1):
        for layers in range(1, n_layers + 3):
            stages = -(-(n_layers + 2) // layers)
            if stages == pieces * pp and (n_layers + 2) // stages >= 1:
                return {
                    "pipeline_parallel_schedule": "Interleaved1F1B",
                    "pipeline_parallel_layers_per_stage": layers,
                }
    return {"pipeline_parallel_schedule": "1F1B"}


def _notes(launch: Launch) -> str:
    """Where the file trains other than the plan assumed, a comment a line."""
    moe, notes = launch.model.moe, []
    if moe is not None and not moe.bias_update and moe.balance_loss:
        notes.append(f"torchtitan balances by a bias per expert; the plan has a balance loss of {moe.balance_loss:g}.")
    if launch.layout is not None and launch.layout.zero < 3:
        notes.append(f"The plan has ZeRO {launch.layout.zero}; torchtitan divides the parameters too.")
    if launch.layout is not None and launch.layout.vp > 1:
        stages = _pipeline(launch.model.n_layers, launch.layout.pp, launch.layout.vp)
        notes.append(f"The plan's pipeline holds {launch.layout.vp} pieces a device; here: {_pieces(launch, stages)}.")
    if launch.precision not in ("bf16", "fp8"):
        notes.append(f"The plan trains in {launch.precision}; this file trains in bf16.")
    if launch.unique_tokens is not None:
        notes.append(f"Repeat {launch.unique_tokens:,} distinct tokens: the dataset decides it.")
    return "".join(f"\n# {note}" for note in notes)


def _pieces(launch: Launch, schedule: dict[str, Any]) -> int:
    assert launch.layout is not None
    layers = schedule.get("pipeline_parallel_layers_per_stage")
    return 1 if layers is None else -(-(launch.model.n_layers + 2) // layers) // launch.layout.pp
