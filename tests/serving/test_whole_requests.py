"""A request lies on one device under expert parallelism: no answer is faster than its own prompt allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moelab.architecture import Shape, load_preset
from moelab.architecture.memory import kv_elements
from moelab.errors import InputError
from moelab.serving import Traffic, load_hardware, serve, serve_one
from moelab.serving.batch import largest_batch
from moelab.serving.layout import Layout
from moelab.serving.loaded_step import step_of
from moelab.serving.prompts import prompt_time
from moelab.serving.work import load_of

MODELS = ("deepseek-v3", "qwen3-235b-a22b", "gpt-oss-120b", "qwen3-30b-a3b", "llama4-maverick", "llama3-8b")
DEVICES = ("h100", "h200", "b200", "gb200", "mi300x", "h20", "tpu-v6e")
TRAFFICS = st.builds(
    Traffic,
    prompt=st.sampled_from([1, 500, 2000, 8192, 8193, 32000, 120000, 500000]),
    output=st.sampled_from([1, 2, 8, 64, 200, 1000, 8192]),
    precision=st.sampled_from(["bf16", "fp8"]),
    cached=st.sampled_from([0.0, 0.5]),
    draft=st.just(0),
)
LAYOUTS = st.sampled_from(
    [Layout(gpus, expert) for gpus in (1, 2, 8, 16, 64, 72) for expert in (False, True)]
    + [Layout(gpus, True, True) for gpus in (16, 64, 72)]
)


@settings(max_examples=150)
@given(st.sampled_from(MODELS), st.sampled_from(DEVICES), TRAFFICS, LAYOUTS, st.integers(0, 12))
def test_prompts_take_their_share_of_a_device(
    preset: str, name: str, traffic: Traffic, layout: Layout, octave: int
) -> None:
    model, device, batch = load_preset(preset), load_hardware(name), np.array([2.0**octave])
    load = load_of(Shape.of(model), traffic, device)
    steps = step_of(load, layout, device, traffic)
    seconds = float(steps.seconds(batch)[0])
    first = float(prompt_time(load, layout, traffic, steps)[0])
    # The time of one prompt is no more than that of the whole answer.
    assert first <= traffic.output * seconds * (1 + 1e-9)
    # The busiest device reads the prompts of its own requests: the arithmetic, the activations and the exchanges of
    # those begun in a second take at most a second. Fixed costs and weights are shared by prompts read together.
    begun = max(float(batch[0]) / layout.ranks, 1.0) / traffic.output / seconds
    alone = step_of(load, layout, device, traffic.replace(prompt=0))
    computing = load.prompt_scores * layout.scores_share(load) + load.activations + alone.dense * layout.ranks
    each = np.maximum(computing, alone.moved) if layout.overlapped else computing + alone.moved
    assert begun * traffic.reads * float(each[0]) <= 1 + 1e-9


@settings(max_examples=40)
@given(st.sampled_from(MODELS[:5]), st.sampled_from(("h200", "b200")), TRAFFICS, st.sampled_from([None, 0.02, 0.05]))
def test_no_answer_ends_before_its_first_token(preset: str, name: str, traffic: Traffic, tpot: float | None) -> None:
    limited = traffic if tpot is None else traffic.replace(tpot=tpot)
    cost = serve(load_preset(preset), limited, load_hardware(name))
    if cost.feasible[0]:
        token, first = float(cost.time_per_output_token[0]), float(cost.time_to_first_token[0])
        # A request stays for so long (Little's law), its prompt included.
        stay = float(cost.batch[0] / cost.tokens_per_second[0]) * traffic.output
        assert first - token <= stay * (1 + 1e-9)
        assert token * traffic.output <= stay * (1 + 1e-9)


def test_a_step_grows_with_the_batch_and_is_continuous_where_devices_fill() -> None:
    model, device = load_preset("qwen3-235b-a22b"), load_hardware("h200")
    traffic = Traffic(prompt=32000, output=200, precision="fp8")
    load = load_of(Shape.of(model), traffic, device)
    steps = step_of(load, Layout(8, True), device, traffic)
    seconds = [float(steps.seconds(np.array([batch]))[0]) for batch in (1.0, 2.0, 7.999999, 8.0, 8.000001, 9.0)]
    assert seconds == sorted(seconds)
    assert seconds[2] == pytest.approx(seconds[4], rel=1e-5)
    # One request alone waits for the device that holds it, and eight take hardly longer than one.
    assert seconds[3] < 1.6 * seconds[0]


def test_a_cache_that_exceeds_a_device_is_refused_under_expert_parallelism() -> None:
    model, device = load_preset("qwen3-235b-a22b"), load_hardware("h200")
    asked = {"precision": "fp8", "gpus": 8, "batch": 1, "prompt": 1_000_000, "output": 1000}
    assert kv_elements(model, 1_000_000) * 2 > device.memory
    assert serve_one(model, Traffic.parse(asked), device)["parallel"] == "tensor"
    with pytest.raises(InputError, match=r"parallel: expert keeps a request's whole cache .* on one device"):
        serve_one(model, Traffic.parse(asked | {"parallel": "expert"}), device)


def test_devices_hold_whole_requests() -> None:
    model, device = load_preset("qwen3-235b-a22b"), load_hardware("h200")
    traffic = Traffic(precision="fp8", prompt=200_000, output=1000)
    load = load_of(Shape.of(model), traffic, device)
    layout = Layout(8, True)
    batch = largest_batch(load, layout, traffic, device).largest[0]
    memory, share = device.capacity
    room = memory - share * layout.weights(load)[0]
    assert batch == 8 * (room // load.kv_bytes[0]) > 0


def test_long_prompts_of_few_requests_take_tensor_parallelism() -> None:
    model, device = load_preset("qwen3-235b-a22b"), load_hardware("h200")
    traffic = Traffic(precision="fp8", gpus=8, prompt=120_000, output=200, tpot="52ms")
    cost = serve_one(model, traffic, device)
    assert cost["parallel"] == "tensor"
    assert cost["time_per_output_token"] <= 0.052
    # Expert parallel reads the prompt on one device: a request alone stays over five times as long.
    alone = serve_one(model, traffic.replace(parallel="expert"), device)
    assert alone["batch"] == 1
    assert alone["cost_per_million_tokens"] > 5 * cost["cost_per_million_tokens"]
    with pytest.raises(InputError, match="ttft: 10 s cannot be met"):
        serve_one(model, traffic.replace(parallel="expert", ttft="10s"), device)
