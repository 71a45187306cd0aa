"""Counted memory of training against PyTorch's tracker of tensors, for moelab's own model on a CPU."""

import functools
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from moelab.architecture import ModelConfig, Shape
from moelab.architecture.layout import Layout
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.model import build_model

BASE: dict[str, Any] = {
    "vocab_size": 1024, "d_model": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "d_ff": 768,
    "tie_embeddings": False,
}  # fmt: skip
SHARED = {"n_experts": 8, "top_k": 2, "d_expert": 384, "n_shared_experts": 1, "d_shared": 384}
FINE = {"n_experts": 32, "top_k": 4, "d_expert": 128}
TINY = {**BASE, "n_layers": 2, "vocab_size": 256, "d_model": 128, "d_ff": 384}


def tracked_peak(config: ModelConfig, batch: int, length: int, recompute: str) -> int:
    """Bytes at the peak of the second step of two micro-batches, AdamW in fp32."""
    model = build_model(config, dispatch="auto" if config.moe is None else "sorted")
    if recompute == "full":
        for layer in model.model.layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(0, config.vocab_size, (batch, length))
    from torch.distributed._tools.mem_tracker import MemTracker  # takes a second, which collection need not wait for

    model.loss(tokens, tokens).total.backward()  # a first step, after which the optimiser has its state
    optimizer.step()
    optimizer.zero_grad()
    tracker = MemTracker()
    tracker.track_external(model, optimizer, tokens)
    with tracker:
        for _ in range(2):
            model.loss(tokens, tokens).total.backward()
            tracker.reset_mod_stats()
        optimizer.step()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def counted(config: ModelConfig, batch: int, length: int, recompute: str) -> float:
    """The same by count: PyTorch's own norms on a CPU keep their normalised input too."""
    step = TrainingStep(micro_batch=batch, seq_len=length, recompute=recompute, precision="fp32", fused_norms=False)
    return float(device_memory(Shape.of(config), Layout(), step).total)


@pytest.mark.parametrize("recompute", [pytest.param("none", marks=pytest.mark.slow), "full"])
@pytest.mark.parametrize("moe", [None, {"n_experts": 8, "top_k": 2, "d_expert": 192}])
def test_small_models_within_a_tenth(moe: dict[str, int] | None, recompute: str) -> None:
    config = ModelConfig(**TINY, moe=moe)
    assert counted(config, 4, 128, recompute) == pytest.approx(tracked_peak(config, 4, 128, recompute), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize(
    ("changes", "batch", "length"),
    [
        ({}, 4, 256),
        ({"n_layers": 2, "vocab_size": 8192, "tie_embeddings": True, "qk_norm": "none", "activation": "gelu"}, 4, 256),
        ({"d_model": 128, "n_layers": 8, "d_ff": 512}, 8, 128),
        ({"n_kv_heads": 4, "d_ff": 1536}, 2, 1024),
        ({"moe": SHARED}, 4, 256),
        ({"moe": FINE, "n_dense_layers": 1}, 4, 256),
        ({"moe": {**FINE, "n_experts": 64, "top_k": 8, "d_expert": 64}, "n_layers": 8}, 8, 256),
    ],
)
def test_models_of_several_kinds_and_sizes_within_a_tenth(
    changes: dict[str, Any], batch: int, length: int, recompute: str
) -> None:
    config = ModelConfig(**{**BASE, **changes})
    assert counted(config, batch, length, recompute) == pytest.approx(
        tracked_peak(config, batch, length, recompute), rel=0.1
    )
