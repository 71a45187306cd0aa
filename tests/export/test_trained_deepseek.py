"""A model of DeepSeek-V3's kind, trained on real text, computes the same in transformers and in llama.cpp."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.data import PrepareConfig
from moelab.data.prepare import prepare
from moelab.data.tokenizer import load_tokenizer
from moelab.export.export_run import export_run
from moelab.runs import RunConfig
from moelab.training import load_trained, resolve_run, train_run

MODEL: dict[str, Any] = {
    "vocab_size": 512, "d_model": 64, "n_layers": 3, "n_heads": 4, "d_ff": 128, "n_dense_layers": 1, "qk_norm": "none",
    "rope_interleaved": True, "mtp_layers": 1,
    "mla": {
        "q_lora_rank": 32, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    },
    "moe": {
        "routing": "loss_free", "n_experts": 16, "top_k": 4, "d_expert": 32, "n_shared_experts": 1, "d_shared": 32,
        "n_group": 4, "topk_group": 2, "routed_scaling": 2.5,
    },
}  # fmt: skip
TRAIN = {
    "tokens": 300_000, "seq_len": 64, "batch_tokens": 1024, "learning_rate": 4e-3, "eval_tokens": 16_384,
    "balance_over": "sequence", "evaluations": 3, "precision": "fp32", "threads": 1,
}  # fmt: skip
PROMPT = "Permission is hereby granted, free of charge, to any person"


@pytest.mark.slow
@torch.no_grad()
def test_trained_on_real_text_it_is_the_same_in_transformers_and_llama_cpp(
    next_token: Callable[[Path, str], tuple[int, dict[int, float]]], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    sources = PrepareConfig(sources=("wheels",), vocab_size=512, max_tokens=1_000_000)
    dataset = prepare(sources, tmp_path / "data").dataset
    written = {"model": MODEL, "train": TRAIN, "data": {"path": str(dataset.folder)}}
    config = resolve_run(RunConfig.parse(written), dataset)
    with torch.enable_grad():
        record = train_run(config, tmp_path / "runs", dataset)
    assert record.loss is not None
    assert record.loss < 4.6  # 6.24 before training
    folder = tmp_path / "runs" / record.run_id
    folders = export_run(folder, "hf", tmp_path / "hf", data=dataset.folder)
    assert folders.architecture == "DeepseekV3ForCausalLM"
    assert any("multi-token-prediction" in note for note in folders.notes)
    file = export_run(folder, "gguf", tmp_path / "model.gguf", data=dataset.folder)
    assert file.architecture == "deepseek2"
    _, model = load_trained(folder)
    tokens = load_tokenizer(dataset.tokenizer_path).encode(PROMPT).ids
    ours = model(torch.tensor([tokens]))[0, -1].log_softmax(-1)
    count, found = next_token(file.path, PROMPT)
    assert count == len(tokens)
    theirs = torch.tensor([found[index] for index in range(512)])
    torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-5)
    for done in (folders, file):
        assert done.check is not None
        print(done.architecture, done.check)
    print("loss", record.loss, "llama.cpp", float((theirs - ours).abs().max()), "tokens", len(tokens))
