"""Compute-optimal points in each law's own convention, against the papers' tables (SCIENCE numbers by arXiv id)."""

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.laws import get_law, get_rule
from moelab.laws.optimum import optimum


@pytest.mark.parametrize(
    ("flops", "active", "tokens", "granularity", "loss"),
    [(1.93e20, 1e9, 28.94e9, 16, 2.491), (6.46e21, 7e9, 137.6e9, 32, 2.076)],
)
def test_krajewski_table(flops, active, tokens, granularity, loss) -> None:
    best = optimum(get_law("krajewski2024"), flops, {"expansion": 64})
    assert best.loss == pytest.approx(loss, abs=0.002)
    assert best.values["granularity"] == granularity
    assert best.values["tokens"] == pytest.approx(tokens, rel=0.02)
    assert best.values["params_active"] == pytest.approx(active, rel=0.02)
    assert best.extrapolation > 0


@pytest.mark.parametrize(
    ("flops", "experts", "active", "tokens"),
    [(1e20, 1, 1.7e9, 9.7e9), (1e20, 8, 0.99e9, 17e9), (1e21, 32, 2.85e9, 58.4e9)],
)
def test_joint_law_optima(flops, experts, active, tokens) -> None:
    best = optimum(get_law("ludziejewski2025"), flops, {"n_experts": experts})
    assert best.values["params_active"] == pytest.approx(active, rel=0.02)
    assert best.values["tokens"] == pytest.approx(tokens, rel=0.02)


@pytest.mark.parametrize(("memory", "experts"), [(24e9, 4), (80e9, 16), (640e9, 32)])
def test_joint_law_under_a_memory_limit(memory, experts) -> None:
    assert optimum(get_law("ludziejewski2025"), 1e22, max_memory=memory).values["n_experts"] == experts


@pytest.mark.parametrize(
    ("sparsity", "params", "loss"),
    [(0, 0.64e9, 2.589), (0.5, 1.07e9, 2.505), (0.9, 3.97e9, 2.364), (0.95, 7.34e9, 2.319)],
)
def test_abnar_at_one_compute(sparsity, params, loss) -> None:
    best = optimum(get_law("abnar2025"), 1e20, {"sparsity": sparsity})
    assert best.values["params_total"] == pytest.approx(params, rel=0.005)
    assert best.loss == pytest.approx(loss, abs=0.001)


def test_the_bound_that_decided_is_named() -> None:
    best = optimum(get_law("abnar2025"), 1e20)
    assert best.values["sparsity"] == 0.95
    assert best.decided_by == ("sparsity at the largest considered (0.95)",)
    assert optimum(get_law("krajewski2024"), 1.93e20).decided_by == ()


@pytest.mark.parametrize("law_id", ["hoffmann2022", "besiroglu2024"])
def test_dense_optimum_equals_the_closed_form(law_id) -> None:
    law = get_law(law_id)
    c = law.published
    g = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
    expected = g * (1e21 / 6) ** (c["beta"] / (c["alpha"] + c["beta"]))
    assert optimum(law, 1e21).values["params_total"] == pytest.approx(expected, rel=1e-5)


def test_an_optimum_at_the_end_of_the_sizes_is_marked() -> None:
    assert optimum(get_law("hoffmann2022"), 1e6).decided_by == ("params_total at the smallest considered (10K)",)
    assert optimum(get_law("hoffmann2022"), 1e24).decided_by == ()


def test_served_tokens_shrink_the_model() -> None:
    law = get_law("ludziejewski2025")
    plain = optimum(law, 1e21, {"n_experts": 8}).values["params_active"]
    served = optimum(law, 1e21, {"n_experts": 8, "tokens_served": 1e11}).values["params_active"]
    assert served < plain


def test_scarce_data_makes_a_smaller_model() -> None:
    law = get_law("muennighoff2023")
    assert optimum(law, 1e21, {"unique_tokens": 1e9}).loss > optimum(law, 1e21).loss


def test_repeated_data_composes_with_an_optimum() -> None:
    law = get_law("abnar2025+reuse")
    scarce = optimum(law, 1e21, {"unique_tokens": 1e10, "sparsity": 0.9})
    assert scarce.values["unique_tokens"] == 1e10
    assert scarce.loss > optimum(law, 1e21, {"sparsity": 0.9}).loss
    assert optimum(law, 1e21, {"sparsity": 0.9}).loss == pytest.approx(
        optimum(get_law("abnar2025"), 1e21, {"sparsity": 0.9}).loss
    )


@pytest.mark.parametrize(
    ("law_id", "settings", "message"),
    [
        ("krajewski2024", {"expansion": 8}, "holds for expansion 64 only"),
        ("krajewski2024", {"n_experts": 8}, "takes expansion, granularity, not 'n_experts'"),
        ("abnar2025", {"sparsity": 1.0}, "sparsity is out of range"),
        ("yun2024", {}, "has no published coefficients"),
        ("ludziejewski2025", {"n_experts": 0.5}, "n_experts must be at least 1"),
        ("ludziejewski2025", {"n_experts": np.nan}, "n_experts is out of range"),
        ("tian2025", {"expert_activation": 2.0}, "expert_activation must be at most 1"),
        ("wang2024", {}, "states no compute convention"),
    ],
)
def test_bad_settings_are_refused(law_id, settings, message) -> None:
    with pytest.raises(InputError, match=message):
        optimum(get_law(law_id), 1e20, settings)


def test_no_compute_and_too_little_memory_are_refused() -> None:
    with pytest.raises(InputError, match=r"flops: must be above 0 and at most 1e30"):
        optimum(get_law("hoffmann2022"), 0)
    with pytest.raises(InputError, match="has no variable for memory"):
        optimum(get_law("hoffmann2022"), 1e20, max_memory=1e9)
    with pytest.raises(InputError, match="no size fits"):
        optimum(get_law("ludziejewski2025"), 1e20, max_memory=1.0)


def test_rules() -> None:
    step = get_rule("steplaw2025").apply(params_non_embedding=1e9, tokens=1e11)
    assert step["learning_rate"] == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307)
    assert step["batch_tokens"] == pytest.approx(0.58 * 1e11**0.571)
    deepseek = get_rule("deepseek2024").apply(train_flops=1e21)
    assert deepseek["tokens"] * deepseek["flops_per_token"] == pytest.approx(1e21, rel=0.01)
    for name in ("tian2025-dense", "tian2025-moe"):
        ling = get_rule(name).apply(train_flops=np.array([1e19, 1e21]))
        assert ling["tokens"] * ling["flops_per_token"] == pytest.approx([1e19, 1e21], rel=0.02)
    with pytest.raises(InputError, match="needs train_flops"):
        get_rule("deepseek2024").apply()
    with pytest.raises(InputError, match="no such rule"):
        get_rule("nothing")
