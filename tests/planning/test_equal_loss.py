"""The dense model of equal loss against bisection, and designs side by side under one traffic."""

import numpy as np
import pytest

import moelab
from moelab.architecture import count_parameters, load_preset
from moelab.errors import InputError
from moelab.laws import Design, get_law
from moelab.planning.baselines import dense_baseline
from moelab.planning.equal_loss import equal_loss_dense
from moelab.planning.given_laws import predictors_of

JOINT = "ludziejewski2025"


def bisected(preset: str, tokens: float) -> float:
    """The size at which the joint law gives a dense model the MoE's loss: one built model after the other."""
    law = get_law(JOINT)

    def loss(model: moelab.ModelConfig) -> float:
        return float(law.loss(None, law.read(Design.of(model, tokens, 4096)).variables)[()])

    moe = load_preset(preset)
    target = loss(moe)
    low, high = 1e8, 1e12
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if loss(dense_baseline(moe, round(middle))) > target else (low, middle)
    return float(np.sqrt(low * high))


def test_the_size_is_that_of_bisection() -> None:
    part = (load_preset("olmoe-1b-7b"), 5e11, 5e11)
    dense, sizes = equal_loss_dense(part, 4096, predictors_of([JOINT]))
    assert sizes[JOINT] == pytest.approx(bisected("olmoe-1b-7b", 5e11), rel=0.02)
    assert count_parameters(dense).params_total == pytest.approx(sizes[JOINT], rel=0.01)


def test_the_comparison_reaches_the_loss_on_the_same_tokens() -> None:
    result = moelab.compare("olmoe-1b-7b", flops=1e22, equal=["loss", "tokens"], laws=[JOINT])
    moe, dense = result.sides
    assert dense.config.moe is None
    assert dense.tokens == moe.tokens
    assert dense.loss[JOINT].value == pytest.approx(moe.loss[JOINT].value, abs=1e-3)
    assert moe.params_active < dense.params_total < moe.params_total
    assert dense.train_flops > moe.train_flops
    assert result.to_dict()["equal_loss_params"].keys() == {JOINT}
    assert any("reaches the loss of olmoe-1b-7b on the same tokens with" in line for line in result.notes())


def test_of_several_laws_the_median_is_shown() -> None:
    result = moelab.compare("mixtral-8x7b", flops=1e23, equal="loss", laws=[JOINT, "abnar2025", "hoffmann2022"])
    assert result.equal_loss_params is not None
    assert set(result.equal_loss_params) == {JOINT, "abnar2025"}
    middle = np.exp(np.mean(np.log(list(result.equal_loss_params.values()))))
    assert result.sides[1].params_total == pytest.approx(middle, rel=0.01)


@pytest.mark.parametrize(
    ("designs", "options", "line"),
    [
        (("llama3-8b",), {}, "equal loss: goes with one MoE design"),
        (("mixtral-8x7b", "olmoe-1b-7b"), {}, "equal loss: goes with one MoE design"),
        (("mixtral-8x7b",), {"laws": ["hoffmann2022"]}, "equal loss: no law finds a dense model of this loss"),
    ],
)
def test_what_has_no_dense_model_of_equal_loss_is_refused(designs: tuple[str, ...], options: dict, line: str) -> None:
    with pytest.raises(InputError, match=line):
        moelab.compare(*designs, equal="loss", **options)


def test_sides_are_served_under_the_given_traffic() -> None:
    traffic = {"prompt": 3000, "output": 600, "tpot": "40ms", "precision": "fp8", "kv_precision": "fp8", "gpus": 2}
    sides = moelab.compare("mixtral-8x7b", "llama3-8b", hardware="h200", gpu_price=3.0, **traffic).sides
    for side in sides:
        own = moelab.serving_cost(side.config, "h200", gpu_price=3.0, **traffic)
        assert side.serving is not None
        assert side.serving["cost_per_million_tokens"] == own.cost_per_million_tokens
        assert side.serving["gpus"] == 2


def test_a_design_that_cannot_be_served_leaves_the_others_their_price() -> None:
    result = moelab.compare("mixtral-8x7b", "llama3.1-405b", hardware="h200", gpus=1, laws=[JOINT])
    rows = {row[0]: row[1:] for row in result.rows()}
    assert rows["$ per million tokens, 80 %"][1] == "-"
    assert rows["$ per million tokens, 80 %"][0] != "-"
    assert any(line.startswith("llama3.1-405b: not served within the limits: gpus") for line in result.warnings)
    with pytest.raises(InputError, match="gpus: 1 x NVIDIA H200"):
        moelab.compare("llama3.1-405b", "llama3.1-405b", hardware="h200", gpus=1, laws=[JOINT])


@pytest.mark.parametrize("option", ["prompt", "output", "tpot", "ttft", "gpus", "gpu_price"])
def test_options_of_serving_need_devices(option: str) -> None:
    with pytest.raises(InputError, match=f"{option}: needs hardware"):
        moelab.compare("mixtral-8x7b", "llama3-8b", **{option: 1})
