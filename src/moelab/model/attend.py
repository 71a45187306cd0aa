"""Softmax attention of queries over keys: causal, masked, in windows or chunks, with sinks and capped scores.

B sequences, T queries, S keys, Q and KV heads of size A, values of size V. `attend_reference` is the specification.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture.attention import LayerKind
from moelab.model.native import usable
from moelab.model.native.ops import CausalAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How scores are formed: q k^T times `scale`, capped to softcap tanh(score / softcap), in a layer of this kind."""

    scale: float
    softcap: float | None = None
    kind: LayerKind = "full"
    window: int = 0


def attend(
    q_BTQA: Tensor,
    k_BSKA: Tensor,
    v_BSKV: Tensor,
    scores: Scores,
    *,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    native: bool = True,
) -> Tensor:
    """(B, T, Q, V). Without a mask S = T and attention is causal within the layer's window or chunk, or T = 1 and the
    query sees all keys. `sinks` (Q,) are the scores of one more key per head, whose value is zero (gpt-oss).

    `native` allows the compiled kernel. Windows and chunks are cut into blocks, so that scores take S x window.
    """
    length = q_BTQA.shape[1]
    if mask is None and scores.kind != "full" and 0 < scores.window < length:
        return _blocks(q_BTQA, k_BSKA, v_BSKV, scores, sinks, native)
    whole = mask is None and length == k_BSKA.shape[1]
    if whole and native and scores.softcap is None and usable(q_BTQA, k_BSKA, v_BSKV):
        return _native(q_BTQA, k_BSKA, v_BSKV, scores.scale, sinks)
    shared = q_BTQA.shape[2] != k_BSKA.shape[2]
    repeats = shared and v_BSKV.shape[3] != q_BTQA.shape[3]  # PyTorch would copy keys and values for every head
    if sinks is not None or scores.softcap is not None or repeats:
        return attend_reference(q_BTQA, k_BSKA, v_BSKV, scores, mask=mask, sinks=sinks)
    q, k, v = q_BTQA.transpose(1, 2), k_BSKA.transpose(1, 2), v_BSKV.transpose(1, 2)
    scale = None if scores.scale == q.shape[-1] ** -0.5 else scores.scale
    causal = mask is None and length > 1
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared)
    return y.transpose(1, 2)


def attend_reference(
    q_BTQA: Tensor,
    k_BSKA: Tensor,
    v_BSKV: Tensor,
    scores: Scores,
    *,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The same with all scores at once, softmax in fp32 at least."""
    batch, length, heads, _ = q_BTQA.shape
    kv_heads = k_BSKA.shape[2]
    q = q_BTQA.unflatten(2, (kv_heads, heads // kv_heads)).permute(0, 2, 3, 1, 4)
    # The queries that share a key-value head are rows of one product: its keys are not copied for each of them.
    s = (q.flatten(2, 3) @ k_BSKA.permute(0, 2, 3, 1) * scores.scale).unflatten(2, (-1, length))
    s = s.to(torch.promote_types(s.dtype, torch.float32))
    if scores.softcap is not None:
        s = scores.softcap * torch.tanh(s / scores.softcap)
    if mask is None and length > 1:
        mask = visible_in_whole(length, scores, s.device)
    if mask is not None:
        s = s.masked_fill(~mask[:, :, None], -torch.inf)
    if sinks is not None:
        column = sinks.to(s.dtype).view(1, kv_heads, -1, 1, 1).expand(batch, -1, -1, length, 1)
        p = torch.cat((s, column), -1).softmax(-1)[..., :-1]
    else:
        p = s.softmax(-1)
    y = (p.to(v_BSKV.dtype).flatten(2, 3) @ v_BSKV.transpose(1, 2)).unflatten(2, (-1, length))
    return y.permute(0, 3, 1, 2, 4).flatten(2, 3)


def visible_in_whole(length: int, scores: Scores, device: torch.device) -> Tensor:
    """Which keys the queries of a whole sequence see, (1, 1, T, T)."""
    places = torch.arange(length, device=device)
    queries, keys = places[:, None], places
    allowed = keys <= queries
    if scores.kind == "window":
        allowed = allowed & (keys > queries - scores.window)
    if scores.kind == "chunk":
        allowed = allowed & (keys // scores.window == queries // scores.window)
    return allowed[None, None]


def _native(q: Tensor, k: Tensor, v: Tensor, scale: float, sinks: Tensor | None) -> Tensor:
    """The compiled causal kernel; it takes values as wide as keys."""
    width, wanted = q.shape[-1], v.shape[-1]
    v = F.pad(v, (0, width - wanted)) if wanted < width else v
    y: Tensor = CausalAttention.apply(q, k, v, scale, sinks)
    return y[..., :wanted] if wanted < width else y


def _blocks(q: Tensor, k: Tensor, v: Tensor, scores: Scores, sinks: Tensor | None, native: bool) -> Tensor:
    """A whole sequence in blocks of the window's size: a query's keys lie in its own block and the one before it."""
    length, size = q.shape[1], scores.window
    full = Scores(scale=scores.scale, softcap=scores.softcap)
    if scores.kind == "chunk":
        q, k, v = (_cut(x, size) for x in (q, k, v))
        y = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), full, sinks=sinks, native=native)
        return y.unflatten(0, q.shape[:2]).flatten(1, 2)[:, :length]
    first = attend(q[:, :size], k[:, :size], v[:, :size], full, sinks=sinks, native=native)
    q, k, v = _cut(q, size), _cut(k, size), _cut(v, size)
    pairs_k, pairs_v = (torch.cat((x[:, :-1], x[:, 1:]), 2) for x in (k, v))
    queries, keys = torch.arange(size, device=q.device)[:, None], torch.arange(2 * size, device=q.device)
    mask = ((keys > queries) & (keys <= queries + size))[None, None]
    later = q[:, 1:]
    y = attend(later.flatten(0, 1), pairs_k.flatten(0, 1), pairs_v.flatten(0, 1), full, mask=mask, sinks=sinks)
    return torch.cat((first, y.unflatten(0, later.shape[:2]).flatten(1, 2)), 1)[:, :length]


def _cut(x: Tensor, size: int) -> Tensor:
    """(B, T, H, A) -> (B, blocks, size, H, A), the last block filled up with zeros behind its tokens."""
    missing = -x.shape[1] % size
    return (F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x).unflatten(1, (-1, size))
