"""Headers of GGUF files that the package `gguf` writes, and files that are cut, wrong or of other models."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moelab.architecture import ModelConfig, load_model
from moelab.architecture.huggingface.gguf_header import read_header
from moelab.errors import InputError

gguf = pytest.importorskip("gguf")

BASE: dict[str, Any] = {
    "block_count": 2, "embedding_length": 16, "feed_forward_length": 24, "attention.head_count": 4,
    "attention.head_count_kv": 2, "context_length": 64, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
EXPERTS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 8}


def attention(width: int = 16, keys: int = 8, biases: bool = False) -> dict[str, tuple[int, ...]]:
    """Tensors of one layer's attention with norms before its blocks, in the order of NumPy's shapes."""
    shapes: dict[str, tuple[int, ...]] = {"attn_norm.weight": (16,), "ffn_norm.weight": (16,)}
    shapes |= {"attn_q.weight": (width, 16), "attn_output.weight": (16, width)}
    shapes |= {f"attn_{part}.weight": (keys, 16) for part in "kv"}
    if biases:
        shapes |= {"attn_q.bias": (width,), "attn_k.bias": (keys,), "attn_v.bias": (keys,), "attn_output.bias": (16,)}
    return shapes


FFN: dict[str, tuple[int, ...]] = {"ffn_gate.weight": (24, 16), "ffn_up.weight": (24, 16), "ffn_down.weight": (16, 24)}
ROUTED: dict[str, tuple[int, ...]] = {
    "ffn_gate_inp.weight": (4, 16), "ffn_gate_exps.weight": (4, 8, 16), "ffn_up_exps.weight": (4, 8, 16),
    "ffn_down_exps.weight": (4, 16, 8),
}  # fmt: skip
SHARED: dict[str, tuple[int, ...]] = {
    "ffn_gate_shexp.weight": (8, 16), "ffn_up_shexp.weight": (8, 16), "ffn_down_shexp.weight": (16, 8),
}  # fmt: skip
LATENT: dict[str, tuple[int, ...]] = {
    "attn_norm.weight": (16,), "ffn_norm.weight": (16,), "attn_q.weight": (4 * 10, 16), "attn_output.weight": (16, 24),
    "attn_kv_a_mqa.weight": (12, 16), "attn_kv_a_norm.weight": (8,), "attn_k_b.weight": (4, 8, 6),
    "attn_v_b.weight": (4, 6, 8),
}  # fmt: skip


def write(
    path: Path, graph: str, metadata: dict[str, Any], layers: list[dict[str, tuple[int, ...]]], head: bool = True
) -> Path:
    """A file with these settings and tensors of zeros, written by the package."""
    writer = gguf.GGUFWriter(path, graph)
    for key, value in metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool, str: writer.add_string}
        add.get(type(value), writer.add_array)(f"{graph}.{key}", value)
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(30)])
    writer.add_array("tokenizer.ggml.scores", [float(i) for i in range(9000)])
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (30, 16), "output_norm.weight": (16,)}
    shapes |= {"output.weight": (30, 16)} if head else {}
    shapes |= {f"blk.{i}.{name}": shape for i, layer in enumerate(layers) for name, shape in layer.items()}
    for name, shape in shapes.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_dense_model(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "llama", BASE | {"rope.freq_base": 5e5}, [attention() | FFN] * 2, head=False)
    header = read_header(path)
    assert header.tensors["blk.1.ffn_up.weight"] == (16, 24)
    assert (header.metadata["tokenizer.ggml.tokens"], header.metadata["tokenizer.ggml.scores"]) == (30, 9000)
    assert load_model(path) == ModelConfig(
        vocab_size=30, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, rope_theta=5e5, qk_norm="none",
        norm_eps=float(np.float32(1e-5)),
    )  # fmt: skip


def test_latent_attention_with_sigmoid_gates(tmp_path: Path) -> None:
    settings = {
        **BASE, **EXPERTS, "attention.head_count_kv": 1, "attention.key_length": 12, "attention.value_length": 8,
        "attention.key_length_mla": 10, "attention.value_length_mla": 6, "attention.kv_lora_rank": 8,
        "rope.dimension_count": 4, "leading_dense_block_count": 1, "expert_shared_count": 1,
        "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 32,
        "rope.scaling.yarn_log_multiplier": 0.1,
    }  # fmt: skip
    layers = [LATENT | FFN, LATENT | ROUTED | SHARED | {"exp_probs_b.bias": (4,)}]
    read = load_model(write(tmp_path / "a.gguf", "deepseek2", settings, layers))
    assert read.mla is not None
    assert read.moe is not None
    assert (read.mla.kv_lora_rank, read.mla.q_lora_rank, read.mla.qk_nope_head_dim, read.mla.v_head_dim) == (
        8,
        None,
        6,
        6,
    )
    assert (read.moe.score, read.moe.bias_update, read.moe.routed_scaling, read.moe.d_shared) == (
        "sigmoid",
        1e-3,
        2.5,
        8,
    )
    assert read.rope_scaling is not None
    assert (read.rope_scaling.kind, read.rope_scaling.factor, read.n_dense_layers) == ("yarn", 40, 1)


def test_sinks_windows_and_biased_experts(tmp_path: Path) -> None:
    settings = {**BASE, **EXPERTS, "attention.key_length": 4, "attention.sliding_window": 6}
    biases: dict[str, tuple[int, ...]] = {
        "attn_sinks.weight": (4,), "ffn_gate_inp.bias": (4,), "ffn_gate_exps.bias": (4, 8), "ffn_up_exps.bias": (4, 8),
        "ffn_down_exps.bias": (4, 16),
    }  # fmt: skip
    layers = [attention(biases=True) | ROUTED | biases] * 2
    read = load_model(write(tmp_path / "a.gguf", "gpt-oss", settings, layers))
    assert (read.sliding_window, read.sliding_pattern, read.attention_sinks) == (6, ("window", "full"), True)


def test_prediction_layers_are_left_out(tmp_path: Path) -> None:
    settings = {
        **BASE, **EXPERTS, "block_count": 3, "nextn_predict_layers": 1, "attention.key_length": 4,
        "rope.dimension_count": 2, "leading_dense_block_count": 1, "expert_shared_count": 1, "expert_gating_func": 2,
        "expert_weights_norm": True, "expert_weights_scale": 1.0,
    }  # fmt: skip
    layer = attention() | ROUTED | SHARED
    layers = [attention() | FFN, layer, layer | {"nextn.eh_proj.weight": (16, 32)}]
    read = load_model(write(tmp_path / "a.gguf", "glm4moe", settings, layers))
    assert (read.n_layers, read.mtp_layers, read.rotary_dim) == (2, 1, 2)


def test_tensors_that_differ_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "llama", BASE, [attention() | FFN | {"extra.weight": (7,)}] * 2)
    with pytest.raises(InputError, match=r"a.gguf: tensors: they hold 4,894 parameters where the settings give 4,880"):
        load_model(path)


def test_other_graphs_and_broken_files_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "mamba", BASE, [])
    with pytest.raises(InputError, match=r"general.architecture: 'mamba' is not known; known: deepseek, deepseek2"):
        load_model(path)
    whole = write(tmp_path / "b.gguf", "llama", BASE, [attention() | FFN] * 2).read_bytes()
    end = whole.index(b"blk.1.ffn_down.weight") + 8
    for length in (3, 5, 20, 40, 100, 200, end):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a.gguf is (cut off in its header|no GGUF file)"):
            load_model(path)
    broken = {
        "of GGUF version 1": b"GGUF" + struct.pack("<I", 1),
        "entries in its header": b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1),
        "a value of the unknown type 77": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77),
        "cut off": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60),
    }
    for message, content in broken.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_model(path)
