"""What no law sees earns no credit: cheap attention buys no tokens for the loss; kinds are priced beside the plan."""

import math

import numpy as np
import pytest

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.architecture.presets import load_preset
from moelab.laws import get_law
from moelab.laws.design import Design
from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import laws_of
from moelab.planning.credit import practice_scores, token_credit
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.other_attention import WINDOWED
from moelab.planning.plan import Planner, plan
from moelab.planning.search import search
from moelab.serving import serve_one

LAW = "ludziejewski2025"

MODEL = {"vocab_size": 32000, "d_model": 2048, "n_layers": 24, "n_heads": 16, "n_kv_heads": 4, "d_ff": 8192}


def with_windows(window: int) -> ModelConfig:
    return ModelConfig.parse(MODEL | {"sliding_window": window, "sliding_pattern": ["window", "full"]})


def test_practice_has_88_times_as_much_width_as_layers() -> None:
    """The dumb way: a model of 12 n d^2 parameters with d = 88 n, and 4 T d FLOPs of scores in each layer."""
    layers = 24.0
    width = 88 * layers
    assert practice_scores(12 * layers * width**2, 4096) == pytest.approx(4 * 4096 * layers * width)


@pytest.mark.parametrize("window", [64, 512, 2048])
def test_windows_buy_no_tokens(window: int) -> None:
    """Whatever the window saves, a design's compute buys as many counted tokens as full attention of practice."""
    model, plain = with_windows(window), ModelConfig.parse(MODEL)
    counted = [float(token_credit(m, 4096)) * 1e21 / count_flops(m, 4096).train for m in (model, plain)]
    reference = practice_scores(count_parameters(plain).params_active_non_embedding, 4096)
    flops = count_flops(plain, 4096)
    least = 1e21 / (flops.train + 3 * max(0.0, float(reference) - float(flops.attention_scores)))
    assert counted == pytest.approx([least, least])


def test_attention_that_costs_more_than_practice_is_paid_in_full() -> None:
    narrow = ModelConfig.parse(MODEL | {"d_model": 1024, "n_layers": 48, "n_heads": 16, "head_dim": 128})
    assert token_credit(narrow, 4096) == 1


def test_a_wide_model_gains_nothing_over_one_of_practices_shape() -> None:
    wide = ModelConfig.parse(MODEL | {"n_layers": 13})
    assert token_credit(wide, 4096) < 1
    assert token_credit(wide, 32768) < token_credit(wide, 4096)


def test_a_plan_with_windows_predicts_no_lower_loss_than_one_with_full_attention() -> None:
    axes = {"d_model": [1024, 2048], "n_layers": [16, 24], "n_experts": [64], "top_k": [8], "head_dim": [128]}
    kinds = {"full": {}, "window": {"sliding_window": [128], "sliding_pattern": [["window", "full"]]}}
    losses = {}
    for kind, own in kinds.items():
        space = Space(**axes, attention=[kind], n_shared_experts=[0], n_dense_layers=[0], **own)  # type: ignore[arg-type]
        ranking = search(enumerate_designs(space), Budget(flops=1e21), predictors_of(laws_of([LAW])))
        losses[kind] = float(np.nanmin(ranking.mean(ranking.ensemble[0])))
    assert losses["window"] >= losses["full"] * (1 - 1e-12)


@pytest.mark.parametrize("name", ["abnar2025", LAW])
def test_dense_layers_and_shared_experts_count_as_width_in_use(name: str) -> None:
    """As much total and active width has the same sparsity, wherever it lies."""
    variable = {"abnar2025": "sparsity", LAW: "expert_ratio"}[name]
    model = load_preset("llama4-maverick")
    assert model.moe is not None
    every = Design.of(model, np.array([1e12]), 4096)
    found = float(get_law(name).read(every).variables[variable][0])
    total = 24 * (128 + 1) * 8192 + 24 * 16384
    used = 24 * (1 + 1) * 8192 + 24 * 16384
    assert found == pytest.approx(total / used if name == LAW else 1 - used / total)
    plain = Design.of(load_preset("qwen3-30b-a3b"), np.array([1e12]), 4096)
    assert get_law(name).read(plain).variables[variable][0] == pytest.approx(16 if name == LAW else 1 - 1 / 16)


def test_other_kinds_of_attention_are_priced_beside_the_plan() -> None:
    space = Space(d_model=(2048,), n_layers=(16, 24), head_dim=(128,), n_experts=(64,), top_k=(8,), vocab_size=32000)
    serving = {"hardware": "h100", "tokens": 1e13, "traffic": {"prompt": 8000, "output": 500, "gpus": 1}}
    found = plan(Budget.parse({"flops": 1e21, "serving": serving}), [LAW], space)
    rows = {row["change"]: row for row in found.what_if if "no law sees" in row["change"]}
    assert len(rows) == 2
    windows = next(row for change, row in rows.items() if "gpt-oss" in change)
    assert found.best.cost is not None
    assert windows["cost_low"] < windows["cost"] < found.best.cost["lifetime"]
    assert windows["params_total"] == found.best.params_total


def test_the_interval_of_such_a_row_holds_the_error_of_training_too() -> None:
    """Half-widths of training and of serving in quadrature, as for every lifetime cost; dense rows name their kind."""
    space = Space(d_model=(2048,), n_layers=(16, 24), head_dim=(128,), kinds=["dense"], vocab_size=32000)
    serving = {"hardware": "h100", "tokens": 1e13, "traffic": {"prompt": 8000, "output": 500, "gpus": 1}}
    machine = {"gpus": 64, "days": 20, "train_hardware": "h100"}
    budget = Budget.parse({**machine, "serving": serving})
    found = plan(budget, [LAW], space)
    row = next(row for row in found.what_if if "gpt-oss" in row["change"])
    cost, wanted = found.best.cost, budget.serving
    assert cost is not None
    assert wanted is not None
    windowed = found.best.config.replace(**WINDOWED)
    served = serve_one(windowed, wanted.traffic, wanted.device, wanted.price)
    for end, sign in (("low", -1), ("high", 1)):
        million = served["cost_per_million_tokens"]
        halves = (cost[f"train_{end}"] - cost["train"], (served[f"cost_per_million_tokens_{end}"] - million) * 1e7)
        assert abs(halves[0]) > 0.1 * cost["train"]
        assert row[f"cost_{end}"] == pytest.approx(row["cost"] + sign * math.hypot(*halves))
    assert row["cost"] == pytest.approx(cost["train"] + million * 1e7)
    assert row["experts"] == "dense"


def test_a_planner_answers_as_plan_does_for_every_budget() -> None:
    space = Space(d_model=(1024, 2048), n_layers=(12, 16, 24), n_experts=(16, 64), top_k=(2, 8), n_shared_experts=(0,))
    planner = Planner([LAW], space)
    for flops in (1e20, 3e20):
        one, other = planner.plan(Budget(flops=flops)), plan(Budget(flops=flops), [LAW], space)
        assert one.to_dict() == other.to_dict()
