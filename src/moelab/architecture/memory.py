"""Bytes: weights, gradients and optimiser state while training, the KV cache while serving. One model or a lattice."""

from dataclasses import dataclass

from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import count_parameters
from moelab.architecture.layers import Numbers, cached_numbers, local_kv_heads, local_layers, local_tokens
from moelab.architecture.shape import Shape
from moelab.errors import InputError
from moelab.notebook import Shown

BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "mxfp4": 0.5 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
}
"""Bytes of one number: with its share of a scale in the block formats mxfp4 and nvfp4, without scales in the others
(about 1-6 % more)."""

OPTIMIZER_STATES = {"adamw": 2, "muon": 1, "sgd": 0}
"""Numbers kept per parameter; Muon keeps one for hidden matrices (AdamW's two for the rest are ignored here)."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrainingMemory(Shown):
    """Bytes of training state over all devices; activations depend on the batch and are left out."""

    weights: Numbers
    master_weights: Numbers
    gradients: Numbers
    optimizer: Numbers

    @property
    def total(self) -> Numbers:
        """All of it."""
        return self.weights + self.master_weights + self.gradients + self.optimizer


def bytes_of(precision: str) -> float:
    """Bytes of one number. Raises InputError naming the known precisions."""
    if precision not in BYTES:
        raise InputError(f"precision: no such precision {precision!r}; known: {', '.join(BYTES)}")
    return BYTES[precision]


def bytes_of_weight(precision: str) -> tuple[float, float]:
    """Bytes of one weight of the experts, and of any other: mxfp4 stores experts alone, the rest in 16 bits, as gpt-oss
    does (arXiv 2508.10925). Raises InputError for an unknown precision."""
    size = bytes_of(precision)
    return size, 2.0 if precision == "mxfp4" else size


def weights_precision(model: ModelConfig, precision: str) -> str:
    """The precision of a model's weights at `precision`: mxfp4 stores experts alone, so a dense model's stay bf16."""
    return "bf16" if model.moe is None and precision == "mxfp4" else precision


def cache_precision(precision: str) -> str:
    """The precision of the KV cache of weights at `precision`: bf16 beside block formats, which store weights."""
    return "bf16" if precision in ("mxfp4", "nvfp4") else precision


def bytes_of_cache(precision: str) -> float:
    """Bytes of one number in the KV cache of weights at `precision`. Raises InputError for an unknown precision."""
    return bytes_of(cache_precision(precision))


def weight_bytes(model: ModelConfig | Shape, precision: str = "bf16") -> Numbers:
    """Bytes of all weights."""
    params, (expert, other) = count_parameters(model), bytes_of_weight(precision)
    if expert == other:
        return params.params_total * expert
    return params.experts * expert + (params.params_total - params.experts) * other


def kv_elements_per_token(model: ModelConfig | Shape) -> Numbers:
    """Numbers that one more token adds to the cache at long contexts, where the layers with a window or a chunk hold
    theirs already: keys and values of every layer that sees everything, or the latent vector of latent attention."""
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    return (s.n_layers - local_layers(s)) * cached_numbers(s, s.n_kv_heads)


def kv_elements_windowed(model: ModelConfig | Shape) -> Numbers:
    """Numbers that one token adds to the cache in the layers with a window or a chunk, up to that many tokens."""
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    return local_layers(s) * cached_numbers(s, local_kv_heads(s))


def kv_elements(model: ModelConfig | Shape, context: Numbers) -> Numbers:
    """Numbers in the cache of one sequence of `context` tokens; no layer keeps more of them than its window."""
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    return kv_elements_per_token(s) * context + kv_elements_windowed(s) * local_tokens(s, context)


def kv_bytes(model: ModelConfig | Shape, context: Numbers, precision: str = "bf16") -> Numbers:
    """Bytes of the KV cache of one sequence of `context` tokens; no layer keeps more of them than its window."""
    return kv_elements(model, context) * bytes_of_cache(precision)


def training_memory(model: ModelConfig | Shape, precision: str = "bf16", optimizer: str = "adamw") -> TrainingMemory:
    """Bytes of training state: weights at `precision`, fp32 gradients, optimiser state and master weights.

    Multi-token prediction is included. Below fp32 a master copy of the weights is kept, as in mixed-precision training
    (arXiv 1710.03740), and gradients are added up and reduced in fp32, as Megatron-LM does for bf16 unless it is given
    `--grad-reduce-in-bf16`: 18 bytes per parameter for bf16 with AdamW.

    Raises InputError for an unknown precision or optimiser.
    """
    if optimizer not in OPTIMIZER_STATES:
        raise InputError(f"optimizer: no such optimizer {optimizer!r}; known: {', '.join(OPTIMIZER_STATES)}")
    params, size = count_parameters(model).params_trained, bytes_of(precision)
    return TrainingMemory(
        weights=params * size,
        master_weights=params * (4.0 if size < 4 else 0.0),
        gradients=params * 4.0,
        optimizer=params * 4.0 * OPTIMIZER_STATES[optimizer],
    )
