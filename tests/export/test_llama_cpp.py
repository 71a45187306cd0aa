"""llama.cpp itself (a build that installs as a wheel) runs our GGUF files and gives our probabilities."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.data.tokenizer import load_tokenizer
from moelab.export import Source, export_gguf
from moelab.model import LanguageModel

pytest.importorskip("gguf")

MakeSource = Callable[[LanguageModel], Source]
MakeModel = Callable[[str], LanguageModel]
TEXT = "the cat sat on a mat while two dogs ran past 7 tall trees"


def next_token(path: Path, text: str) -> tuple[int, dict[int, float]]:
    """How many tokens llama.cpp makes of a text, and its log probability of every next token; an fp32 cache."""
    llama = pytest.importorskip("xllamacpp")
    params = llama.CommonParams()
    params.model.path, params.n_ctx, params.n_gpu_layers, params.n_parallel = str(path), 64, 0, 1
    params.cpuparams.n_threads, params.warmup, params.verbosity = 1, False, -1
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_extra_bufts, params.fit_params = True, False
    # The likeliest token may be half a letter, for which the server gives no probabilities: it is made to take an `A`.
    wanted = {"prompt": text, "n_predict": 1, "n_probs": 300, "temperature": 0, "logit_bias": [["A", 1000.0]]}
    found = llama.Server(params).handle_completions({**wanted, "cache_prompt": False})
    found = json.loads(found) if isinstance(found, str) else found
    top = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return found["usage"]["prompt_tokens"], {each["id"]: each["logprob"] for each in top}


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "qwen3",
        "mixtral-scaled-head",
        "qwen3_moe",
        "olmoe",
        "qwen2_moe-gated",
        "glm-bias-scaled-dense",
        "glm-gates-head",
        "minimax",
        "ernie-shared-dense",
        "ernie-bias",
        "deepseek_v3",
        "deepseek_v3-halves",
        "gpt-oss-plain",
        "softmax-shared",
        "softmax-shared-gates-dense",
        "softmax-shared-bias-untied",
    ],
)
@torch.no_grad()
def test_llama_cpp_gives_our_probabilities(
    name: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(name)
    source: Any = make_source(model)
    export_gguf(source, tmp_path / "out.gguf", check=False)
    tokens = load_tokenizer(source.dataset.tokenizer_path).encode(TEXT).ids
    count, theirs = next_token(tmp_path / "out.gguf", TEXT)
    assert count == len(tokens)
    assert len(theirs) == 300
    ours = model(torch.tensor([tokens]))[0, -1].log_softmax(-1)
    torch.testing.assert_close(torch.tensor([theirs[index] for index in range(300)]), ours, rtol=0, atol=2e-5)
