"""Prices of a plan carry the intervals and the calibrations of serving and training, through limits and lifetime."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moelab.architecture.memory import kv_bytes, weight_bytes
from moelab.export.plan_files import write_plan
from moelab.files import finite, read_json
from moelab.laws import get_law
from moelab.planning import Budget, Plan, Space
from moelab.planning.costs import cost_of, cost_ratio, price_lines
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.plan import plan
from moelab.planning.request import plan_request
from moelab.planning.served_design import open_limits
from moelab.planning.trained import training_replicates
from moelab.serving import Traffic, load_hardware, serve, serve_one
from moelab.serving.calibration import Z80
from moelab.serving.doubts import doubts
from moelab.serving.replicates import Replicates, serving_replicates
from moelab.serving.training_calibration import training_calibration

SPACE = Space(d_model=[1024], n_layers=[16], n_experts=[64], top_k=[4], n_dense_layers=[0], attention="full")
SUMMARY = {"id", "n_rows", "error", "held_out_by"}


def planned(hardware: str = "h200", **more: Any) -> Plan:
    serving = {"hardware": hardware, "tokens": 1e12, **more.pop("serving", {})}
    return plan(Budget.parse({"flops": 1e21, "serving": serving, **more}), [get_law("ludziejewski2025")], SPACE)


@pytest.fixture(scope="module")
def result() -> Plan:
    return planned()


def test_prices_carry_intervals_and_calibrations(result: Plan) -> None:
    for design in (*result.candidates, result.best_dense, *result.pareto):
        assert design is not None
        plain = design.to_dict()
        serving, cost, training = plain["serving"], plain["cost"], plain["training"]
        assert set(serving["calibration"]) == SUMMARY
        assert serving["calibration"]["id"] == "h200/tensorrt-llm"
        assert cost["calibration"]["serve"] == serving["calibration"]
        assert cost["calibration"]["train"]["id"] == training_calibration().id
        for name in ("train", "serve", "lifetime"):
            assert cost[f"{name}_low"] < cost[name] < cost[f"{name}_high"]
        million = serving["cost_per_million_tokens"]
        assert cost["serve_high"] / cost["serve"] == pytest.approx(serving["cost_per_million_tokens_high"] / million)
        assert cost["train_low"] == pytest.approx(training["dollars_low"])
        assert cost["train_high"] == pytest.approx(training["dollars_high"])


def test_a_plan_names_what_has_no_rows() -> None:
    """The same doubts as `moelab serving`, in its warnings and in its JSON."""
    found = planned(serving={"traffic": {"draft": 1, "acceptance": 0.8}})
    assert found.best.serving is not None
    assert found.best.serving["not_calibrated"] == ["draft", "precision"]
    wanted = found.budget.serving
    assert wanted is not None
    lines = doubts(found.best.config, found.best.serving, wanted.device, wanted.traffic)
    assert sum("not calibrated" in line for line in lines) == 2
    assert set(lines) <= set(found.warnings)


def test_lifetime_adds_independent_errors(result: Plan) -> None:
    cost = result.best.cost
    assert cost is not None
    halves = [cost[f"{name}_high"] - cost[name] for name in ("train", "serve")]
    assert cost["lifetime_high"] - cost["lifetime"] == pytest.approx(math.hypot(*halves))
    assert cost["lifetime_low"] > cost["train_low"] + cost["serve_low"]


def test_a_stated_mfu_has_no_interval(result: Plan) -> None:
    cost = cost_of(2.0, {"predicted": False}, result.best.serving, 1e12)
    assert cost["train_low"] is None
    assert cost["calibration"]["train"] is None
    assert cost["lifetime_high"] == pytest.approx(2.0 + cost["serve_high"])


def test_a_roofline_has_no_interval() -> None:
    result = planned("cpu", mfu=0.4, serving={"gpu_price": 1.0, "traffic": {"precision": "int4"}})
    assert result.best.serving is not None
    assert result.best.cost is not None
    assert result.best.cost["lifetime_low"] is None
    assert result.best.serving["calibration"]["error"] is None
    assert "not calibrated, so without interval" in price_lines(result.best)[1]


@pytest.mark.parametrize("precision", ["mxfp4", "nvfp4"])
def test_plans_serve_block_formats(precision: str) -> None:
    result = planned("b200", precision=precision, serving={"traffic": {"precision": precision}}, max_memory="80GB")
    for design in (*result.candidates, result.best_dense):
        assert design is not None
        config, seq_len = design.config, result.space.seq_len
        needed = weight_bytes(config, precision) + kv_bytes(config, seq_len, precision)
        assert design.memory_bytes == pytest.approx(needed)
        served = serve_one(config, Traffic(precision=precision), load_hardware("b200"))
        assert design.serving is not None
        assert design.serving["cost_per_million_tokens"] == pytest.approx(served["cost_per_million_tokens"])


UNPRICED = ["gb300", "h800", "h20", "mi355x", "tpu-v5p"]


@pytest.mark.parametrize("hardware", UNPRICED)
def test_devices_without_a_price_train_and_serve_without_dollars(hardware: str) -> None:
    assert load_hardware(hardware).price is None
    result = planned(hardware, serving={"tokens": None, "traffic": {"tpot": "50ms"}})
    plain = result.to_dict()["candidates"][0]
    assert plain["cost"]["train"] is plain["training"]["dollars"] is plain["serving"]["cost_per_million_tokens"] is None
    assert plain["training"]["device_hours"] > 0
    notes = [line for line in result.warnings if "no price is known" in line]
    assert len(notes) == 1
    assert load_hardware(hardware).name in notes[0]
    assert notes[0].endswith("give --gpu-price")
    assert "$" not in result.sentence
    assert price_lines(result.best) == []
    assert not any("$" in column for column in result.table()[0])
    assert result.pareto


def test_a_price_of_training_devices_gives_dollars() -> None:
    devices = {"flops": None, "gpus": 64, "days": 3, "train_hardware": "gb300", "serving": None}
    free, paid = (
        plan(Budget.parse(devices | price), [get_law("ludziejewski2025")], SPACE)
        for price in ({}, {"train_gpu_price": 8})
    )
    assert free.best.training is not None
    assert paid.best.training is not None
    assert free.best.training["dollars"] is None
    assert [line for line in free.warnings if line.endswith("give --train-gpu-price")]
    assert paid.best.training["dollars"] == pytest.approx(8 * free.best.training["device_hours"])
    assert paid.best.cost is not None
    assert paid.best.cost["train"] == pytest.approx(paid.best.training["dollars"])
    assert not any("no price is known" in line for line in paid.warnings)


@pytest.mark.parametrize(
    ("train", "serving_price", "kept"), [(None, 2.0, {"train", "serve", "lifetime"}), ("h100", None, {"train"})]
)
def test_a_cost_has_the_prices_that_are_known(train: str | None, serving_price: float | None, kept: set[str]) -> None:
    serving = {"gpu_price": serving_price, "traffic": {"tpot": "50ms"}}
    cost = planned("gb300", train_hardware=train, objective="loss", serving=serving).best.cost
    assert cost is not None
    assert {name for name in ("train", "serve", "lifetime") if cost.get(name) is not None} == kept


def test_training_alone() -> None:
    assert cost_of(2.0, None, None, None) == {
        "train": 2.0, "train_low": None, "train_high": None, "calibration": {"train": None}
    }  # fmt: skip


def test_the_lines_name_calibrations_and_errors(result: Plan) -> None:
    prices, sources = price_lines(result.best)
    assert result.best.serving is not None
    used = result.best.serving["calibration"]
    assert (
        f"Calibrations: serving, h200/tensorrt-llm, {used['n_rows']} rows, held-out error {used['error']:.0%}"
        in sources
    )
    assert all(f"{word} $" in prices for word in ("training", "serving", "lifetime"))
    alone = replace(result.best, serving=None, cost=cost_of(2.0, result.best.training, None, None))
    assert price_lines(alone)[0].startswith("Prices of design 1 with 80 % intervals: training $2.00 [")
    assert price_lines(replace(result.best, serving=None, cost=None)) == []


def test_a_limit_inside_the_interval_is_a_warning(result: Plan) -> None:
    assert result.best.serving is not None
    price = result.best.serving["cost_per_million_tokens"]
    near = planned(serving={"max_price": price * 1.01})
    assert near.best.serving is not None
    assert near.best.serving["cost_per_million_tokens"] <= price * 1.01
    assert sum("price per million tokens lies inside its 80 % interval" in line for line in near.warnings) == 1
    wanted = near.budget.serving
    assert wanted is not None
    assert len(open_limits(near.best, wanted)) == 1
    assert open_limits(near.best, wanted.replace(max_price=price * 10)) == []
    assert open_limits(near.best, wanted.replace(max_price=None)) == []


@pytest.fixture(scope="module")
def designs() -> tuple[Lattice, list[Replicates]]:
    """Three designs, few large experts and many small ones, with the replicates of their training and serving."""
    space = Space(
        d_model=[2048], n_layers=[24], n_experts=[16, 64, 128], top_k=[8], n_dense_layers=[0], attention="full"
    )
    lattice = enumerate_designs(space).take([0, 1, 2])
    budget = Budget.parse({"gpus": 64, "days": 30, "train_hardware": "h100"})
    traffic, device = Traffic(gpus=4), load_hardware("h200")
    train = training_replicates(lattice, budget)
    serve_ = serving_replicates(lattice.shape, serve(lattice.shape, traffic, device), traffic, device)
    assert train is not None
    assert serve_ is not None
    assert training_replicates(lattice, budget.replace(mfu=0.3)) is None
    return lattice, [train, serve_]


def test_a_ratio_of_costs_is_known_better_than_the_costs(designs: tuple[Lattice, list[Replicates]]) -> None:
    train, serve_ = designs[1]
    costs = [{"train": t, "serve": s, "lifetime": t + s} for t, s in ((1.0, 4.0), (1.2, 3.0), (1.2, 3.0))]
    both = cost_ratio(costs, 0, 1, train, serve_)
    assert both.value == pytest.approx(5 / 4.2)
    assert both.low is not None
    assert both.high is not None
    assert both.low < both.value < both.high
    parts = train.variance(0, 1, 0.2, 1.2 / 4.2) + serve_.variance(0, 1, 0.8, 3 / 4.2)
    assert math.log(both.high / both.value) == pytest.approx(Z80 * math.sqrt(parts))
    assert both.value / both.low == pytest.approx(both.high / both.value)
    exact = cost_ratio(costs, 0, 1)
    assert (exact.low, exact.high) == (exact.value, exact.value)
    same = cost_ratio(costs, 1, 1, train, serve_)
    assert same.low == pytest.approx(1)
    only = cost_ratio([{"train": 2.0}, {"train": 1.0}], 0, 1, train, serve_)
    assert only.value == 2
    assert only.high == pytest.approx(2 * math.exp(Z80 * math.sqrt(train.variance(0, 1))))


def not_finite(value: Any, at: str = "plan") -> list[str]:
    """Where plain data holds a number that JSON has not."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in not_finite(inner, f"{at}.{name}")]
    if isinstance(value, list | tuple):
        return [found for place, inner in enumerate(value) for found in not_finite(inner, f"{at}[{place}]")]
    return [at] if isinstance(value, float) and not math.isfinite(value) else []


def test_what_cannot_be_trained_or_served_has_no_price() -> None:
    cost = cost_of(math.inf, None, None, None)
    assert cost["train"] is None
    assert not not_finite(cost)
    serving = {"cost_per_million_tokens": 0.3, "calibration": None}
    cost = cost_of(math.inf, None, serving, 1e12)
    assert cost["serve"] == pytest.approx(3e5)
    assert cost["train"] is None
    assert "lifetime" not in cost
    assert "serve" not in cost_of(2.0, None, serving | {"cost_per_million_tokens": math.inf}, 1e12)


@pytest.mark.parametrize(
    "settings",
    [
        {"serving": {"hardware": "b200", "tokens": 1e12}, "objective": "balance"},
        {"serving": {"hardware": "l40s"}, "train_hardware": "l40s"},
        {"serving": {"hardware": "cpu", "tokens": 1e11}, "objective": "balance"},
        {},
    ],
)
def test_no_plan_holds_a_number_that_json_has_not(settings: dict[str, Any]) -> None:
    budget = Budget.parse({"flops": 1e25, **settings})
    result = plan(budget, [get_law("ludziejewski2025"), get_law("hoffmann2022")], SPACE)
    assert not_finite(result.to_dict()) == []


@pytest.mark.slow
def test_a_laws_own_best_design_that_fits_no_devices_has_no_price(tmp_path: Path) -> None:
    """Two laws put their optimum where no layout of these devices trains it; the plan's files are written all the
    same."""
    options = {"flops": "5e23", "hardware": "b200", "precision": "nvfp4", "gpu_price": "4.1", "max_price": "0.4"}
    options |= {"objective": "balance", "serve_tokens": "2e13", "within": "0.2"}
    result = plan_request(options).plan()
    plain = result.to_dict()
    assert not_finite(plain) == []
    prices = [choice["cost"]["train"] for choice in plain["choices"].values()]
    assert None in prices
    assert any(prices)
    files = write_plan(result, tmp_path / "out")
    assert "plan.json" in files.written
    assert read_json(tmp_path / "out/plan.json") == finite(plain)


@pytest.mark.slow
def test_a_limit_on_latency_that_costs_money_binds() -> None:
    """Among many designs, of which the sensitivities see a sample: a looser limit is cheaper, so the limit binds."""
    serving = {
        "hardware": "h200", "tokens": 2e13,
        "traffic": {"prompt": 3000, "output": 600, "precision": "fp8", "tpot": "20ms"},
    }  # fmt: skip
    asked = {"gpus": 1024, "days": 60, "train_hardware": "h100", "unique_tokens": 12e12, "serving": serving}
    found = plan(Budget.parse(asked), top=1)
    assert {"compute", "serving"} <= set(found.binding)
