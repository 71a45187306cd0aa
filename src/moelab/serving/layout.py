"""How a model lies over several devices, and the time that moving activations between them takes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.calibration import Calibration
from moelab.serving.hardware import Hardware
from moelab.serving.work import Load

Array = NDArray[Any]
GATHERED = 8
"""Devices of a group and of a scale-up domain up to which expert parallel engines gather all tokens (TensorRT-LLM
routes over NVLink only where memory is addressable across nodes, as in NVL72; vLLM: allgather_reducescatter)."""

HOP = 5e-6
"""Seconds that a small message takes over the network between two nodes, beside the exchange within them: what NCCL's
choice of algorithm assumes (v2.23, src/graph/tuning.cc, hwLat of NET for trees in the LL protocol). An all-reduce over
n nodes crosses it 2 log2(n) times, up and down a tree."""


@dataclass(frozen=True)
class Layout:
    """`gpus` devices. Tensor parallel splits every matrix and the KV heads, whole heads each; expert parallel splits
    experts, and the batch for everything else: a request lies on one device, with its whole cache. Every share is that
    of the busiest device. `overlapped`: the batch is computed in two halves, one while the other is sent."""

    gpus: int
    expert_parallel: bool = False
    overlapped: bool = False

    @property
    def ranks(self) -> int:
        """Parts of the batch that are computed apart, each by whole requests: one a device under expert parallelism."""
        return self.gpus if self.expert_parallel else 1

    def nodes(self, hardware: Hardware) -> int:
        """Scale-up domains that the group spans."""
        return math.ceil(self.gpus / hardware.node)

    def may_overlap(self, hardware: Hardware) -> bool:
        """Whether exchanges may run beside computing: where experts lie on more devices than GATHERED or on several
        nodes, deployments split the batch in two and compute one half while the other is sent (arXiv 2412.19437 section
        3.4; SGLang's two-batch overlap)."""
        return self.expert_parallel and self.gpus > min(hardware.node, GATHERED)

    def weights(self, load: Load) -> Array:
        """Bytes of weights on one device (n,)."""
        if not self.expert_parallel:
            return np.asarray(load.weight_bytes / self.gpus)
        return np.asarray(load.weight_bytes - load.expert_bytes * (1 - 1 / self.gpus))

    def kv_share(self, load: Load) -> Array:
        """Part of a request's cache on a device that holds it, whole KV heads: of 12 heads, 2 on the busiest of 8
        devices. Devices beyond n_kv_heads hold copies (n,)."""
        if self.expert_parallel:
            return np.ones_like(load.kv_heads)
        return np.asarray(np.ceil(load.kv_heads / self.gpus) / load.kv_heads)

    def scores_share(self, load: Load) -> Array:
        """Part of a request's attention on a device that computes it: that of its KV heads; devices beyond n_kv_heads
        split the query heads of one (n,)."""
        if self.expert_parallel:
            return np.ones_like(load.kv_heads)
        return np.where(load.kv_heads > self.gpus, self.kv_share(load), 1 / self.gpus)

    def fits(self, load: Load) -> Array:
        """Which shapes can be laid out so, memory aside (n,)."""
        if not self.expert_parallel:
            return np.ones_like(load.n_experts, bool)
        return np.asarray(load.n_experts >= self.gpus)


def communication(load: Load, layout: Layout, hardware: Hardware, calibration: Calibration) -> tuple[Array, Array]:
    """Seconds between devices: per step, and per token of the busiest rank, activations in 16 bits; both (n,).

    Tensor parallel: two all-reduces a layer, 2 (g-1)/g of the activations each; over nodes a ring passes through every
    device and leaves each node once, so the network of all its devices carries it. Expert parallel: dispatch and
    combine in each MoE layer. Within GATHERED devices every token goes to all others (all-gather, then reduce-scatter:
    what TensorRT-LLM and vLLM do by default there); in larger groups once to each device with one of its experts, over
    nodes once to each other node with one, which forwards it at the same time (arXiv 2412.19437 section 3.2.2).
    Routing is uniform. Every crossing of the network adds HOP to an exchange.
    """
    g, nodes, c = layout.gpus, layout.nodes(hardware), calibration.coefficients
    if g == 1:
        return np.zeros_like(load.read_kv), np.zeros_like(load.read_kv)
    slow, reach = calibration.slowdown, c.link / calibration.slowdown
    link, network = hardware.between(min(g, hardware.node)) * reach, hardware.network * reach
    if not layout.expert_parallel:
        speed = link if nodes == 1 else min(link, network * g / nodes)
        moved = load.width * (2.0 * 2 * (g - 1) / g / speed)
        latency = c.collective * slow + 2 * HOP * math.ceil(math.log2(nodes))
        return np.asarray(2 * load.layers * latency), np.asarray(2 * load.layers * moved)
    each = _reached(load, g, routed=max(hardware.node, g) > GATHERED) / link
    if nodes > 1:
        each = np.maximum(each, _reached(load, nodes, routed=g > GATHERED) / network)
    latency = c.collective * slow + HOP * (nodes > 1)
    return np.asarray(2 * load.moe_layers * latency), np.asarray(2 * load.moe_layers * load.width * 2.0 * each)


def _reached(load: Load, places: int, routed: bool) -> Array:
    """The other places, nodes or devices, that a token is sent to: all, or those with one of its experts (n,)."""
    chosen = -np.expm1(load.top_k * np.log1p(-1 / places)) if routed else np.ones_like(load.top_k)
    return np.asarray((places - 1) * chosen)
