"""The parts of torchtitan's file that are the same for all plans: its head, its model, its attention, its run."""

HEAD = '''"""A planned run for torchtitan (0.3.0), built by its own config classes.

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

MODEL = """

# Initial weights are those of run.yaml: normal, 1/sqrt(fan in), over sqrt(2 layers) where a matrix writes to the
# residual stream, embeddings and output head EMBEDDING_STD. The last size of a matrix, or of a stack, is its fan-in.
def _start(weight):
    nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)


def _start_output(weight):
    nn.init.normal_(weight, std=(weight.shape[-1] * 2 * LAYERS) ** -0.5)


def _linear(start=_start):
    return {"weight": start, "bias": nn.init.zeros_}


def _start_tokens():
    return {"weight": partial(nn.init.normal_, std=EMBEDDING_STD)}


def _norm(width):
    from torchtitan.models.common.nn_modules import RMSNorm

    return RMSNorm.Config(normalized_shape=width, eps=EPS, param_init={"weight": nn.init.ones_})


def _feed_forward(width):
    from torchtitan.models.common import FeedForward, Linear

    return FeedForward.Config(
        w1=Linear.Config(in_features=DIM, out_features=width, param_init=_linear()),
        w2=Linear.Config(in_features=width, out_features=DIM, param_init=_linear(_start_output)),
        w3=Linear.Config(in_features=DIM, out_features=width, param_init=_linear()),
    )


def _moe():
    from torchtitan.models.common.config_utils import make_moe_config, make_routed_experts_config, make_router_config

    matrices = {"w1_EFD": _start, "w2_EDF": _start_output, "w3_EFD": _start}
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
    embedding = Embedding.Config(num_embeddings=VOCAB, embedding_dim=DIM, param_init=_start_tokens())
    head = Linear.Config(in_features=DIM, out_features=VOCAB, param_init=_start_tokens())
    return model_class.Config(
        vocab_size=VOCAB, dim=DIM, norm=_norm(DIM), tok_embeddings=embedding, lm_head=head, layers=layers,
        enable_weight_tying=TIED,
    )
"""

GROUPED = """
def _attention(layer):
    from torchtitan.models.common import CosSinRoPE
    from torchtitan.models.common.config_utils import get_attention_config, make_gqa_config

    return make_gqa_config(
        dim=DIM, n_heads=HEADS, n_kv_heads=KV_HEADS, head_dim=HEAD_DIM, wqkv_param_init=_linear(),
        wo_param_init=_linear(_start_output), inner_attention=get_attention_config("flex"), fuse_qkv=True,
        rope=CosSinRoPE.Config(dim=HEAD_DIM, max_seq_len=SEQ_LEN, theta=ROPE_THETA),
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

LATENT = """
def _attention(layer):
    from torchtitan.models.common import ComplexRoPE
    from torchtitan.models.deepseek_v3 import make_mla_attention_config

    return make_mla_attention_config(
        layer_id=layer, dim=DIM, n_heads=HEADS, **LATENT, attn_backend="flex", linear_init=_linear(),
        norm_init={"weight": nn.init.ones_}, depth_init=lambda layer: _linear(_start_output),
        rope=ComplexRoPE.Config(dim=LATENT["qk_rope_head_dim"], max_seq_len=SEQ_LEN, theta=ROPE_THETA),
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

RUN = '''
def plan():
    """The Trainer.Config that `--config plan` names."""
    from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
    from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
    from torchtitan.config import ParallelismConfig, TrainingConfig
    from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
    from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
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
        dataloader=HuggingFaceTextDataLoader.Config(dataset=DATASET),
        optimizer=default_adamw(lr=LEARNING_RATE, **ADAMW),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=WARMUP, decay_ratio=None, decay_type="cosine", min_lr_factor=FINAL_RATE
        ),
        training=TrainingConfig(
            local_batch_size=LOCAL_BATCH,
            global_batch_size=BATCH_TOKENS // SEQ_LEN,
            seq_len=SEQ_LEN,
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
