"""Tokens that count for the loss: cheaper attention buys tokens, but what it costs in loss no law sees.

No law has the kind of attention, the depth or the heads among its variables; all were fitted to models with full
attention. A design whose attention scores take fewer FLOPs than those of full attention in practice's shape would gain
tokens for nothing. Hence laws read its tokens as if its scores took as many.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters
from moelab.laws.design import Design

Array = NDArray[Any]

ASPECT = 88.0
"""d_model / n_layers of practice's shape: the best one in arXiv 2506.12119."""

SIZE = 12.0
"""N = 12 n_layers d_model^2 without embeddings, with heads that together are d_model wide (arXiv 2001.08361)."""


def practice_scores(params_active_non_embedding: Any, seq_len: int) -> Array:
    """Forward FLOPs per token of full attention's scores, the whole square, in a model of this active size and of
    practice's shape: 4 seq_len n_layers d_model, with d_model = 88 n_layers and N = 12 n_layers d_model^2."""
    width = np.cbrt(np.asarray(params_active_non_embedding, float) * ASPECT / SIZE)
    return np.asarray(4.0 * seq_len * width**2 / ASPECT)


def credit_of(train: Any, scores: Any, params_active_non_embedding: Any, seq_len: int) -> Array:
    """The share of a design's tokens that laws read (n,), at most 1.

    `train` are its training FLOPs per token, `scores` those of its attention scores in one forward pass.
    """
    missing = np.maximum(practice_scores(params_active_non_embedding, seq_len) - scores, 0.0)
    return np.asarray(train / (train + 3.0 * missing))


def token_credit(model: ModelConfig | Shape, seq_len: int) -> Array:
    """`credit_of` one model, or of a lattice of shapes."""
    flops = count_flops(model, seq_len)
    active = count_parameters(model).params_active_non_embedding
    return credit_of(flops.train, flops.attention_scores, active, seq_len)


def credited_design(config: ModelConfig, tokens: Any, unique_tokens: float | None, seq_len: int) -> Design:
    """One model as laws read it: of its `tokens` (a number or an array) those that count for the loss, of which
    `unique_tokens` at most are distinct."""
    counted = tokens * float(token_credit(config, seq_len))
    return Design.of(config, counted, seq_len, None if unique_tokens is None else np.minimum(counted, unique_tokens))
