"""Time of one step and of one prompt, by component, for one shape or a lattice of n shapes, calibrated.

A step takes a fixed time (kernels of every layer, exchanges between devices), a time for each request and each token,
and, for dense matrices and for routed experts, the larger of reading weights and computing. A MoE layer reads the
distinct experts its tokens touch, E (1 - (1 - K/E)^T) under uniform routing, and computes whole tiles for each of them.
Prompts are read in chunks that share a step with decoding (chunked prefill): with prompts of p tokens and answers of n,
b requests in flight begin b/n prompts a step.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import Shape, count_flops, count_parameters
from moelab.architecture.memory import bytes_of, kv_elements
from moelab.serving.calibration import Calibration
from moelab.serving.coefficients import CHUNK, KERNELS, LATENT_KERNELS, MOE_KERNELS
from moelab.serving.hardware import Hardware
from moelab.serving.precision import stored
from moelab.serving.traffic import Traffic

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What n shapes compute, read and keep, each (n,), before any device: FLOPs per token of dense matrices, routed
    `experts`, attention `scores` of one decoded and of one prompt token, and the `head`; elements of `other` matrices
    that a step reads, of all experts, of the head and of one request's cache; parameters outside the experts; elements
    of the cache `reserved` for a request; `kernels` and elements of activations of all layers."""

    dense: Array
    experts: Array
    scores: Array
    prompt_scores: Array
    head: Array
    read_other: Array
    read_experts: Array
    read_head: Array
    read_kv: Array
    others: Array
    reserved: Array
    kernels: Array
    activations: Array
    latent: Array
    log_miss: Array
    n_experts: Array
    top_k: Array
    kv_heads: Array
    layers: Array
    moe_layers: Array
    width: Array


def work_of(shape: Shape, traffic: Traffic, reserved: float) -> Work:
    """The work of each shape; `reserved` is the share of an answer for which memory is reserved at admission."""
    params, decode = count_parameters(shape), count_flops(shape, traffic.context, decode=True)
    experts, top_k = np.asarray(shape.n_experts, float), np.asarray(shape.top_k, float)
    latent = np.asarray(shape.mla_kv_rank) > 0
    others = params.params_total - params.experts
    columns = (
        decode.forward - decode.experts - decode.attention_scores - decode.head,
        decode.experts,
        decode.attention_scores,
        count_flops(shape, max(traffic.prompt, 1), causal=True).attention_scores,
        decode.head,
        others - params.embedding - params.head * (1 - shape.tied),
        params.experts,
        shape.vocab_size * shape.d_model,
        kv_elements(shape, traffic.context),
        others,
        kv_elements(shape, traffic.prompt + reserved * traffic.output),
        shape.n_layers * (KERNELS + latent * LATENT_KERNELS) + shape.n_moe_layers * MOE_KERNELS,
        shape.n_layers * shape.d_model,
        latent,
        np.log1p(-np.minimum(top_k / np.maximum(experts, 1.0), 1 - 1e-15)),
        experts,
        top_k,
        np.where(latent, 1.0, np.asarray(shape.n_kv_heads, float)),
        shape.n_layers,
        shape.n_moe_layers,
        shape.d_model,
    )
    n = np.broadcast_shapes(*(np.shape(column) for column in columns)) or (1,)
    return Work(*(np.broadcast_to(np.asarray(column, float), n) for column in columns))


@dataclass(frozen=True, slots=True)
class Load:
    """What n shapes ask of one device that holds everything, each (n,).

    Seconds per token: `dense` matrices, routed `experts`, `activations`; `scores` of one decoded token and
    `prompt_scores` of one prompt token; `head`. Seconds to read once: `read_dense`, `read_experts` (all of them),
    `read_head`, and `read_kv`, one request's cache. `padding` is the seconds of arithmetic on rows without a token when
    every expert is touched. `fixed` is seconds of a step. `log_miss` is log(1 - K/E); `kv_bytes` what is reserved.
    """

    dense: Array
    experts: Array
    padding: Array
    activations: Array
    scores: Array
    prompt_scores: Array
    head: Array
    read_dense: Array
    read_experts: Array
    read_head: Array
    read_kv: Array
    fixed: Array
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
    reserved = hardware.calibrated(traffic.engine).coefficients.reserved
    return timed(work_of(shape, traffic, reserved), traffic, hardware)


def timed(work: Work, traffic: Traffic, hardware: Hardware) -> Load:
    """The time that each part of the work takes on a device."""
    calibration = hardware.calibrated(traffic.engine)
    c, slow = calibration.coefficients, calibration.slowdown
    kept, kv_size = stored(traffic.precision, hardware), bytes_of(traffic.kv_precision)
    rate, attention = kept.other_rate * c.matmul / slow, hardware.bf16 * c.attention / slow
    reach = hardware.bandwidth * c.bandwidth / slow
    experts = work.experts * (slow / (kept.expert_rate * c.experts))
    cached = np.where(work.latent, c.latent_cache, c.cache) * (hardware.bandwidth / slow)
    expert_bytes = work.read_experts * kept.expert_bytes
    return Load(
        dense=work.dense / rate,
        experts=experts,
        padding=experts / np.maximum(work.top_k, 1.0) * work.n_experts * c.padding,
        activations=work.activations * (2.0 * c.passes / reach),
        scores=work.scores / attention,
        prompt_scores=work.prompt_scores / attention,
        head=work.head / rate,
        read_dense=work.read_other * (kept.other_bytes / reach),
        read_experts=expert_bytes / reach,
        read_head=work.read_head * (kept.other_bytes / reach),
        read_kv=work.read_kv * kv_size / cached,
        fixed=(work.kernels * c.kernel + c.step) * slow,
        weight_bytes=work.others * kept.other_bytes + expert_bytes,
        expert_bytes=expert_bytes,
        kv_bytes=work.reserved * kv_size,
        log_miss=work.log_miss,
        n_experts=work.n_experts,
        top_k=work.top_k,
        kv_heads=work.kv_heads,
        layers=work.layers,
        moe_layers=work.moe_layers,
        width=work.width,
    )


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
    """A step as a function of the batch b: fixed + b linear, the head, and dense matrices and experts on the tokens.

    `moved` is the time of a token between devices, part of `linear`. A
    share `begins` b of the steps (at most all) also reads `chunk` tokens of prompts. Each request has `width` tokens
    in a step, of which `produced` are kept on average.
    """

    fixed: Array
    linear: Array
    dense: Array
    read_dense: Array
    experts: Array
    read_experts: Array
    padding: Array
    head: Array
    read_head: Array
    log_miss: Array
    moved: Array
    begins: float
    chunk: float
    width: float
    produced: float
    graphs: Array | None = None
    ranks: int = 1

    def take(self, index: Any) -> "Step":
        """The shapes `index`."""
        arrays = {name: getattr(self, name)[index] for name in self.__slots__[:-6]}
        return replace(self, **arrays)

    def seconds(self, batch: Array) -> Array:
        """Mean seconds in which each of `batch` requests gets one token (n,)."""
        tokens = batch * self.width if self.width != 1 else batch
        seconds = tokens * self.head
        np.maximum(seconds, self.read_head, out=seconds)
        seconds += self.fixed
        seconds += batch * self.linear
        alone = self.products(self.padded(batch) * self.width) if self.graphs is not None else self.products(tokens)
        seconds += alone
        if self.chunk:
            share = batch * self.begins
            mixed = self.products(tokens + np.maximum(self.chunk, share * self.chunk))
            np.minimum(share, 1.0, out=share)
            mixed -= alone
            mixed *= share
            seconds += mixed
        if self.produced != 1:
            seconds /= self.produced
        return seconds

    def padded(self, batch: Array) -> Array:
        size = np.ceil(batch / self.ranks - 1e-9)
        at = np.minimum(np.searchsorted(self.graphs, size), len(self.graphs) - 1)
        return np.maximum(self.graphs[at], size) * self.ranks

    def products(self, tokens: Array) -> Array:
        """Seconds of dense matrices and routed experts for so many tokens (n,)."""
        touched = np.exp(tokens * self.log_miss)
        np.subtract(1.0, touched, out=touched)
        computing = tokens * self.experts
        computing += touched * self.padding
        touched *= self.read_experts
        np.maximum(computing, touched, out=computing)
        np.multiply(tokens, self.dense, out=touched)
        np.maximum(touched, self.read_dense, out=touched)
        computing += touched
        return computing


def step_of(load: Load, layout: Layout, hardware: Hardware, traffic: Traffic, mixed: bool = True) -> Step:
    """Steps under a layout; with `mixed` they read the traffic's prompts too, else they decode alone."""
    g, parallel = layout.gpus, layout.expert_parallel
    calibration = hardware.calibrated(traffic.engine)
    uneven = traffic.uneven(calibration) if parallel else 1.0
    fixed, moved = communication(load, layout, hardware, calibration)
    reads = traffic.reads if mixed else 0.0
    pieces = np.ceil(reads / CHUNK)
    per_token = moved + load.activations / (g if parallel else 1)
    request = calibration.coefficients.request * calibration.slowdown / (g if parallel else 1)
    width, produced = traffic.draft + 1.0, traffic.produced
    decoding = np.maximum(load.scores * (width / g), load.read_kv * layout.kv_share(load))
    reading = reads / traffic.output * produced
    # A layer of multi-token prediction for each guessed token: its share of the model's layers.
    guessing = 1 + traffic.draft / load.layers if traffic.draft else 1.0
    return Step(
        fixed=(load.fixed + fixed) * guessing,
        linear=decoding * guessing + request + per_token * (width + reading) + load.prompt_scores * (reading / g),
        dense=load.dense * (guessing / g),
        read_dense=load.read_dense * (guessing / (1 if parallel else g)),
        experts=load.experts * (guessing * uneven / g),
        read_experts=load.read_experts * (guessing / g),
        padding=load.padding * (guessing * uneven / g),
        head=load.head / g,
        read_head=load.read_head / (1 if parallel else g),
        log_miss=load.log_miss,
        moved=moved,
        begins=float(pieces / traffic.output * produced),
        chunk=float(reads / pieces) if pieces else 0.0,
        width=width,
        produced=produced,
        graphs=None if not traffic.graph_sizes else np.array(traffic.graph_sizes, float),
        ranks=g if parallel else 1,
    )


def prompt_time(load: Load, layout: Layout, hardware: Hardware, traffic: Traffic, step: Step) -> Array:
    """Seconds to read one prompt until its first token, alone on the devices (n,); `step` is the layout's."""
    if not traffic.reads:
        return np.zeros_like(load.read_kv)
    pieces = np.ceil(traffic.reads / CHUNK)
    # Under expert parallelism a prompt is not split over devices: all but its experts run on one.
    one = layout.gpus if layout.expert_parallel else 1
    tokens, guessing = traffic.reads / pieces, 1 + traffic.draft / load.layers if traffic.draft else 1.0
    touched = -np.expm1(tokens * step.log_miss)
    products = np.maximum(tokens * (step.dense * one), step.read_dense) + np.maximum(
        tokens * step.experts + touched * step.padding, touched * step.read_experts
    )
    per_token = step.moved + load.activations + load.prompt_scores * (one / layout.gpus)
    return np.asarray(pieces * ((step.fixed + products) / guessing) + traffic.reads * per_token)


def communication(load: Load, layout: Layout, hardware: Hardware, calibration: Calibration) -> tuple[Array, Array]:
    """Seconds between devices: per step, and per token of the step, activations in 16 bits; both (n,).

    Tensor parallel: two all-reduces a layer, 2 (g-1)/g of the activations each. Expert parallel: dispatch and combine
    in each MoE layer, a token sent once to every other device that holds one of its experts.
    """
    g, c = layout.gpus, calibration.coefficients
    if g == 1:
        return np.zeros_like(load.read_kv), np.zeros_like(load.read_kv)
    speed, latency = hardware.between(g) * c.link / calibration.slowdown, c.collective * calibration.slowdown
    if not layout.expert_parallel:
        moved = load.width * (2.0 * 2 * (g - 1) / g / speed)
        return np.asarray(2 * load.layers * latency), np.asarray(2 * load.layers * moved)
    routed = hardware.node > 8
    hosts = g * -np.expm1(load.top_k * np.log1p(-1 / g)) * (g - 1) / g if routed else np.float64(g - 1)
    moved = hosts * load.width * (2.0 / g / speed)
    return np.asarray(2 * load.moe_layers * latency), np.asarray(2 * load.moe_layers * moved)
