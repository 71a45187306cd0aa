"""The verdict between MoE and dense: a margin inside the noise between seeds decides nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from moelab.studies.answer import decision, measurements
from moelab.studies.seeds import SeedNoise, Trained, seed_noise
from moelab.studies.training import SweepOutcome
from moelab.studies.verify import Verdict, Verified, judge

Make = Callable[..., Verified]


@pytest.fixture
def verified(trained: Callable[..., Trained]) -> Make:
    def make(loss: float | None, **model: Any) -> Verified:
        config, record = trained(loss, **model)
        return Verified(role="recommended", label="x", config=config, record=record, predicted={})

    return make


NOISE = SeedNoise(deviation=0.02, freedom=4)
MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}


def test_a_clear_margin_decides(verified: Make) -> None:
    verdict = judge([verified(3.0, **MOE), verified(3.2)], noise=NOISE)
    assert verdict is not None
    assert verdict.margin == pytest.approx(0.2)
    assert verdict.decided


def test_a_margin_inside_the_noise_does_not(verified: Make) -> None:
    verdict = judge([verified(3.0, **MOE), verified(3.05)], noise=NOISE)
    assert verdict is not None
    assert not verdict.decided
    assert not Verdict(moe_loss=3.0, dense_loss=4.0, noise=None).decided


def test_a_diverged_baseline_leaves_nodecision(verified: Make) -> None:
    assert judge([verified(3.0, **MOE), verified(None)], noise=NOISE) is None


def test_a_sweep_marks_a_choice_at_its_edge() -> None:
    assert SweepOutcome(field="x", losses={1.0: 3.0, 2.0: 2.0}, chosen=2.0).at_edge
    assert not SweepOutcome(field="x", losses={1.0: 3.0, 2.0: 2.0, 4.0: 5.0}, chosen=2.0).at_edge


def test_seeds_at_the_decision_are_one_sentence_and_count_for_the_noise(trained: Callable[..., Trained]) -> None:
    predicted = {"x": {"value": 3.0, "low": 2.9, "high": 3.1}}
    runs = [
        Verified(role=role, label="x", config=config, record=record, predicted=predicted)
        for role, model, losses in (("recommended", MOE, (3.02, 2.98)), ("best_dense", {}, (3.25, None)))
        for config, record in (trained(loss, seed, **model) for seed, loss in enumerate(losses))
    ]
    first, second = measurements(runs, {"x": 1.0})
    assert first == (
        "The recommended model was trained with 2 seeds and reached 3.020 and 2.980 (mean 3.000), equal to the "
        "ensemble's 3.000 (the laws predicted 3.000 to 3.000)."
    )
    assert "reached 3.250 (1 of 2 seeds diverged), 7.7% worse than" in second
    again = trained(3.30, 1)
    pair = [*runs[:2], runs[2], replace(runs[2], config=again[0], record=again[1])]
    noise = seed_noise([(each.config, each.record) for each in pair])
    verdict = judge(pair, noise)
    assert verdict is not None
    assert verdict.noise is not None
    assert verdict.noise.freedom == 2
    assert verdict.seeds == 2
    assert "measured on smaller runs and on these" in decision(verdict)
    assert "measured on smaller runs)" in decision(replace(verdict, seeds=1))
