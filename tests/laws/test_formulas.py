"""Every law's formula: its gradient against the complex step, broadcasting, and its own printed numbers."""

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.laws import all_laws, get_law
from moelab.laws.forms import saturate

IDS = [*all_laws(), "abnar2025+reuse", "krajewski2024+reuse", "ludziejewski2025+reuse"]


@pytest.mark.parametrize("law_id", IDS)
def test_gradient_equals_the_complex_step(law_id, coefficients_of, variables_of) -> None:
    law, designs = get_law(law_id), variables_of()
    coefficients = coefficients_of(law)
    gradient = law.gradient(coefficients, designs)
    assert set(gradient) == set(law.coefficients)
    for name in law.coefficients:
        moved = {**coefficients, name: coefficients[name] + 1e-30j}
        expected = np.imag(law.loss(moved, designs)) / 1e-30
        tolerance = 1e-8 if law_id.endswith("+reuse") else 1e-11
        assert np.allclose(gradient[name], expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()), name


@pytest.mark.parametrize("law_id", IDS)
def test_batches_of_coefficients_broadcast_against_designs(law_id, coefficients_of, variables_of) -> None:
    law, designs = get_law(law_id), variables_of(n=7)
    coefficients = coefficients_of(law)
    batch = {name: np.array([[value], [value * 1.01]]) for name, value in coefficients.items()}
    together = law.loss(batch, designs)
    assert together.shape == (2, 7)
    assert np.allclose(together[0], law.loss(coefficients, designs), rtol=1e-14)
    second = {name: value * 1.01 for name, value in coefficients.items()}
    assert np.allclose(together[1], law.loss(second, designs), rtol=1e-14)
    assert all(np.broadcast_shapes(g.shape, (2, 7)) == (2, 7) for g in law.gradient(batch, designs).values())


@pytest.mark.parametrize("law_id", list(all_laws()))
def test_linear_coefficients_enter_linearly(law_id, coefficients_of, variables_of) -> None:
    law, designs = get_law(law_id), variables_of()
    coefficients = coefficients_of(law)

    def value(factor: float) -> np.ndarray:
        scaled = {n: v * factor if n in law.linear else v for n, v in coefficients.items()}
        loss = law.loss(scaled, designs)
        return np.log(loss) if law.log_linear else loss

    if law.linear:
        assert np.allclose(value(3.0) - value(2.0), value(2.0) - value(1.0), rtol=1e-9)


@pytest.mark.parametrize("law_id", list(all_laws()))
def test_a_law_describes_itself_completely(law_id) -> None:
    law = all_laws()[law_id]
    assert set(law.variables) <= set(law.meaning)
    assert all((law.citation, law.form, law.flops))
    assert (law.published is None) == bool(law.unpublished)
    assert (law.published is None) == (law.mark is None)
    assert law.published is None or set(law.published) == set(law.coefficients)
    assert set(law.coefficients) == set(law.linear) | set(law.search)
    assert {*law.hold, *law.aliases.values()} <= set(law.coefficients)
    assert all(name in law.ranges for name in law.variables)


def test_known_values() -> None:
    joint = {"params_active": 1e9, "tokens": 2e10, "expert_ratio": 1.0}
    saturated = saturate(0.0, 2.0732, 290.4521)[0]
    assert saturated == pytest.approx(2.0732)
    assert get_law("ludziejewski2025").loss(None, joint) == pytest.approx(2.586, abs=0.05)
    leverage = get_law("tian2025").loss(
        None, {"expert_activation": 0.031, "granularity_ling": 12.0, "train_flops": 1e22}
    )
    assert leverage == pytest.approx(7.24, abs=0.01)
    five = get_law("fivefactor2025")
    assert five.published is not None
    best = np.sqrt(five.published["f"] / five.published["e"]), -five.published["n"] / (2 * five.published["m"])
    assert best == pytest.approx((6.8, 0.31), rel=0.02)


def test_dense_is_a_limit_where_the_law_allows_it() -> None:
    abnar = get_law("abnar2025")
    near = abnar.loss(None, {"params_total": 1e9, "tokens": 2e10, "sparsity": 1e-9})
    assert near == pytest.approx(abnar.loss(None, {"params_total": 1e9, "tokens": 2e10, "sparsity": 0.0}), rel=1e-8)
    data = get_law("muennighoff2023")
    assert data.published is not None
    c = data.published
    once = {"params_total": 1e8, "tokens": 1e10, "unique_tokens": 1e10}
    plain = c["E_0"] + c["A"] / 1e8 ** c["alpha"] + c["B"] / 1e10 ** c["alpha"]
    assert data.loss(None, once) == pytest.approx(plain, rel=1e-12)


def test_missing_names_are_named() -> None:
    law = get_law("hoffmann2022")
    with pytest.raises(InputError, match="variables missing: tokens"):
        law.loss(None, {"params_total": 1e9})
    with pytest.raises(InputError, match="coefficients missing: A, alpha, B, beta"):
        law.loss({"E_0": 1.0}, {"params_total": 1e9, "tokens": 1e9})
    with pytest.raises(InputError, match="no published coefficients"):
        get_law("yun2024").loss(None, {"params_dense": 1e9, "tokens": 1e9, "n_experts": 8})


def test_the_range_is_unknown_where_size_or_tokens_have_none() -> None:
    designs = {"params_non_embedding": [1e9], "tokens": [3.7e20], "granularity": [4.0], "expansion": [16.0]}
    assert np.isnan(get_law("krajewski2024-x16").extrapolation(designs)).all()
    assert get_law("krajewski2024").extrapolation(designs) > 9
    designs = {"params_total": [1e20], "tokens": [10.0], "sparsity": [0.5]}
    assert np.isnan(get_law("abnar2025").extrapolation(designs)).all()
    assert get_law("abnar2025").extrapolation({**designs, "train_flops": [1e20]}) == 0


def test_a_million_designs_take_no_loop() -> None:
    n = 1_000_000
    designs = {"params_total": np.geomspace(1e8, 1e10, n), "tokens": np.full(n, 1e11), "sparsity": np.full(n, 0.9)}
    loss = get_law("abnar2025").loss(None, designs)
    assert loss.shape == (n,)
    assert np.all(np.diff(loss) < 0)


def test_unknown_laws_are_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"did you mean 'abnar2025'"):
        get_law("abnar2052")
    with pytest.raises(InputError, match="a rule for hyperparameters"):
        get_law("steplaw2025")
