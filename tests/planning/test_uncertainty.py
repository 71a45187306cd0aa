"""The uncertainty of a choice: statistics of the draws, near-equal designs, and intervals that hold their values."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.fitting import FittedLaw
from moelab.fitting.widening import AS_DRAWN
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.compare import compare_designs
from moelab.planning.credit import credited_design
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan
from moelab.planning.plan_table import interval_note

JOINT, ABNAR = get_law("ludziejewski2025"), get_law("abnar2025")


def test_the_decision_equals_a_loop_over_draws(tiny: Space, fits: list[FittedLaw]) -> None:
    law, budget = replace(fits[0], widening=AS_DRAWN), Budget(flops=5e12)
    result = plan(budget, [law], tiny, top=3, extrapolate=True)
    lattice = enumerate_designs(tiny)
    tokens = 5e12 / lattice.flops_train
    reading = law.variables_of(lattice.shape, tokens, tiny.seq_len)
    losses = law.draw_losses({name: reading.variables[name] for name in law.law.variables})
    losses = losses[np.isfinite(losses).all(axis=1)]
    moe = lattice.is_moe
    wins = (losses[:, moe].min(axis=1) < losses[:, ~moe].min(axis=1)).mean()
    assert result.p_moe_beats_dense == pytest.approx(wins, abs=0.02)
    best = losses.min(axis=1)
    regret = [np.quantile(losses[:, i] - best, 0.9) for i in range(len(lattice))]
    high = result.best.regret_loss.high
    assert high is not None
    assert np.min(np.abs(np.array(regret) - high)) < 1e-3
    assert result.best.regret_loss.value == pytest.approx(0, abs=1e-3)
    assert result.near_equal >= 1


def test_an_ensemble_averages_fits_to_the_same_runs(tiny: Space, fits: list[FittedLaw]) -> None:
    result = plan(Budget(flops=5e12), fits, tiny, weights=[3, 1], extrapolate=True)
    mean = result.best.mean_loss
    assert mean is not None
    values = [result.best.loss[fit.law.id].value for fit in fits]
    assert mean.value == pytest.approx((3 * values[0] + values[1]) / 4)
    assert mean.low < mean.value < mean.high
    assert set(result.optimum) == {"params_total", "params_active", "n_experts", "granularity", "tokens"}
    assert result.ensemble == ["ludziejewski2025", "abnar2025"]


def test_a_plan_of_one_law_has_one_interval_of_its_loss(tiny: Space, fits: list[FittedLaw]) -> None:
    """That of `predict`, over all draws, in the table of designs as in the law's own row, in comparisons too."""
    rng = np.random.default_rng(0)
    many = rng.choice(len(fits[0].draws), 700)
    jitter = np.exp(0.001 * rng.standard_normal((700, 1)))
    law = replace(fits[0], draws=fits[0].draws[many] * jitter, most_flops=None)
    result = plan(Budget(flops=5e13), [law], tiny, top=3, extrapolate=True)
    for candidate in result.candidates:
        own, mean = candidate.loss[law.law.id], candidate.mean_loss
        assert mean is not None
        assert (mean.value, mean.low, mean.high) == (pytest.approx(own.value), own.low, own.high)
        read = credited_design(candidate.config, float(candidate.tokens), None, tiny.seq_len)
        there = law.predict(law.law.read(read, published=False).variables)
        ends = (there.low[0], there.high[0])
        assert (min(ends[0], there.value[0]), max(ends[1], there.value[0])) == pytest.approx((mean.low, mean.high))
        side = compare_designs([("a", (candidate.config, 4e6, 4e6))], [law], seq_len=tiny.seq_len, extrapolate=True)
        found = side.sides[0].loss[law.law.id]
        plain = law.predict_model(candidate.config, 4e6, tiny.seq_len)
        assert (found.low, found.high) == pytest.approx((plain.low[0], plain.high[0]))


def test_draws_that_give_no_number_are_dropped_and_counted(tiny: Space, fits: list[FittedLaw]) -> None:
    from dataclasses import replace

    draws = fits[0].draws.copy()
    draws[:7] = np.nan
    result = plan(Budget(flops=5e12), [replace(fits[0], draws=draws)], tiny)
    assert result.p_moe_beats_dense is not None
    assert any(line.startswith("7 of 80 bootstrap draws") for line in result.warnings)


DOCS = {
    "d_model": {"from": 32, "to": 128, "step": 16}, "n_layers": [2, 3, 4], "aspect": [8, 48], "head_dim": [16],
    "heads_per_kv": 1, "n_experts": [4, 8, 16], "top_k": [1, 2, 4], "d_expert_step": 8, "vocab_size": 512,
    "seq_len": 128,
}  # fmt: skip


@pytest.mark.parametrize("flops", [1e14, 1e15])
def test_no_design_is_listed_twice(flops: float) -> None:
    """Equality within half a per cent is not transitive: two of the best may lead to the same design."""
    result = plan(Budget(flops=flops), [JOINT], Space.parse(DOCS), top=20)
    inputs = [JOINT.variables_of(design.config, design.tokens, 128).variables for design in result.candidates]
    for i, first in enumerate(inputs):
        for other in inputs[i + 1 :]:
            assert any(abs(other[name] - first[name]) > 0.0049 * abs(first[name]) for name in first)


def test_how_many_are_near_equal_does_not_depend_on_how_many_are_shown(fits: list[FittedLaw]) -> None:
    space = Space.parse(DOCS)
    counts = {plan(Budget(flops=1e15), fits[:1], space, top=top, extrapolate=True).near_equal for top in (1, 3, 10)}
    assert len(counts) == 1


def test_granularity_is_undetermined_by_laws_that_do_not_see_it(tiny: Space, fits: list[FittedLaw]) -> None:
    blind = plan(Budget(flops=5e12), fits, tiny, extrapolate=True)
    assert (blind.optimum["granularity"].low, blind.slices["granularity"]) == (None, [])
    assert blind.best_moe is not None
    assert "granularity" in blind.best_moe.undetermined
    assert blind.plot("slices") is not None
    seeing = plan(Budget(flops=1e20), ["krajewski2024"], Space(d_model=(1024,), n_layers=(16,)), extrapolate=True)
    assert seeing.slices["granularity"]
    assert "granularity" not in seeing.best.undetermined


def held(interval: Any) -> bool:
    """Whether an interval holds its own value."""
    return bool(interval.low <= interval.value <= interval.high)


@given(log_flops=st.floats(11.5, 15), both=st.booleans(), share=st.floats(0.05, 0.95))
def test_every_interval_holds_its_value(
    tiny: Space, fits: list[FittedLaw], log_flops: float, both: bool, share: float
) -> None:
    laws, weights = (fits, [share, 1 - share]) if both else (fits[:1], None)
    result = plan(Budget(flops=10**log_flops), laws, tiny, top=5, weights=weights, extrapolate=True)
    assert result.p_moe_beats_dense is not None
    assert 0 <= result.p_moe_beats_dense <= 1
    for name, interval in result.optimum.items():
        assert held(interval) if name != "granularity" else interval.low is None, (name, interval)
    designs = [*result.candidates, *result.pareto, *result.choices.values(), result.best_dense, result.best_moe]
    for design in designs:
        if design is None:
            continue
        known = [
            interval
            for interval in (design.mean_loss, design.regret_loss, design.regret_compute, *design.loss.values())
            if interval is not None and interval.low is not None
        ]
        assert known or design in result.choices.values(), design.label
        for interval in known:
            assert held(interval), (design.label, interval)


def test_axes_the_law_leaves_undetermined_span_the_tied_designs(tiny: Space, fits: list[FittedLaw]) -> None:
    """8 top-1 and 16 top-2 are one to a law of sparsity; 16 top-1 is too large."""
    space = tiny.replace(
        d_model=[256], n_layers=[8], n_experts=[8, 16], top_k=[1, 2], n_shared_experts=[0], n_dense_layers=[0]
    )
    drawn = replace(fits[1], widening=AS_DRAWN)  # so far beyond its runs, a dense design is not excluded
    result = plan(Budget(flops=1e17, max_params=45e6), [drawn], space, extrapolate=True)
    assert "n_experts" in result.best.undetermined
    assert (result.optimum["n_experts"].low, result.optimum["n_experts"].high) == (8, 16)


def test_printed_intervals_hold_the_printed_values(tiny: Space, fits: list[FittedLaw]) -> None:
    """Value and ends are rounded to the same digits, and the table's note names the statistic."""
    result = plan(Budget(flops=5e12), [fits[0]], tiny, top=20, extrapolate=True)
    columns, rows = result.table()
    for name in ("loss, nats", "excess"):
        at = columns.index(name)
        cells = [re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", row[at]) for row in rows if "[" in row[at]]
        assert len(cells) > 2
        for cell in cells:
            assert cell is not None
            value, low, high = (float(part.rstrip("%")) for part in cell.groups())
            assert low <= value <= high
    assert "p10 and p90 of the draws" in interval_note(result.candidates)
    published = plan(Budget(flops=5e12), ["ludziejewski2025"], tiny, extrapolate=True)
    assert interval_note(published.candidates) == ""
