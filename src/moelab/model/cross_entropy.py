"""Cross-entropy of a linear head without ever holding the fp32 logits of a batch.

On a CPU the logits of one chunk of tokens fit in cache, on a GPU they take a small share of its memory; loss and
gradient of a chunk are computed together, so the backward pass only scales what the forward pass left. The gradient of
the weight is added up over the chunks in fp32, whatever dtype the products run in. The optional z-loss is the mean of
log(Z)^2 (PaLM, arXiv 2204.02311). Logits may have a bias and be capped to softcap tanh(logit / softcap) (Gemma 2);
then PyTorch computes them.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.errors import InputError
from moelab.model import kernels
from moelab.model.head import Head, capped
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
    hidden: Tensor, head: Head | Tensor, targets: Tensor, *, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """(cross-entropy, squared log Z) of the head's logits (a tensor is its weight), both fp32 (fp64 of fp64) with one
    reduction.

    hidden (N, D), targets (N,) with `IGNORED` left out. `none` returns a value per token,
    0 where ignored, and its gradient goes through the reference. Raises InputError for an unknown
    reduction or a target out of range.
    """
    head = Head(head) if isinstance(head, Tensor) else head
    weight = head.weight
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction: must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    check_targets(targets, weight.shape[0])
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if reduction == "none":
        if wants_gradient:
            return cross_entropy_reference(hidden, head, targets, reduction="none")
        return _per_token(hidden, head, targets)
    cast = hidden.to(compute_dtype(hidden))
    losses, squares = _LinearCrossEntropy.apply(cast, *head, targets, wants_gradient)
    count = (targets != IGNORED).sum() if reduction == "mean" else 1
    return losses / count, squares / count


def cross_entropy_reference(
    hidden: Tensor, head: Head | Tensor, targets: Tensor, *, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    """The same by torch's own functions, all logits at once: the specification of `linear_cross_entropy`."""
    head = Head(head) if isinstance(head, Tensor) else head
    logits = capped(_wide(F.linear(hidden, head.weight, head.bias)), head.softcap)
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


def _wide(logits: Tensor) -> Tensor:
    """In fp32, or in fp64 where they are so already."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _logits(hidden: Tensor, head: Head) -> Tensor:
    product = _wide(torch.mm(hidden, head.weight.t()))
    return capped(product if head.bias is None else product + head.bias, head.softcap)


def _slope(hidden: Tensor, head: Head, targets: Tensor, gradient: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """Of one chunk: d loss / d (hidden weight^T) (N, V), which is softmax - one-hot where no cap bends it and 0 where
    ignored; cross-entropy (N,) and log Z (N,)."""
    if head.plain and kernels.usable(hidden, head.weight):
        logits = torch.mm(hidden, head.weight.t())
        losses, log_z = cross_entropy_(logits, targets, IGNORED, gradient)
        return (logits if gradient else None), losses, log_z
    logits = _logits(hidden, head)
    slope, losses, log_z = slope_reference(logits, targets)
    return (_through_cap(slope, logits, head).to(hidden.dtype) if gradient else None), losses, log_z


def _through_cap(slope: Tensor, logits: Tensor, head: Head) -> Tensor:
    """The slope before the cap, from that behind it: times 1 - tanh^2."""
    return slope if head.softcap is None else slope * (1 - (logits / head.softcap).square())


def slope_reference(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same from fp32 (or fp64) logits by torch's own functions; the slope keeps their dtype. Spoils the logits."""
    index = targets.clamp(min=0)[:, None]
    valid = (targets != IGNORED).to(logits.dtype)
    wanted = logits.gather(1, index)[:, 0]
    probabilities = logits.softmax(-1)
    # The largest probability is 1 / sum exp(logit - max), so log Z needs no second pass over exp.
    log_z = logits.amax(-1) - probabilities.amax(-1).log()
    probabilities.scatter_add_(1, index, -torch.ones_like(index, dtype=logits.dtype))
    return probabilities.mul_(valid[:, None]), (log_z - wanted) * valid, log_z


def _per_token(hidden: Tensor, head: Head, targets: Tensor) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(hidden)
    losses, log_z, *_ = _compute(hidden.to(dtype), head.to(dtype), targets, False)
    return losses, log_z.square() * (targets != IGNORED)


_Computed = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Loss and log Z per token; the gradients of the summed loss by hidden states, weight and bias."""


def _compute(hidden: Tensor, head: Head, targets: Tensor, gradients: bool) -> _Computed:
    """By the compiled kernel, or the logits of one chunk at a time. The weight's gradient is in fp32 at least."""
    weight = head.weight
    if head.plain and usable(hidden, weight):
        return *ops.linear_cross_entropy(hidden, weight, targets, gradients), None
    n_tokens = hidden.shape[0]
    losses, log_z = hidden.new_empty(2, n_tokens, dtype=torch.promote_types(hidden.dtype, torch.float32))
    d_hidden, d_weight = (torch.empty_like(hidden), _zeros_for_sums(weight)) if gradients else (None, None)
    d_bias = torch.zeros_like(head.bias) if gradients and head.bias is not None else None
    for part in _chunks(weight, n_tokens):
        slope, losses[part], log_z[part] = _slope(hidden[part], head, targets[part], gradients)
        if d_hidden is not None and d_weight is not None and slope is not None:
            torch.mm(slope, weight, out=d_hidden[part])
            add_product(d_weight, slope.t(), hidden[part])
            if d_bias is not None:
                d_bias += slope.sum(0)
    return losses, log_z, d_hidden, d_weight, d_bias


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
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        targets: Tensor,
        wants_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        head = Head(weight.to(hidden.dtype), bias, softcap)
        with torch.autocast(hidden.device.type, enabled=False):
            losses, log_z, *slopes = _compute(hidden, head, targets, wants_gradient)
        ctx.softcap = softcap
        ctx.save_for_backward(hidden, head.weight, bias, targets, *slopes, log_z)
        return losses.sum(), torch.dot(log_z.square(), (targets != IGNORED).to(log_z.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        d_loss, d_square = grads
        hidden, weight, bias, targets, d_hidden, d_weight, d_bias, log_z = ctx.saved_tensors
        scale: Tensor | float = 0.0 if d_loss is None else d_loss
        d_hidden, d_weight = d_hidden * scale, d_weight * scale  # d_weight keeps its fp32 for an fp32 parameter
        d_bias = None if d_bias is None else d_bias * scale
        if d_square is not None:
            head = Head(weight, bias, ctx.softcap)
            _add_square_gradient((d_hidden, d_weight, d_bias), hidden, head, targets, log_z, d_square)
        return d_hidden, d_weight, d_bias, None, None, None


def _add_square_gradient(
    slopes: tuple[Tensor, Tensor, Tensor | None],
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    log_z: Tensor,
    scale: Tensor,
) -> None:
    """Add scale x d(sum of log Z squared): 2 log Z p, with the logits of each chunk computed once more."""
    d_hidden, d_weight, d_bias = slopes
    for part in _chunks(head.weight, hidden.shape[0]):
        factor = 2 * scale * log_z[part] * (targets[part] != IGNORED)
        logits = _logits(hidden[part], head)
        slope = _through_cap(logits.softmax(-1) * factor[:, None], logits, head).to(hidden.dtype)
        d_hidden[part].addmm_(slope, head.weight)
        add_product(d_weight, slope.t(), hidden[part])
        if d_bias is not None:
            d_bias += slope.sum(0)
