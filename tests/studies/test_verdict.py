"""The verdict between MoE and dense: a margin inside the noise between seeds decides nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from moelab.studies.seeds import SeedNoise, Trained
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


def test_a_diverged_baseline_leaves_no_verdict(verified: Make) -> None:
    assert judge([verified(3.0, **MOE), verified(None)], noise=NOISE) is None


def test_a_sweep_marks_a_choice_at_its_edge() -> None:
    assert SweepOutcome(field="x", losses={1.0: 3.0, 2.0: 2.0}, chosen=2.0).at_edge
    assert not SweepOutcome(field="x", losses={1.0: 3.0, 2.0: 2.0, 4.0: 5.0}, chosen=2.0).at_edge
