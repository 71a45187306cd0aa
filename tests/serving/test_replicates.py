"""Ratios of two designs' costs: certain for equal designs, wider the more the coefficients act apart."""

import numpy as np
import pytest

from moelab.architecture import ModelConfig, Shape
from moelab.serving import Traffic, load_hardware, serve
from moelab.serving.calibration import Z80, shipped
from moelab.serving.fit_rows import stack
from moelab.serving.replicates import Replicates, replaced, residual_of, serving_replicates, widths_apart

BASE = {"vocab_size": 32000, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128}
COARSE = ModelConfig.parse(BASE | {"moe": {"n_experts": 8, "top_k": 2, "d_expert": 8192}})
FINE = ModelConfig.parse(BASE | {"moe": {"n_experts": 64, "top_k": 16, "d_expert": 1024}})
NEAR = ModelConfig.parse(BASE | {"moe": {"n_experts": 64, "top_k": 16, "d_expert": 1152}})
TRAFFIC, DEVICE = Traffic(precision="fp8", gpus=2), load_hardware("h200")


@pytest.fixture(scope="module")
def replicates() -> Replicates:
    shape = stack([COARSE, FINE, NEAR, FINE])
    found = serving_replicates(shape, serve(shape, TRAFFIC, DEVICE), TRAFFIC, DEVICE)
    assert found is not None
    return found


def test_equal_designs_cost_the_same_for_certain(replicates: Replicates) -> None:
    low, high = replicates.ratio(1.0, 1, 3)
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)


def test_experts_of_other_widths_are_less_certain(replicates: Replicates) -> None:
    near, far = replicates.variance(1, 2), replicates.variance(0, 1)
    assert 0 < near < far
    assert replicates.jackknife(0, 1) + replicates.residual**2 == pytest.approx(float(far))
    octaves = np.log2(1152 / 1024)
    assert replicates.jackknife(1, 2) + (replicates.residual * octaves) ** 2 == pytest.approx(float(near))


def test_how_far_widths_are_apart() -> None:
    first, second = np.array([0, 0, 512, 512, 512]), np.array([0, 512, 512, 640, 4096])
    assert widths_apart(first, second) == pytest.approx([0, 1, 0, np.log2(1.25), 1])


def test_the_residual_makes_intervals_hold() -> None:
    rng = np.random.default_rng(0)
    variances, apart = rng.uniform(0, 0.02, 60), rng.uniform(0.2, 1, 60)
    errors = np.abs(rng.normal(0, np.sqrt(variances + (0.3 * apart) ** 2)))
    found = residual_of(errors, variances, apart)
    inside = errors <= Z80 * np.sqrt(variances + (found * apart) ** 2) + 1e-12
    assert 0.8 <= inside.mean() <= 0.85
    assert found == pytest.approx(0.3, rel=0.25)
    assert residual_of(np.zeros(5), variances[:5], apart[:5]) == 0
    alike = np.array([0.0, 0.0, 0.0, 1.0])  # of four pairs that miss, only the last can be helped
    assert residual_of(np.full(4, 0.5), np.zeros(4), alike) == pytest.approx(0.5 / 1.2816, rel=1e-3)
    assert residual_of(np.full(3, 0.5), np.zeros(3), np.zeros(3)) == 0


def test_the_ratio_is_that_of_whole_predictions(replicates: Replicates) -> None:
    """A replicate's prices at the layout and batch that were chosen, each computed for itself."""
    member = next(iter(shipped()["members"].values()))
    device = DEVICE.replace(calibration=replaced(DEVICE.calibrated(), member))
    for i, model in enumerate((COARSE, FINE)):
        chosen = serve(model, TRAFFIC, DEVICE)
        fixed = TRAFFIC.replace(
            batch=int(chosen.batch[0]), parallel="expert" if chosen.expert_parallel[0] else "tensor"
        )
        own, other = (serve(model, fixed, where).cost_per_million_tokens[0] for where in (DEVICE, device))
        assert replicates.logs[0, i] == pytest.approx(np.log(other / own))


def test_shares_weigh_parts_of_a_cost(replicates: Replicates) -> None:
    assert replicates.variance(0, 1, 0.5, 0.5) == pytest.approx(replicates.variance(0, 1) / 4)
    pairs = replicates.variance(np.array([0, 1]), np.array([1, 2]))
    assert pairs == pytest.approx([float(replicates.variance(0, 1)), float(replicates.variance(1, 2))])


def test_a_roofline_has_none() -> None:
    device = load_hardware("cpu")
    cost = serve(COARSE, Traffic(gpus=1, batch=1), device)
    assert serving_replicates(Shape.of(COARSE), cost, Traffic(gpus=1, batch=1), device) is None
