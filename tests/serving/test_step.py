"""The vectorised roofline against a dumb one, component by component, and against sampled routing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters, load_preset
from moelab.architecture.memory import bytes_of, kv_elements
from moelab.errors import InputError
from moelab.serving import INTERVALS, Hardware, Traffic, load_hardware, serve, serve_one
from moelab.serving.doubts import uneven_heads
from moelab.serving.layout import Layout, communication
from moelab.serving.loaded_step import step_of
from moelab.serving.prompts import prompt_time, reading_time
from moelab.serving.serving_cost import serving_cost
from moelab.serving.step import distinct_experts
from moelab.serving.work import Load, load_of

H100 = load_hardware("h100")
MODELS = ("deepseek-v3", "gpt-oss-120b", "llama3-8b", "mixtral-8x7b", "qwen3-30b-a3b")
"""Latent and grouped attention, windows, dense and MoE."""


def dumb_step(model: ModelConfig, traffic: Traffic, device: Hardware, batch: float, gpus: int, expert: bool) -> float:
    """The mean step: in large groups the faster of one batch, and of two halves that hide each other's exchanges."""
    ways = (1, 2) if expert and gpus > min(device.node, 8) else (1,)
    return min(dumb_way(model, traffic, device, batch, gpus, expert, halves) for halves in ways)


def dumb_way(
    model: ModelConfig, traffic: Traffic, device: Hardware, batch: float, gpus: int, expert: bool, halves: int
) -> float:
    """The mean step in one batch or in two halves, every term for itself."""
    found = device.calibrated()
    c, slow = found.coefficients, found.slowdown
    size, kv_size = bytes_of(traffic.precision), bytes_of(traffic.kv_precision)
    rate, expert_rate = (
        device.peak(traffic.precision) * c.matmul / slow,
        device.peak(traffic.precision) * c.experts / slow,
    )
    reach, attention = device.bandwidth * c.bandwidth / slow, device.bf16 * c.attention / slow
    params, flops = count_parameters(model), count_flops(model, traffic.context, decode=True)
    own = 1 if expert else gpus
    # Expert parallel: the busiest device holds whole requests, and reads their prompts alone.
    held = max(batch / gpus, 1.0) if expert else batch
    head = model.vocab_size * model.d_model

    # Two half batches, one of which computes while the other is sent, read every weight and launch every kernel twice.
    def products(tokens: float, on_one: float) -> float:
        return halves * of_half(tokens / halves, on_one / halves)

    def of_half(tokens: float, on_one: float) -> float:
        """Experts on the tokens of all; dense matrices on those of the busiest, or of all on a part of the matrices."""
        others = params.attention + params.dense_ffn + params.shared_experts + params.router + params.norm
        work = flops.attention_projections + flops.dense_ffn + flops.shared_experts + flops.router
        seconds = max(others * size / reach / own, on_one * work / rate / own)
        if model.moe is None:
            return seconds
        experts, top_k = model.moe.n_experts, model.moe.top_k
        touched = 1 - (1 - top_k / experts) ** tokens
        rows = tokens * top_k + touched * experts * c.padding
        uneven = c.imbalance if expert else 1.0
        computing = rows * (flops.experts / top_k) / expert_rate / gpus * uneven
        return seconds + max(computing, touched * params.experts * size / reach / gpus)

    pieces = -(-traffic.prompt // 8192)
    prompts, prompts_of_one = batch / traffic.output, held / traffic.output
    share = min(1.0, prompts * pieces)
    # A prompt of more pieces than the answer has tokens takes further steps.
    steps = max(1.0, pieces / traffic.output)
    seconds = (1 - share) * products(batch, held)
    if share:
        all_tokens = batch + prompts * traffic.prompt / share
        seconds += (
            share * steps * products(all_tokens / steps, (held + prompts_of_one * traffic.prompt / share) / steps)
        )
    seconds += max(head * size / reach / own, held * 2 * head / rate / own)
    cached = kv_elements(model, traffic.context) * kv_size
    kv_heads = 1 if model.mla else model.n_kv_heads
    busiest = max(len(range(device_number, kv_heads, gpus)) for device_number in range(gpus)) / kv_heads
    on_one, scored = (1.0, 1.0) if expert else (busiest, busiest if kv_heads > gpus else 1 / gpus)
    bandwidth = device.bandwidth * (c.latent_cache if model.mla else c.cache) / slow
    extra = prompts_of_one * traffic.prompt
    seconds += held * max(cached * on_one / bandwidth, flops.attention_scores / attention * scored)
    seconds += extra * count_flops(model, max(traffic.prompt, 1), causal=True).attention_scores / attention * scored
    seconds += held * c.request * slow
    seconds += (held + extra) * model.n_layers * model.d_model * 2 * c.passes / reach
    kernels = model.n_layers * (10 + 6 * (model.mla is not None)) + 8 * model.n_moe_layers
    seconds += (halves * kernels * c.kernel + c.step) * slow * steps
    if gpus == 1:
        return seconds
    nodes = -(-gpus // device.node)
    link, network = device.between(min(gpus, device.node)) * c.link / slow, device.network * c.link / slow
    latency = c.collective * slow
    if not expert:
        # A ring through all devices leaves each node once: the node's whole network carries it.
        bus = link if nodes == 1 else min(link, network * gpus / nodes)
        climbed = len([1 for doubled in range(10) if 2**doubled < nodes])
        moved = (batch + prompts * traffic.prompt) * model.d_model * 2 * 2 * (gpus - 1) / gpus
        return seconds + 2 * model.n_layers * (moved / bus + (latency + 2 * climbed * 5e-6) * steps)
    top_k = model.moe.top_k if model.moe else 0
    gathered = max(gpus, device.node) <= 8
    each = (gpus - 1) * (1 if gathered else 1 - (1 - 1 / gpus) ** top_k) / link
    if nodes > 1:
        # Once to each other node with one of the token's experts, which sends it on.
        each = max(each, (nodes - 1) * (1 - (1 - 1 / nodes) ** top_k) / network)
        latency += 5e-6
    exchanged = 2 * model.n_moe_layers * ((held + extra) * model.d_model * 2 * each + halves * latency * steps)
    return max(seconds, exchanged) if halves == 2 else seconds + exchanged


@pytest.mark.parametrize("preset", MODELS)
@pytest.mark.parametrize(
    ("batch", "prompt", "output"), [(1, 0, 256), (7, 1024, 256), (64, 20000, 256), (900, 1024, 256), (2, 120000, 8)]
)
@pytest.mark.parametrize(("gpus", "expert"), [(1, False), (4, False), (4, True), (20, True)])
@pytest.mark.parametrize("name", ["h100", "mi300x", "gb200"])
def test_steps_match_the_dumb_model(
    preset: str, batch: int, prompt: int, output: int, gpus: int, expert: bool, name: str
) -> None:
    model, device = load_preset(preset), load_hardware(name)
    traffic = Traffic(precision="fp8", prompt=prompt, output=output)
    load = load_of(Shape.of(model), traffic, device)
    ways = [Layout(gpus, expert), Layout(gpus, expert, True)] if expert and gpus > 8 else [Layout(gpus, expert)]
    assert ways[0].may_overlap(device) is (len(ways) == 2)
    step = min(step_of(load, way, device, traffic).seconds(np.array([float(batch)]))[0] for way in ways)
    assert step == pytest.approx(dumb_step(model, traffic, device, batch, gpus, expert), rel=1e-6)


@pytest.mark.parametrize("preset", ["deepseek-v3", "llama3-8b", "qwen3-30b-a3b"])
@pytest.mark.parametrize(("prompt", "output"), [(1024, 256), (100000, 100), (120000, 8), (0, 64)])
@pytest.mark.parametrize("layout", [Layout(1), Layout(8), Layout(8, True), Layout(16, True, True)], ids=str)
def test_a_request_does_not_wait_for_its_own_prompt_between_its_tokens(
    preset: str, prompt: int, output: int, layout: Layout
) -> None:
    """Engines report (end of the answer - first token) / (tokens - 1); with one request that is decoding alone."""
    model, traffic = load_preset(preset), Traffic(precision="fp8", prompt=prompt, output=output)
    load = load_of(Shape.of(model), traffic, H100)
    step, alone = (step_of(load, layout, H100, traffic, mixed=mixed) for mixed in (True, False))
    one = np.array([1.0])
    assert step.token_seconds(one)[0] == pytest.approx(float(alone.seconds(one)[0]), rel=1e-3)
    for batch in (1.0, 2.0, 7.0, 64.0, 1000.0):
        requests = np.array([batch])
        seconds, token = (float(time[0]) for time in step.times(requests))
        decoding = float(alone.seconds(requests)[0])
        assert decoding * (1 - 1e-3) <= token <= seconds
        # Of b prompts that are read in the time of an answer, a request waits for b - 1.
        assert token - decoding == pytest.approx((seconds - decoding) * (1 - 1 / batch), rel=0.02, abs=1e-3 * decoding)


@pytest.mark.parametrize("gpus", [2, 5, 8, 16])
@pytest.mark.parametrize("expert", [False, True])
def test_the_busiest_device_is_priced_where_heads_do_not_divide(gpus: int, expert: bool) -> None:
    model = load_preset("llama3-8b").replace(n_heads=36, n_kv_heads=12, d_model=4608)
    traffic = Traffic(prompt=20000)
    load, layout = load_of(Shape.of(model), traffic, H100), Layout(gpus, expert)
    step = step_of(load, layout, H100, traffic).seconds(np.array([64.0]))[0]
    assert step == pytest.approx(dumb_step(model, traffic, H100, 64, gpus, expert), rel=1e-6)
    held = {2: 6, 5: 3, 8: 2, 16: 1}[gpus] / 12
    assert layout.kv_share(load)[0] == pytest.approx(1.0 if expert else held)


@pytest.mark.parametrize(
    ("gpus", "changes", "refused"),
    [
        (4, {}, False), (16, {}, False), (8, {"n_heads": 36, "n_kv_heads": 12, "d_model": 4608}, True),
        (8, {"n_heads": 24, "n_kv_heads": 12, "d_model": 3072}, True),
        (4, {"n_heads": 36, "n_kv_heads": 12, "d_model": 4608}, False),
    ],
)  # fmt: skip
def test_a_note_names_heads_that_engines_refuse(gpus: int, changes: dict[str, int], refused: bool) -> None:
    model = load_preset("llama3-8b").replace(**changes)
    served = serving_cost(model, "h100", gpus=gpus, parallel="tensor")
    assert any("engines such as vLLM refuse it" in line for line in served.warnings) is refused
    assert uneven_heads(model, {"gpus": gpus, "parallel": "expert"}) == []


def test_a_prompt_takes_its_arithmetic_its_activations_and_one_fixed_cost() -> None:
    model, traffic = load_preset("llama3-8b"), Traffic(prompt=2048)
    load, c = load_of(Shape.of(model), traffic, H100), H100.calibrated().coefficients
    step = step_of(load, Layout(1), H100, traffic)
    seconds = prompt_time(load, Layout(1), traffic, step)[0]
    flops = count_flops(model, 2048, causal=True)
    expected = (flops.forward - flops.head - flops.attention_scores) * 2048 / (H100.bf16 * c.matmul)
    expected += flops.attention_scores * 2048 / (H100.bf16 * c.attention)
    expected += 2048 * model.n_layers * model.d_model * 2 * c.passes / (H100.bandwidth * c.bandwidth)
    expected += model.n_layers * 10 * c.kernel + c.step
    assert seconds == pytest.approx(expected, rel=1e-6)


def test_stated_shares_are_a_roofline_without_fixed_costs() -> None:
    device = H100.replace(compute_efficiency=0.7, latency=0.0)
    model, traffic = load_preset("llama3-8b"), Traffic(prompt=0, batch=1, gpus=1)
    cost = serve_one(model, traffic, device)
    params = count_parameters(model)
    read = (params.params_total - params.embedding) * 2 + kv_elements(model, traffic.context) * 2
    assert cost["time_per_output_token"] == pytest.approx(read / (0.8 * H100.bandwidth), rel=1e-3)
    assert cost["time_per_output_token_low"] is None
    assert cost["calibration"] == {"id": "stated shares", "n_rows": 0, "error": None, "held_out_by": None}


@pytest.mark.parametrize("name", ["h200", "mi300x", "b200"])
def test_every_time_throughput_and_price_has_its_interval(name: str) -> None:
    cost = serve_one(load_preset("qwen3-30b-a3b"), Traffic(precision="fp8"), load_hardware(name))
    for key in INTERVALS:
        assert cost[f"{key}_low"] < cost[key] < cost[f"{key}_high"]
    assert cost["calibration"]["error"] > 0
    assert cost["calibration"]["held_out_by"]


def test_four_b200_hold_deepseek_v3_in_fp8() -> None:
    model = load_preset("deepseek-v3")
    assert serve_one(model, Traffic(precision="fp8", kv_precision="fp8", gpus=4), load_hardware("b200"))["batch"] > 16


def test_guessed_tokens_help_small_batches_by_what_is_accepted() -> None:
    model = load_preset("deepseek-v3")
    base = {"precision": "fp8", "gpus": 8, "batch": 4}
    plain, drafted, useless = (
        serve_one(model, Traffic.parse(base | more), load_hardware("h200"))["time_per_output_token"]
        for more in ({}, {"draft": 1, "acceptance": 0.9}, {"draft": 1, "acceptance": 0.0})
    )
    assert plain / 1.9 < drafted < plain < useless
    assert Traffic(draft=2, acceptance=0.5).produced == 1.75
    with pytest.raises(InputError, match="acceptance: goes with draft"):
        Traffic(draft=1)


def test_a_prefix_cache_and_disaggregation() -> None:
    model, device = load_preset("qwen3-30b-a3b"), load_hardware("h200")
    base = {"precision": "fp8", "gpus": 2, "parallel": "tensor", "batch": 64, "prompt": 8192, "output": 256}
    plain, cached, apart = (
        serve_one(model, Traffic.parse(base | more), device) for more in ({}, {"cached": 0.9}, {"disaggregated": True})
    )
    assert cached["tokens_per_second"] > plain["tokens_per_second"]
    assert cached["time_to_first_token"] < plain["time_to_first_token"]
    assert cached["memory_bytes"] == plain["memory_bytes"]
    assert apart["time_per_output_token"] < plain["time_per_output_token"]
    assert apart["prefill_gpus"] > 0 == plain["prefill_gpus"]
    assert set(apart["not_calibrated"]) == {
        "disaggregated",
        "joules_per_output_token",
    }  # fp8 with a cache in bf16 has rows
    energy = device.power * (2 + apart["prefill_gpus"]) / apart["tokens_per_second"]  # type: ignore[operator]
    assert apart["joules_per_output_token"] == pytest.approx(energy)


def test_devices_that_read_prompts_read_many_at_once() -> None:
    model, device = load_preset("qwen3-30b-a3b"), load_hardware("h200")
    long, short = (Traffic(precision="fp8", prompt=prompt, disaggregated=True) for prompt in (8192, 2048))
    load = load_of(Shape.of(model), long, device)
    tensor, expert = Layout(8), Layout(8, True)
    step = step_of(load, tensor, device, long, mixed=False)
    # A chunk holds one long prompt: what it takes alone.
    assert reading_time(load, tensor, device, long) == pytest.approx(prompt_time(load, tensor, long, step))
    load = load_of(Shape.of(model), short, device)
    step = step_of(load, expert, device, short, mixed=False)
    # Four short prompts on each of eight devices, and every token of all 32 in the experts' products.
    of_one = load.activations[0] + load.prompt_scores[0] + step.moved[0]
    tokens = np.array([32 * 2048.0])
    together = step.fixed + step.products(tokens, tokens) + 4 * 2048 * of_one
    assert reading_time(load, expert, device, short)[0] == pytest.approx(float(together[0]) / 32)
    assert reading_time(load, expert, device, short)[0] < prompt_time(load, expert, short, step)[0] / 2


def test_devices_that_read_prompts_overlap_exchanges_where_that_is_faster() -> None:
    """However those do that answer: with one request in flight, two halves are the slower way to answer."""
    model = load_preset("deepseek-v3")
    traffic = Traffic(precision="fp8", prompt=2048, gpus=32, parallel="expert", batch=1, disaggregated=True)
    load = load_of(Shape.of(model), traffic, H100)
    times = [reading_time(load, Layout(32, True, halves), H100, traffic)[0] for halves in (False, True)]
    assert times[0] == times[1]
    cost = serve_one(model, traffic, H100)
    assert cost["overlapped"] is False
    assert cost["prefill_gpus"] == pytest.approx(32 * cost["tokens_per_second"] / 256 * times[0])


def test_groups_over_several_nodes_send_a_token_once_to_each_node_of_its_experts() -> None:
    model, traffic = load_preset("deepseek-v3"), Traffic(precision="fp8")
    load = load_of(Shape.of(model), traffic, H100)
    rng, g, top_k = np.random.default_rng(0), 64, 8
    others = [len({int(e) // 32 for e in rng.choice(256, top_k, replace=False)} - {0}) for _ in range(2000)]
    _, moved = communication(load, Layout(g, True), H100, H100.calibrated())
    speed = H100.network * H100.calibrated().coefficients.link
    assert moved[0] == pytest.approx(2 * 58 * 7168 * 2 * np.mean(others) / speed, rel=0.03)


@pytest.mark.parametrize("network", [1.0, 1e-3])
def test_exchanges_between_nodes_overlap_with_computing(network: float) -> None:
    model, traffic = load_preset("deepseek-v3"), Traffic(precision="fp8", prompt=4096)
    device = H100.replace(network=H100.network * network)
    load, layout, batch = load_of(Shape.of(model), traffic, device), Layout(32, True, True), np.array([1024.0])
    step = step_of(load, layout, device, traffic)
    free = step_of(load, layout, device.replace(network=1e18, link=1e18), traffic)
    latency, moved = communication(load, layout, device, device.calibrated())
    tokens_of_one = 32 + 32 * 4096 / 256
    exchanged = float((2 * latency + tokens_of_one * moved)[0])
    expected = max(float(free.seconds(batch)[0]), exchanged)
    assert step.seconds(batch)[0] == pytest.approx(expected)
    assert (expected == exchanged) is (network < 1)
    alone = prompt_time(load, layout, traffic, step)[0]
    computed = prompt_time(load, layout, traffic, free)[0]
    assert alone == pytest.approx(max(float(computed), float((2 * latency + 4096 * moved)[0])))


@pytest.mark.parametrize(("batch", "overlapped"), [(1, False), (8000, True)])
def test_the_cheaper_of_one_batch_and_two_halves_is_taken(batch: int, overlapped: bool) -> None:
    model, traffic = load_preset("deepseek-v3"), Traffic(precision="fp8", gpus=32, parallel="expert", batch=batch)
    load, requests = load_of(Shape.of(model), traffic, H100), np.array([float(batch)])
    ways = [step_of(load, Layout(32, True, halves), H100, traffic).seconds(requests)[0] for halves in (False, True)]
    cost = serve_one(model, traffic, H100)
    assert cost["tokens_per_second"] == pytest.approx(batch / min(ways))
    assert cost["overlapped"] is overlapped is bool(ways[1] < ways[0])


FASTER = ({"network": 450e9}, {"node": 32}, {"node": 32, "link": 900e9}, {"link": 1800e9})
"""Networks and scale-up domains that are no slower than those of eight devices."""


@pytest.mark.parametrize("faster", FASTER)
@pytest.mark.parametrize("preset", ["deepseek-v3", "qwen3-235b-a22b", "llama3-8b"])
@pytest.mark.parametrize("gpus", [8, 16, 32, 64])
@pytest.mark.parametrize("expert", [False, True])
def test_faster_connections_are_never_slower(preset: str, faster: dict[str, float], gpus: int, expert: bool) -> None:
    """16 H200 over a network were cheaper than over NVLink, where exchanges could not run beside computing."""
    traffic, h200 = Traffic(precision="fp8", prompt=1000), load_hardware("h200")
    load, better = load_of(Shape.of(load_preset(preset)), traffic, h200), h200.replace(**faster)
    for batch in (1.0, 16.0, 64.0, 1000.0, 8000.0):
        here, there = (fastest(load, Layout(gpus, expert), device, traffic, batch) for device in (h200, better))
        assert there[0] <= here[0] * (1 + 1e-12)
        assert there[1] <= here[1] * (1 + 1e-12)


def fastest(load: Load, layout: Layout, device: Hardware, traffic: Traffic, batch: float) -> tuple[float, float]:
    """Seconds of a step and of a prompt, each in the faster of the ways of a layout."""
    ways = [layout, replace(layout, overlapped=True)] if layout.may_overlap(device) else [layout]
    steps = [(way, step_of(load, way, device, traffic)) for way in ways]
    seconds = min(float(step.seconds(np.array([batch]))[0]) for _, step in steps)
    return seconds, min(float(prompt_time(load, way, traffic, step)[0]) for way, step in steps)


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


@pytest.mark.parametrize("preset", MODELS)
def test_many_shapes_cost_what_one_costs(preset: str) -> None:
    traffic = Traffic(tpot="60ms", precision="fp8")
    one = serve_one(load_preset(preset), traffic, H100)
    shapes = [Shape.of(load_preset(name)) for name in MODELS]
    columns = {name: np.array([getattr(s, name) for s in shapes]) for name in Shape.__dataclass_fields__}
    many = serve(Shape(**columns), traffic, H100).to_dict(MODELS.index(preset))
    assert many is not None
    assert many == {name: one[name] for name in many}


def test_the_batch_is_the_largest_within_the_limit() -> None:
    model, traffic = load_preset("qwen3-30b-a3b"), Traffic(tpot="30ms", gpus=2, precision="fp8")
    cost = serve_one(model, traffic, H100)
    assert cost["time_per_output_token"] <= 0.030
    more = traffic.model_copy(update={"batch": int(cost["batch"] * 1.02) + 1})
    with pytest.raises(InputError, match="batch"):
        serve_one(model, more, H100)


@given(st.sampled_from(MODELS[:4]), st.floats(0.02, 0.5), st.floats(1.0, 4.0))
def test_a_looser_limit_is_never_more_expensive(preset: str, tpot: float, looser: float) -> None:
    shape = Shape.of(load_preset(preset))
    tight, loose = (serve(shape, Traffic(tpot=limit, precision="fp8"), H100) for limit in (tpot, tpot * looser))
    assume(tight.feasible[0])
    assert loose.high("cost_per_million_tokens")[0] <= tight.high("cost_per_million_tokens")[0] * 1.02


def test_memory_and_price_add_up() -> None:
    model, traffic = load_preset("olmoe-1b-7b"), Traffic(gpus=1)
    cost = serve_one(model, traffic, H100, gpu_price=3.6)
    reserved = traffic.prompt + traffic.output
    cache = cost["batch"] * kv_elements(model, reserved) * 2
    assert cost["memory_bytes"] == pytest.approx(2 * count_parameters(model).params_total + cache)
    assert cost["memory_bytes"] <= 0.95 * 80e9
    assert cost["cost_per_million_output_tokens"] == pytest.approx(1e3 / cost["tokens_per_second"])
    assert cost["cost_per_million_tokens"] * 1280 == pytest.approx(cost["cost_per_million_output_tokens"] * 256)


@pytest.mark.parametrize(
    ("preset", "limits", "message"),
    [
        ("deepseek-v3", {"gpus": 4}, "gpus: 4 x NVIDIA H100 .* nearest feasible value is 32"),
        ("llama3-8b", {"gpus": 2, "parallel": "expert"}, "parallel: .* of 2 devices, the model has 0"),
        ("mixtral-8x7b", {"gpus": 16, "parallel": "expert"}, "parallel: .* of 16 devices, the model has 8"),
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
    free = serve_one(load_preset("llama3-8b"), Traffic(), H100)
    cost = serve_one(load_preset("llama3-8b"), Traffic.parse({"tpot": "5ms"}), H100)
    assert cost["time_per_output_token"] <= 0.005
    assert cost["gpus"] > free["gpus"]


def test_a_large_domain_routes_tokens_and_a_small_one_gathers_all() -> None:
    model, traffic = load_preset("qwen3-30b-a3b"), Traffic(precision="fp8", prompt=0)
    small = load_hardware("gb200").replace(node=8)
    moved = []
    for device in (load_hardware("gb200"), small):
        load = load_of(Shape.of(model), traffic, device)
        moved.append(float(step_of(load, Layout(8, True), device, traffic).moved[0]))
    assert moved[0] / moved[1] == pytest.approx((1 - (1 - 1 / 8) ** 8) * 8 * 7 / 8 / 7)


def test_steps_without_prompts_are_padded_to_a_captured_size() -> None:
    model, plain = load_preset("qwen3-30b-a3b"), Traffic(precision="fp8", prompt=0)
    captured = plain.replace(graph_sizes="256, 64,128")
    assert captured.graph_sizes == (64, 128, 256)
    load = load_of(Shape.of(model), plain, H100)

    def seconds(traffic: Traffic, batch: float, layout: Layout) -> float:
        return float(step_of(load, layout, H100, traffic).seconds(np.array([batch]))[0])

    one, parallel = Layout(1), Layout(4, True)
    step = step_of(load, one, H100, plain)
    batch = np.array([65.0])
    captured_rows = np.array([128.0])
    more = float((step.products(captured_rows, captured_rows) - step.products(batch, batch))[0])
    assert more > 0
    assert seconds(captured, 65, one) == pytest.approx(seconds(plain, 65, one) + more)
    assert seconds(captured, 128, one) == pytest.approx(seconds(plain, 128, one))
    assert seconds(captured, 300, one) == pytest.approx(seconds(plain, 300, one))
    # Four ranks of 64 each need no padding; 260 requests are 65 for each.
    assert seconds(captured, 256, parallel) == pytest.approx(seconds(plain, 256, parallel))
    assert seconds(captured, 260, parallel) > seconds(plain, 260, parallel)


def test_steps_with_prompts_replay_no_graph() -> None:
    model = load_preset("qwen3-30b-a3b")
    plain = Traffic(precision="fp8", prompt=8192, output=64)
    load = load_of(Shape.of(model), plain, H100)
    # 70 requests in flight with answers of 64 tokens begin a prompt in every step.
    batch = np.array([70.0])
    steps = [step_of(load, Layout(1), H100, traffic) for traffic in (plain, plain.replace(graph_sizes=[128]))]
    assert steps[0].seconds(batch) == pytest.approx(steps[1].seconds(batch))
