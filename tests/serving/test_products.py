"""Measured rates of products: a step against one that adds up every product by itself."""

import numpy as np
import pytest

from moelab.architecture import ModelConfig, Shape, count_flops, load_preset
from moelab.errors import InputError
from moelab.serving import Hardware, Traffic, load_hardware
from moelab.serving.doubts import doubts
from moelab.serving.fit_rows import stack
from moelab.serving.layout import Layout
from moelab.serving.loaded_step import step_of
from moelab.serving.products import ProductRates
from moelab.serving.prompts import prompt_time
from moelab.serving.work import load_of

RATES = ProductRates(
    rows=(1, 8, 64, 512), dense=(4e9, 2e10, 5e10, 8e10), experts=(1e9, 8e9, 4e10, 6e10),
    few=16, few_experts=(3e9, 1e10, 2e10, 2e10),
)  # fmt: skip
TRAFFIC = Traffic(prompt=512, output=64, precision="fp32", gpus=1)


def machine(rates: ProductRates | None = RATES) -> Hardware:
    known = load_hardware("h100")
    products = None if rates is None else {"fp32": rates}
    return known.replace(memory=1e15, calibration=known.calibrated().replace(products=products))


def dumb_seconds(rows: float, flops: float, rates: tuple[float, ...]) -> float:
    """Seconds of `flops` per row over so many rows: linear between measured rows, at the last rate beyond them."""
    if rows >= RATES.rows[-1]:
        return flops * rows / rates[-1]
    if rows <= 1:
        return flops / rates[0]
    i = next(i for i, known in enumerate(RATES.rows) if known > rows)
    (low, high), (slow, fast) = RATES.rows[i - 1 : i + 1], rates[i - 1 : i + 1]
    before, after = low / slow, high / fast
    return flops * (before + (after - before) * (rows - low) / (high - low))


def dumb_products(model: ModelConfig, tokens: float) -> float:
    flops = count_flops(model, TRAFFIC.context, decode=True)
    dense = flops.attention_projections + flops.dense_ffn + flops.shared_experts + flops.router
    seconds = dumb_seconds(tokens, dense, RATES.dense)
    if model.moe is None:
        return seconds
    touched = model.moe.n_experts * (1 - (1 - model.moe.top_k / model.moe.n_experts) ** tokens)
    each = tokens * model.moe.top_k / touched
    rates = RATES.few_experts if tokens <= RATES.few else RATES.experts
    assert rates is not None
    return seconds + touched * dumb_seconds(each, flops.experts / model.moe.top_k, rates)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-30b-a3b", "llama3-8b", "deepseek-v3"])
def test_products_are_the_sum_of_their_matrices(name: str) -> None:
    model, device = load_preset(name), machine()
    step = step_of(load_of(Shape.of(model), TRAFFIC, device), Layout(1), device, TRAFFIC)
    for tokens in (1.0, 3.0, 16.0, 17.0, 100.0, 4000.0):
        assert step.products(*[np.array([tokens])] * 2)[0] == pytest.approx(dumb_products(model, tokens), rel=1e-9)


def test_a_prompt_and_a_mixed_step_take_measured_products() -> None:
    model, device = load_preset("qwen3-30b-a3b"), machine()
    load = load_of(Shape.of(model), TRAFFIC, device)
    step = step_of(load, Layout(1), device, TRAFFIC)
    alone = load.fixed + 512 * (load.activations + load.prompt_scores)
    assert prompt_time(load, Layout(1), TRAFFIC, step)[0] == pytest.approx(
        float(alone[0]) + dumb_products(model, 512), rel=1e-9
    )
    head = 2.0 * model.vocab_size * model.d_model
    rest = float((load.fixed + 8 * step.linear)[0]) + dumb_seconds(8, head, RATES.dense)
    mixed = 7 / 8 * dumb_products(model, 8) + dumb_products(model, 8 + 512) / 8
    assert step.seconds(np.array([8.0]))[0] == pytest.approx(rest + mixed, rel=1e-9)


def test_rates_lie_between_those_of_measured_widths() -> None:
    """A rate of an expert's width against the two nearest measured ones, by hand; at one of them it is that one."""
    wide = {"width": 1024, "experts": (2e9, 1.2e10, 5e10, 7e10), "few_experts": (4e9, 1.5e10, 3e10, 3e10)}
    small = {"width": 256, "experts": (5e8, 4e9, 2e10, 3e10), "few_experts": (2e9, 6e9, 1e10, 1e10)}
    more = ProductRates.parse(RATES.model_dump() | {"expert_width": 512, "other_widths": [wide, small]}, "products")
    tokens, each = np.array([4.0, 100.0]), np.array([8.0, 64.0])
    for width, few, many in ((512, 1e10, 4e10), (1024, 1.5e10, 5e10), (4096, 1.5e10, 5e10), (64, 6e9, 2e10)):
        assert more.experts_at(tokens, each, np.full(2, float(width))) == pytest.approx([few, many])
    assert more.experts_at(tokens, each, np.full(2, 724.077)) == pytest.approx(
        [(1e10 * 1.5e10) ** 0.5, (4e10 * 5e10) ** 0.5], rel=1e-4
    )
    assert more.experts_at(tokens, each, np.array([256.0, 1024.0])) == pytest.approx([6e9, 5e10])


def test_a_step_takes_the_width_of_its_experts() -> None:
    """The square root of width times expert width, for each design; one measured width serves all."""
    wide = {"width": 8192, "experts": RATES.experts, "few_experts": RATES.few_experts}
    rates = ProductRates.parse(RATES.model_dump() | {"expert_width": 1024, "other_widths": [wide]}, "products")
    shape = stack([load_preset("mixtral-8x7b"), load_preset("qwen3-30b-a3b"), load_preset("llama3-8b")])
    step = step_of(load_of(shape, TRAFFIC, machine(rates)), Layout(1), machine(rates), TRAFFIC)
    assert step.measured is not None
    assert step.measured.widths == pytest.approx([(4096 * 14336) ** 0.5, (2048 * 768) ** 0.5, 1.0])
    taken = step.take(np.array([1])).measured
    assert taken is not None
    assert taken.widths == pytest.approx([(2048 * 768) ** 0.5])
    plain = step_of(load_of(shape, TRAFFIC, machine()), Layout(1), machine(), TRAFFIC)
    tokens = np.full(3, 40.0)
    assert step.products(tokens, tokens) == pytest.approx(plain.products(tokens, tokens), rel=1e-9)


def test_other_precisions_keep_shares_of_peak() -> None:
    traffic = TRAFFIC.replace(precision="bf16")
    shape = Shape.of(load_preset("mixtral-8x7b"))
    steps = [step_of(load_of(shape, traffic, d), Layout(1), d, traffic) for d in (machine(), machine(None))]
    assert steps[0].measured is None
    assert steps[0].seconds(np.array([5.0]))[0] == steps[1].seconds(np.array([5.0]))[0]


def test_a_precision_that_was_not_measured_is_named() -> None:
    model, cost = load_preset("mixtral-8x7b"), {"parallel": "one device", "overlapped": False, "gpus": 1}
    assert doubts(model, cost, machine(), TRAFFIC) == []
    (line,) = doubts(model, cost, machine(), TRAFFIC.replace(precision="int4"))
    assert line.startswith("not calibrated: products in int4 were not measured (fp32 were)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": (1, 8, 8, 512)}, "rows: must ascend"),
        ({"dense": (1e9, 2e9)}, "dense: needs one rate for each of the 4 rows"),
        ({"few_experts": None}, "few_experts: goes with few"),
        ({"experts": (1e9, -1.0, 1e9, 1e9)}, "experts"),
        ({"other_widths": [{"width": 8, "experts": (1e9,) * 4}]}, "other_widths: needs expert_width"),
        (
            {"expert_width": 4, "other_widths": [{"width": 8, "experts": (1e9,) * 4}]},
            "other_widths: few_experts goes with few",
        ),
        (
            {"expert_width": 4, "other_widths": [{"width": 8, "experts": (1e9,) * 3, "few_experts": (1e9,) * 4}]},
            "experts: needs one rate for each of the 4 rows",
        ),
    ],
)
def test_bad_rates_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProductRates.parse(RATES.model_dump() | change, "products")
