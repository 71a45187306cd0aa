"""Cross-entropy of a linear head without ever holding the fp32 logits of a batch.

On a CPU the logits of one chunk of tokens fit in cache, on a GPU they take a small share of its memory; loss and
gradient of a chunk are computed together, so the backward pass only scales what the forward pass left. The gradient of
the weight is added up over the chunks in fp32, whatever dtype the products run in. The optional z-loss is the mean of
log(Z)^2 (PaLM, arXiv 2204.02311).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.errors import InputError
from moelab.model import kernels
from moelab.model.kernels.ops import cross_entropy_
from moelab.model.native import ops, usable
from moelab.model.precision import compute_dtype

IGNORED = -100
"""Targets with this value count neither in the loss nor in its mean."""
WIDE_ADDMM = True
"""Whether CUDA's products of 16-bit factors may be added to an fp32 matrix as they are, unrounded."""
REDUCTIONS = ("mean", "sum", "none")
_CHUNK_ELEMENTS = 2**19
"""Logits of a chunk on a CPU: they stay in its cache."""
_BYTES_PER_ELEMENT = 512
"""One logit of a chunk for so many bytes of a GPU's memory: 2^27 logits on 80 GB, 256 MB of bf16."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """(cross-entropy, squared log Z) of logits = hidden weight^T, both in fp32 and with the same reduction.

    hidden (N, D), weight (V, D), targets (N,) with `IGNORED` left out. `none` returns a value per token,
    0 where ignored, and its gradient goes through the reference. Raises InputError for an unknown
    reduction or a target out of range.
    """
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction: must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    check_targets(targets, weight.shape[0])
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if reduction == "none":
        if wants_gradient:
            return cross_entropy_reference(hidden, weight, targets, reduction="none")
        return _per_token(hidden, weight, targets)
    losses, squares = _LinearCrossEntropy.apply(hidden.to(compute_dtype(hidden)), weight, targets, wants_gradient)
    count = (targets != IGNORED).sum() if reduction == "mean" else 1
    return losses / count, squares / count


def cross_entropy_reference(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """The same by torch's own functions, all logits at once: the specification of `linear_cross_entropy`."""
    logits = F.linear(hidden, weight).float()
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    squares = torch.logsumexp(logits, -1).square() * (targets != IGNORED)
    if reduction == "none":
        return losses, squares
    count = (targets != IGNORED).sum() if reduction == "mean" else 1
    return losses.sum() / count, squares.sum() / count


def check_targets(targets: Tensor, vocab_size: int) -> None:
    """Raises InputError for a target that is neither a token nor IGNORED: kernels would read and write outside.

    On a GPU this would make the host wait for every step; there `TrainBatches` and `ValidationBatches` look at ids.
    Tensors of other classes, such as those that only trace a step, hold no values to look at.
    """
    if type(targets) is not Tensor or targets.device.type != "cpu" or not targets.numel():
        return
    values = targets.numpy()
    if values.max() >= vocab_size or values.min() < 0:
        wrong = values[((values < 0) & (values != IGNORED)) | (values >= vocab_size)]
        if wrong.size:
            raise InputError(f"targets: must be 0 to {vocab_size - 1}, or {IGNORED} to be ignored; got {wrong[0]}")


def chunk_elements(device: torch.device) -> int:
    """Logits of one chunk: what a CPU's cache holds, or 2^24 to 2^28 by the memory of a GPU."""
    if device.type != "cuda":
        return _CHUNK_ELEMENTS
    memory = torch.cuda.get_device_properties(device).total_memory
    return int(min(max(2 ** round(math.log2(memory / _BYTES_PER_ELEMENT)), 2**24), 2**28))


def _chunks(weight: Tensor, n_tokens: int) -> Iterator[slice]:
    """The tokens of one chunk after another."""
    rows = max(32, chunk_elements(weight.device) // weight.shape[0])
    for start in range(0, n_tokens, rows):
        yield slice(start, start + rows)


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(hidden, weight.t()).float()


def _slope(hidden: Tensor, weight: Tensor, targets: Tensor, gradient: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """Of one chunk: softmax - one-hot (N, V), 0 where ignored; cross-entropy (N,) and log Z (N,)."""
    if kernels.usable(hidden, weight):
        logits = torch.mm(hidden, weight.t())
        losses, log_z = cross_entropy_(logits, targets, IGNORED, gradient)
        return (logits if gradient else None), losses, log_z
    slope, losses, log_z = slope_reference(_logits(hidden, weight), targets)
    return (slope.to(hidden.dtype) if gradient else None), losses, log_z


def slope_reference(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same from fp32 logits by torch's own functions; the slope stays in fp32. Spoils the logits."""
    index = targets.clamp(min=0)[:, None]
    valid = (targets != IGNORED).float()
    wanted = logits.gather(1, index)[:, 0]
    probabilities = logits.softmax(-1)
    # The largest probability is 1 / sum exp(logit - max), so log Z needs no second pass over exp.
    log_z = logits.amax(-1) - probabilities.amax(-1).log()
    probabilities.scatter_add_(1, index, -torch.ones_like(index, dtype=torch.float32))
    return probabilities.mul_(valid[:, None]), (log_z - wanted) * valid, log_z


def _per_token(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(hidden)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    compute = ops.linear_cross_entropy if usable(hidden, weight) else _in_chunks
    losses, log_z, _, _ = compute(hidden, weight, targets, False)
    return losses, log_z.square() * (targets != IGNORED)


def _in_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, gradients: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Loss and log Z per token and the gradients of the summed loss, the logits of one chunk at a time.

    The gradient of the weight is in fp32 at least.
    """
    n_tokens = hidden.shape[0]
    losses, log_z = hidden.new_empty(2, n_tokens, dtype=torch.float32)
    d_hidden, d_weight = (torch.empty_like(hidden), _zeros_for_sums(weight)) if gradients else (None, None)
    for part in _chunks(weight, n_tokens):
        slope, losses[part], log_z[part] = _slope(hidden[part], weight, targets[part], gradients)
        if d_hidden is not None and d_weight is not None and slope is not None:
            torch.mm(slope, weight, out=d_hidden[part])
            add_product(d_weight, slope.t(), hidden[part])
    return losses, log_z, d_hidden, d_weight


def _zeros_for_sums(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (M, N) += left (M, K) right (K, N), where the total may be wider than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda and WIDE_ADDMM:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += torch.mm(left, right)


class _LinearCrossEntropy(torch.autograd.Function):
    """Sums over tokens of (cross-entropy, squared log Z)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        weight = weight.to(hidden.dtype)
        compute = ops.linear_cross_entropy if usable(hidden, weight) else _in_chunks
        with torch.autocast(hidden.device.type, enabled=False):
            losses, log_z, d_hidden, d_weight = compute(hidden, weight, targets, wants_gradient)
        ctx.save_for_backward(hidden, weight, targets, d_hidden, d_weight, log_z)
        return losses.sum(), torch.dot(log_z.square(), (targets != IGNORED).float())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        d_loss, d_square = grads
        hidden, weight, targets, d_hidden, d_weight, log_z = ctx.saved_tensors
        scale: Tensor | float = 0.0 if d_loss is None else d_loss
        d_hidden, d_weight = d_hidden * scale, d_weight * scale  # d_weight keeps its fp32 for an fp32 parameter
        if d_square is not None:
            _add_square_gradient(d_hidden, d_weight, hidden, weight, targets, log_z, d_square)
        return d_hidden, d_weight, None, None


def _add_square_gradient(
    d_hidden: Tensor, d_weight: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, log_z: Tensor, scale: Tensor
) -> None:
    """Add scale x d(sum of log Z squared): 2 log Z p, with the logits of each chunk computed once more."""
    for part in _chunks(weight, hidden.shape[0]):
        factor = 2 * scale * log_z[part] * (targets[part] != IGNORED)
        slope = (_logits(hidden[part], weight).softmax(-1) * factor[:, None]).to(hidden.dtype)
        d_hidden[part].addmm_(slope, weight)
        add_product(d_weight, slope.t(), hidden[part])
