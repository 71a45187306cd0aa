"""One tiny random model per class of transformers and feature, and runs made of them without training."""

import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.architecture.layout import Layout
from moelab.export import Source
from moelab.export.launch import Launch
from moelab.model import LanguageModel, build_model
from moelab.runs import RunConfig, RunRecord, run_columns
from moelab.runs.train_config import TrainConfig

BASE = {
    "vocab_size": 300, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 48, "rope_theta": 5e3,
    "norm_eps": 1e-5,
}  # fmt: skip
MOE = {"n_experts": 8, "top_k": 2, "d_expert": 16}
SIGMOID = {**MOE, "score": "sigmoid"}
ONE, TWO = {"n_shared_experts": 1, "d_shared": 16}, {"n_shared_experts": 2, "d_shared": 32}
ODD = {"n_shared_experts": 1, "d_shared": 24}
GEMMA: dict[str, Any] = {
    "activation": "geglu", "norm": "rms_plus_one", "norm_position": "both", "embedding_scale": 32**0.5,
    "sliding_window": 6, "sliding_pattern": ["window", "full"],
}  # fmt: skip
GPT_OSS: dict[str, Any] = {
    "qk_norm": "none", "attention_bias": True, "attention_sinks": True, "sliding_window": 6,
    "sliding_pattern": ["window", "full"], "activation": "clamped_swiglu", "swiglu_limit": 7.0,
    "moe": {**MOE, "router_bias": True, "expert_bias": True},
}  # fmt: skip
MLA: dict[str, Any] = {
    "n_kv_heads": 4, "norm_eps": 1e-6,
    "mla": {
        "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 6, "v_head_dim": 10,
    },
}  # fmt: skip
YARN: dict[str, Any] = {"kind": "yarn", "factor": 4, "original_context": 16}
MSCALE = {"mscale": 1, "mscale_all_dim": 1}
LLAMA3: dict[str, Any] = {
    "kind": "llama3", "factor": 8, "original_context": 16, "low_freq_factor": 1, "high_freq_factor": 4,
}  # fmt: skip

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"qk_norm": "none"}),
    "llama-bias-untied-head": (
        "llama", {"qk_norm": "none", "attention_bias": True, "tie_embeddings": False, "head_dim": 12},
    ),
    "qwen3": ("qwen3", {}),
    "qwen3-bias-untied-head": ("qwen3", {"attention_bias": True, "tie_embeddings": False, "head_dim": 12}),
    "mixtral": ("mixtral", {"qk_norm": "none", "moe": MOE}),
    "mixtral-scaled-head": ("mixtral", {"qk_norm": "none", "moe": {**MOE, "routed_scaling": 2.5}, "head_dim": 12}),
    "mixtral-capacity": ("mixtral", {"qk_norm": "none", "moe": {**MOE, "capacity_factor": 1.0}}),
    "qwen3_moe": ("qwen3_moe", {"moe": MOE}),
    "qwen3_moe-top1-every-untied": (
        "qwen3_moe", {"moe": {**MOE, "top_k": 1}, "moe_every": 2, "tie_embeddings": False},
    ),
    "qwen3_moe-gates-dense-bias": (
        "qwen3_moe", {"moe": {**MOE, "normalize_gates": False}, "n_dense_layers": 1, "attention_bias": True},
    ),
    "olmoe": ("olmoe", {"moe": {**MOE, "normalize_gates": False}, "qk_norm": "full", "n_kv_heads": 4}),
    "olmoe-gates-gqa-bias": ("olmoe", {"moe": MOE, "qk_norm": "full", "attention_bias": True}),
    "ernie-shared-dense": ("ernie4_5_moe", {"qk_norm": "none", "moe": {**MOE, **TWO}, "n_dense_layers": 1}),
    "ernie-bias": ("ernie4_5_moe", {"qk_norm": "none", "moe": {**MOE, "bias_update": 0.1}}),
    "qwen2_moe-gated": (
        "qwen2_moe", {"qk_norm": "none", "moe": {**MOE, **ODD, "normalize_gates": False, "shared_gate": True}},
    ),
    "qwen2_moe-gated-every": (
        "qwen2_moe", {"qk_norm": "none", "moe": {**MOE, **ODD, "shared_gate": True}, "moe_every": 2},
    ),
    "qwen2_moe-ungated-head": (
        "qwen2_moe", {"qk_norm": "none", "moe": {**MOE, **ODD, "normalize_gates": False}, "head_dim": 12},
    ),
    "glm-bias-scaled-dense": (
        "glm4_moe",
        {"qk_norm": "none", "n_dense_layers": 1, "moe": {**SIGMOID, **ONE, "routed_scaling": 2.5, "bias_update": 0.1}},
    ),
    "glm-head-untied": ("glm4_moe", {"moe": {**SIGMOID, **TWO, "bias_update": 0.1}, "tie_embeddings": False}),
    "glm-gates-head": ("glm4_moe", {"moe": {**SIGMOID, **ONE, "normalize_gates": False}, "head_dim": 12}),
    "glm-top1-no-shared": ("glm4_moe", {"moe": {**SIGMOID, "top_k": 1}}),
    "dots": ("dots1", {"moe": {**SIGMOID, **TWO}, "attention_bias": True, "n_dense_layers": 2}),
    "mistral": ("mistral", {"qk_norm": "none", "sliding_window": 7}),
    "mistral-odd-width": ("mistral", {"qk_norm": "none", "d_model": 30, "head_dim": 8}),
    "llama3-scaling": (
        "llama",
        {
            "qk_norm": "none",
            "rope_scaling": {
                "kind": "llama3", "factor": 8, "original_context": 16, "low_freq_factor": 1, "high_freq_factor": 4,
            },
        },
    ),
    "qwen3-windows-yarn": (
        "qwen3",
        {
            "sliding_window": 5, "sliding_pattern": ["window", "full"],
            "rope_scaling": {"kind": "yarn", "factor": 4, "original_context": 16},
        },
    ),
    "qwen2-windows": (
        "qwen2",
        {"qk_norm": "none", "attention_bias": "qkv", "sliding_window": 5, "sliding_pattern": ["full", "window"]},
    ),
    "gemma2": ("gemma2", {**GEMMA, "qk_norm": "none", "attention_softcap": 2.0, "logit_softcap": 3.0}),
    "gemma3": (
        "gemma3_text",
        {
            **GEMMA, "sliding_rope_theta": 100.0, "attention_scale": 12**-0.5,
            "rope_scaling": {"kind": "linear", "factor": 2},
        },
    ),
    "mixtral-windows": ("mixtral", {"qk_norm": "none", "moe": MOE, "sliding_window": 6}),
    "qwen3_moe-windows": ("qwen3_moe", {"moe": MOE, "sliding_window": 6}),
    "qwen2_moe-windows-bias": (
        "qwen2_moe",
        {
            "qk_norm": "none", "moe": {**MOE, **ODD, "shared_gate": True}, "sliding_window": 6,
            "sliding_pattern": ["full", "window"], "attention_bias": "qkv",
        },
    ),
    "olmoe-clipped": ("olmoe", {"moe": MOE, "qk_norm": "full", "clip_qkv": 0.5}),
    "gpt-oss": (
        "gpt_oss",
        {**GPT_OSS, "rope_scaling": {"kind": "yarn", "factor": 4, "original_context": 16, "truncate": False}},
    ),
    "gpt-oss-untied-scaled": (
        "gpt_oss", {**GPT_OSS, "moe": {**GPT_OSS["moe"], "routed_scaling": 1.5}, "tie_embeddings": False},
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **MLA, "rope_interleaved": True, "n_dense_layers": 1,
            "moe": {**SIGMOID, **ONE, "routed_scaling": 2.5, "bias_update": 0.1, "n_group": 4, "topk_group": 2},
        },
    ),
    "deepseek_v3-halves-no-query-rank-mtp": (
        "deepseek_v3",
        {**MLA, "mla": {**MLA["mla"], "q_lora_rank": None}, "moe": {**SIGMOID, **TWO}, "mtp_layers": 1},
    ),
    "deepseek_v3-bias-yarn": (
        "deepseek_v3",
        {
            **MLA, "attention_bias": True, "moe": {**SIGMOID, "normalize_gates": False}, "tie_embeddings": False,
            "rope_scaling": {"kind": "yarn", "factor": 4, "original_context": 16, "mscale": 1, "mscale_all_dim": 1},
        },
    ),
    "deepseek_v3-yarn": ("deepseek_v3", {**MLA, "moe": {**SIGMOID, **ONE}, "rope_scaling": {**YARN, **MSCALE}}),
    "deepseek_v2-yarn": (
        "deepseek_v2",
        {
            **MLA, "rope_interleaved": True, "moe": {**MOE, **TWO, "normalize_gates": False},
            "rope_scaling": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
        },
    ),
    "deepseek_v2": (
        "deepseek_v2",
        {
            **MLA, "n_dense_layers": 1,
            "moe": {**MOE, **TWO, "normalize_gates": False, "routed_scaling": 1.5, "n_group": 4, "topk_group": 2},
        },
    ),
    "deepseek_v2-interleaved": (
        "deepseek_v2",
        {
            **MLA, "rope_interleaved": True, "moe": {**MOE, **ONE, "normalize_gates": False},
            "mla": {**MLA["mla"], "q_lora_rank": None},
        },
    ),
    "glm-partial-bias-groups": (
        "glm4_moe",
        {
            "rotary_dim": 4, "attention_bias": "qkv",
            "moe": {**SIGMOID, **ONE, "bias_update": 0.1, "n_group": 2, "topk_group": 1},
        },
    ),
    "deepseek_v3-halves": (
        "deepseek_v3",
        {**MLA, "n_dense_layers": 1, "moe": {**SIGMOID, **TWO, "routed_scaling": 1.5, "bias_update": 0.1}},
    ),
    "deepseek_v2-plain": (
        "deepseek_v2",
        {**MLA, "n_dense_layers": 1, "moe": {**MOE, **TWO, "normalize_gates": False, "routed_scaling": 1.5}},
    ),
    "gpt-oss-plain": ("gpt_oss", GPT_OSS),
    "dots-windows": (
        "dots1", {"moe": {**SIGMOID, **ONE}, "sliding_window": 6, "sliding_pattern": ["window", "full", "window"]},
    ),
    "minimax-partial": ("minimax_m2", {"moe": SIGMOID, "qk_norm": "full", "rotary_dim": 4}),
    "gpt-oss-unrounded": (
        "gpt_oss", {**GPT_OSS, "rope_scaling": {**YARN, "original_context": 4096, "truncate": False}},
    ),
    "deepseek_v2-27-layers": (
        "deepseek_v2",
        {
            **MLA, "n_layers": 27, "moe": {**MOE, **TWO, "normalize_gates": False},
            "mla": {**MLA["mla"], "q_lora_rank": None},
        },
    ),
    "deepseek_v3-27-layers": ("deepseek_v3", {**MLA, "n_layers": 27, "moe": {**SIGMOID, **TWO}}),
    "deepseek_v3-27-layers-no-query-rank": (
        "deepseek_v3",
        {**MLA, "n_layers": 27, "moe": {**SIGMOID, **TWO}, "mla": {**MLA["mla"], "q_lora_rank": None}},
    ),
    "qwen3_moe-1024": ("qwen3_moe", {"n_layers": 1, "moe": {**MOE, "n_experts": 1024, "d_expert": 8}}),
    "gpt-oss-yarn": ("gpt_oss", {**GPT_OSS, "rope_scaling": YARN}),
    "llama-linear": ("llama", {"qk_norm": "none", "rope_scaling": {"kind": "linear", "factor": 3}}),
    "mixtral-llama3": ("mixtral", {"qk_norm": "none", "moe": MOE, "rope_scaling": LLAMA3}),
    "mixtral-yarn": (
        "mixtral", {"qk_norm": "none", "moe": MOE, "rope_scaling": {**YARN, "attention_factor": 1.4, "beta_fast": 2}},
    ),
    "qwen3-yarn": ("qwen3", {"rope_scaling": YARN}),
    "qwen3_moe-yarn": ("qwen3_moe", {"moe": MOE, "rope_scaling": YARN}),
    "olmoe-yarn": (
        "olmoe",
        {"moe": {**MOE, "normalize_gates": False}, "qk_norm": "full", "n_kv_heads": 4, "rope_scaling": YARN},
    ),
    "qwen2_moe-bias-yarn": (
        "qwen2_moe",
        {
            "qk_norm": "none", "attention_bias": "qkv", "rope_scaling": YARN,
            "moe": {**MOE, **ODD, "normalize_gates": False, "shared_gate": True},
        },
    ),
    "glm-partial-bias-yarn": (
        "glm4_moe",
        {
            "rotary_dim": 4, "attention_bias": "qkv", "n_dense_layers": 1, "rope_scaling": YARN,
            "moe": {**SIGMOID, **ONE, "bias_update": 0.1},
        },
    ),
    "minimax-partial-yarn": (
        "minimax_m2", {"moe": SIGMOID, "qk_norm": "full", "rotary_dim": 4, "rope_scaling": YARN},
    ),
    "minimax": ("minimax_m2", {"moe": {**SIGMOID, "bias_update": 0.1}, "qk_norm": "full", "head_dim": 12}),
}  # fmt: skip
"""By name: the class's model_type, and what the architecture has beside BASE."""
GGUF_CASES: dict[str, dict[str, Any]] = {
    "softmax-shared": {"moe": {**MOE, **TWO}},
    "softmax-shared-gates-dense": {
        "qk_norm": "none", "n_dense_layers": 1, "moe": {**MOE, **ONE, "normalize_gates": False, "routed_scaling": 1.7},
    },
    "softmax-shared-bias-untied": {"moe": {**MOE, **ONE, "bias_update": 0.1}, "tie_embeddings": False},
}  # fmt: skip
"""What llama.cpp runs and no class of transformers."""


def random_model(changes: dict[str, Any]) -> LanguageModel:
    """Every parameter and balancing bias random, so that nothing passes by being one or zero."""
    config = ModelConfig.parse({**BASE, **changes})
    model = build_model(config, dispatch="loop" if config.moe else "auto").eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
            elif name.endswith("sinks"):
                parameter.normal_(0, 1.0, generator=generator)
            elif "router" in name:
                parameter.normal_(0, 0.3, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("balance_bias"):
                buffer.normal_(0, 0.2, generator=generator)
    return model


@functools.cache
def model_of(name: str) -> LanguageModel:
    """The random model of a case. Read only."""
    return random_model(CASES[name][1])


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, LanguageModel]:
    """The name of a class and a random model that it represents. Read only."""
    return CASES[request.param][0], model_of(request.param)


@pytest.fixture(params=CASES)
def case_config(request: pytest.FixtureRequest) -> tuple[str, ModelConfig]:
    """The name of a class and an architecture that it represents."""
    kind, changes = CASES[request.param]
    return kind, ModelConfig.parse({**BASE, **changes})


SCALED = (
    "mistral", "qwen2-windows", "mixtral", "qwen3_moe", "olmoe", "qwen2_moe-gated", "deepseek_v2", "deepseek_v3",
    "glm-partial-bias-groups", "dots", "minimax-partial", "llama",
)  # fmt: skip
"""Cases that stand for their classes with scaled rotary positions."""


@pytest.fixture(params=SCALED)
def scaled_case(request: pytest.FixtureRequest) -> tuple[str, LanguageModel]:
    """The name of a class and a random model of it with YaRN."""
    kind, changes = CASES[request.param]
    return kind, random_model({**changes, "rope_scaling": {"kind": "yarn", "factor": 4, "original_context": 16}})


@pytest.fixture
def make_model() -> Callable[[str], LanguageModel]:
    """The random model of a case, by name."""
    return lambda name: random_model(GGUF_CASES[name] if name in GGUF_CASES else CASES[name][1])


@pytest.fixture
def make_source(tiny_dataset: Any) -> Callable[[LanguageModel], Source]:
    """A function of a model that returns it as a run that was never trained."""

    def make(model: LanguageModel) -> Source:
        train = {"tokens": 6400, "seq_len": 32, "batch_tokens": 64, "device": "cpu", "precision": "fp32", "threads": 1}
        data = {"path": str(tiny_dataset.folder), "manifest_hash": tiny_dataset.manifest_hash}
        config = RunConfig.parse(
            {"model": model.config.to_dict(), "data": data, "train": {**train, "dispatch": "loop"}, "name": "tiny"}
        )
        record = RunRecord(
            **run_columns(config), run_id=config.run_id, status="finished", loss=2.5, bits_per_byte=1.25,
            device="cpu", precision="fp32", threads=1, dispatch="loop", seconds=1.0, tokens_per_second=6400.0,
            peak_memory_bytes=1, data_hash=tiny_dataset.manifest_hash,
        )  # fmt: skip
        folder = Path("runs") / config.run_id
        return Source(folder=folder, config=config, record=record, model=model, dataset=tiny_dataset)

    return make


def _next_token(path: Path, text: str) -> tuple[int, dict[int, float]]:
    """How many tokens llama.cpp makes of a text, and its log probability of every next token; an fp32 cache."""
    llama = pytest.importorskip("xllamacpp")
    params = llama.CommonParams()
    params.model.path, params.n_ctx, params.n_gpu_layers, params.n_parallel = str(path), 64, 0, 1
    params.cpuparams.n_threads, params.warmup, params.verbosity = 1, False, -1
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_extra_bufts, params.fit_params = True, False
    # The likeliest token may be half a letter, for which the server gives no probabilities: it is made to take an `A`.
    wanted = {"prompt": text, "n_predict": 1, "n_probs": 1000, "temperature": 0, "logit_bias": [["A", 1000.0]]}
    found = llama.Server(params).handle_completions({**wanted, "cache_prompt": False})
    found = json.loads(found) if isinstance(found, str) else found
    top = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return found["usage"]["prompt_tokens"], {each["id"]: each["logprob"] for each in top}


@pytest.fixture
def next_token() -> Callable[[Path, str], tuple[int, dict[int, float]]]:
    """`_next_token`; skips where llama.cpp is not installed."""
    pytest.importorskip("xllamacpp")
    return _next_token


MODEL = ModelConfig.parse(
    {
        "vocab_size": 1000, "d_model": 64, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "d_ff": 192,
        "n_dense_layers": 1, "tie_embeddings": False,
        "moe": {"n_experts": 8, "top_k": 2, "d_expert": 48, "n_shared_experts": 1, "d_shared": 48},
    }
)  # fmt: skip


LATENT = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
MODELS = {
    "grouped": MODEL,
    "dense": MODEL.replace(moe=None, n_dense_layers=0),
    "latent": MODEL.replace(mla=LATENT, n_kv_heads=4, qk_norm="none"),
    "window": MODEL.replace(sliding_window=64, sliding_pattern=["window", "full"], mtp_layers=1),
}


@pytest.fixture
def launched() -> Callable[..., Launch]:
    """A function from a model's name in MODELS (or a model) and changed fields to a planned run of it."""
    return launch_with


def launch_with(model: str | ModelConfig = "grouped", **changes: Any) -> Launch:
    train = TrainConfig.parse(
        {"tokens": 1_024_000, "seq_len": 128, "batch_tokens": 4096, "micro_batch": 2, "learning_rate": 1e-3}
    )
    layout = Layout(tp=2, pp=2, ep=4, dp=4, vp=2)
    own = Launch(
        model=MODELS[model] if isinstance(model, str) else model,
        train=train,
        batch=32,
        micro_batch=2,
        layout=layout,
        recompute="selective",
        precision="fp8",
        unique_tokens=None,
        rule="a rule",
    )
    return replace(own, **changes)


def _missing(*modules: str) -> str:
    """The first of these modules that is not installed; empty where all are."""
    for module in modules:
        parent, _, _ = module.partition(".")
        if importlib.util.find_spec(parent) is None:
            return parent
        spec = importlib.util.find_spec(parent)
        assert spec is not None
        path = Path(next(iter(spec.submodule_search_locations or [""]))).joinpath(*module.split(".")[1:])
        if not (path.is_dir() or path.with_suffix(".py").exists()):
            return module
    return ""


@pytest.fixture
def printed(tmp_path: Path) -> Callable[..., Any]:
    """A function that runs code in a process of its own and returns its last line, read as JSON.

    Importing an engine changes loggers and warnings. Skips where a module of `needs` is not installed.
    """

    def run(code: str, *arguments: str, needs: tuple[str, ...]) -> Any:
        if lacks := _missing(*needs):
            pytest.skip(f"needs {lacks}")
        command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
