"""llama.cpp itself (a build that installs as a wheel) runs our GGUF files and gives our probabilities."""

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
NextToken = Callable[[Path, str], tuple[int, dict[int, float]]]
TEXT = "the cat sat on a mat while two dogs ran past 7 tall trees"


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
        "deepseek_v2-plain",
        "gpt-oss-plain",
        "llama3-scaling",
        "llama-linear",
        "mixtral-llama3",
        "mixtral-yarn",
        "qwen3-yarn",
        "qwen3_moe-yarn",
        "olmoe-yarn",
        "qwen2_moe-bias-yarn",
        "glm-partial-bias-yarn",
        "minimax-partial",
        "minimax-partial-yarn",
        "deepseek_v3-yarn",
        "deepseek_v2-yarn",
        "gpt-oss-yarn",
        "gpt-oss",
        "deepseek_v2-27-layers",
        "qwen3_moe-1024",
        "deepseek_v3-27-layers-no-query-rank",
        "softmax-shared",
        "softmax-shared-gates-dense",
        "softmax-shared-bias-untied",
    ],
)
@torch.no_grad()
def test_llama_cpp_gives_our_probabilities(
    name: str, make_source: MakeSource, make_model: MakeModel, next_token: NextToken, tmp_path: Path
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
