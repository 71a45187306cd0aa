"""Why a released model that the laws put ahead is not the answer: the reason is one that this plan has."""

from dataclasses import replace
from typing import Any

import pytest

from moelab.planning import Budget, Plan, Space
from moelab.planning.plan import plan
from moelab.planning.why_released import ahead_of_design

LAW = "ludziejewski2025"
ROW: dict[str, Any] = {
    "name": "mixtral-8x22b", "params_active": 39e9, "params_total": 141e9, "trained_tokens": None, "tokens": 1e11,
    "excess_compute": -1.45, "extra_nats": -0.1, "laws": [LAW], "of_laws": 1, "cost_per_million_tokens": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def free() -> Plan:
    """Compute alone: no limit and no serving."""
    space = Space(d_model=(2048,), n_layers=(16, 24), n_experts=(64,), top_k=(8,), vocab_size=32000)
    return plan(Budget(flops=1e21), [LAW], space)


@pytest.fixture(scope="module")
def served(free: Plan) -> Plan:
    serving = {"hardware": "h100", "tokens": 1e12, "traffic": {"gpus": 1}}
    return plan(Budget.parse({"flops": 1e21, "serving": serving}), [LAW], free.space)


def reason(found: Plan, **changes: Any) -> str:
    (line,) = ahead_of_design(replace(found, nearest_released=[ROW | changes]))
    return line.partition("as good as design 1. ")[2]


def test_without_a_limit_it_is_the_designs_that_were_searched(free: Plan) -> None:
    assert reason(free).startswith("The designs that were searched do not include it: --near")


def test_the_kind_and_the_laws_are_named(free: Plan) -> None:
    dense = replace(free, space=free.space.replace(kinds=["dense"]))
    assert reason(dense) == "It is not the answer: --kinds dense leaves MoE models out."
    fewer = reason(free, of_laws=3)
    assert fewer == (
        "It is not the answer: only 1 of the 3 laws that cover design 1 covers it, and designs that more laws cover "
        "come first."
    )


def test_limits_that_it_passes_are_named_and_others_only_possible(free: Plan) -> None:
    limited = replace(free, budget=free.budget.replace(max_params=1e11, max_active=1e11))
    assert reason(limited) == "It is not the answer: it is above --max-params."
    other = replace(free, budget=free.budget.replace(max_memory="80GB"))
    assert reason(other) == "The limits leave it out, or the designs that were searched do not include it."


def test_serving_is_a_reason_where_there_is_serving(served: Plan) -> None:
    assert "the serving devices and their limits have no place for it" in reason(served)
    assert served.best.serving is not None
    own = float(served.best.serving["cost_per_million_tokens"])
    assert reason(served, cost_per_million_tokens=2 * own) == "It is not the answer: it costs more to serve."
    assert "limits leave it out, or" in reason(served, cost_per_million_tokens=own / 2)


def test_nothing_is_noted_where_no_model_is_ahead(free: Plan) -> None:
    assert ahead_of_design(replace(free, nearest_released=[ROW | {"excess_compute": 0.2}])) == []
