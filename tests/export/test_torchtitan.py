"""torchtitan's file for a plan: it compiles, and gives torchtitan's classes fields that they have."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from moelab.architecture import count_parameters
from moelab.errors import InputError
from moelab.export.launch import Launch
from moelab.export.torchtitan import torchtitan_text
from moelab.model import build_model

# Names of torchtitan 0.3.0.
FIELDS: dict[str, str] = {
    "hf_datasets.text_datasets:HuggingFaceTextDataLoader.Config": "dataset infinite",
    "components.loss:ChunkedLossWrapper.Config": "loss_fn",
    "components.loss:CrossEntropyLoss.Config": "global_vocab_size",
    "components.optimizer:LRSchedulersContainer.Config": "warmup_steps decay_ratio decay_type min_lr_factor",
    "components.optimizer:default_adamw": "lr betas eps weight_decay",
    "components.optimizer:register_moe_load_balancing_hook": "",
    "components.quantization:Float8GroupedExpertsConverter.Config": "model_compile_enabled",
    "components.quantization:Float8LinearConverter.Config": "recipe_name filter_fqns emulate model_compile_enabled",
    "config:ParallelismConfig": "data_parallel_replicate_degree data_parallel_shard_degree tensor_parallel_degree "
    "pipeline_parallel_degree pipeline_parallel_layers_per_stage pipeline_parallel_schedule "
    "pipeline_parallel_microbatch_size "
    "context_parallel_degree expert_parallel_degree",
    "config:TrainingConfig": "local_batch_size global_batch_size seq_len "
    "max_norm steps disable_cuda_graphs",
    "distributed.activation_checkpoint:FullAC.Config": "",
    "distributed.activation_checkpoint:SelectiveAC.Config": "",
    "distributed.pipeline_parallel:pipeline_llm": "",
    "models.common:ComplexRoPE.Config": "dim max_seq_len theta",
    "models.common:CosSinRoPE.Config": "dim max_seq_len theta",
    "models.common:FeedForward.Config": "w1 w2 w3",
    "models.common:Embedding.Config": "num_embeddings embedding_dim param_init",
    "models.common:Linear.Config": "in_features out_features bias param_init",
    "models.common.config_utils:get_attention_config": "backend",
    "models.common.config_utils:make_gqa_config": "dim n_heads wqkv_param_init wo_param_init inner_attention rope "
    "n_kv_heads head_dim fuse_qkv qk_norm",
    "models.common.config_utils:make_moe_config": "num_experts router routed_experts shared_experts load_balance_coeff",
    "models.common.config_utils:make_routed_experts_config": "dim hidden_dim num_experts top_k param_init comm_backend",
    "models.common.config_utils:make_router_config": "dim num_experts gate_param_init top_k score_func route_norm "
    "route_scale num_expert_groups num_limited_groups",
    "models.common.nn_modules:RMSNorm.Config": "normalized_shape eps param_init",
    "models.deepseek_v3:make_mla_attention_config": "layer_id dim n_heads q_lora_rank kv_lora_rank qk_nope_head_dim "
    "qk_rope_head_dim v_head_dim mscale attn_backend linear_init norm_init depth_init rope",
    "models.deepseek_v3:DeepSeekV3Model.Config": "vocab_size dim norm tok_embeddings lm_head layers "
    "enable_weight_tying",
    "models.deepseek_v3:parallelize_deepseekv3": "",
    "models.deepseek_v3.model:DeepSeekV3TransformerBlock.Config": "attention feed_forward moe attention_norm ffn_norm",
    "models.qwen3:Qwen3Model.Config": "vocab_size dim norm tok_embeddings lm_head layers "
    "enable_weight_tying",
    "models.qwen3:parallelize_qwen3": "",
    "models.qwen3.model:Qwen3TransformerBlock.Config": "attention feed_forward moe attention_norm ffn_norm",
    "protocols.model_spec:ModelSpec": "name flavor model parallelize_fn pipelining_fn post_optimizer_build_fn "
    "state_dict_adapter",
    "trainer:Trainer.Config": "model_spec hf_assets_path loss dataloader optimizer lr_scheduler training parallelism "
    "activation_checkpoint",
}  # fmt: skip
"""module:class or function -> the fields or parameters that it has."""


BUILD = """
import importlib.util, json, sys
import torch
spec = importlib.util.spec_from_file_location("planned_run", sys.argv[1])
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
run.DATASET, run.TOKENIZER = "c4_test", sys.argv[2]
config = run.plan()
with torch.device("meta"):
    model = config.model_spec.model.build()
model.to_empty(device="cpu")
with torch.no_grad():
    model.init_weights(buffer_device=torch.device("cpu"))
deviations = {name: value.std().item() for name, value in model.named_parameters() if value.ndim > 1}
print(json.dumps({
    "kind": type(config).__qualname__,
    "parameters": sum(value.numel() for value in model.parameters()),
    "sequences": config.training.global_batch_size,
    "steps": config.training.steps,
    "pipeline": config.parallelism.pipeline_parallel_degree,
    "expert_parallel": config.parallelism.expert_parallel_degree,
    "deviations": deviations,
}))
"""
"""Builds the file's config with the real package, its model on the meta device, and its initial weights."""


class Recorded(dict[str, Any]):
    """What a config class was given; `kind` is its name."""

    kind: str


def _recorder(name: str, fields: str) -> Any:
    known = fields.split()

    def build(*values: Any, **given: Any) -> Recorded:
        unknown = given.keys() - set(known)
        assert not unknown, f"{name} has no {unknown}"
        found = Recorded(**dict(zip(known, values, strict=False)), **given)
        found.kind = name
        return found

    return build


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package torchtitan whose classes refuse a field that is not in FIELDS."""
    modules: dict[str, ModuleType] = {}
    for name, fields in FIELDS.items():
        module, path = name.split(":")
        owner, _, inner = path.partition(".")
        place = modules.setdefault(module, ModuleType(f"torchtitan.{module}"))
        value = _recorder(path, fields)
        setattr(place, owner, type(owner, (), {inner: staticmethod(value)}) if inner else value)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"torchtitan.{name}", module)


def executed(text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Trainer.Config of the file, with the data chosen."""
    stand_in(monkeypatch)
    names: dict[str, Any] = {}
    exec(compile(text.replace(' = ""', ' = "c4"'), "torchtitan.py", "exec"), names)
    return names["plan"]()


@pytest.mark.parametrize("name", ["grouped", "dense", "latent"])
def test_the_torchtitan_file_uses_known_classes_and_fields(
    name: str, monkeypatch: pytest.MonkeyPatch, launched: Callable[..., Launch]
) -> None:
    launch = launched(name, precision="bf16")
    config = executed(torchtitan_text(launch), monkeypatch)
    layers = config["model_spec"]["model"]["layers"]
    assert len(layers) == 6
    assert [layer["moe"] is not None for layer in layers] == [launch.model.is_moe_layer(i) for i in range(6)]
    assert config["training"]["global_batch_size"] * config["training"]["seq_len"] == 4096
    assert config["dataloader"]["dataset"] == "c4"
    assert config["training"]["steps"] == 250
    assert config["optimizer"]["lr"] == 1e-3
    assert config["parallelism"]["pipeline_parallel_microbatch_size"] == 2
    assert config["training"]["local_batch_size"] == 32 // 4
    if name == "grouped":
        moe = layers[-1]["moe"]
        assert (moe["num_experts"], moe["router"]["top_k"], moe["router"]["route_norm"]) == (8, 2, True)
        assert moe["routed_experts"]["hidden_dim"] == moe["shared_experts"]["w1"]["out_features"] == 48
        assert layers[0]["feed_forward"]["w2"]["in_features"] == 192
        assert layers[0]["attention"]["n_kv_heads"] == 2


def starts_of(model: Recorded, latent: bool) -> dict[str, Any]:
    """By the name of a parameter in moelab, the function that fills it in the file's model."""
    dense, last = model["layers"][0], model["layers"][-1]
    moe, attention = last["moe"], last["attention"]
    matrices, shared, ffn = moe["routed_experts"]["param_init"], moe["shared_experts"], dense["feed_forward"]
    own = {
        "model.embed_tokens.weight": model["tok_embeddings"]["param_init"]["weight"],
        "lm_head.weight": model["lm_head"]["param_init"]["weight"],
        "model.layers.0.mlp.down_proj.weight": ffn["w2"]["param_init"]["weight"],
        "model.layers.5.mlp.router.weight": moe["router"]["gate_param_init"]["weight"],
        "model.layers.5.mlp.experts.down_proj": matrices["w2_EDF"],
        "model.layers.5.mlp.shared_experts.down_proj.weight": shared["w2"]["param_init"]["weight"],
    }
    for name in ("w1", "w3"):
        own["model.layers.0.mlp.gate_up_proj.weight", name] = ffn[name]["param_init"]["weight"]
        own["model.layers.5.mlp.experts.gate_up_proj", name] = matrices[f"{name}_EFD"]
        own["model.layers.5.mlp.shared_experts.gate_up_proj.weight", name] = shared[name]["param_init"]["weight"]
    if latent:
        own |= {
            f"model.layers.5.self_attn.{name}.weight": attention["linear_init"]["weight"] for name in LATENT_MATRICES
        }
        return own | {"model.layers.5.self_attn.o_proj.weight": attention["depth_init"](5)["weight"]}
    own["model.layers.5.self_attn.q_proj.weight"] = attention["wqkv_param_init"]["weight"]
    return own | {"model.layers.5.self_attn.o_proj.weight": attention["wo_param_init"]["weight"]}


LATENT_MATRICES = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")


@pytest.mark.parametrize("name", ["grouped", "latent"])
def test_the_torchtitan_file_starts_every_matrix_as_moelab_does(
    name: str, monkeypatch: pytest.MonkeyPatch, launched: Callable[..., Launch]
) -> None:
    """Both are drawn, and their standard deviations agree, fan-in by fan-in, residual outputs, embeddings and head."""
    launch = launched(name, precision="bf16")
    config = executed(torchtitan_text(launch), monkeypatch)
    parameters = dict(build_model(launch.model, dispatch="loop").named_parameters())
    deviations = set()
    for key, start in starts_of(config["model_spec"]["model"], name == "latent").items():
        own = parameters[key if isinstance(key, str) else key[0]]
        drawn = torch.empty(20, *own.shape)
        start(drawn)
        assert drawn.std().item() == pytest.approx(own.std().item(), rel=0.1), key
        assert drawn.abs().max() > 3 * drawn.std(), "normal, not cut off"
        deviations.add(round(drawn.std().item(), 3))
    assert len(deviations) >= 5


def test_the_torchtitan_file_asks_for_its_data(
    monkeypatch: pytest.MonkeyPatch, launched: Callable[..., Launch]
) -> None:
    stand_in(monkeypatch)
    names: dict[str, Any] = {}
    exec(torchtitan_text(launched()), names)
    with pytest.raises(SystemExit, match="DATASET, TOKENIZER"):
        names["plan"]()


def test_torchtitan_refuses_windows(launched: Callable[..., Launch]) -> None:
    with pytest.raises(InputError, match=r"^sliding_window: torchtitan"):
        torchtitan_text(launched("window"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grouped", "dense", "latent"])
def test_torchtitan_itself_builds_the_model_of_the_file(
    name: str, tmp_path: Path, launched: Callable[..., Launch], printed: Callable[..., Any]
) -> None:
    """The parameters of the model that it builds are those that moelab counts (0.3.0, which needs triton)."""
    launch = launched(name, precision="bf16")
    file = tmp_path / "planned_run.py"
    file.write_text(torchtitan_text(launch))
    found = printed(BUILD, str(file), str(tmp_path), needs=("torchtitan.hf_datasets", "torchdata", "triton"))
    assert launch.layout is not None
    own = build_model(launch.model, dispatch="auto").named_parameters()
    starts = sorted(value.std().item() for _, value in own if value.ndim > 1)
    for deviation in found.pop("deviations").values():
        assert min(abs(deviation / start - 1) for start in starts) < 0.1
    assert found == {
        "kind": "Trainer.Config",
        "parameters": count_parameters(launch.model).params_total,
        "sequences": launch.train.batch_tokens // launch.train.seq_len,
        "steps": launch.train.steps,
        "pipeline": launch.layout.pp,
        "expert_parallel": launch.layout.ep,
    }
