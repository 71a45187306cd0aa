"""The vectorised roofline against a dumb one, component by component, and against sampled routing."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moelab.architecture import PRESETS, ModelConfig, Shape, count_flops, count_parameters, load_preset
from moelab.architecture.memory import bytes_of, kv_elements_per_token
from moelab.errors import InputError
from moelab.serving import Hardware, Traffic, load_hardware, serve, serve_one
from moelab.serving.roofline import Layout, distinct_experts, load_of, prompt_time, step_of

H100 = load_hardware("h100")


def dumb_step(model: ModelConfig, traffic: Traffic, device: Hardware, batch: float, gpus: int, expert: bool) -> float:
    """One decode step, every matrix for itself."""
    size, rate, speed = bytes_of(traffic.precision), device.rate(traffic.precision), device.reach
    params, flops = count_parameters(model), count_flops(model, traffic.context)
    experts, top_k = (model.moe.n_experts, model.moe.top_k) if model.moe else (1, 0)
    touched = 1 - (1 - top_k / experts) ** batch
    seconds = 0.0
    for elements, work in (
        (params.attention, flops.attention_projections),
        (params.dense_ffn, flops.dense_ffn),
        (params.shared_experts, flops.shared_experts),
        (params.router, flops.router),
        (model.vocab_size * model.d_model, flops.head),
    ):
        seconds += max(elements * size / speed / (1 if expert else gpus), batch * work / rate / gpus)
    seconds += max(params.experts * touched * size / speed / gpus, batch * flops.experts / rate / gpus)
    cache = kv_elements_per_token(model) * traffic.context * bytes_of(traffic.kv_precision)
    heads = gpus if expert else min(gpus, 1 if model.mla else model.n_kv_heads)
    seconds += max(batch * cache / heads / speed, batch * flops.attention_scores / rate / gpus)
    if gpus == 1:
        return seconds
    between = device.link * device.link_efficiency
    if expert:
        hosts = gpus * (1 - (1 - 1 / gpus) ** top_k) * (gpus - 1) / gpus
        return seconds + 2 * model.n_moe_layers * (batch / gpus * hosts * model.d_model * 2 / between + device.latency)
    moved = batch * model.d_model * 2 * 2 * (gpus - 1) / gpus
    return seconds + 2 * model.n_layers * (moved / between + device.latency)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("batch", [1, 7, 64, 900])
@pytest.mark.parametrize(("gpus", "expert"), [(1, False), (4, False), (4, True)])
def test_steps_match_the_dumb_model(preset: str, batch: int, gpus: int, expert: bool) -> None:
    model, traffic = load_preset(preset), Traffic(precision="fp8")
    load = load_of(Shape.of(model), traffic, H100)
    step = step_of(load, Layout(gpus, expert), H100).seconds(np.array([float(batch)]))[0]
    assert step == pytest.approx(dumb_step(model, traffic, H100, batch, gpus, expert), rel=0.01)


def test_a_prompt_is_bound_by_arithmetic() -> None:
    model, traffic = load_preset("llama3-8b"), Traffic(prompt=2048)
    seconds = prompt_time(load_of(Shape.of(model), traffic, H100), Layout(1), H100, traffic, alone=True)[0]
    flops = count_flops(model, 2048, causal=True)
    assert seconds == pytest.approx((flops.forward - flops.head) * 2048 / H100.rate("bf16"), rel=0.01)


def test_distinct_experts_match_sampled_routing() -> None:
    rng = np.random.default_rng(0)
    experts, top_k, batch = 64, 8, 20
    seen = [len({e for _ in range(batch) for e in rng.choice(experts, top_k, replace=False)}) for _ in range(400)]
    assert float(distinct_experts(experts, top_k, batch)) == pytest.approx(np.mean(seen), rel=0.01)
    assert float(distinct_experts(experts, top_k, 1)) == pytest.approx(top_k)
    uniform = distinct_experts(experts, top_k, np.array(batch), np.full(experts, 3.0))
    assert float(uniform) == pytest.approx(float(distinct_experts(experts, top_k, batch)))
    skewed = distinct_experts(experts, top_k, np.array(batch), 1 / np.arange(1, experts + 1))
    assert float(skewed) < float(uniform)


@pytest.mark.parametrize("preset", PRESETS)
def test_many_shapes_cost_what_one_costs(preset: str) -> None:
    traffic = Traffic(tpot="60ms", precision="fp8")
    one = serve_one(load_preset(preset), traffic, H100)
    shapes = [Shape.of(load_preset(name)) for name in PRESETS]
    columns = {name: np.array([getattr(s, name) for s in shapes]) for name in Shape.__dataclass_fields__}
    many = serve(Shape(**columns), traffic, H100).to_dict(PRESETS.index(preset))
    assert many == one


def test_the_batch_is_the_largest_within_the_limit() -> None:
    model, traffic = load_preset("qwen3-30b-a3b"), Traffic(tpot="30ms", gpus=2, precision="fp8")
    cost = serve_one(model, traffic, H100)
    assert cost["time_per_output_token"] <= 0.030
    more = traffic.model_copy(update={"batch": int(cost["batch"] * 1.02) + 1})
    with pytest.raises(InputError, match="batch"):
        serve_one(model, more, H100)


@given(st.sampled_from(PRESETS[:4]), st.floats(0.02, 0.5), st.floats(1.0, 4.0))
def test_a_looser_limit_is_never_more_expensive(preset: str, tpot: float, looser: float) -> None:
    shape = Shape.of(load_preset(preset))
    tight, loose = (serve(shape, Traffic(tpot=limit, precision="fp8"), H100) for limit in (tpot, tpot * looser))
    assume(tight.feasible[0])
    assert loose.cost_per_million_tokens[0] <= tight.cost_per_million_tokens[0] * 1.02


def test_memory_and_price_add_up() -> None:
    model, traffic = load_preset("olmoe-1b-7b"), Traffic(gpus=1)
    cost = serve_one(model, traffic, H100, gpu_price=3.6)
    cache = cost["batch"] * traffic.context * kv_elements_per_token(model) * 2
    assert cost["memory_bytes"] == pytest.approx(2 * count_parameters(model).params_total + cache)
    assert cost["memory_bytes"] <= 0.9 * 80e9
    assert cost["cost_per_million_output_tokens"] == pytest.approx(1e3 / cost["tokens_per_second"])
    assert cost["cost_per_million_tokens"] * 1280 == pytest.approx(cost["cost_per_million_output_tokens"] * 256)


@pytest.mark.parametrize(
    ("preset", "limits", "message"),
    [
        ("deepseek-v3", {"gpus": 4}, "gpus: 4 x NVIDIA H100 .* nearest feasible value is 32"),
        ("deepseek-v3", {"tpot": "1us"}, "tpot: 0.001 ms cannot be met; the nearest feasible value is"),
        ("llama3-8b", {"ttft": "1us"}, "ttft: 0.001 ms cannot be met"),
    ],
)
def test_impossible_limits_name_the_nearest_value(preset: str, limits: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        serve_one(load_preset(preset), Traffic.parse(limits), H100)


@pytest.mark.parametrize(
    "limits", [{"prompt": -1}, {"output": 0}, {"tpot": "0ms"}, {"precision": "fp2"}, {"imbalance": 0.5}, {"gpu": 1}]
)
def test_bad_traffic_is_refused(limits: dict) -> None:
    with pytest.raises(InputError, match=next(iter(limits))):
        Traffic.parse(limits)


@pytest.mark.parametrize(
    ("preset", "limits"),
    [
        ("olmoe-1b-7b", {"tpot": "1us"}),
        ("olmoe-1b-7b", {"ttft": "1us"}),
        ("olmoe-1b-7b", {"tpot": "1us", "ttft": "1us"}),
        ("mixtral-8x7b", {"tpot": "1us", "ttft": "60ms", "gpus": 8}),
        ("deepseek-v3", {"tpot": "1us", "prompt": 100000}),
        ("olmoe-1b-7b", {"batch": 1000000}),
        ("olmoe-1b-7b", {"batch": 5000, "tpot": "5ms", "gpus": 2}),
    ],
)
def test_the_nearest_values_are_feasible(preset: str, limits: dict) -> None:
    """Every value named is above the true limit, also as printed, and all of them hold together."""
    model = load_preset(preset)
    with pytest.raises(InputError) as error:
        serve_one(model, Traffic.parse(limits), H100)
    named, name = {}, ""
    for part in str(error.value).split("; "):
        if part.startswith("the nearest"):
            named[name] = part.removeprefix("the nearest feasible value is ").replace(",", "")
        else:
            name = part.split(":")[0]
    assert set(named) <= set(limits)
    cost = serve_one(model, Traffic.parse(limits | named), H100)
    assert cost["batch"] == int(named.get("batch", cost["batch"]))


def test_limits_that_only_many_devices_meet_are_met() -> None:
    cost = serve_one(load_preset("olmoe-1b-7b"), Traffic.parse({"tpot": "0.4ms"}), H100)
    assert cost["time_per_output_token"] <= 0.0004
