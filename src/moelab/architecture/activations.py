"""What the layers of a model keep for their backward pass, in bytes a token, by kind of layer and recomputation."""

import numpy as np

from moelab.architecture.layers import Numbers
from moelab.architecture.shape import Shape

INDEX_BYTES = 32.0
"""Of one routed copy: its expert, row and place (8 bytes each) and its gate."""
SCORE_BYTES = 8.0
"""Of one token and expert: logit and score in fp32."""


def layer_activations(
    shape: Shape, recompute: str, size: float, fused_norms: bool = True
) -> tuple[Numbers, Numbers, Numbers]:
    """Bytes a token that an attention block, a dense feed-forward and a MoE layer keep; `size` bytes a number.

    Each block keeps its input and, unless it is computed again, its normalised input.
    """
    again = recompute != "none"
    norm = 1 if again else 2 if fused_norms else 3
    block = norm * shape.d_model
    gated = shape.ffn_matrices == 3
    # Of the hidden state: gate and up, then the activation, then their product; two matrices have no gate.
    inner = np.where(gated, 2 if again else 4, 1 if again else 2)
    # Experts multiply gates into the product: rows of hidden states alone, or permuted inputs and activations too.
    rows = np.where(gated, 2, 1) * shape.d_expert
    latent = np.where(shape.d_latent > 0, shape.d_latent, 0)
    width = np.where(latent > 0, latent, shape.d_model)
    routed = rows if again else rows + shape.d_expert + width
    indices = INDEX_BYTES * shape.top_k + SCORE_BYTES * shape.n_experts
    return (
        size * (block + _attention(shape, norm, again)) + 4.0 * shape.n_heads,
        size * (block + inner * shape.d_ff),
        size * (block + shape.top_k * routed + inner * shape.d_shared + 2 * latent) + indices,
    )


def _attention(s: Shape, norm: int, again: bool) -> Numbers:
    """Numbers a token that attention keeps beside its input: queries, keys, values and their output."""
    queries, keys = s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim
    copies = np.where(s.qk_norm_head + s.qk_norm_full > 0, norm, 1)
    grouped = copies * (queries + keys) + keys + queries
    width = s.mla_nope_dim + s.mla_rope_dim
    latent = norm * (s.mla_q_rank + s.mla_kv_rank) + s.mla_rope_dim
    latent = latent + (0 if again else 1) * s.n_heads * (2 * width + s.mla_v_dim) + s.n_heads * s.mla_v_dim
    return np.where(s.mla_kv_rank > 0, latent, grouped)
