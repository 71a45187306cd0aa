"""What a model computes, reads and keeps, and the seconds that each part takes on a device, for n shapes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import Shape, count_flops, count_parameters
from moelab.architecture.memory import bytes_of, kv_elements
from moelab.serving.coefficients import KERNELS, LATENT_KERNELS, MOE_KERNELS
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
