"""The learning rate at each step (warm-up, then cosine, warm-up-stable-decay, or constant), and when to evaluate."""

import math

from moelab.runs import TrainConfig


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """The rate of optimiser step `step` (from 0) of `config.steps`.

    Linear warm-up, peak (t + 1) / W in step t of W; `cosine` falls to `final_lr_fraction` of the peak at the end;
    `wsd` stays at the peak and falls linearly over the last `decay_fraction` of the steps, the last of which has
    exactly that rate (arXiv 2404.06395).
    """
    peak, total = config.learning_rate, config.steps
    warmup = config.warmup
    if step < warmup:
        return peak * (step + 1) / warmup
    final = config.final_lr_fraction
    if config.schedule == "cosine":
        progress = (step - warmup) / max(1, total - warmup)
        return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
    decay = config.decay
    if config.schedule == "wsd" and decay and step >= total - decay:
        if step == total - 1:
            return peak * final
        return peak * (1 - (1 - final) * (step - (total - decay) + 1) / decay)
    return peak


def evaluation_steps(steps: int, evaluations: int) -> set[int]:
    """The steps after which a run is evaluated: evenly spread, at most one per step, the last among them."""
    evaluations = min(evaluations, steps)
    return {math.ceil(steps * (i + 1) / evaluations) for i in range(evaluations)}
