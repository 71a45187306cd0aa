"""A GGUF file for llama.cpp: metadata, tokenizer and weights, written with the package `gguf` and read back."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError, MoelabError
from moelab.export.canonical import canonical, check_dtype
from moelab.export.card import description
from moelab.export.check import Check, compare, held_out, transformers_logits, transformers_version
from moelab.export.family import Family
from moelab.export.gguf_graphs import Graph, choose_graph, from_gguf, packed, to_gguf, with_own_head
from moelab.export.gguf_positions import FREQUENCIES, add_positions, frequency_divisors
from moelab.export.gguf_tokenizer import GGUFTokenizer, gguf_tokenizer
from moelab.export.hf_config import hugging_face_config
from moelab.export.huggingface import Exported, notes_on, save_weights
from moelab.export.names import hugging_face_tensors
from moelab.export.source import Source
from moelab.files import write_json, write_with
from moelab.printable import printable

RUN_KEY = "moelab.run_id"
"""In the metadata of every file that moelab wrote."""


def export_gguf(source: Source, out: Path, *, dtype: str = "fp32", force: bool = False, check: bool = True) -> Exported:
    """Write the file `out`, read it back and compare it with the trained model.

    Raises InputError for what llama.cpp cannot run, or a place that is taken; MoelabError without the package `gguf`,
    where the model differs or the disk refuses: then nothing is left behind.
    """
    check_dtype(dtype)
    family, graph = choose_graph(source.model.config)
    tokenizer = gguf_tokenizer(source.dataset.tokenizer_path, source.model.config.vocab_size)
    _check_installed()
    check_file(out, force)
    model = canonical(source.model, family, dtype)
    tensors = with_own_head(hugging_face_tensors(model.state_dict(), model.config, family), graph)
    library = transformers_version() if check and family.class_name else None
    unchecked = "" if library else _why_unchecked(check, family)
    found: list[Check] = []

    def write(path: Path) -> None:
        _write(path, source, model.config, family, graph, tokenizer, tensors, dtype)
        if check:
            _check_tensors(path, tensors, model.config, graph)
        if library is not None:
            text = held_out(source.dataset, source.config.train.seq_len)
            logits = read_logits(path, model.config, family, graph, list(packed(tensors, model.config, graph)), text[0])
            name = f"{library} from the tensors in the file"
            found.append(compare(name, logits, model, source.model, text, exact=dtype == "fp32"))

    write_with(out, write)
    return Exported(
        path=out,
        form="gguf",
        architecture=graph.name,
        dtype=dtype,
        bytes=out.stat().st_size,
        check=found[0] if found else None,
        unchecked=unchecked,
        notes=tuple(notes_on(source, family)),
    )


def _why_unchecked(check: bool, family: Family) -> str:
    if not check:
        return "--no-check"
    return "transformers is not installed" if family.class_name else "no class of transformers runs this architecture"


def check_file(out: Path, force: bool) -> None:
    """Raises InputError for a name that does not end in .gguf, or a place that holds something to keep."""
    if out.suffix != ".gguf":
        raise InputError(f"--out: expected a name that ends in .gguf, got {str(out)!r}")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_file() or out.is_symlink() or _run_of(out) is None:
        raise InputError(f"--out: {out} is there and no earlier export; choose another name")
    if not force:
        raise InputError(f"--out: {out} is an earlier export; --force replaces it")


def _run_of(path: Path) -> str | None:
    """The run that a GGUF file of ours was made from; None for every other file."""
    from gguf import GGUFReader

    try:
        field = GGUFReader(path).get_field(RUN_KEY)
    except (ValueError, OSError, IndexError, KeyError):
        return None
    return None if field is None else str(field.contents())


def _check_installed() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MoelabError("--to: gguf needs the package gguf: pip install 'moelab[hf]'") from None


def _write(
    path: Path,
    source: Source,
    config: ModelConfig,
    family: Family,
    graph: Graph,
    tokenizer: GGUFTokenizer,
    tensors: dict[str, Tensor],
    dtype: str,
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    kinds = {
        "fp32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
        "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
        "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    }
    kind, file_type = kinds[dtype]
    writer = GGUFWriter(path, graph.name)
    _metadata(writer, source, config, family)
    writer.add_file_type(file_type)
    _tokenizer(writer, tokenizer, source.dataset.manifest.end_of_text)
    # What is one-dimensional, or decides between experts, stays in fp32, as llama.cpp's own converter has it.
    for name, tensor in {**to_gguf(tensors, config, graph), **frequency_divisors(config)}.items():
        values = np.ascontiguousarray(tensor.numpy())
        if values.ndim == 1 or ".ffn_gate_inp" in name or dtype == "fp32":
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _metadata(writer: Any, source: Source, config: ModelConfig, family: Family) -> None:
    from gguf import ExpertGatingFuncType

    writer.add_type("model")
    writer.add_name(printable(source.title))
    writer.add_description(description(source))
    writer.add_string(RUN_KEY, source.run_id)
    writer.add_context_length(source.config.train.seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _attention_metadata(writer, config)
    add_positions(writer, config)
    moe = config.moe
    if moe is None:
        writer.add_feed_forward_length(config.d_ff)
        return
    flat = family.dense_layers == "none"
    writer.add_feed_forward_length(moe.d_expert if flat else config.d_ff or moe.reference_width)
    writer.add_expert_count(moe.n_experts)
    writer.add_expert_used_count(moe.top_k)
    writer.add_expert_feed_forward_length(moe.d_expert)
    if moe.n_group is not None:
        writer.add_expert_group_count(moe.n_group)
        writer.add_expert_group_used_count(moe.topk_group or 1)
    if moe.n_shared_experts:
        writer.add_expert_shared_feed_forward_length(moe.d_shared)
    if family.scales or family.score == "sigmoid":
        gating = ExpertGatingFuncType.SIGMOID if family.score == "sigmoid" else ExpertGatingFuncType.SOFTMAX
        writer.add_expert_gating_func(gating)
        writer.add_expert_weights_norm(moe.normalize_gates)
    if family.dense_layers == "first":
        writer.add_leading_dense_block_count(config.n_dense_layers)
        writer.add_expert_shared_count(moe.d_shared // moe.d_expert)
    if family.scales:
        writer.add_expert_weights_scale(moe.routed_scaling)
    if family.model_type == "ernie4_5_moe":
        writer.add_interleave_moe_layer_step(1)


def _attention_metadata(writer: Any, config: ModelConfig) -> None:
    """Heads and what they see; latent attention as it decodes, with one key and value that all heads share."""
    if config.sliding_window is not None:
        writer.add_sliding_window(config.sliding_window)
    mla = config.mla
    if mla is None:
        writer.add_head_count_kv(config.n_kv_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        return
    writer.add_head_count_kv(1)
    writer.add_key_length(mla.kv_lora_rank + mla.qk_rope_head_dim)
    writer.add_value_length(mla.kv_lora_rank)
    writer.add_key_length_mla(mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    writer.add_value_length_mla(mla.v_head_dim)
    writer.add_kv_lora_rank(mla.kv_lora_rank)
    if mla.q_lora_rank is not None:
        writer.add_q_lora_rank(mla.q_lora_rank)


def _tokenizer(writer: Any, tokenizer: GGUFTokenizer, end_of_text: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    writer.add_bos_token_id(end_of_text)
    writer.add_eos_token_id(end_of_text)
    writer.add_add_bos_token(False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The weights of a GGUF file in fp32, by name."""
    from gguf import GGUFReader, dequantize

    return {
        tensor.name: torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        for tensor in GGUFReader(path).tensors
        if tensor.name != FREQUENCIES
    }


def _check_tensors(path: Path, tensors: dict[str, Tensor], config: ModelConfig, graph: Graph) -> None:
    """Raises MoelabError where the file, read back, does not hold every weight as it was to be written."""
    found = from_gguf(read_tensors(path), list(packed(tensors, config, graph)), config, graph)
    for name, tensor in tensors.items():
        if not torch.equal(found[name], tensor):
            raise MoelabError(f"export: {name} reads back from the file with other values; nothing was kept")


def read_logits(
    path: Path, config: ModelConfig, family: Family, graph: Graph, names: list[str], tokens: Tensor
) -> Tensor:
    """Logits (B, T, V) of the tensors in the file, by the class of transformers; `names` as of `from_gguf`."""
    settings = hugging_face_config(config, family, "fp32", tokens.shape[1], 0)
    settings["tie_word_embeddings"] = "lm_head.weight" not in names
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_json(place / "config.json", settings)
        tensors = from_gguf(read_tensors(path), names, config, graph)
        save_weights(tensors, place / "model.safetensors", "fp32")
        return transformers_logits(place, tokens)
