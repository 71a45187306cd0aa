"""Serving of design 1: values with intervals beside their limits, the probability of each, and what is assumed."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from moelab.planning import Budget, Plan, Space
from moelab.planning.balance import LEAST_BATCH
from moelab.planning.changed import changed_budgets
from moelab.planning.plan import plan
from moelab.planning.plan_page import answer_page
from moelab.planning.served_design import (
    USUAL_TPOT,
    Measure,
    assumptions,
    few_requests,
    measures,
    open_limits,
    served_cells,
    slow_without_limit,
)
from moelab.quantities import format_dollars, format_seconds
from moelab.serving import serve_one


def planned(tiny: Space, **serving: object) -> Plan:
    asked = {"hardware": "h200", "tokens": 1e12, "traffic": {"prompt": 64, "output": 32, "tpot": 0.1}} | serving
    budget = Budget.parse({"flops": 1e18, "train_hardware": "h100", "serving": asked}, "plan")
    return plan(budget, ["ludziejewski2025"], tiny, extrapolate=True)


@pytest.mark.parametrize("limit", [0.7, 1.0, 1.1, 1.4])
def test_the_probability_is_that_of_the_interval(limit: float) -> None:
    row = Measure("time", "s", 1.0, 0.8, 1.25, "tpot", limit)
    deviation = math.log(1.25) / NormalDist().inv_cdf(0.9)
    assert row.met == pytest.approx(NormalDist(0, deviation).cdf(math.log(limit)), rel=1e-6)
    assert row.open == (0.8 < limit < 1.25)
    # The ends of the interval are met with 10 % and 90 %.
    assert Measure("time", "s", 1.0, 0.8, 1.25, "tpot", 1.25).met == pytest.approx(0.9)


def test_without_an_interval_or_limit_there_is_no_probability() -> None:
    assert Measure("time", "s", 1.0, None, None, "tpot", 1.0).met is None
    assert Measure("time", "s", 1.0, 0.8, 1.25).probability == "-"
    assert Measure("time", "s", 1.0, 0.8, 1.25, "tpot", 9.0).probability == "over 99%"


def test_page_and_lines_show_latency_prices_and_traffic(tiny: Space) -> None:
    result = planned(tiny)
    served, wanted = result.best.serving, result.budget.serving
    assert served is not None
    cells = {row[0]: row[1:] for row in served_cells(result.best, wanted)}
    ends = [format_seconds(served[f"time_per_output_token_{end}"]) for end in ("low", "high")]
    assert cells["time per output token"][:3] == [
        format_seconds(served["time_per_output_token"]), f"{ends[0]} to {ends[1]}", "100 ms",
    ]  # fmt: skip
    replica, hours = assumptions(result.budget, result.best)
    assert "prompts of 64 tokens, answers of 32, weights in bf16" in replica
    assert f"{served['batch']} requests at once" in replica
    assert "training, NVIDIA H100 80 GB SXM at $3.64" in hours
    assert "serving, NVIDIA H200 141 GB SXM at $4.95" in hours
    assert "as of 2026-10-24" in hours
    page = answer_page(result, "moelab plan")
    section = next(part for part in page.sections if part.title == "Latency and cost of design 1")
    assert replica in section.text
    assert hours in section.text
    assert section.tables
    facts = {fact.name: fact for fact in page.facts}
    assert "limit 100 ms" in facts["Time per output token"].note
    assert result.best.cost is not None
    assert format_dollars(result.best.cost["lifetime_low"]) in facts["Lifetime cost"].note


def test_a_price_that_is_given_names_no_date_and_a_limit_on_latency_inside_the_interval_warns(tiny: Space) -> None:
    result = planned(tiny, gpu_price=2.0)
    assert "serving, NVIDIA H200 141 GB SXM at $2.00 as given." in assumptions(result.budget, result.best)[1]
    step = measures(result.best, result.budget.serving)[0]
    traffic = {"prompt": 64, "output": 32, "tpot": step.value * 1.0001}
    close = planned(tiny, gpu_price=2.0, traffic=traffic)
    lines = open_limits(close.best, close.budget.serving)
    assert len(lines) == 1
    assert set(lines) <= set(close.warnings)
    assert "time per output token lies inside its 80 % interval" in lines[0]


def test_a_slow_batch_without_a_limit_on_latency_warns_and_the_usual_limit_is_a_what_if(tiny: Space) -> None:
    free = planned(tiny, traffic={"prompt": 64, "output": 32})
    best, wanted = free.best, free.budget.serving
    assert best.serving is not None
    assert wanted is not None
    slow = replace(best, serving=best.serving | {"time_per_output_token": 0.328, "batch": 6917})
    (line,) = slow_without_limit(slow, wanted)
    assert "6,917 requests, and takes 328 ms per output token" in line
    assert slow_without_limit(replace(best, serving=best.serving | {"time_per_output_token": USUAL_TPOT}), wanted) == []
    for name, value in (("tpot", 1.0), ("ttft", 1.0), ("batch", 8), ("max_batch", 8)):
        limited = wanted.replace(traffic=wanted.traffic.replace(**{name: value}))
        assert slow_without_limit(slow, limited) == []
    asked = dict(changed_budgets(free.budget, 0.1))
    usual = asked["a limit of 80 ms per output token"].serving
    assert usual is not None
    assert usual.traffic.tpot == USUAL_TPOT
    assert next(row for row in free.what_if if row["change"] == "a limit of 80 ms per output token")["cost"] > 0


def test_a_limit_on_latency_is_halved_and_doubled(tiny: Space) -> None:
    asked = dict(changed_budgets(planned(tiny).budget, 0.1))
    for word, limit in (("half", 0.05), ("twice", 0.2)):
        serving = asked[f"{word} the limit on the time per output token"].serving
        assert serving is not None
        assert serving.traffic.tpot == pytest.approx(limit)
    assert not any("80 ms" in change for change in asked)


def test_a_limit_that_is_met_with_90_percent_is_a_what_if(tiny: Space) -> None:
    result = planned(tiny)
    served = result.best.serving
    assert served is not None
    factor = served["time_per_output_token_high"] / served["time_per_output_token"]
    change = "the limit of 100 ms per output token met with 90 %"
    sure = dict(changed_budgets(result.budget, 0.1, factor))[change]
    assert sure.serving is not None
    assert sure.serving.traffic.tpot == pytest.approx(0.1 / factor)
    assert any(row["change"] == change for row in result.what_if)
    best = plan(sure, ["ludziejewski2025"], tiny, extrapolate=True).best.serving
    assert best is not None
    step = best["time_per_output_token"]
    assert Measure("", "s", step, step / factor, step * factor, "tpot", 0.1).met >= 0.9 - 1e-6  # type: ignore[operator]


def test_without_devices_nothing_is_assumed(tiny: Space) -> None:
    result = plan(Budget(flops=1e18), ["ludziejewski2025"], tiny, extrapolate=True)
    assert assumptions(result.budget, result.best) == []
    assert served_cells(result.best, None) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.4742, "$1.47"), (23e6, "$23.0M"), (999.9, "$1.00K"), (456.0, "$456"), (0.0, "$0"), (0.01154, "$0.0115"),
     (2.5e-6, "$2.5e-06"), (None, "-"), (-1234.0, "$-1.23K")],
)  # fmt: skip
def test_dollars_have_three_digits(value: float | None, text: str) -> None:
    assert format_dollars(value) == text


def test_requests_longer_than_the_context_are_a_warning(tiny: Space) -> None:
    found = planned(tiny, traffic={"prompt": tiny.seq_len, "output": 1})
    assert sum("exceed the context" in line for line in found.warnings) == 1
    fits = planned(tiny, traffic={"prompt": tiny.seq_len - 1, "output": 1})
    assert not any("exceed the context" in line for line in fits.warnings)


def test_few_requests_are_warned_of_with_what_limits_them(tiny: Space) -> None:
    """Latency limits them where the same devices serve more without the limit; else memory does."""
    result = planned(tiny)
    best, wanted = result.best, result.budget.serving
    assert best.serving is not None
    assert wanted is not None
    assert few_requests(best, wanted, 0.1) == []
    few = replace(best, serving=best.serving | {"batch": 4})
    (late,) = few_requests(few, wanted, 0.34)
    assert late == (
        "the design is served at 4 requests in flight: the limits on latency allow no more, and no design served at 8 "
        "or more has an excess within the 34% allowed; raise them, give more devices (--serve-gpus) or a limit on "
        "parameters"
    )
    assert best.serving["gpus"] == 1
    alone = wanted.replace(traffic=wanted.traffic.replace(gpus=1))
    for memory in np.geomspace(2 * best.memory_bytes, best.memory_bytes / 2, 100):
        full = alone.model_copy(update={"device": wanted.device.model_copy(update={"memory": float(memory)})})
        served = serve_one(best.config, full.traffic, full.device, full.price)
        if served["batch"] < LEAST_BATCH:
            break
    (filled,) = few_requests(replace(best, serving=served), full, None)
    assert filled == (
        f"the design is served at {served['batch']} requests in flight: weights and KV caches nearly fill the devices; "
        "give more devices (--serve-gpus) or a limit on parameters"
    )
    stated = wanted.replace(traffic=wanted.traffic.replace(batch=4))
    assert few_requests(few, stated, None) == []
