"""Time of one decode step and of one prompt, by component, for one shape or a lattice of n shapes.

A component takes max(bytes / bandwidth, FLOPs / rate). Three suffice: routed experts; attention over the cache; and all
other matrices together, because each of them does 2 FLOPs a token per element it reads, so they turn from memory-bound
to compute-bound at the same batch and max(sum) = sum(max). A MoE layer reads the distinct experts its batch touches,
E (1 - (1 - K/E)^b) under uniform routing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import Shape, count_flops, count_parameters
from moelab.architecture.memory import bytes_of, kv_elements
from moelab.serving.hardware import Hardware
from moelab.serving.traffic import Traffic

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Load:
    """What n shapes ask of one device that holds everything, each (n,).

    Seconds per token of arithmetic: `dense`, `experts` and `scores` while decoding, the `prompt_*` ones while reading a
    prompt (which needs the head once). Seconds to read once: `read_dense`, `read_experts` (all of them), and `read_kv`,
    one request's cache. `log_miss` is log(1 - K/E).
    """

    dense: Array
    experts: Array
    scores: Array
    prompt_dense: Array
    prompt_experts: Array
    prompt_scores: Array
    read_dense: Array
    read_experts: Array
    read_kv: Array
    weight_bytes: Array
    expert_bytes: Array
    kv_bytes: Array
    log_miss: Array
    n_experts: Array
    top_k: Array
    kv_heads: Array
    layers: Array
    moe_layers: Array
    width: Array

    def take(self, index: Any) -> "Load":
        """The shapes `index`."""
        return Load(*(getattr(self, name)[index] for name in self.__slots__))


def load_of(shape: Shape, traffic: Traffic, hardware: Hardware) -> Load:
    """Everything that depends neither on batch nor on layout, computed once."""
    size, rate = bytes_of(traffic.precision), hardware.rate(traffic.precision)
    reading = max(traffic.prompt, 1)
    params, decode = count_parameters(shape), count_flops(shape, traffic.context, decode=True)
    prompt_scores = count_flops(shape, reading, causal=True).attention_scores
    experts, top_k = np.asarray(shape.n_experts, float), np.asarray(shape.top_k, float)
    dense = decode.forward - decode.experts - decode.attention_scores
    kv_bytes = kv_elements(shape, traffic.context) * bytes_of(traffic.kv_precision)
    read = params.params_total - params.experts - params.embedding * (1 - shape.tied)
    columns = (
        dense / rate,
        decode.experts / rate,
        decode.attention_scores / rate,
        (dense - decode.head * (1 - 1 / reading)) / rate,
        decode.experts / rate,
        prompt_scores / rate,
        read * size / hardware.reach,
        params.experts * size / hardware.reach,
        kv_bytes / hardware.reach,
        params.params_total * size,
        params.experts * size,
        kv_bytes,
        np.log1p(-np.minimum(top_k / np.maximum(experts, 1.0), 1 - 1e-15)),
        experts,
        top_k,
        np.where(np.asarray(shape.mla_kv_rank) > 0, 1.0, np.asarray(shape.n_kv_heads, float)),
        shape.n_layers,
        shape.n_moe_layers,
        shape.d_model,
    )
    n = np.broadcast_shapes(*(np.shape(column) for column in columns)) or (1,)
    return Load(*(np.broadcast_to(np.asarray(column, float), n) for column in columns))


@dataclass(frozen=True)
class Layout:
    """`gpus` devices. Tensor parallel splits every matrix and the KV heads; expert parallel splits experts, and the
    batch for everything else."""

    gpus: int
    expert_parallel: bool = False

    def weights(self, load: Load) -> Array:
        """Bytes of weights on one device (n,)."""
        if not self.expert_parallel:
            return np.asarray(load.weight_bytes / self.gpus)
        return np.asarray(load.weight_bytes - load.expert_bytes * (1 - 1 / self.gpus))

    def kv_share(self, load: Load) -> Array:
        """Part of a request's cache on one device: devices beyond n_kv_heads hold copies (n,)."""
        if self.expert_parallel:
            return np.full_like(load.kv_heads, 1 / self.gpus)
        return np.asarray(1 / np.minimum(self.gpus, load.kv_heads))

    def fits(self, load: Load) -> Array:
        """Which shapes can be laid out so, memory aside (n,)."""
        if not self.expert_parallel:
            return np.ones_like(load.n_experts, bool)
        return np.asarray(load.n_experts >= self.gpus)


def distinct_experts(n_experts: Any, top_k: Any, tokens: Any, frequencies: Any = None) -> Array:
    """Expected distinct experts that `tokens` tokens touch in one layer.

    E (1 - (1 - K/E)^b) under uniform routing; with measured `frequencies` (how often each expert is chosen, in any
    unit), the sum of 1 - (1 - f)^b with f scaled to sum to K.
    """
    if frequencies is not None:
        chosen = np.asarray(frequencies, float)
        chosen = np.minimum(chosen * top_k / chosen.sum(), 1.0)
        return np.asarray((1 - (1 - chosen) ** np.asarray(tokens)[..., None]).sum(axis=-1))
    share = np.asarray(top_k, float) / np.maximum(n_experts, 1)
    return np.asarray(n_experts * -np.expm1(np.asarray(tokens) * np.log1p(-np.minimum(share, 1 - 1e-15))))


@dataclass(frozen=True, slots=True)
class Step:
    """A decode step as a function of the batch b: fixed + b linear + max(b dense, read) + the same for experts."""

    fixed: Array
    linear: Array
    dense: Array
    read_dense: Array
    experts: Array
    read_experts: Array
    log_miss: Array

    def take(self, index: Any) -> "Step":
        """The shapes `index`."""
        return Step(*(getattr(self, name)[index] for name in self.__slots__))

    def seconds(self, batch: Array) -> Array:
        """Seconds of a step that gives each of `batch` requests one token (n,)."""
        touched = self.read_experts * -np.expm1(batch * self.log_miss)
        return np.asarray(
            self.fixed
            + batch * self.linear
            + np.maximum(batch * self.dense, self.read_dense)
            + np.maximum(batch * self.experts, touched)
        )


def step_of(load: Load, layout: Layout, hardware: Hardware, imbalance: float = 1.0, prompt: Any = 0.0) -> Step:
    """Decode steps under a layout; `prompt` is the time that reading prompts adds per request and step (n,)."""
    g, parallel = layout.gpus, layout.expert_parallel
    uneven = imbalance if parallel else 1.0
    fixed, moved = communication(load, layout, hardware)
    return Step(
        fixed=fixed,
        linear=np.maximum(load.scores / g, load.read_kv * layout.kv_share(load)) + moved + prompt,
        dense=load.dense / g,
        read_dense=load.read_dense / (1 if parallel else g),
        experts=load.experts * (uneven / g),
        read_experts=load.read_experts / g,
        log_miss=load.log_miss * uneven,
    )


def prompt_time(load: Load, layout: Layout, hardware: Hardware, traffic: Traffic, alone: bool) -> Array:
    """Seconds to read one prompt (n,): arithmetic-bound, unless it is short.

    `alone`: until its own first token. Otherwise its share of the machine when, under expert parallelism, every device
    reads a prompt of its own at the same time.
    """
    if traffic.prompt == 0:
        return np.zeros_like(load.read_kv)
    g, parallel = layout.gpus, layout.expert_parallel
    at_once = g if parallel and not alone else 1
    tokens = float(traffic.prompt * at_once)
    # Under expert parallelism a prompt is not split over devices: all but its experts run on one.
    split = 1 / g if not parallel else 1 / at_once
    uneven = traffic.imbalance if parallel else 1.0
    touched = load.read_experts * -np.expm1(tokens * load.log_miss) / g
    fixed, moved = communication(load, layout, hardware)
    seconds = (
        fixed
        + tokens * moved
        + np.maximum(load.prompt_dense * (tokens * split), load.read_dense / (1 if parallel else g))
        + load.prompt_scores * (tokens * split)
        + np.maximum(load.prompt_experts * (tokens * uneven / g), touched)
    )
    return np.asarray(seconds / at_once)


def communication(load: Load, layout: Layout, hardware: Hardware) -> tuple[Array, Array]:
    """Seconds between devices: per step, and per token of the step, activations in 16 bits; both (n,).

    Tensor parallel: two all-reduces a layer, 2 (g-1)/g of the activations each. Expert parallel: dispatch and combine
    in each MoE layer, a token sent once to every other device that holds one of its experts.
    """
    g = layout.gpus
    if g == 1:
        return np.zeros_like(load.read_kv), np.zeros_like(load.read_kv)
    speed = hardware.between(g)
    if not layout.expert_parallel:
        moved = load.width * (2.0 * 2 * (g - 1) / g / speed)
        return np.asarray(2 * load.layers * hardware.latency), np.asarray(2 * load.layers * moved)
    hosts = g * -np.expm1(load.top_k * np.log1p(-1 / g)) * (g - 1) / g
    moved = hosts * load.width * (2.0 / g / speed)
    return np.asarray(2 * load.moe_layers * hardware.latency), np.asarray(2 * load.moe_layers * moved)
