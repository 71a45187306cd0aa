"""The published split of compute between tokens and active parameters beside a plan's own."""

import re
from dataclasses import replace
from typing import Any

import pytest

from moelab.planning import Budget, Plan, Space
from moelab.planning.allocation import FEW_TOKENS, allocation_doubts
from moelab.planning.plan import Planner
from moelab.planning.why import why
from moelab.quantities import format_number


@pytest.fixture(scope="module")
def planner() -> Planner:
    """By the published laws, over the default space."""
    return Planner()


def planned(planner: Planner, **asked: Any) -> Plan:
    return planner.begin(Budget.parse(asked)).first


def published(plan: Plan) -> tuple[float, float]:
    """Tokens and active parameters by the paper's formulas; C is without the output head."""
    best = plan.best
    compute = best.train_flops - 6 * best.config.vocab_size * best.config.d_model * best.tokens
    return 5.2232 * compute**0.4905, 0.1915 * compute**0.5095 / 6


def test_the_published_split_of_compute_is_a_doubt_where_it_has_twice_the_tokens(planner: Planner) -> None:
    """M = 0.1915 C^0.5095 and D = 5.2232 C^0.4905 at 1e24: 3.1T tokens on 54B, whatever the plan has."""
    found = planned(planner, flops=1e24)
    best, (tokens, active) = found.best, published(found)
    (line,) = [each for each in found.warnings if "the published allocation" in each]
    assert line == (
        f"the published allocation of tian2025-moe takes {format_number(tokens)} tokens on about "
        f"{format_number(active)} active parameters for this compute (3,320x outside its runs): "
        f"{tokens / best.tokens:.1f} times the tokens of this plan, which has {best.tokens / best.params_active:.3g} "
        f"tokens per active parameter; --min-tokens-per-active {tokens / active:.2g} asks for about that split"
    )
    assert tokens > 2 * best.tokens
    assert not any("published allocation" in each for each in why(found))
    asked = planned(planner, flops=1e24, min_tokens_per_active=57)
    assert asked.best.tokens == pytest.approx(tokens, rel=0.05)
    for asked, end in (
        ({"unique_tokens": 5e11}, "; the data allows 2T"),
        ({"max_tokens": 5e11}, "; the limit on tokens is 500B"),
        ({"max_tokens_per_active": 20}, "; the limit is 20 tokens per active parameter"),
    ):
        assert any(each.endswith(end) for each in planned(planner, flops=1e24, **asked).warnings)


def test_a_space_without_smaller_designs_is_not_sent_to_an_option_that_nothing_fits() -> None:
    narrow = Planner(space=Space(d_model=[4096, 5120], n_layers=[32, 48]))
    (line,) = [each for each in planned(narrow, flops=1e21).warnings if "the published allocation" in each]
    assert line.endswith("; a space with smaller designs may have that split")


def test_a_published_split_of_about_the_plans_tokens_supports_it(planner: Planner) -> None:
    for flops, asked in ((1e20, {}), (1e23, {"max_active": 3e9})):
        found = planned(planner, flops=flops, **asked)
        (line,) = [each for each in why(found) if "published allocation of tian2025-moe" in each]
        (times,) = re.findall(r"this plan has ([\d.]+) times as many tokens", line)
        assert float(times) == pytest.approx(found.best.tokens / published(found)[0], rel=0.02)
        assert not any("published allocation" in each for each in found.warnings)


def test_with_serving_and_below_its_runs_the_published_split_stands_beside_no_plan(planner: Planner) -> None:
    for asked in ({"flops": 1e17}, {"flops": 1e24, "serving": {"hardware": "h200", "tokens": 1e11}}):
        found = planned(planner, **asked)
        assert not any("published allocation" in each for each in (*why(found), *found.warnings))


def test_few_tokens_per_active_parameter_are_warned_of(planner: Planner) -> None:
    found = planned(planner, flops=1e24, serving={"hardware": "h200", "tokens": 1e11})
    assert found.best.tokens / found.best.params_active > FEW_TOKENS
    assert allocation_doubts(found) == []
    few = replace(found, candidates=[replace(found.best, tokens=round(3.6 * found.best.params_active))])
    (line,) = allocation_doubts(few)
    assert line.startswith("3.6 tokens per active parameter are few: compute-optimal dense models have about 20")
    scarcer = replace(found, candidates=[replace(found.best, tokens=round(0.4 * found.best.params_active))])
    assert allocation_doubts(scarcer) == []  # the first sentence has it
