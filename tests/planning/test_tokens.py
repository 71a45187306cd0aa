"""Limits on tokens per parameter, and data that is repeated."""

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.laws import effective_tokens, get_law, with_data_reuse
from moelab.laws.design import Design
from moelab.laws.reuse import R_D
from moelab.planning import Budget, Space
from moelab.planning.feasible import FeasibleSet, fit_budget
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.limits import wider
from moelab.planning.plan import plan
from moelab.planning.predictors import Predictor

JOINT = get_law("ludziejewski2025")


def feasible(space: Space, **limits: float) -> FeasibleSet:
    return fit_budget(enumerate_designs(space), Budget(flops=3e12, **limits))


def test_at_least_so_many_tokens_per_parameter(tiny: Space) -> None:
    free = feasible(tiny)
    for field, column in (("min_tokens_per_active", "params_active"), ("min_tokens_per_total", "params_total")):
        ratio = free.tokens / getattr(free.lattice, column)
        least = float(np.median(ratio))
        found = feasible(tiny, **{field: least})
        assert len(found) == (ratio >= least).sum() < len(free)
        assert (found.tokens / getattr(found.lattice, column) >= least).all()


def test_at_most_so_many_tokens_per_active_parameter(tiny: Space) -> None:
    """The limit leaves compute unspent instead of excluding designs."""
    free, found = feasible(tiny), feasible(tiny, max_tokens_per_active=20)
    assert len(found) == len(free)
    assert found.tokens == pytest.approx(np.minimum(free.tokens, 20 * free.lattice.params_active), rel=1e-12)
    assert (found.train_flops < 3e12 * (1 + 1e-12)).all()


def test_what_no_design_meets_is_refused_with_the_nearest_value(tiny: Space) -> None:
    with pytest.raises(InputError, match=r"min_tokens_per_total 1B: no design fits; the nearest feasible value is"):
        feasible(tiny, min_tokens_per_total=1e9)
    with pytest.raises(InputError, match=r"max_tokens_per_active 0\.0001: no design fits; the nearest feasible value"):
        feasible(tiny, max_tokens_per_active=1e-4)
    with pytest.raises(InputError, match="min_tokens_per_active: must be at most max_tokens_per_active"):
        Budget(flops=1e12, min_tokens_per_active=30, max_tokens_per_active=20)


def test_a_limit_from_below_is_widened_by_lowering_it() -> None:
    budget = Budget(flops=1e20, min_tokens_per_active=20, min_tokens_per_total=2, max_tokens_per_active=300)
    assert wider(budget, "tokens_per_active", 2).min_tokens_per_active == 10
    assert wider(budget, "tokens_per_total", 2).min_tokens_per_total == 1
    assert wider(budget, "most_tokens_per_active", 2).max_tokens_per_active == 600


def test_a_binding_limit_on_tokens_is_named(tiny: Space) -> None:
    for limits, name in (
        ({"max_tokens_per_active": 0.5}, "most_tokens_per_active"),
        ({"min_tokens_per_total": 100.0}, "tokens_per_total"),
    ):
        found = plan(Budget(flops=3e12, **limits), [JOINT], tiny, extrapolate=True)
        assert name in found.binding
        assert found.sensitivity[name]["gain_compute"] > 0


def test_repeats_worth_less_are_the_same_law_with_a_smaller_decay(tiny: Space) -> None:
    lattice = enumerate_designs(tiny)
    design = Design.of(lattice.shape, np.full(len(lattice), 8e6), tiny.seq_len, 1e6)
    (joint,) = predictors_of([JOINT], extrapolate=True)
    read = joint.with_reuse(1 / 3).read(design)
    assert read.variables["tokens"] == pytest.approx(effective_tokens(8e6, 1e6, R_D / 3), rel=1e-12)
    law = with_data_reuse(JOINT)
    own = Predictor(id="own", law=law, coefficients=law.published or {}, extrapolate=True)
    assert own.with_reuse(1 / 3).loss(own.read(design)) == pytest.approx(joint.with_reuse(1 / 3).loss(read), rel=1e-12)
    assert (own.with_reuse(1 / 3).loss(own.read(design)) > own.loss(own.read(design))).all()


def test_a_plan_with_repeated_data_shows_its_sensitivity(tiny: Space) -> None:
    found = plan(Budget(flops=3e12, unique_tokens=2e5, max_epochs=20), [JOINT], tiny, extrapolate=True)
    assert found.best.epochs > 2
    assert any("with R_D at a third" in line for line in found.warnings)
    assert any("R_D at a third" in row["change"] for row in found.what_if)
    fresh = plan(Budget(flops=3e12), [JOINT], tiny, extrapolate=True)
    assert not any("R_D" in row["change"] for row in fresh.what_if)
