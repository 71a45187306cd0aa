"""Learning rates by every rule, the one found on MoE models first, each with its distance from its runs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from moelab.architecture.presets import load_preset
from moelab.laws import get_rule
from moelab.laws.design import Design
from moelab.planning import Budget, Space
from moelab.planning.cells import rule_cells
from moelab.planning.nearest import apart_from_released, released_rates
from moelab.planning.plan import plan
from moelab.planning.rates import FOR_DENSE, FOR_MOE, MOST_RATE, rates_of


def test_rules_found_on_moe_come_first_for_moe() -> None:
    moe = rates_of(Design.of(load_preset("deepseek-v3"), np.array([14.8e12]), 4096))
    dense = rates_of(Design.of(load_preset("llama3-8b"), np.array([15e12]), 4096))
    assert tuple(rate.rule for rate in moe) == FOR_MOE
    assert tuple(rate.rule for rate in dense) == FOR_DENSE


def test_lings_rule_gives_what_its_formula_gives() -> None:
    """SCIENCE: at C = 5.25e23 Tian's MoE rule gives 2.7e-4 and 30.6M tokens; Step Law on all parameters a tenth."""
    design = Design.of(load_preset("deepseek-v3"), np.array([14.8e12]), 4096)
    rate = rates_of(design)[0]
    compute = rate.inputs["train_flops"]
    assert rate.learning_rate == pytest.approx(1.1576 * compute**-0.1529)
    assert rate.batch_tokens == round(0.0694 * compute**0.3644)
    assert rate.distance == pytest.approx(np.log10(compute / 3e20))
    step = next(rate for rate in rates_of(design) if rate.rule == "steplaw2025")
    assert step.learning_rate < rate.learning_rate / 2


def test_a_rule_with_an_unknown_range_has_no_distance() -> None:
    design = Design.of(load_preset("olmoe-1b-7b"), np.array([5e12]), 4096)
    by_rule = {rate.rule: rate for rate in rates_of(design)}
    assert by_rule["ludziejewski2025-lr"].distance is None
    assert by_rule["ludziejewski2025-lr"].batch_tokens is None


def test_a_plan_gives_the_first_rate_and_all_of_them() -> None:
    space = Space(d_model=(1024,), n_layers=(12, 16), n_experts=(16,), top_k=(1,), vocab_size=32000)
    found = plan(Budget(flops=1e20), ["ludziejewski2025"], space)
    assert found.best.learning_rate == found.best.rates[0].learning_rate
    plain = found.to_dict()
    assert [rate["rule"] for rate in plain["rates"]] == [rate.rule for rate in found.best.rates]
    assert set(plain["rates"][0]) == {
        "rule", "title", "learning_rate", "batch_tokens", "inputs", "ranges", "distance", "intervals"
    }  # fmt: skip


def test_a_rate_far_from_those_of_released_models_of_its_size_is_marked() -> None:
    rows = released_rates(37e9, 671e9, True)
    known = [row["learning_rate"] for row in rows]
    assert apart_from_released(min(known) / 2.9, 37e9, rows) == apart_from_released(max(known) * 2.9, 37e9, rows) == ""
    below = apart_from_released(min(known) / 70, 37e9, rows)
    assert below == "70 times below those of released models of this size"
    assert apart_from_released(max(known) * 10, 37e9, rows).startswith("10 times above")
    assert apart_from_released(1e-9, 1e8, rows) == "", "no released model is of this size"
    rate = rates_of(Design.of(load_preset("deepseek-v3"), np.array([14.8e12]), 4096))[0]
    cells = rule_cells(replace(rate, learning_rate=min(known) / 70), 37e9, rows)
    assert cells[3].endswith("; 70 times below those of released models of this size")
    assert "released" not in rule_cells(replace(rate, learning_rate=min(known)), 37e9, rows)[3]


def test_a_rate_above_any_rule_s_own_runs_is_never_preferred() -> None:
    """37M parameters on 25T tokens: the Step Law extrapolates to 0.5; rules near their runs lead."""
    tiny = load_preset("llama3-8b").replace(d_model=256, n_layers=4, n_heads=4, n_kv_heads=1, d_ff=1024, head_dim=64)
    rates = rates_of(Design.of(tiny, np.array([25e12]), 4096))
    assert sorted(rate.rule for rate in rates) == sorted(FOR_DENSE)
    assert rates[-1].rule == "steplaw2025"
    assert rates[-1].learning_rate > MOST_RATE
    assert all(rate.learning_rate < 2e-3 for rate in rates[:-1])


def test_no_published_rule_exceeds_the_bound_inside_its_own_runs() -> None:
    """At every corner of its ranges."""
    for name in {*FOR_MOE, *FOR_DENSE}:
        rule = get_rule(name)
        if any(rule.ranges.get(need) is None for need in rule.needs):
            continue
        for corner in product(*(rule.ranges[need] for need in rule.needs)):
            given = dict(zip(rule.needs, corner, strict=True))
            assert float(np.ravel(rule.apply(**given)["learning_rate"])[0]) <= MOST_RATE / 4 * 1.01, name
