"""Cross-entropy of a linear head without ever holding the fp32 logits of a batch.

The logits of one chunk of tokens fit in cache; loss and gradient of a chunk are computed together, so the backward
pass only scales what the forward pass left. The optional z-loss is the mean of log(Z)^2 (PaLM, arXiv 2204.02311).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.errors import InputError
from moelab.model.native import ops, usable
from moelab.model.precision import compute_dtype

IGNORED = -100
"""Targets with this value count neither in the loss nor in its mean."""
REDUCTIONS = ("mean", "sum", "none")
_CHUNK_ELEMENTS = 2**19


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """(cross-entropy, squared log Z) of logits = hidden weight^T, both fp32 and reduced alike.

    hidden (N, D), weight (V, D), targets (N,) with `IGNORED` left out. `none` returns a value per token,
    0 where ignored, and its gradient goes through the reference. Raises InputError for an unknown reduction.
    """
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction: must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if reduction == "none":
        if wants_gradient:
            return cross_entropy_reference(hidden, weight, targets, reduction="none")
        return _per_token(hidden, weight, targets)
    dtype = compute_dtype(hidden)
    losses, squares = _LinearCrossEntropy.apply(hidden.to(dtype), weight.to(dtype), targets, wants_gradient)
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


def _chunk_rows(vocab_size: int) -> int:
    return max(32, _CHUNK_ELEMENTS // vocab_size)


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(hidden, weight.t()).float()


def _slope(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax - one-hot (N, V), cross-entropy (N,) and log Z (N,); 0 where ignored but for log Z. Spoils logits."""
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
    losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
    squares = torch.empty_like(losses)
    if usable(hidden, weight):
        losses, log_z, _, _ = ops.linear_cross_entropy(hidden, weight, targets, False)
        return losses, log_z.square() * (targets != IGNORED)
    rows = _chunk_rows(weight.shape[0])
    for start in range(0, hidden.shape[0], rows):
        part = slice(start, start + rows)
        _, losses[part], log_z = _slope(_logits(hidden[part], weight), targets[part])
        squares[part] = log_z.square() * (targets[part] != IGNORED)
    return losses, squares


def _in_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, gradients: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Loss and log Z per token and the gradients of the summed loss, the logits of one chunk at a time."""
    n_tokens = hidden.shape[0]
    rows = min(_chunk_rows(weight.shape[0]), n_tokens)
    losses, log_z = hidden.new_empty(2, n_tokens, dtype=torch.float32)
    d_hidden, d_weight = (torch.empty_like(hidden), torch.zeros_like(weight)) if gradients else (None, None)
    for start in range(0, n_tokens, rows):
        part = slice(start, start + rows)
        slope, losses[part], log_z[part] = _slope(_logits(hidden[part], weight), targets[part])
        if d_hidden is not None and d_weight is not None:
            slope = slope.to(hidden.dtype)
            torch.mm(slope, weight, out=d_hidden[part])
            d_weight.addmm_(slope.t(), hidden[part])
    return losses, log_z, d_hidden, d_weight


class _LinearCrossEntropy(torch.autograd.Function):
    """Sums over tokens of (cross-entropy, squared log Z)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        compute = ops.linear_cross_entropy if usable(hidden, weight) else _in_chunks
        losses, log_z, d_hidden, d_weight = compute(hidden, weight, targets, wants_gradient)
        ctx.save_for_backward(hidden, weight, targets, d_hidden, d_weight, log_z)
        return losses.sum(), torch.dot(log_z.square(), (targets != IGNORED).float())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        d_loss, d_square = grads
        hidden, weight, targets, d_hidden, d_weight, log_z = ctx.saved_tensors
        scale: Tensor | float = 0.0 if d_loss is None else d_loss
        d_hidden, d_weight = d_hidden * scale, d_weight * scale
        if d_square is not None:
            _add_square_gradient(d_hidden, d_weight, hidden, weight, targets, log_z, d_square)
        return d_hidden, d_weight, None, None


def _add_square_gradient(
    d_hidden: Tensor, d_weight: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, log_z: Tensor, scale: Tensor
) -> None:
    """Add scale x d(sum of log Z squared): 2 log Z p, with the logits of each chunk computed once more."""
    rows = _chunk_rows(weight.shape[0])
    for start in range(0, hidden.shape[0], rows):
        part = slice(start, start + rows)
        factor = 2 * scale * log_z[part] * (targets[part] != IGNORED)
        slope = (_logits(hidden[part], weight).softmax(-1) * factor[:, None]).to(hidden.dtype)
        d_hidden[part].addmm_(slope, weight)
        d_weight.addmm_(slope.t(), hidden[part])
