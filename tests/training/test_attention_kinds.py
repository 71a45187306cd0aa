"""Runs of today's attention: a killed one resumes to the same bits; a record notes what no fused kernel computed."""

from pathlib import Path
from typing import Any

import pytest

from moelab.architecture import ModelConfig
from moelab.data import Dataset
from moelab.model.fallbacks import fallbacks
from moelab.runs import RunFolder
from moelab.runs.folder import WEIGHTS
from moelab.training import train_run

SIZES = {"vocab_size": 16, "d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 16}
KINDS: dict[str, dict[str, Any]] = {
    "windows, sinks, gates": {
        "attention_sinks": True, "sliding_window": 3, "sliding_pattern": ["window", "full"], "attention_gate": "head",
        "norm": "rms_plus_one", "norm_position": "both", "activation": "geglu",
    },
    "latent": {
        "mla": {"q_lora_rank": 6, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 5},
        "rope_interleaved": True, "logit_softcap": 9.0, "head_bias": True,
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "optimizer"), list(zip(KINDS, ["muon", "adamw"], strict=True)))
def test_a_killed_run_ends_with_the_same_bits(
    name: str, optimizer: str, make_run: Any, dataset: Dataset, tmp_path: Path, train_until: Any
) -> None:
    config = make_run(KINDS[name], optimizer=optimizer, tokens=12 * 64)
    train_until(config, tmp_path / "killed", dataset, config.train.steps // 2)
    records = [train_run(config, tmp_path / place, dataset) for place in ("killed", "whole")]
    weights = [(RunFolder.open(tmp_path / place / config.run_id).path / WEIGHTS) for place in ("killed", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert records[0].loss == records[1].loss
    assert [note.startswith("kernels: PyTorch computes") for note in records[0].notes].count(True) == 1


def test_what_no_fused_kernel_computes_is_named() -> None:
    plain = ModelConfig.parse({**SIZES, "rotary_dim": 8, "sliding_window": 4, "sliding_pattern": ["chunk"]})
    assert fallbacks(plain, "native") == ""
    sinks = plain.replace(attention_sinks=True)
    assert fallbacks(sinks, "native") == ""
    assert "attention sinks" in fallbacks(sinks, "torch")
    several = ModelConfig.parse({**SIZES, **KINDS["latent"], "norm": "layer", "sliding_window": 4})
    assert fallbacks(several, "native") == (
        "kernels: PyTorch computes what no fused kernel does: the rotation of latent attention's heads, windows behind "
        "the first (in blocks of the window's size), the rotation of interleaved pairs, the loss behind capped logits, "
        "the loss behind a biased head, LayerNorm"
    )
