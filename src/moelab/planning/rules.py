"""Learning rate and batch for a planned design, and how far the rule is stretched."""

import math

STEP_LAW_RANGE = {"params": (0.21e9, 2.15e9), "tokens": (2e9, 100e9)}
"""Runs behind the Step Law: dense .21-1.07B, MoE 2.15B; 2-100B tokens."""


def step_law(params_non_embedding: float, tokens: float) -> tuple[float, int]:
    """Peak learning rate 1.79 N^-.713 D^.307 and batch .58 D^.571 tokens (arXiv 2503.04715; N without vocabulary)."""
    learning_rate = 1.79 * params_non_embedding**-0.713 * tokens**0.307
    return learning_rate, max(1, round(0.58 * tokens**0.571))


def step_law_extrapolation(params_non_embedding: float, tokens: float) -> float:
    """Largest log10 distance outside the runs behind the rule; 0 inside."""
    given = {"params": params_non_embedding, "tokens": tokens}
    return max(
        max(0.0, math.log10(given[name] / high), math.log10(low / given[name]))
        for name, (low, high) in STEP_LAW_RANGE.items()
    )
