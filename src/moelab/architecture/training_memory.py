"""Memory of training per device under a layout: weights, gradients, optimiser state and activations, by count.

State is `training_memory`'s bytes per parameter, divided by tensor, pipeline and expert parallelism and by ZeRO
(arXiv 1910.02054). Activations are what the backward pass needs of moelab's own layers, in the computing precision:
`none` keeps all of it, `selective` computes norms, activations and permuted copies once more from the products beside
them, `full` keeps each layer's input alone (arXiv 2205.05198). The loss keeps no logits. Sizes may be arrays.
"""

from dataclasses import dataclass

import numpy as np

from moelab.architecture.activations import layer_activations
from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import ParameterCount, count_parameters
from moelab.architecture.layers import Numbers
from moelab.architecture.layout import RECOMPUTATIONS, Layout, LayoutSizes
from moelab.architecture.memory import TrainingMemory, bytes_of, training_memory
from moelab.architecture.shape import Shape
from moelab.errors import InputError
from moelab.notebook import Shown
from moelab.quantities import MOST_CONTEXT, check_at_most, format_bytes, parse_count

MOST_MICRO_BATCH = 10**6


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DeviceMemory(Shown):
    """Bytes on the fullest device. `optimizer` holds its state and fp32 master weights; `working` what one layer's
    backward pass adds for a moment."""

    weights: Numbers
    gradients: Numbers
    optimizer: Numbers
    activations: Numbers
    working: Numbers

    @property
    def total(self) -> Numbers:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working

    @property
    def parts(self) -> dict[str, Numbers]:
        """The summands of `total`."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "working": self.working,
        }


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """What a device works on at a time: `micro_batch` sequences of `seq_len` tokens; `microbatches` of them a step
    (None: as many as the pipeline holds). `fused_norms` keep input and output; others the normalised input too."""

    micro_batch: Numbers = 1
    seq_len: Numbers
    recompute: str = "none"
    microbatches: Numbers | None = None
    precision: str = "bf16"
    optimizer: str = "adamw"
    fused_norms: bool = True

    def __post_init__(self) -> None:
        if self.recompute not in RECOMPUTATIONS:
            raise InputError(f"recompute: must be one of {', '.join(RECOMPUTATIONS)}, got {self.recompute!r}")


def device_memory(shape: Shape, layout: Layout | LayoutSizes, step: TrainingStep) -> DeviceMemory:
    """Bytes on the fullest device: the first pipeline stage, which holds most micro-batches, or the last, which holds
    head and loss. Raises InputError for an unknown precision, optimiser or recomputation."""
    sizes = layout.sizes if isinstance(layout, Layout) else layout
    params, state = count_parameters(shape), training_memory(shape, step.precision, step.optimizer)
    first, last = (_stage(shape, sizes, step, params, state, is_first) for is_first in (True, False))
    larger = first.total >= last.total

    def fuller(name: str) -> Numbers:
        chosen: Numbers = np.where(larger, first.parts[name], last.parts[name])
        return chosen[()]

    return DeviceMemory(**{name: fuller(name) for name in first.parts})


def _stage(
    shape: Shape, layout: LayoutSizes, step: TrainingStep, params: ParameterCount, state: TrainingMemory, is_first: bool
) -> DeviceMemory:
    layers = -(-shape.n_layers // layout.pp)
    moe = np.minimum(layers, shape.n_moe_layers)
    dense, experts = _parameters(params, shape, layout, (layers, moe), is_first)
    total = params.params_trained
    copies, expert_copies = layout.dp * layout.cp, np.maximum(layout.expert_dp, 1)

    def held(size: Numbers, divided_from: int) -> Numbers:
        """Bytes of this device's share, `size` for each parameter of the model."""
        split = layout.zero >= divided_from
        return size / total * (dense / np.where(split, copies, 1) + experts / np.where(split, expert_copies, 1))

    tokens = step.micro_batch * step.seq_len / (layout.tp * layout.cp)
    activations, working = _activations(shape, step, tokens, (layers, moe), _in_flight(layout, step, is_first))
    # The gradients of a layer's experts are all formed at once, in at least 16 bits, and then added to those of earlier
    # micro-batches.
    formed = np.maximum(state.weights, 2.0 * total)
    working = working + formed / total * experts / np.maximum(moe, 1)
    loss: Numbers = np.where((layout.pp == 1) | (not is_first), _loss(shape, layout, step, tokens), 0.0)
    if step.recompute == "full":  # what the loss keeps is gone before the first layer is computed again
        working, loss = np.maximum(working, loss), 0.0
    return DeviceMemory(
        weights=held(state.weights, 3),
        gradients=held(state.gradients, 2),
        optimizer=held(state.master_weights + state.optimizer, 1),
        activations=activations + loss,
        working=working,
    )


def _parameters(
    params: ParameterCount, shape: Shape, layout: LayoutSizes, layers: tuple[Numbers, Numbers], is_first: bool
) -> tuple[Numbers, Numbers]:
    """Parameters of a stage's fullest device: all but routed experts, and routed experts. Modules that predict further
    tokens are in the last stage."""
    here, moe = layers
    n_moe, n_dense = np.maximum(shape.n_moe_layers, 1), np.maximum(shape.n_layers - shape.n_moe_layers, 1)
    split = here * params.attention / shape.n_layers + (here - moe) * params.dense_ffn / n_dense
    split = split + moe * (params.shared_experts + params.latent) / n_moe
    whole = here * params.norm / shape.n_layers + moe * params.router / n_moe
    alone = layout.pp == 1
    further = shape.mtp_layers * (shape.n_moe_layers > 0) * (1 - shape.mtp_dense) * params.experts / n_moe
    head = params.head + params.mtp - further + np.where(alone, 0, shape.tied * params.embedding)
    ends = params.embedding + alone * head if is_first else head + alone * params.embedding
    experts = moe * params.experts / n_moe + (further * alone if is_first else further)
    return (split + ends) / layout.tp + whole, experts / layout.ep


def _in_flight(layout: LayoutSizes, step: TrainingStep, is_first: bool) -> Numbers:
    """Micro-batches whose activations a stage holds at most, interleaving's extra share included (arXiv 2205.05198)."""
    if not is_first:
        return 1.0
    interleaved = 1 + (layout.pp - 1) / (layout.pp * layout.vp) * (layout.vp > 1)
    most = layout.pp * interleaved
    return most if step.microbatches is None else np.minimum(most, step.microbatches)


def _activations(
    shape: Shape, step: TrainingStep, tokens: Numbers, layers: tuple[Numbers, Numbers], in_flight: Numbers
) -> tuple[Numbers, Numbers]:
    """Bytes that the layers keep, and what the backward pass of one layer adds."""
    here, moe = layers
    size, d = max(bytes_of(step.precision), 2.0), shape.d_model
    attention, dense_ffn, experts = layer_activations(shape, step.recompute, size, step.fused_norms)
    whole = layer_activations(shape, "none", size, step.fused_norms)
    one = whole[0] + np.where(moe > 0, np.maximum(whole[2], (moe < here) * whole[1]), whole[1])
    hidden = np.where(moe > 0, shape.top_k * shape.d_expert + shape.d_shared, shape.d_ff)
    gradients = size * (2 * d + shape.ffn_matrices * hidden)
    if step.recompute == "full":
        return tokens * size * d * here * in_flight, tokens * (one + gradients)
    kept = here * attention + (here - moe) * dense_ffn + moe * experts
    again = tokens * (one - attention - np.where(moe > 0, experts, dense_ffn)) if step.recompute == "selective" else 0.0
    return tokens * kept * in_flight, tokens * gradients + again


def _loss(shape: Shape, layout: LayoutSizes, step: TrainingStep, tokens: Numbers) -> Numbers:
    """Bytes of the last norm, of the gradient of its output and of the head's fp32 gradient, which the loss leaves."""
    size = max(bytes_of(step.precision), 2.0)
    kept = (2 if step.fused_norms else 3) + 1
    return tokens * size * kept * shape.d_model + 4.0 * shape.vocab_size * shape.d_model / layout.tp


@dataclass(frozen=True, kw_only=True)
class TrainingMemoryTable:
    """Memory per device of one model under one layout, by recomputation, as text and as plain data."""

    layout: Layout
    micro_batch: int
    seq_len: int
    by_recomputation: dict[str, DeviceMemory]

    def to_dict(self) -> dict[str, object]:
        """Plain data: what `moelab count --train-memory --json` adds."""
        return {
            "layout": self.layout.to_dict(),
            "devices": self.layout.devices,
            "micro_batch": self.micro_batch,
            "seq_len": self.seq_len,
            "recompute": {
                name: {part: float(size) for part, size in memory.parts.items()} | {"total": float(memory.total)}
                for name, memory in self.by_recomputation.items()
            },
        }

    @property
    def title(self) -> str:
        """The head of the table: layout and batch."""
        return (
            f"training memory per device, bf16 and AdamW, {self.layout} ({self.layout.devices:,} devices), "
            f"{self.micro_batch} x {self.seq_len:,} tokens"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Parts down, recomputation across, as text."""
        memories = self.by_recomputation.values()
        parts = next(iter(memories)).parts
        rows = [(part, *(format_bytes(float(m.parts[part])) for m in memories)) for part in parts]
        return [*rows, ("total", *(format_bytes(float(m.total)) for m in memories))]


def count_training_memory(
    config: ModelConfig, layout: Layout | str = "", *, micro_batch: int | str = 1, seq_len: int | str = 4096
) -> TrainingMemoryTable:
    """Memory per device in bf16 with AdamW, for each recomputation.

    Raises InputError where the layout cannot be read or does not divide the model, and for a wrong batch or length.
    """
    chosen = layout if isinstance(layout, Layout) else Layout.read(layout)
    size, context = parse_count(micro_batch, "micro_batch"), parse_count(seq_len, "seq_len")
    check_at_most(size, MOST_MICRO_BATCH, "micro_batch")
    check_at_most(context, MOST_CONTEXT, "seq_len")
    chosen.check(config, context)
    shape = Shape.of(config)
    steps = {name: TrainingStep(micro_batch=size, seq_len=context, recompute=name) for name in RECOMPUTATIONS}
    memories = {name: device_memory(shape, chosen, step) for name, step in steps.items()}
    return TrainingMemoryTable(layout=chosen, micro_batch=size, seq_len=context, by_recomputation=memories)
