"""How long training takes on real devices: device-seconds per token by cause, for one architecture or a lattice.

A step's time is added up from what fills it: matrix products at a share of the peak, attention scores, traffic with the
device's memory, launches of a MoE layer's many kernels, exchanges between devices and the bubble of the pipeline. Eight
coefficients are fitted to measured runs (`training_fit`); the rest is counted. All times are per token and in
device-seconds: the number of devices divided by the tokens per second of them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.architecture.counts import count_flops, count_parameters
from moelab.architecture.layers import Numbers
from moelab.architecture.layout import LayoutSizes
from moelab.architecture.memory import kv_elements_per_token
from moelab.architecture.shape import Shape
from moelab.errors import InputError
from moelab.serving.calibration import shipped
from moelab.serving.hardware import Hardware

TRAIN_PRECISIONS = ("fp32", "bf16", "fp16", "fp8", "mxfp8", "nvfp4")
"""Arithmetic of matrix products while training. Attention scores and the head stay in bf16 where it is lower."""

ROUTED_BYTES = 28.0
"""Memory traffic of one element of a token's copy for one expert, bf16, forward and backward: read and written as it
is sent out and gathered (4 x 4 bytes), read or written by the products of both ends (6 x 2)."""
LOGIT_BYTES = 24.0
"""Of one logit in fp32: written, read twice, and its gradient the same."""
DENSE_LAUNCH = 2.4e-4
"""Seconds of launches of any layer and micro-batch: three passes at the 80 microseconds that serving shows."""
WATTS_PER_FLOP = 0.5e-12
"""Board power over bf16 peak at which the exponent `power` changes nothing (GB200: 0.48 W per TFLOP/s)."""
POWER_RANGE = (0.88, 1.42)
"""That ratio among the devices of the fit (B200 to H100); beyond it the nearest end holds."""
LINK_SHARE = 0.8
"""Of a link's or network's bandwidth that large exchanges reach (assumed, as the fit was made with it)."""
GRADIENT_BYTES = 6.0
"""Exchanged per parameter and step: an fp32 gradient there, a bf16 weight back."""


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """What training runs on: devices, arithmetic, layout, `micro_batch` sequences of `seq_len` tokens per data-parallel
    rank at a time, `global_batch` sequences a step. `recent` software launches a MoE layer's kernels as graphs.
    `forwards` is how often the layers' forward pass is computed: 2 with full recomputation."""

    device: Hardware
    precision: str = "bf16"
    layout: LayoutSizes
    seq_len: Numbers
    micro_batch: Numbers = 1
    global_batch: Numbers
    recent: Any = True
    forwards: Numbers = 1.0

    def __post_init__(self) -> None:
        check_precision(self.device, self.precision)

    @property
    def microbatches(self) -> Numbers:
        """Micro-batches of a step that each pipeline works through, at least 1."""
        return np.maximum(self.global_batch / (self.layout.dp * self.micro_batch), 1.0)


def check_precision(device: Hardware, precision: str) -> None:
    """Raises InputError naming the known arithmetic, or that of a device which has no matrix units for this one."""
    if precision not in TRAIN_PRECISIONS:
        raise InputError(f"train_precision: must be one of {', '.join(TRAIN_PRECISIONS)}, got {precision!r}")
    if not device.multiplies(precision):
        known = ", ".join(name for name in TRAIN_PRECISIONS if device.multiplies(name))
        raise InputError(f"train_precision: {device.name} multiplies in {known}, not in {precision}")


def training_peak(device: Hardware, precision: str) -> float:
    """FLOPs per second of the arithmetic itself. Raises InputError for arithmetic that the device does not have."""
    check_precision(device, precision)
    return device.peak(precision)


def device_seconds(shape: Shape, setup: TrainingSetup, coefficients: Mapping[str, float]) -> dict[str, Numbers]:
    """Device-seconds per token by cause; their sum is the whole. Sizes of shape and layout broadcast."""
    parts = _compute(shape, setup, coefficients) | _exchanges(shape, setup, coefficients["waited"])
    tokens = setup.micro_batch * setup.seq_len
    per_layer = setup.layout.tp * setup.layout.cp / tokens
    slower = np.where(setup.recent, 1.0, coefficients["older"])
    layers, moe_layers = _layers(shape)
    again = (2 + setup.forwards) / 3
    parts["launches"] = again * per_layer * (layers * DENSE_LAUNCH + moe_layers * coefficients["launch"] * slower)
    share = (setup.layout.pp - 1) / (setup.layout.vp * setup.microbatches)
    parts["bubble"] = share * sum(parts.values())
    parts["gradients"] = _gradients(shape, setup, parts, coefficients["waited"])
    slow = assumed_slowdown(setup.device)
    return parts if slow == 1 else {name: seconds * slow for name, seconds in parts.items()}


def assumed_slowdown(device: Hardware) -> float:
    """What multiplies every time of a device of a vendor without training rows, beside its data sheet: its slowdown in
    serving, or that of the device it is like; 1 for NVIDIA's, and for what is like them.

    One public head to head supports it: a H200 trains 8B in bf16 1.32 to 1.40 times faster than a MI300X
    (github.com/alpharomercoma/MI300X-vs-H200 at 6077fdc, REPORT.md). Without it MI300X is predicted at 0.85 of the
    time of H200, so 1.55 to 1.65 is missing, where serving has 1.63.
    """
    return float(shipped()["devices"].get(device.like or "", {}).get("slowdown", 1.0))


def seconds_per_token(shape: Shape, setup: TrainingSetup, coefficients: Mapping[str, float]) -> Numbers:
    """Device-seconds per token."""
    return sum(device_seconds(shape, setup, coefficients).values())


def product_rate(device: Hardware, precision: str, coefficients: Mapping[str, float]) -> float:
    """FLOPs per second of large matrix products: a share of the bf16 peak, more in narrower arithmetic, where the
    device's power allows it."""
    share = coefficients["products"] * _power(device) ** coefficients["power"]
    return float(device.bf16 * share * (training_peak(device, precision) / device.bf16) ** coefficients["narrow"])


def _power(device: Hardware) -> float:
    if device.power is None:
        return 1.0
    return float(np.clip(device.power / device.bf16 / WATTS_PER_FLOP, *POWER_RANGE))


def _compute(shape: Shape, setup: TrainingSetup, coefficients: Mapping[str, float]) -> dict[str, Numbers]:
    """Products, scores and memory traffic."""
    device, flops = setup.device, count_flops(shape, setup.seq_len, causal=True)
    rate = product_rate(device, setup.precision, coefficients)
    plain = product_rate(device, "bf16", coefficients)
    # A product of few tokens waits for the expert's weights instead: as long as that many tokens would take.
    wait = rate * _bytes(setup.precision) / (2 * device.bandwidth)
    again = (2 + setup.forwards) / 3
    dense = flops.forward + flops.mtp - flops.experts - flops.attention_scores - flops.head
    layers, moe_layers = _layers(shape)
    hidden = (layers - moe_layers) * shape.d_ff + moe_layers * (shape.top_k * shape.d_expert + shape.d_shared)
    routed = ROUTED_BYTES * moe_layers * shape.top_k * _routed_width(shape)
    stream = coefficients["stream"] * layers * shape.d_model + coefficients["hidden"] * hidden
    return {
        "products": again * 3 * dense / rate + 3 * flops.head / plain,
        "experts": again * 3 * flops.experts / rate * (1 + wait / np.maximum(tokens_per_expert(shape, setup), 1e-9)),
        "scores": again * 3 * flops.attention_scores / plain,
        "memory": (again * (stream + routed) + LOGIT_BYTES * shape.vocab_size * (1 + shape.mtp_layers))
        / device.bandwidth,
    }


def _layers(shape: Shape) -> tuple[Numbers, Numbers]:
    """All layers and MoE layers, those that predict further tokens included."""
    further = shape.mtp_layers * (shape.n_moe_layers > 0) * (1 - shape.mtp_dense)
    return shape.n_layers + shape.mtp_layers, shape.n_moe_layers + further


def _routed_width(shape: Shape) -> Numbers:
    """Width of what is sent to an expert: the model's, or that of latent experts."""
    return np.where(shape.d_latent > 0, shape.d_latent, shape.d_model)


def tokens_per_expert(shape: Shape, setup: TrainingSetup) -> Numbers:
    """Tokens that one expert gets from one micro-batch, on average."""
    layout, experts = setup.layout, np.maximum(shape.n_experts, 1)
    tokens = setup.micro_batch * setup.seq_len / (layout.tp * layout.cp)
    return tokens * layout.ep * np.maximum(shape.top_k, 1) / experts


def _bytes(precision: str) -> float:
    return {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "nvfp4": 0.5}.get(precision, 1.0)


def _exchanges(shape: Shape, setup: TrainingSetup, waited: float) -> dict[str, Numbers]:
    """Exchanges that compute waits for: tensor and expert parallelism; context parallelism beyond what scores hide."""
    device, layout, d = setup.device, setup.layout, shape.d_model
    link, network = device.link * LINK_SHARE, device.network * LINK_SHARE
    layers, moe_layers = _layers(shape)
    split = 2 * layers - moe_layers + moe_layers * (shape.d_shared > 0)
    # Each split block gathers and scatters its tokens, forward and backward: 4 x 2 bytes by each device of the group.
    tensor = 8.0 * (layout.tp - 1) * split * d / np.where(layout.tp <= device.node, link, min(link, network))
    near = np.minimum(layout.ep, device.node)
    nodes = np.maximum(layout.ep / device.node, 1.0)
    top_k = np.maximum(shape.top_k, 1)
    # A token crosses to another node once however many of its experts live there (dispatch and combine, twice each).
    remote = (nodes - 1) * (1 - (1 - 1 / nodes) ** top_k)
    sent = 8.0 * moe_layers * _routed_width(shape)
    expert = sent * (top_k * (near - 1) / near / link + waited * remote / network)
    group = layout.tp * layout.cp
    keys = 6.0 * (layout.cp - 1) * kv_elements_per_token(shape)
    context = keys / np.where(group <= device.node, link, min(link, network))
    hidden = 3 * count_flops(shape, setup.seq_len, causal=True).attention_scores / device.bf16
    # Every piece of the model hands its output on, and gets a gradient back.
    together = layout.pp * np.maximum(group, layout.ep)
    stages = 4.0 * d * (layout.pp * layout.vp - 1) / np.where(together <= device.node, link, min(link, network))
    again = (1 + setup.forwards) / 2
    return {
        "tensor_parallel": again * tensor,
        "expert_parallel": again * expert,
        "pipeline": waited * stages,
        "context_parallel": np.maximum(context - hidden, 0.0),
    }


def _gradients(shape: Shape, setup: TrainingSetup, parts: dict[str, Numbers], waited: float) -> Numbers:
    """Gradients and weights exchanged by data parallelism, per token. With ZeRO 3 weights are gathered for every
    micro-batch, twice, behind the computation; what does not fit behind it is waited for."""
    device, layout = setup.device, setup.layout
    params = count_parameters(shape)
    copies, expert_copies = layout.dp * layout.cp, layout.expert_dp
    dense = (params.params_trained - params.experts) / (layout.tp * layout.pp)
    experts = params.experts / (layout.ep * layout.pp)
    held = dense * (copies - 1) / copies + experts * np.maximum(expert_copies - 1, 0) / np.maximum(expert_copies, 1)
    stage = layout.tp * layout.cp * layout.dp
    link = device.link * LINK_SHARE
    bandwidth = np.where(stage <= device.node, link, min(link, device.network * LINK_SHARE))
    tokens = setup.global_batch * setup.seq_len / layout.devices
    step = GRADIENT_BYTES * held / bandwidth / tokens * np.where(stage <= device.node, 1.0, waited)
    gathered = 4.0 * held * (setup.microbatches - 1) / bandwidth / tokens
    return step + np.where(layout.zero == 3, np.maximum(gathered - sum(parts.values()), 0.0), 0.0)
