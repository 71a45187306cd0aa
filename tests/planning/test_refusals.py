"""Budgets without a feasible or meaningful plan are refused in one line with the limit and a value that works."""

import re
from time import process_time
from typing import Any

import pytest

from moelab.errors import InputError
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.budget import Serving
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan
from moelab.planning.search import search

JOINT, ABNAR = get_law("ludziejewski2025"), get_law("abnar2025")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flops": 1e12, "max_params": 1000}, "max_params 1000: no design fits; the nearest feasible value is 43.22K"),
        ({"flops": 10}, "flops 10: no design fits; the nearest feasible value is"),
        ({"flops": 1e12, "max_memory": "1KB"}, "max_memory 1 kB: no design fits; the nearest feasible value is"),
        ({"flops": 1e12, "max_active": 10, "max_params": 10}, "no design fits; max_params 10 must be at least"),
    ],
)
def test_impossible_budgets_name_limit_and_nearest_value(tiny: Space, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(Budget.parse(values), [JOINT], tiny)
    assert message in str(error.value)


def test_the_nearest_price_has_its_unit_and_is_feasible(tiny: Space) -> None:
    def asked(price: float | str) -> Budget:
        return Budget.parse({"flops": 1e12, "serving": {"hardware": "h100", "max_price": price}})

    with pytest.raises(InputError) as error:
        plan(asked(1e-12), [JOINT], tiny)
    (nearest,) = re.findall(r"the nearest feasible value is \$([\d.e-]+) per million tokens$", str(error.value))
    assert len(search(enumerate_designs(tiny), asked(nearest), predictors_of([JOINT])).order)


def test_a_share_may_be_a_percentage() -> None:
    serving = {"hardware": "h100", "tokens": 1e12}
    given = [Budget.parse({"flops": 1e21, "serving": serving, "within": share}) for share in ("10%", "0.1", 0.1)]
    assert [budget.within for budget in given] == [0.1] * 3
    assert Budget.parse({"flops": 1e21, "mfu": "35%"}).mfu == 0.35
    with pytest.raises(InputError, match=r"within: expected a number such as 0\.1 or 10%"):
        Budget.parse({"flops": 1e21, "serving": serving, "within": "10B"})


@pytest.mark.parametrize("field", ["max_params", "max_memory", "flops"])
def test_the_nearest_value_is_feasible(tiny: Space, field: str) -> None:
    from moelab.quantities import parse_bytes

    with pytest.raises(InputError) as error:
        plan(Budget.parse({"flops": 1e12, field: 1000}), [JOINT], tiny)
    nearest = str(error.value).rsplit("value is ", 1)[1].replace(" ", "")
    value = parse_bytes(nearest) if field == "max_memory" else nearest
    budget = Budget.parse({"flops": 1e12, field: value})
    assert len(search(enumerate_designs(tiny), budget, predictors_of([JOINT])).order)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "flops: is required, or gpus, days and train_hardware"),
        ({"flops": 1e21, "gpus": 8}, "contradicts gpus and days"),
        ({"flops": -1}, "flops: input should be greater than 0"),
        ({"flops": "many"}, "flops: expected a number such as 1e21"),
        ({"flops": 1e21, "max_epochs": 4}, "max_epochs: needs unique_tokens"),
        ({"flops": 1e21, "target_loss": 2}, "need the objective"),
        ({"flops": 1e21, "objective": "lifetime-cost"}, "needs target_loss or target_experts"),
        ({"flops": 1e21, "objective": "serving-cost", "target_loss": 2}, "needs serving hardware"),
        ({"flops": 1e21, "precision": "fp3"}, "precision"),
        ({"flops": 1e21, "max_parms": 1}, "unknown key; did you mean 'max_params'?"),
        ({"flops": 1e21, "serving": {"hardware": "h1000"}}, "no such device 'h1000'"),
        ({"flops": 1e21, "mfu": 0}, "mfu: must be a share above 0 such as 0.4, or a table {dense: 0.4, experts: {"),
        ({"flops": 1e21, "mfu": 40}, "mfu: must be a share above 0 such as 0.4, or a table"),
        ({"flops": 1e21, "mfu": 1.2}, "mfu: must be at most 1 of the bf16 peak in bf16 without devices, got 1.2"),
        ({"flops": 1e21, "mfu": "nan"}, "mfu: must be a share above 0 such as 0.4, or a table"),
        ({"flops": 1e21, "mfu": True}, "mfu: must be a share above 0 such as 0.4, or a table"),
        ({"flops": 1e21, "mfu": {"dense": 0.4, "experts": {512: 40}}}, "mfu: experts.512: input should be"),
        ({"flops": 1e21, "mfu": {"dense": 0.4}}, "mfu: experts: is required"),
    ],
)
def test_contradictions_and_numbers_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Budget.parse(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"aspect": [200, 100]}, "aspect"),
        ({"d_model": {"from": 10, "to": 5}}, "expected from <= to"),
        ({"d_model": {"from": 64, "to": 1000000, "step": 1}}, "d_model: 999,937 values, more than the 100,000"),
        ({"n_experts": []}, "n_experts"),
        ({"head_dim": [7]}, "head_dim: must be even"),
        ({"experts": [8]}, "unknown key; did you mean 'n_experts'?"),
    ],
)
def test_bad_spaces(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Space.parse(values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "axes",
    [
        {"d_model": {"from": 64, "to": 20000}, "n_layers": {"from": 1, "to": 100}, "aspect": [1, 20000], "head_dim": 2},
        {"d_model": {"from": 1, "to": 99000}, "n_layers": {"from": 1, "to": 99000}, "aspect": [0.1, 20000]},
        {"n_experts": {"from": 2, "to": 90000}, "top_k": {"from": 1, "to": 90000}},
    ],
)
def test_a_space_too_large_is_refused_before_it_is_written_out(axes: dict[str, Any]) -> None:
    began = process_time()
    with pytest.raises(InputError, match="designs, more than the 20,000,000 that fit in memory"):
        enumerate_designs(Space.parse(axes))
    assert process_time() - began < 10


@pytest.mark.parametrize("axes", [{"d_model": [2**40], "aspect": [1, 1e15]}, {"n_experts": [10**12]}])
def test_a_space_of_designs_beyond_counting_is_refused(axes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="space: the largest design would have over 4e18 parameters"):
        enumerate_designs(Space.parse(axes))


@pytest.mark.parametrize("target", [1e300, 11.1])
def test_a_target_that_guessing_reaches_is_refused(tiny: Space, target: float) -> None:
    serving = Serving.parse({"hardware": "cpu", "tokens": 1e9})
    budget = Budget(flops=3e12, serving=serving, objective="lifetime-cost", target_loss=target)
    with pytest.raises(InputError, match=r"must be below guessing's, ln\(vocab_size\) = 11.1$"):
        plan(budget, [JOINT], tiny)


def test_a_budget_that_is_none_is_named(tiny: Space) -> None:
    with pytest.raises(InputError, match="budget: expected a Budget such as"):
        plan({"flops": 1e12}, [JOINT], tiny)  # type: ignore[arg-type]


def test_a_target_out_of_reach_names_the_nearest(tiny: Space) -> None:
    serving = Serving.parse({"hardware": "cpu", "traffic": {"prompt": 64, "output": 16}})
    budget = Budget(flops=3e12, serving=serving, objective="serving-cost", target_loss=1.4)
    with pytest.raises(InputError, match=r"target_loss 1.4: no design reaches it; the nearest feasible value is \d"):
        plan(budget, [JOINT], tiny)
    with pytest.raises(InputError, match="not comparable; give one of"):
        plan(budget, [JOINT, ABNAR], tiny)
