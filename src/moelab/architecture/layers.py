"""What one layer holds and computes: its matrices, biases, norms, cached numbers and the keys that its queries see.

Every formula takes a `Shape` of integers, or of arrays that broadcast. Layers differ by what they see (`full`, or a
window or a chunk with key-value heads of its own) and by their feed-forward; `over_layers` sums over both kinds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from moelab.architecture.shape import Shape

Numbers = Any
"""An int or float for one model, a NumPy array for a lattice."""


def select(flag: Numbers, yes: Callable[[], Numbers], no: Callable[[], Numbers]) -> Numbers:
    """`yes` where the flag holds, else `no`; for one flag only the one that is needed is computed."""
    if np.ndim(flag) == 0:
        return yes() if flag else no()
    return np.where(flag, yes(), no())


def local_layers(s: Shape) -> Numbers:
    """Layers whose queries see a window or a chunk."""
    return s.n_window_layers + s.n_chunk_layers


def local_kv_heads(s: Shape) -> Numbers:
    """Key-value heads of the layers that see a window or a chunk."""
    return select(s.window_kv_heads, lambda: s.window_kv_heads, lambda: s.n_kv_heads)


def over_layers(s: Shape, of_layer: Callable[[Numbers], Numbers]) -> Numbers:
    """The sum over all layers of what one with so many key-value heads has."""
    if np.ndim(s.window_kv_heads) == 0 and not s.window_kv_heads:
        return s.n_layers * of_layer(s.n_kv_heads)
    local = local_layers(s)
    return (s.n_layers - local) * of_layer(s.n_kv_heads) + local * of_layer(local_kv_heads(s))


def mtp_kv_heads(s: Shape) -> Numbers:
    """Key-value heads of a multi-token-prediction layer, which is of the last layer's kind."""
    return select(s.mtp_local, lambda: local_kv_heads(s), lambda: s.n_kv_heads)


def uses_mla(s: Shape) -> Numbers:
    """Whether attention is latent."""
    return s.mla_kv_rank > 0


def score_width(s: Shape, decode: bool = False) -> Numbers:
    """Dimensions of queries and of values together: the multiply-adds of one head for one key.

    Latent attention decodes in its absorbed form (arXiv 2405.04434, section 2.1.3): keys and values are the latent.
    """
    latent = 2 * s.mla_kv_rank if decode else s.mla_nope_dim + s.mla_v_dim
    return select(uses_mla(s), lambda: latent + s.mla_rope_dim, lambda: 2 * s.head_dim)


def attention_matrices(s: Shape, kv_heads: Numbers) -> Numbers:
    """Elements of one layer's projection matrices, the gate on its output included.

    In latent attention's absorbed form the same elements act on the query and on the mixed latents: once a token.
    """
    return select(uses_mla(s), lambda: _latent_matrices(s), lambda: _grouped_matrices(s, kv_heads))


def _grouped_matrices(s: Shape, kv_heads: Numbers) -> Numbers:
    gate = s.d_model * s.n_heads * (s.head_gate + s.element_gate * s.head_dim)
    return 2 * s.d_model * s.head_dim * (s.n_heads + kv_heads) + gate


def _latent_matrices(s: Shape) -> Numbers:
    return (
        s.d_model * s.mla_q_rank
        + (s.mla_q_rank + (s.mla_q_rank == 0) * s.d_model) * s.n_heads * (s.mla_nope_dim + s.mla_rope_dim)
        + s.d_model * (s.mla_kv_rank + s.mla_rope_dim)
        + s.mla_kv_rank * s.n_heads * (s.mla_nope_dim + s.mla_v_dim)
        + s.n_heads * s.mla_v_dim * s.d_model
    )


def attention_parameters(s: Shape, kv_heads: Numbers) -> Numbers:
    """Parameters of one layer's attention without its norms. In latent attention the projections from the input
    (queries' and keys' latents) and to the output have biases, as in DeepSeek's classes."""

    def inputs() -> Numbers:
        return s.mla_q_rank + s.mla_kv_rank + s.mla_rope_dim

    into = select(uses_mla(s), inputs, lambda: (s.n_heads + 2 * kv_heads) * s.head_dim)
    biases = s.attention_bias * into + s.attention_output_bias * s.d_model
    return attention_matrices(s, kv_heads) + biases + s.attention_sinks * s.n_heads


def norm_parameters(s: Shape, kv_heads: Numbers) -> Numbers:
    """Weights and biases of one layer's norms: of its blocks, and of queries and keys or their latents."""

    def heads() -> Numbers:
        return s.qk_norm_head * 2 * s.head_dim + s.qk_norm_full * s.head_dim * (s.n_heads + kv_heads)

    inner = select(uses_mla(s), lambda: s.mla_q_rank + s.mla_kv_rank, heads)
    return s.layer_norms * s.norm_vectors * s.d_model + inner


def dense_parameters(s: Shape) -> Numbers:
    """Parameters of a dense feed-forward."""
    return s.ffn_matrices * s.d_model * s.d_ff


def expert_parameters(s: Shape) -> Numbers:
    """Parameters of one routed expert, which may work in a latent space."""
    width = select(s.d_latent, lambda: s.d_latent, lambda: s.d_model)
    return s.ffn_matrices * width * s.d_expert + s.expert_bias * ((s.ffn_matrices - 1) * s.d_expert + width)


def expert_matrices(s: Shape) -> Numbers:
    """Elements of one routed expert's matrices."""
    width = select(s.d_latent, lambda: s.d_latent, lambda: s.d_model)
    return s.ffn_matrices * width * s.d_expert


def latent_parameters(s: Shape) -> Numbers:
    """Elements of one MoE layer's projections into and out of its experts' latent space."""
    return 2 * s.d_model * s.d_latent


def shared_parameters(s: Shape) -> Numbers:
    """Parameters of one MoE layer's shared experts and of their gate."""
    return s.d_model * (s.ffn_matrices * s.d_shared + s.shared_gate)


def router_columns(s: Shape) -> Numbers:
    """Columns of the matrices that score a token; their products are all a choosing router costs."""
    return s.n_experts * (1 - s.router_off) + s.router_columns


def router_parameters(s: Shape) -> Numbers:
    """Parameters of one layer's router. The bias of loss-free balancing is no parameter: no gradient reaches it."""
    return router_columns(s) * s.d_model + s.n_experts * s.router_bias + s.router_scalars


def local_tokens(s: Shape, seq_len: Numbers) -> Numbers:
    """The most tokens that a layer with a window or a chunk keeps of a sequence."""
    return np.minimum(s.window, seq_len) if np.ndim(s.window) or np.ndim(seq_len) else min(s.window, seq_len)


def kind_keys(s: Shape, seq_len: Numbers, causal: bool) -> tuple[Numbers, Numbers, Numbers]:
    """Keys per query, averaged over a sequence, in layers that see everything, a window and a chunk.

    The full square of a window is the window for every query, that of chunks their squares; with `causal` the sums
    are exact: a window's first queries and a chunk's see fewer.
    """
    full = (seq_len + 1) / 2 if causal else seq_len
    if np.ndim(s.window) == 0 and not s.window:
        return full, 0, 0
    width = np.maximum(local_tokens(s, seq_len), 1)
    whole, rest = seq_len // width, seq_len % width
    if causal:
        window = width - width * (width - 1) / (2 * seq_len)
        return full, window, (whole * width * (width + 1) + rest * (rest + 1)) / (2 * seq_len)
    return full, width, (whole * width * width + rest * rest) / seq_len


def all_keys(s: Shape, seq_len: Numbers, causal: bool) -> Numbers:
    """Keys per query, summed over the layers."""
    full, window, chunk = kind_keys(s, seq_len, causal)
    if np.ndim(s.window) == 0 and not s.window:
        return s.n_layers * full
    return (s.n_layers - local_layers(s)) * full + s.n_window_layers * window + s.n_chunk_layers * chunk


def mtp_keys(s: Shape, seq_len: Numbers, causal: bool) -> Numbers:
    """Keys per query in a multi-token-prediction layer."""
    full, window, chunk = kind_keys(s, seq_len, causal)
    return select(s.mtp_local, lambda: select(s.n_chunk_layers, lambda: chunk, lambda: window), lambda: full)


def cached_numbers(s: Shape, kv_heads: Numbers) -> Numbers:
    """Numbers that one layer caches for one token: keys and values, or the latent of latent attention."""
    return select(uses_mla(s), lambda: s.mla_kv_rank + s.mla_rope_dim, lambda: 2 * kv_heads * s.head_dim)
