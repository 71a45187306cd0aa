"""GGUF files: names, layouts and metadata of llama.cpp, read back by the package and by transformers' own loader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moelab.architecture import load_model
from moelab.data.tokenizer import load_tokenizer
from moelab.errors import InputError, MoelabError
from moelab.export import Source, choose_family, export_gguf, export_hugging_face, gguf_file
from moelab.export.canonical import canonical
from moelab.export.gguf_file import read_tensors
from moelab.export.gguf_graphs import choose_graph
from moelab.export.gguf_tokenizer import gguf_tokenizer
from moelab.export.hf_config import hugging_face_config
from moelab.model import LanguageModel
from moelab.model.rotary import frequencies, rotated_dim, table_factor

gguf = pytest.importorskip("gguf")

MakeSource = Callable[[LanguageModel], Source]
MakeModel = Callable[[str], LanguageModel]
GRAPHS = {
    "llama": "llama",
    "qwen3": "qwen3",
    "mixtral": "llama",
    "mixtral-scaled-head": "llama",
    "qwen3_moe": "qwen3moe",
    "olmoe": "olmoe",
    "qwen2_moe-gated": "qwen2moe",
    "glm-bias-scaled-dense": "glm4moe",
    "glm-head-untied": "glm4moe",
    "glm-gates-head": "glm4moe",
    "minimax": "minimax-m2",
    "ernie-shared-dense": "ernie4_5-moe",
    "ernie-bias": "ernie4_5-moe",
    "deepseek_v3": "deepseek2",
    "deepseek_v3-halves": "deepseek2",
    "deepseek_v2-plain": "deepseek2",
    "gpt-oss-plain": "gpt-oss",
    "llama3-scaling": "llama",
    "mixtral-yarn": "llama",
    "glm-partial-bias-yarn": "glm4moe",
    "deepseek_v2-yarn": "deepseek2",
    "gpt-oss-yarn": "gpt-oss",
}
"""The cases that llama.cpp runs, and the name of its graph."""
REFUSED = {
    "llama-bias-untied-head": "attention_bias",
    "qwen3_moe-top1-every-untied": "d_ff",
    "qwen2_moe-gated-every": "d_ff",
    "qwen2_moe-ungated-head": "head_dim",
    "olmoe-gates-gqa-bias": "attention_bias",
    "glm-top1-no-shared": "n_shared_experts",
    "deepseek_v3-halves-no-query-rank-mtp": "mla",
    "deepseek_v3-bias-yarn": "attention_bias",
    "deepseek_v2": "n_group",
    "deepseek_v3-27-layers": "mla: .* of no others",
    "gpt-oss-unrounded": "rope_scaling",
    "mistral": "GGUF is not written for Mistral",
    "gemma2": "GGUF is not written for Gemma 2",
    "qwen3_moe-windows": "sliding_window",
    "dots": "GGUF is not written for dots.llm1",
}


@pytest.mark.parametrize(("name", "graph"), GRAPHS.items())
def test_what_the_file_holds_is_the_model(
    name: str, graph: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    done = export_gguf(make_source(make_model(name)), tmp_path / "out.gguf")
    assert done.architecture == graph
    read = load_model(tmp_path / "out.gguf")  # the header alone, by moelab's own reader, which compares the totals
    assert (read.n_layers, read.d_model, read.head_dim) == (3, 32, make_model(name).config.head_dim)
    assert done.check is not None
    assert done.check.difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen3_moe", "qwen2_moe-gated", "minimax"])
@torch.no_grad()
def test_transformers_own_loader_reads_it(
    name: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF only with accelerate")
    model = make_model(name)
    export_gguf(make_source(model), tmp_path / "out.gguf", check=False)
    # The loader does not read every width from the file (those of experts), so it gets the config of the class.
    family = choose_family(model.config)
    settings = hugging_face_config(canonical(model, family).config, family, "fp32", 32, 0)
    settings["tie_word_embeddings"] = name not in (
        "qwen2_moe-gated",
        "minimax",
    )  # their graphs have a head of their own
    config = transformers.AutoConfig.for_model(**settings)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="out.gguf", config=config, dtype=torch.float32
    )
    tokens = torch.arange(48).view(2, 24) * 11 % 300
    torch.testing.assert_close(theirs.eval()(tokens).logits, model(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "word"), REFUSED.items())
def test_what_llama_cpp_cannot_run_is_refused(name: str, word: str, make_model: MakeModel) -> None:
    config = make_model(name).config
    with pytest.raises(InputError, match=word):
        choose_graph(config)


@pytest.mark.parametrize(
    ("name", "moe", "word"),
    [
        ("qwen3_moe", {"normalize_gates": False}, "normalize_gates: .* has them on and ignores"),
        ("olmoe", {"normalize_gates": True}, "normalize_gates: .* has them off and ignores"),
        ("qwen2_moe-gated", {"shared_gate": None}, "shared_gate: .* divides 0 by 0"),
    ],
)
def test_fixed_gates_are_refused(name: str, moe: dict[str, Any], word: str, make_model: MakeModel) -> None:
    config = make_model(name).config
    assert config.moe is not None
    config = config.replace(moe={**config.moe.to_dict(), **moe})
    with pytest.raises(InputError, match=word):
        choose_graph(config)


def test_softmax_scores_beside_shared_experts_go_to_llama_cpp_alone(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("softmax-shared")
    with pytest.raises(InputError, match=r"no class of transformers .*; llama\.cpp's glm4moe runs it: --to gguf"):
        export_hugging_face(make_source(model), tmp_path / "out")
    done = export_gguf(make_source(model), tmp_path / "out.gguf")
    assert (done.architecture, done.check) == ("glm4moe", None)
    assert done.unchecked == "no class of transformers runs this architecture"
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert fields["glm4moe.expert_gating_func"].contents() == 1


def test_a_file_that_reads_back_otherwise_is_not_kept(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path) -> dict[str, torch.Tensor]:
        return {name: tensor + (name == "output_norm.weight") for name, tensor in read_tensors(path).items()}

    monkeypatch.setattr(gguf_file, "read_tensors", wrong)
    with pytest.raises(MoelabError, match=r"model\.norm\.weight reads back"):
        export_gguf(make_source(make_model("llama")), tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == []


def test_metadata_describe_the_model(make_source: MakeSource, make_model: MakeModel, tmp_path: Path) -> None:
    source = make_source(make_model("glm-bias-scaled-dense"))
    export_gguf(source, tmp_path / "out.gguf", check=False)
    fields = {name: field.contents() for name, field in gguf.GGUFReader(tmp_path / "out.gguf").fields.items()}
    expected = {
        "general.architecture": "glm4moe",
        "general.name": "tiny",
        "moelab.run_id": source.run_id,
        "glm4moe.context_length": 32,
        "glm4moe.embedding_length": 32,
        "glm4moe.block_count": 3,
        "glm4moe.feed_forward_length": 48,
        "glm4moe.attention.head_count": 4,
        "glm4moe.attention.head_count_kv": 2,
        "glm4moe.attention.key_length": 8,
        "glm4moe.rope.dimension_count": 8,
        "glm4moe.rope.freq_base": 5000.0,
        "glm4moe.expert_count": 8,
        "glm4moe.expert_used_count": 2,
        "glm4moe.expert_feed_forward_length": 16,
        "glm4moe.expert_shared_count": 1,
        "glm4moe.leading_dense_block_count": 1,
        "glm4moe.expert_gating_func": 2,
        "glm4moe.expert_weights_norm": True,
        "glm4moe.expert_weights_scale": 2.5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": source.dataset.manifest.end_of_text,
    }
    assert {name: fields[name] for name in expected} == expected
    assert source.dataset.manifest.sources[0].licence in fields["general.description"]
    assert fields["glm4moe.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)


def test_tokens_and_merges_are_the_tokenizers(make_source: MakeSource, make_model: MakeModel) -> None:
    dataset = make_source(make_model("llama")).dataset
    found = gguf_tokenizer(dataset.tokenizer_path, 304)
    ours = load_tokenizer(dataset.tokenizer_path)
    assert found.tokens[:300] == [ours.id_to_token(index) for index in range(300)]
    assert found.types[dataset.manifest.end_of_text] == 3
    assert found.types[300:] == [5] * 4
    assert len(set(found.tokens)) == 304
    assert len(found.merges) == 300 - 257
    assert all(len(merge.split(" ")) == 2 for merge in found.merges)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}, "GPT-2's pattern"),
        ({"normalizer": {"type": "NFC"}}, "normalises"),
        ({"model": {"ignore_merges": True}}, "whole words"),
    ],
)
def test_other_tokenizers_are_refused(
    change: dict[str, Any], word: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    state = json.loads(make_source(make_model("llama")).dataset.tokenizer_path.read_text())
    model = {**state["model"], **change.pop("model", {})}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**state, **change, "model": model}))
    with pytest.raises(InputError, match=word):
        gguf_tokenizer(tmp_path / "tokenizer.json", 300)


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", "BF16"), ("f16", "F16")])
def test_matrices_are_written_in_the_dtype_and_the_rest_in_fp32(
    dtype: str, kind: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("qwen3_moe")
    export_gguf(make_source(model), tmp_path / "out.gguf", dtype=dtype, check=False)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert kinds["blk.0.ffn_up_exps.weight"] == kinds["token_embd.weight"] == kind
    assert kinds["blk.0.ffn_gate_inp.weight"] == kinds["blk.0.attn_q_norm.weight"] == "F32"
    ours = model.model.layers[0].mlp.experts.down_proj.detach()
    rounded = ours.to(torch.bfloat16 if dtype == "bf16" else torch.float16).float().numpy()
    assert np.array_equal(read_tensors(tmp_path / "out.gguf")["blk.0.ffn_down_exps.weight"].numpy(), rounded)


def test_only_an_earlier_export_is_replaced(make_source: MakeSource, make_model: MakeModel, tmp_path: Path) -> None:
    source, out = make_source(make_model("llama")), tmp_path / "out.gguf"
    with pytest.raises(InputError, match=r"ends in \.gguf"):
        export_gguf(source, tmp_path / "out.bin")
    out.write_text("somebody's file")
    with pytest.raises(InputError, match="no earlier export"):
        export_gguf(source, out, force=True, check=False)
    assert out.read_text() == "somebody's file"
    out.unlink()
    export_gguf(source, out, check=False)
    with pytest.raises(InputError, match="--force replaces"):
        export_gguf(source, out, check=False)
    export_gguf(source, out, dtype="f16", force=True, check=False)
    foreign = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    foreign.write_header_to_file()
    foreign.write_kv_data_to_file()
    foreign.write_tensors_to_file()
    foreign.close()
    with pytest.raises(InputError, match="no earlier export"):
        export_gguf(source, tmp_path / "other.gguf", force=True, check=False)


@pytest.mark.parametrize(
    "name", ["mixtral-yarn", "deepseek_v2-yarn", "gpt-oss-yarn", "llama-linear", "minimax-partial"]
)
def test_positions_are_read_back(name: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path) -> None:
    wanted = make_model(name).config
    export_gguf(make_source(make_model(name)), tmp_path / "out.gguf", check=False)
    read = load_model(tmp_path / "out.gguf")
    assert rotated_dim(read) == rotated_dim(wanted)
    ours = frequencies(8, wanted.rope_theta, wanted.rope_scaling)
    torch.testing.assert_close(frequencies(8, read.rope_theta, read.rope_scaling), ours, rtol=1e-6, atol=0)
    if wanted.rope_scaling and wanted.rope_scaling.kind == "yarn":
        assert read.rope_scaling is not None
        assert table_factor(read.rope_scaling) == pytest.approx(table_factor(wanted.rope_scaling), rel=1e-6)


@pytest.mark.parametrize(
    ("scaling", "word"),
    [({"mscale": 1.0}, "mscale_all_dim"), ({"mscale": 1.0, "mscale_all_dim": 0.5}, "mscale_all_dim"), ({}, "mscale")],
)
def test_latent_attention_needs_equal_scales(scaling: dict[str, float], word: str, make_model: MakeModel) -> None:
    """llama.cpp multiplies the tables and the scores by one factor, ours are apart."""
    yarn = {"kind": "yarn", "factor": 4, "original_context": 16, **scaling}
    with pytest.raises(InputError, match=word):
        choose_graph(make_model("deepseek_v3").config.replace(rope_scaling=yarn))


def test_llama_3_frequencies_are_a_tensor_of_one_graph(make_model: MakeModel) -> None:
    scaling = make_model("llama3-scaling").config.rope_scaling
    assert choose_graph(make_model("mixtral").config.replace(rope_scaling=scaling))[1].name == "llama"
    with pytest.raises(InputError, match=r"rope_scaling: .* llama3"):
        choose_graph(make_model("qwen3").config.replace(rope_scaling=scaling))
