"""Bytes that one process sends per optimiser step where a model is sharded over a mesh (FSDP2, expert parallelism).

Each of W processes holds 1/W of every parameter. Before a layer computes, its parameters are gathered, forward and
backward; embedding, head and final norm once for both. After the last backward pass of a step gradients are added up
and scattered. Routed rows go to the owners of their experts and back, and so do their gradients. A ring sends
(W - 1) / W of what it gathers or scatters, twice that of what it adds up everywhere; rows are counted as at balance,
where (S - 1) / S of them leave a process, S the processes that share the experts out.
"""

from dataclasses import dataclass

from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import count_parameters
from moelab.architecture.layers import Numbers
from moelab.architecture.memory import bytes_of
from moelab.errors import InputError
from moelab.notebook import Shown

GATE_BYTES = 4
"""Gates travel in fp32."""
COUNT_BYTES = 8
"""How many rows an expert gets, in int64."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StepTraffic(Shown):
    """Bytes that each process sends per step: parameters gathered, gradients scattered, rows exchanged."""

    gathered: Numbers
    scattered: Numbers
    exchanged: Numbers

    @property
    def total(self) -> Numbers:
        """All of it; the few scalars that are added up (loss, norm, loads) are left out."""
        return self.gathered + self.scattered + self.exchanged


def step_traffic(
    model: ModelConfig,
    *,
    data: int,
    expert: int,
    local_tokens: int,
    passes: int = 1,
    precision: str = "fp32",
    recompute: bool = False,
) -> StepTraffic:
    """What a process of a mesh of data x expert sends in a step of `local_tokens` of its own, in so many forward
    passes. `precision` is that of rows and of experts' weights; everything else is gathered in fp32, and all gradients
    are scattered in it. Where activations are recomputed, `selective` or `full`, rows travel there and back once more;
    parameters are gathered for it together with the backward pass.

    First dimensions that the mesh does not divide are padded and send a little more. Raises InputError for a mesh that
    does not divide the experts, and for an unknown precision.
    """
    n_experts = 1 if model.moe is None else model.moe.n_experts
    if n_experts % expert:
        raise InputError(f"expert: must divide the {n_experts} experts, got {expert}")
    params, world = count_parameters(model), data * expert
    further = _further_moe_layers(model)
    experts = params.experts * (1 + further / max(model.n_moe_layers, 1))
    ends = params.embedding + params.head + model.d_model  # and the final norm
    others = params.params_trained - experts - ends
    ring, over_data = (world - 1) / world, (data - 1) / data
    shared, owned, kept = others * ring, experts / expert * over_data, ends * ring
    return StepTraffic(
        gathered=passes * (4 * (2 * shared + kept) + bytes_of(precision) * 2 * owned),
        scattered=4 * (shared + owned + kept),
        exchanged=_exchanged(model, expert, local_tokens, passes, precision, 2 if recompute else 1),
    )


def _exchanged(model: ModelConfig, expert: int, local_tokens: int, passes: int, rows: str, forward: int) -> float:
    """Bytes of routed rows, there and back, with their gates and counts, so often forward and once backward."""
    moe = model.moe
    if moe is None:
        return 0.0
    layers = model.n_moe_layers + _further_moe_layers(model)
    width = (moe.d_latent or model.d_model) * bytes_of(rows)
    routed = local_tokens * moe.top_k
    if moe.traits.grouped:  # a row for each slot of each expert; gates stay
        return layers * 2 * (forward + 1) * routed * width * (expert - 1) / expert
    counts = passes * forward * moe.n_experts * COUNT_BYTES
    bytes_sent = routed * (forward + 1) * (2 * width + GATE_BYTES) + counts
    return layers * bytes_sent * (expert - 1) / expert


def _further_moe_layers(model: ModelConfig) -> int:
    """MoE layers of multi-token prediction: its layers are of the kind of the model's last one."""
    return (model.mtp_layers or 0) * model.is_moe_layer(model.n_layers - 1)
