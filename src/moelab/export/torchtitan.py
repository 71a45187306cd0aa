"""A configuration of torchtitan for a planned run: a Python file that builds torchtitan's own config classes.

Names were read in torchtitan's main branch of 2026-08-21; a test holds every class and field used against a list.
"""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.architecture.buildable import options_of
from moelab.errors import InputError
from moelab.export.launch import Launch

BIAS_UPDATE = 1e-3
"""torchtitan's own step of the balancing bias, for designs that have none."""

_OPTIONS = ("mla", "rope_interleaved")


def torchtitan_text(launch: Launch) -> str:
    """The file. Raises InputError naming the field that torchtitan's classes have no place for."""
    _refuse(launch.model)
    sizes = "\n".join(f"{name} = {value!r}" for name, value in torchtitan_numbers(launch).items())
    parts = [_HEAD.format(rule=launch.rule, notes=_notes(launch)), sizes, _MODEL]
    parts.append(_LATENT if launch.model.mla is not None else _GROUPED)
    return "\n".join([*parts, _RUN.rstrip()]) + "\n"


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
        "MOE_LAYERS": [layer for layer in range(model.n_layers) if model.is_moe_layer(layer)],
        **_experts(model), **_latent(model),
        "SEQ_LEN": train.seq_len, "STEPS": train.steps, "BATCH_TOKENS": train.batch_tokens,
        "MICRO_BATCH": launch.micro_batch, "LEARNING_RATE": float(f"{train.learning_rate:.6g}"),
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
        own["num_pp_microbatches"] = launch.batch // (layout.dp * launch.micro_batch)
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


_HEAD = '''"""A planned run for torchtitan (main branch of 2026-08-21), built by its own config classes.

Copy this file to a name of its own, set DATASET and TOKENIZER, and run from that folder:
    cp torchtitan.py planned_run.py
    torchrun --nproc-per-node 8 -m torchtitan.train --module planned_run --config plan
A folder that holds a file named torchtitan.py hides the package, so the copy goes to another folder.
"""

from functools import partial

import torch.nn as nn

DATASET = ""  # a name in torchtitan.hf_datasets.text_datasets.DATASETS
TOKENIZER = ""  # a folder with tokenizer.json

# Learning rate and batch: {rule}.{notes}'''

_MODEL = """

def _linear():
    return {"weight": partial(nn.init.trunc_normal_, std=0.02), "bias": nn.init.zeros_}


def _norm(width):
    from torchtitan.models.common.nn_modules import RMSNorm

    return RMSNorm.Config(normalized_shape=width, eps=EPS, param_init={"weight": nn.init.ones_})


def _feed_forward(width):
    from torchtitan.models.common.config_utils import make_ffn_config

    return make_ffn_config(dim=DIM, hidden_dim=width, w1_param_init=_linear(), w2w3_param_init=_linear())


def _moe():
    from torchtitan.models.common.config_utils import make_moe_config, make_routed_experts_config, make_router_config

    matrices = {name: partial(nn.init.trunc_normal_, std=0.02) for name in ("w1_EFD", "w2_EDF", "w3_EFD")}
    return make_moe_config(
        num_experts=EXPERTS,
        router=make_router_config(
            dim=DIM, num_experts=EXPERTS, gate_param_init=_linear(), top_k=TOP_K, **ROUTER
        ),
        routed_experts=make_routed_experts_config(
            dim=DIM, hidden_dim=EXPERT_FFN, num_experts=EXPERTS, top_k=TOP_K, param_init=matrices,
            comm_backend="standard",
        ),
        shared_experts=_feed_forward(SHARED_FFN) if SHARED_FFN else None,
        load_balance_coeff=BIAS_UPDATE,
    )


def _model(model_class, block_class):
    from torchtitan.models.common import Embedding, Linear

    layers = [
        block_class.Config(
            attention=_attention(layer), attention_norm=_norm(DIM), ffn_norm=_norm(DIM),
            feed_forward=None if layer in MOE_LAYERS else _feed_forward(FFN),
            moe=_moe() if layer in MOE_LAYERS else None,
        )
        for layer in range(LAYERS)
    ]
    embedding = Embedding.Config(
        num_embeddings=VOCAB, embedding_dim=DIM, param_init={"weight": partial(nn.init.normal_, std=0.02)}
    )
    head = Linear.Config(in_features=DIM, out_features=VOCAB, param_init=_linear())
    return model_class.Config(
        vocab_size=VOCAB, dim=DIM, norm=_norm(DIM), tok_embeddings=embedding, lm_head=head, layers=layers,
        enable_weight_tying=TIED,
    )
"""

_GROUPED = """
def _attention(layer):
    from torchtitan.models.common import CosSinRoPE
    from torchtitan.models.common.config_utils import get_attention_config, make_gqa_config

    return make_gqa_config(
        dim=DIM, n_heads=HEADS, n_kv_heads=KV_HEADS, head_dim=HEAD_DIM, wqkv_param_init=_linear(),
        wo_param_init=_linear(), inner_attention=get_attention_config("flex"), fuse_qkv=True,
        rope=CosSinRoPE.Config(dim=HEAD_DIM, max_context_length=SEQ_LEN, theta=ROPE_THETA),
        qk_norm=_norm(HEAD_DIM) if QK_NORM else None,
    )


def _model_spec():
    from torchtitan.components.optimizer import register_moe_load_balancing_hook
    from torchtitan.distributed.pipeline_parallel import pipeline_llm
    from torchtitan.models.qwen3 import Qwen3Model, parallelize_qwen3
    from torchtitan.models.qwen3.model import Qwen3TransformerBlock
    from torchtitan.protocols.model_spec import ModelSpec

    return ModelSpec(
        name="qwen3", flavor="plan", model=_model(Qwen3Model, Qwen3TransformerBlock),
        parallelize_fn=parallelize_qwen3, pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=register_moe_load_balancing_hook, state_dict_adapter=None,
    )
"""

_LATENT = """
def _attention(layer):
    from torchtitan.models.common import ComplexRoPE
    from torchtitan.models.deepseek_v3 import make_mla_attention_config

    return make_mla_attention_config(
        layer_id=layer, dim=DIM, n_heads=HEADS, **LATENT, attn_backend="flex", linear_init=_linear(),
        norm_init={"weight": nn.init.ones_}, depth_init=lambda layer: _linear(),
        rope=ComplexRoPE.Config(dim=LATENT["qk_rope_head_dim"], max_context_length=SEQ_LEN, theta=ROPE_THETA),
    )


def _model_spec():
    from torchtitan.components.optimizer import register_moe_load_balancing_hook
    from torchtitan.distributed.pipeline_parallel import pipeline_llm
    from torchtitan.models.deepseek_v3 import DeepSeekV3Model, parallelize_deepseekv3
    from torchtitan.models.deepseek_v3.model import DeepSeekV3TransformerBlock
    from torchtitan.protocols.model_spec import ModelSpec

    return ModelSpec(
        name="deepseek_v3", flavor="plan", model=_model(DeepSeekV3Model, DeepSeekV3TransformerBlock),
        parallelize_fn=parallelize_deepseekv3, pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=register_moe_load_balancing_hook, state_dict_adapter=None,
    )
"""

_RUN = '''
def plan():
    """The Trainer.Config that `--config plan` names."""
    from torchtitan.components.data import ConcatThenSplitPackingConfig, GrainDataLoader
    from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
    from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
    from torchtitan.config import ParallelismConfig, TrainingConfig
    from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
    from torchtitan.hf_datasets.text_datasets import DATASETS
    from torchtitan.trainer import Trainer

    if not DATASET or not TOKENIZER:
        raise SystemExit("DATASET, TOKENIZER: a plan leaves the data to choose; set both at the top of this file")
    recomputed = {"full": FullAC.Config, "selective": SelectiveAC.Config}
    spec = _model_spec()
    if FP8:
        _convert_to_fp8(spec)
    return Trainer.Config(
        model_spec=spec,
        hf_assets_path=TOKENIZER,
        loss=ChunkedLossWrapper.Config(loss_fn=CrossEntropyLoss.Config(global_vocab_size=VOCAB)),
        dataloader=GrainDataLoader.Config(dataset=ConcatThenSplitPackingConfig(dataset=DATASETS[DATASET])),
        optimizer=default_adamw(lr=LEARNING_RATE, **ADAMW),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=WARMUP, decay_ratio=None, decay_type="cosine", min_lr_factor=FINAL_RATE
        ),
        training=TrainingConfig(
            num_tokens_per_microbatch_per_dp_rank=MICRO_BATCH * SEQ_LEN,
            num_tokens_per_train_step=BATCH_TOKENS,
            max_context_length=SEQ_LEN,
            max_norm=CLIP,
            steps=STEPS,
            disable_cuda_graphs=True,
        ),
        parallelism=ParallelismConfig(**PARALLEL),
        activation_checkpoint=recomputed[RECOMPUTE]() if RECOMPUTE in recomputed else None,
    )


def _convert_to_fp8(spec):
    from torchtitan.components.quantization import Float8GroupedExpertsConverter, Float8LinearConverter

    kinds = [Float8LinearConverter.Config(filter_fqns=["lm_head", "router.gate"], model_compile_enabled=False)]
    if EXPERTS:
        kinds.append(Float8GroupedExpertsConverter.Config(model_compile_enabled=False))
    for kind in kinds:
        spec.model = kind.build().convert(spec.model)
'''
