"""Megatron-LM's arguments for a plan: every flag is a field it has, and holds the right number."""

from collections.abc import Callable
from typing import Any

import pytest

from moelab.architecture.layout import Layout
from moelab.errors import InputError
from moelab.export.launch import Launch, stages_text
from moelab.export.megatron import megatron_arguments, megatron_text
from moelab.model import build_model

# Names of Megatron-LM's main branch of 2026-08-22 (megatron-core 0.20.0).
TRANSFORMER_CONFIG = frozenset(
    """
    num_layers hidden_size ffn_hidden_size num_attention_heads num_query_groups kv_channels attention_dropout
    hidden_dropout layernorm_epsilon add_bias_linear add_qkv_bias gated_linear_unit normalization qk_layernorm
    window_size window_attn_skip_freq mtp_num_layers multi_latent_attention q_lora_rank kv_lora_rank qk_head_dim
    qk_pos_emb_head_dim v_head_dim rope_type rotary_base rotary_percent num_moe_experts moe_router_topk
    moe_ffn_hidden_size moe_layer_freq moe_grouped_gemm moe_token_dispatcher_type moe_router_dtype
    moe_router_score_function moe_router_pre_softmax moe_router_topk_scaling_factor moe_router_num_groups
    moe_router_group_topk moe_router_enable_expert_bias moe_router_bias_update_rate
    moe_router_load_balancing_type moe_aux_loss_coeff moe_z_loss_coeff moe_shared_expert_intermediate_size
    moe_shared_expert_gate moe_expert_capacity_factor fp8 fp8_recipe fp4 recompute_granularity recompute_method
    recompute_num_layers recompute_modules pipeline_model_parallel_layout tensor_model_parallel_size
    pipeline_model_parallel_size context_parallel_size expert_model_parallel_size expert_tensor_parallel_size
    sequence_parallel fp16 bf16 init_method_std embedding_init_method_std tp_comm_overlap moe_permute_fusion
    moe_router_fusion cross_entropy_loss_fusion
    """.split()  # noqa: SIM905
)
"""Fields of TransformerConfig, MLATransformerConfig and ModelParallelConfig."""

RENAMED = {
    "norm_epsilon": "layernorm_epsilon",
    "disable_bias_linear": "add_bias_linear",
    "swiglu": "gated_linear_unit",
    "num_experts": "num_moe_experts",
    "fp8_format": "fp8",
    "fp4_format": "fp4",
}
"""Flags whose field has another name."""

TRAINING = frozenset(
    """
    micro_batch_size global_batch_size train_iters lr_decay_style lr_decay_iters lr_warmup_iters optimizer lr
    min_lr weight_decay adam_beta1 adam_beta2 adam_eps clip_grad seq_length max_position_embeddings
    position_embedding_type vocab_size untie_embeddings_and_output_weights group_query_attention
    use_distributed_optimizer use_megatron_fsdp data_parallel_sharding_strategy ckpt_format
    overlap_grad_reduce overlap_param_gather manual_gc manual_gc_interval
    """.split()  # noqa: SIM905
)
"""Further flags, of TrainingConfig, SchedulerConfig, TokenizerConfig and arguments.py."""

FIELDS = """
import dataclasses, json
from megatron.core.transformer.transformer_config import MLATransformerConfig
print(json.dumps([field.name for field in dataclasses.fields(MLATransformerConfig)]))
"""


@pytest.mark.parametrize("name", ["grouped", "dense", "latent", "window"])
@pytest.mark.parametrize("precision", ["bf16", "fp8", "mxfp8", "nvfp4", "fp16"])
def test_every_megatron_flag_is_a_known_field(name: str, precision: str, launched: Callable[..., Launch]) -> None:
    for zero, recompute in ((1, "full"), (3, "selective"), (2, "none")):
        layout = Layout(tp=2, pp=2, ep=4, dp=4, vp=1, zero=zero)
        launch = launched(name, precision=precision, layout=layout, recompute=recompute)
        for flag in megatron_arguments(launch):
            field = flag.removeprefix("--").replace("-", "_")
            assert RENAMED.get(field, field) in TRANSFORMER_CONFIG | TRAINING, flag


def test_megatron_holds_the_numbers(launched: Callable[..., Launch]) -> None:
    launch = launched()
    found = megatron_arguments(launch)
    expected = {
        "--num-layers": "6", "--hidden-size": "64", "--num-query-groups": "2", "--num-experts": "8",
        "--moe-router-topk": "2", "--moe-ffn-hidden-size": "48", "--moe-layer-freq": "[0,1,1,1,1,1]",
        "--moe-shared-expert-intermediate-size": "48", "--global-batch-size": "32", "--train-iters": "250",
        "--lr": "0.001", "--tensor-model-parallel-size": "2", "--expert-model-parallel-size": "4",
        "--pipeline-model-parallel-layout": "Et|tt|tt|tL", "--recompute-modules": "layernorm moe_act",
        "--fp8-recipe": "tensorwise",
    }  # fmt: skip
    assert {flag: found.get(flag) for flag in expected} == expected
    assert "--moe-router-pre-softmax" not in found
    assert stages_text(launch.model, 4).count("t") == launch.model.n_layers


OVERLAP = ("--overlap-grad-reduce", "--overlap-param-gather")


@pytest.mark.parametrize(
    ("name", "layout", "expected", "absent"),
    [
        ("grouped", Layout(tp=2, pp=2, ep=4, dp=4, vp=2), (*OVERLAP, "--tp-comm-overlap", "--moe-permute-fusion"), ()),
        ("latent", Layout(tp=2, ep=4, dp=4), (*OVERLAP, "--moe-router-fusion"), ("--tp-comm-overlap",)),
        ("dense", Layout(tp=2, dp=4), (*OVERLAP, "--tp-comm-overlap"), ("--moe-permute-fusion", "--moe-router-fusion")),
        ("grouped", Layout(ep=4, dp=8), OVERLAP, ("--tp-comm-overlap",)),
        ("grouped", Layout(ep=4, dp=8, zero=0), (), (*OVERLAP, "--use-distributed-optimizer")),
        ("dense", Layout(tp=2, pp=2, dp=1), ("--manual-gc",), OVERLAP),
        ("grouped", Layout(tp=2, ep=4, dp=8, zero=3), (*OVERLAP, "--ckpt-format"), ("--tp-comm-overlap",)),
        ("grouped", None, (*OVERLAP, "--use-distributed-optimizer", "--cross-entropy-loss-fusion"), ()),
    ],
)
def test_exchanges_are_hidden_where_the_layout_allows_it(
    name: str,
    layout: Layout | None,
    expected: tuple[str, ...],
    absent: tuple[str, ...],
    launched: Callable[..., Launch],
) -> None:
    """What Megatron-LM's validate_args asserts: gathers need reductions, and both the distributed optimizer or FSDP;
    overlap of tensor parallelism needs sequence parallelism; Megatron-FSDP needs its own checkpoints."""
    found = megatron_arguments(launched(name, layout=layout, recompute="selective"))
    assert set(expected) <= found.keys()
    assert not set(absent) & found.keys()
    if "--overlap-param-gather" in found:
        assert "--overlap-grad-reduce" in found
        assert {"--use-distributed-optimizer", "--use-megatron-fsdp"} & found.keys()
    if "--tp-comm-overlap" in found:
        assert "--sequence-parallel" in found
    assert (found.get("--ckpt-format") == "fsdp_dtensor") is ("--use-megatron-fsdp" in found)


def test_every_flag_of_speed_has_its_reason_above_it(launched: Callable[..., Launch]) -> None:
    lines = megatron_text(launched()).splitlines()
    for flag in (*OVERLAP, "--tp-comm-overlap", "--moe-permute-fusion", "--moe-router-fusion", "--manual-gc"):
        above = lines[lines.index(flag) - 1]
        assert above.startswith("# ")
        assert len(above) > 20
    assert any("CUDA_DEVICE_MAX_CONNECTIONS=1" in line for line in lines[:6])
    assert any("--overlap-moe-expert-parallel-comm" in line and "advises against" in line for line in lines[:6])
    fsdp = megatron_text(launched(layout=Layout(tp=2, ep=4, dp=8, zero=3)))
    assert "CUDA_DEVICE_MAX_CONNECTIONS must not be 1" in fsdp
    full = megatron_text(launched(recompute="full"))
    assert "--overlap-moe-expert-parallel-comm" not in full


@pytest.mark.parametrize("name", ["grouped", "dense", "latent"])
def test_megatron_starts_matrices_of_the_models_width_as_moelab_does(
    name: str, launched: Callable[..., Launch]
) -> None:
    """Measured on moelab's own initial weights; the comment names every other fan-in."""
    launch = launched(name)
    text, found = megatron_text(launch), megatron_arguments(launch)
    (comment,) = [line for line in text.splitlines() if line.startswith("# 1/sqrt(d_model)")]
    std, embedding = float(found["--init-method-std"] or 0), float(found["--embedding-init-method-std"] or 0)
    width, own = launch.model.d_model, dict(build_model(launch.model, dispatch="auto").named_parameters())
    assert own["model.embed_tokens.weight"].std().item() == pytest.approx(embedding, rel=0.03)
    others = set()
    for parameter_name, values in own.items():
        if values.ndim < 2 or "embed" in parameter_name or "lm_head" in parameter_name:
            continue
        residual = (2 * launch.model.n_layers) ** 0.5 if "o_proj" in parameter_name or "down" in parameter_name else 1
        if values.shape[-1] == width:
            assert values.std().item() == pytest.approx(std / residual, rel=0.1), parameter_name
        else:
            others.add(values.shape[-1])
    named = comment.partition("fan-in ")[2].partition(" start")[0]
    assert {int(number) for number in named.split(", ")} == others
    assert "the output head starts there at 0.02" in comment
    assert own["lm_head.weight"].std().item() == pytest.approx(0.02, rel=0.03)


def test_gates_that_are_not_normalised_come_before_the_choice(launched: Callable[..., Launch]) -> None:
    model = launched().model
    assert model.moe is not None
    model = model.replace(moe={**model.moe.to_dict(), "normalize_gates": False})
    assert "--moe-router-pre-softmax" in megatron_arguments(launched(model))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sliding_window": 64, "sliding_pattern": ["chunk", "full"]}, "sliding_pattern: Megatron-LM has windows"),
        ({"qk_norm": "full"}, "qk_norm: "),
        ({"activation": "geglu"}, "activation: "),
        ({"logit_softcap": 30.0}, "logit_softcap: "),
    ],
)
def test_megatron_refuses_what_it_has_no_argument_for(
    changes: dict[str, Any], reason: str, launched: Callable[..., Launch]
) -> None:
    with pytest.raises(InputError, match=f"^{reason}"):
        megatron_arguments(launched(launched().model.replace(**changes)))


@pytest.mark.slow
def test_megatron_core_itself_has_every_field(printed: Callable[..., Any]) -> None:
    known = set(printed(FIELDS, needs=("megatron.core", "numpy")))
    assert len(known) > 200
    assert known >= TRANSFORMER_CONFIG
    assert set(RENAMED.values()) <= known
