"""moelab2026 equals the papers' laws at their limits, to numerical precision, with the coefficients mapped."""

import numpy as np
import pytest

from moelab.laws import get_law

LAW = get_law("moelab2026")
L8, L10 = np.log(1e8), np.log(1e10)
NEUTRAL = {
    "E_0": 0.0, "A": 1.0, "alpha": 0.3, "B": 1e-300, "beta": 0.3, "kappa_0": 0.0, "kappa_1": 0.0, "mu_0": 0.0,
    "mu_1": 0.0, "E_start": 2.0, "E_max": 300.0, "g": 1e-3, "gamma": 0.5, "sigma_1": 0.0, "sigma_2": 0.0, "R_D": 15.0,
    "R_N": 1e15, "rho": 0.0,
}  # fmt: skip
"""No floor, no data term, no effect of experts, excess parameters at full value."""


def designs(n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(1e11), n))
    return {
        "params_active": np.exp(rng.uniform(np.log(1e7), np.log(3e9), n)),
        "tokens": tokens,
        "unique_tokens": tokens / rng.choice([1.0, 1.0, 3.0, 40.0], n),
        "expert_ratio": rng.choice([1.0, 2.0, 8.0, 64.0, 256.0], n),
        "granularity": rng.choice([1.0, 2.0, 8.0], n),
        "shared_share": rng.choice([0.0, 0.25], n),
    }


def equal(coefficients: dict[str, float], variables: dict[str, np.ndarray], expected: np.ndarray) -> None:
    assert np.allclose(LAW.loss({**NEUTRAL, **coefficients}, variables), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("router", ["sbase", "rlr", "hash"])
def test_clark_is_the_limit_without_floor_and_data(router: str) -> None:
    clark = get_law(f"clark2022-{router}")
    c, v = clark.published or {}, designs()
    once = {name: v[name] for name in ("params_active", "tokens", "expert_ratio")}
    start, cross = np.log(c["E_start"]), -c["c"] / np.log(10)
    alpha = -c["a"] + cross * start
    mapped = {
        "A": np.exp(c["d"] * np.log(10) + c["b"] * start),
        "alpha": alpha,
        "kappa_0": (-c["b"] + cross * L8) / alpha,
        "kappa_1": cross / alpha,
        "E_start": c["E_start"],
        "E_max": c["E_max"],
    }
    clark_variables = {"params_active_non_embedding": v["params_active"], "expert_ratio": v["expert_ratio"]}
    equal(mapped, once, clark.loss(None, clark_variables))


def joint_as_ours() -> dict[str, float]:
    c = get_law("ludziejewski2025").published or {}
    start = np.log(c["E_start"])
    alpha, beta = -(c["alpha"] + c["gamma"] * start), -(c["beta"] + c["zeta"] * start)
    return {
        "E_0": c["E_0"],
        "A": c["a"] * np.exp(c["delta"] * start),
        "alpha": alpha,
        "kappa_0": -(c["delta"] + c["gamma"] * L8) / alpha,
        "kappa_1": -c["gamma"] / alpha,
        "B": c["b"] * np.exp(c["omega"] * start),
        "beta": beta,
        "mu_0": (c["omega"] + c["zeta"] * L10) / beta,
        "mu_1": c["zeta"] / beta,
        "E_start": c["E_start"],
        "E_max": c["E_max"],
    }


def test_the_joint_law_is_the_limit_without_repeats() -> None:
    v = designs()
    once = {name: v[name] for name in ("params_active", "tokens", "expert_ratio")}
    equal(joint_as_ours(), once, get_law("ludziejewski2025").loss(None, once))


def test_krajewski_is_the_limit_at_one_expansion() -> None:
    law = get_law("krajewski2024")
    c, v = law.published or {}, designs()
    ratio = (8 * 64 + 4) / 12  # total over active size, both without embeddings
    ours = {"params_active": v["params_active"], "tokens": v["tokens"], "granularity": v["granularity"]}
    theirs = {**ours, "params_non_embedding": ratio * v["params_active"]}
    mapped = {name: c[name] for name in ("E_0", "alpha", "beta", "gamma")}
    mapped |= {"A": (c["a"] + c["g"]) * ratio ** -c["alpha"], "B": c["b"], "g": c["g"] / c["a"]}
    equal(mapped, ours, law.loss(None, theirs))


def test_krajewski_keeps_its_form_where_experts_count() -> None:
    """At one expansion, kappa_0 only scales N: the experts' part moves into A."""
    v = designs()
    kept = {"params_active": v["params_active"], "tokens": v["tokens"], "granularity": v["granularity"]}
    c = {**NEUTRAL, "kappa_0": 0.5, "g": 0.2, "B": 20.0, "E_0": 0.5}
    factor = LAW.loss({**c, "E_0": 0.0, "B": 1e-300}, {**kept, "expert_ratio": np.full(40, 64.0)})
    without = LAW.loss({**c, "E_0": 0.0, "B": 1e-300}, kept)
    assert np.ptp(np.log(factor / without)) < 1e-12


@pytest.mark.parametrize("law_id", ["hoffmann2022", "besiroglu2024"])
def test_hoffmann_is_the_limit_without_experts(law_id: str) -> None:
    v = designs()
    once = {"params_active": v["params_active"], "tokens": v["tokens"]}
    law = get_law(law_id)
    equal(dict(law.published or {}), once, law.loss(None, {**once, "params_total": once["params_active"]}))


def test_muennighoff_is_the_limit_without_experts() -> None:
    law = get_law("muennighoff2023")
    v = {name: values for name, values in designs(200).items() if name in ("params_active", "tokens", "unique_tokens")}
    c = dict(law.published or {})
    expected = law.loss(c, {**v, "params_total": v["params_active"]})
    assert len(np.unique(np.round(v["tokens"] / v["unique_tokens"]))) > 2
    equal({**c, "beta": c["alpha"]}, v, expected)


def test_the_folk_rule_is_kappa_one_half() -> None:
    """With kappa_0 = 1/2 and no saturation, a MoE is worth the geometric mean of its active and total parameters."""
    v = {"params_active": np.array([1e8]), "tokens": np.array([1e10]), "expert_ratio": np.array([16.0])}
    c = {**NEUTRAL, "kappa_0": 0.5, "E_start": 1.0 + 1e-12, "E_max": 1e12, "B": 1.0}
    dense = {**v, "params_active": np.array([1e8 * 4.0]), "expert_ratio": np.array([1.0])}
    assert LAW.loss(c, v) == pytest.approx(LAW.loss(c, dense), rel=1e-9)


def test_the_outer_exponent_is_the_papers_with_mapped_coefficients() -> None:
    law, v, k = get_law("moelab2026-outer"), designs(), 0.4
    once = {"params_active": v["params_active"], "tokens": v["tokens"]}
    inner = {"A": 3e4, "alpha": 0.7, "B": 5e5, "beta": 0.8}
    expected = 1.2 + (3e4 / v["params_active"] ** 0.7 + 5e5 / v["tokens"] ** 0.8) ** k
    mapped = {"A": inner["A"] ** k, "alpha": k * inner["alpha"], "B": inner["B"] ** k, "beta": k * inner["beta"]}
    got = law.loss({**NEUTRAL, **mapped, "E_0": 1.2, "k": k}, once)
    assert np.allclose(got, expected, rtol=1e-12)
    plain = {**NEUTRAL, **joint_as_ours()}
    assert np.allclose(law.loss({**plain, "k": 1.0}, v), LAW.loss(plain, v), rtol=1e-13)


def test_gradient_equals_the_complex_step_where_data_limit_the_size() -> None:
    v = designs(300)
    c = {**NEUTRAL, **joint_as_ours(), "R_N": 3.0, "g": 0.2, "sigma_1": -0.4, "sigma_2": 0.6, "rho": 0.1}
    for law, given in ((LAW, c), (get_law("moelab2026-outer"), {**c, "k": 0.6})):
        gradient = law.gradient(given, v)
        assert set(gradient) == set(law.coefficients)
        for name in law.coefficients:
            step = np.imag(law.loss({**given, name: given[name] + 1e-30j}, v)) / 1e-30
            assert np.allclose(gradient[name], step, rtol=1e-9, atol=1e-12 * np.abs(step).max()), (law.id, name)


def test_absent_variables_take_their_neutral_value() -> None:
    v = designs()
    few = {"params_active": v["params_active"], "tokens": v["tokens"]}
    full = {**few, "expert_ratio": 1.0, "granularity": 1.0, "shared_share": 0.0, "unique_tokens": v["tokens"]}
    c = {**NEUTRAL, **joint_as_ours()}
    assert np.array_equal(LAW.loss(c, few), LAW.loss(c, full))
