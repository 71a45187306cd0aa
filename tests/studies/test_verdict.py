"""Seed noise is pooled over repeated designs, and a margin inside it decides nothing."""

import math
from typing import Any

import pytest

from moelab.runs import RunConfig, RunRecord, run_columns
from moelab.studies.seeds import SeedNoise, seed_noise
from moelab.studies.training import SweepOutcome
from moelab.studies.verify import Verdict, Verified, judge

MODEL: dict[str, Any] = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
RESOLVED = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none"}


def trained(loss: float | None, seed: int = 0, **model: Any) -> tuple[RunConfig, RunRecord]:
    config = RunConfig.parse(
        {
            "model": {**MODEL, **model},
            "data": {"path": "x", "manifest_hash": "h"},
            "train": {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "seed": seed, **RESOLVED},
        }
    )
    measured = {
        "run_id": config.run_id,
        "status": "diverged" if loss is None else "finished",
        "loss": loss,
        "seconds": 1.0,
        "tokens_per_second": 1.0,
        "peak_memory_bytes": 1,
        "data_hash": "h",
        **RESOLVED,
    }
    return config, RunRecord.parse({**run_columns(config), **measured})


def test_noise_is_the_pooled_deviation_of_repeats() -> None:
    runs = [
        trained(3.0),
        trained(3.2, seed=1),
        trained(2.0, d_ff=64),
        trained(2.1, seed=5, d_ff=64),
        trained(9.0, d_ff=8),
    ]
    noise = seed_noise(runs)
    assert noise is not None
    assert noise.deviation == pytest.approx(math.sqrt((0.02 + 0.005) / 2))
    assert noise.freedom == 2


def test_the_spread_follows_student() -> None:
    assert SeedNoise(deviation=1.0, freedom=2).spread() == pytest.approx(1.8856 * math.sqrt(2), rel=1e-4)
    assert SeedNoise(deviation=1.0, freedom=10**6).spread(seeds=2) == pytest.approx(1.2816, rel=1e-3)


def test_no_repeats_no_noise() -> None:
    assert seed_noise([trained(3.0), trained(2.9, d_ff=64), trained(None, seed=1)]) is None


def verified(loss: float | None, **model: Any) -> Verified:
    config, record = trained(loss, **model)
    return Verified(role="recommended", label="x", config=config, record=record, predicted={})


NOISE = SeedNoise(deviation=0.02, freedom=4)
MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}


def test_a_clear_margin_decides() -> None:
    verdict = judge([verified(3.0, **MOE), verified(3.2)], noise=NOISE)
    assert verdict is not None
    assert verdict.margin == pytest.approx(0.2)
    assert verdict.decided


def test_a_margin_inside_the_noise_does_not() -> None:
    verdict = judge([verified(3.0, **MOE), verified(3.05)], noise=NOISE)
    assert verdict is not None
    assert not verdict.decided
    assert not Verdict(moe_loss=3.0, dense_loss=4.0, noise=None).decided


def test_a_diverged_baseline_leaves_no_verdict() -> None:
    assert judge([verified(3.0, **MOE), verified(None)], noise=NOISE) is None


def test_a_sweep_marks_a_choice_at_its_edge() -> None:
    assert SweepOutcome(field="x", losses={1.0: 3.0, 2.0: 2.0}, chosen=2.0).at_edge
    assert not SweepOutcome(field="x", losses={1.0: 3.0, 2.0: 2.0, 4.0: 5.0}, chosen=2.0).at_edge
