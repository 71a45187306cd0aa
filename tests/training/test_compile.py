"""Layers through torch.compile: one graph each, and the numbers of the uncompiled run."""

from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.model import build_model, native
from moelab.runs import RunFolder
from moelab.runs.folder import WEIGHTS
from moelab.training import train_run

MOE = {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 0.01, "z_loss": 0.001}
OPTIONS = {"precision": "bf16", "threads": 1}


@pytest.fixture(autouse=True)
def forget_compiled() -> None:
    """Each test compiles anew: the limit of recompilations counts over a whole process."""
    torch._dynamo.reset()


def test_what_cannot_be_compiled_is_refused(make_run: Any) -> None:
    with pytest.raises(InputError, match=r"train\.compile: blocks is for a dense model, or train\.dispatch: grouped"):
        make_run({"moe": MOE}, compile="blocks", dispatch="loop", **OPTIONS)
    with pytest.raises(InputError, match="got dispatch grouped in fp32"):
        make_run({"moe": MOE}, compile="blocks", dispatch="grouped", precision="fp32")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
@pytest.mark.parametrize("moe", [None, MOE], ids=["dense", "moe"])
def test_the_compiled_run_is_the_plain_one(make_run: Any, dataset: Dataset, tmp_path: Path, moe: Any) -> None:
    dispatch = "none" if moe is None else "grouped"
    few = {"tokens": 128, "evaluations": 1, "learning_rate": 1e-3, "dispatch": dispatch, **OPTIONS}
    plain, compiled = (make_run({"n_layers": 1, "moe": moe}, compile=how, **few) for how in ("none", "blocks"))
    assert plain.run_id != compiled.run_id
    losses = [train_run(config, tmp_path, dataset).loss for config in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], abs=5e-3)
    folders = [RunFolder.open(tmp_path / config.run_id).path / WEIGHTS for config in (plain, compiled)]
    assert folders[0].stat().st_size == folders[1].stat().st_size


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
def test_a_layer_is_one_graph(make_run: Any) -> None:
    config = make_run({"moe": MOE}, compile="blocks", dispatch="grouped", **OPTIONS)
    model = build_model(config.model, seed=0, dispatch="grouped")
    for layer in model.model.layers:
        layer.compile(fullgraph=True, backend="aot_eager")
    tokens = torch.randint(config.model.vocab_size, (2, config.train.seq_len))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(tokens, tokens).total
    loss.backward()
    assert torch.isfinite(loss)


KINDS: dict[str, Any] = {
    "windows, sinks": {
        "attention_sinks": True, "sliding_window": 6, "sliding_pattern": ["window", "full"], "norm": "rms_plus_one",
        "norm_position": "both", "activation": "geglu", "attention_gate": "element",
    },
    "latent": {
        "mla": {"q_lora_rank": 6, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 5},
        "rope_interleaved": True,
    },
    "chunks, layers without positions": {
        "sliding_window": 4, "sliding_pattern": ["chunk", "full"], "rope_pattern": ["rope", "none"], "qk_norm": "l2",
        "attention_temperature": {"scale": 0.5, "floor": 3}, "rope_interleaved": True, "clip_qkv": 0.5,
        "activation": "clamped_swiglu", "swiglu_limit": 0.5, "norm": "layer",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
@pytest.mark.parametrize("name", KINDS)
def test_a_layer_of_any_attention_is_one_graph_with_the_same_numbers(name: str, make_run: Any) -> None:
    config = make_run(KINDS[name], compile="blocks", **OPTIONS)
    tokens = torch.randint(config.model.vocab_size, (2, config.train.seq_len))
    found = []
    for compiled in (False, True):
        model = build_model(config.model, seed=0)
        for layer in model.model.layers if compiled else ():
            layer.compile(fullgraph=True, backend="aot_eager")
        with native.using("torch"):
            loss = model.loss(tokens, tokens).total
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
