"""A plan in plain words: what to train, how sure that is, what decides."""

from typing import TYPE_CHECKING

from moelab.quantities import format_bytes, format_number

if TYPE_CHECKING:
    from moelab.planning.result import Plan

LIMIT_WORDS = {
    "compute": "compute",
    "data": "the data there is",
    "tokens": "the limit on tokens",
    "params": "the limit on parameters",
    "active": "the limit on active parameters",
    "memory": "memory",
    "tokens_per_active": "the least tokens per active parameter",
    "serving": "the limits on serving",
}


def answer_of(plan: "Plan") -> str:
    """Two to four sentences for the top of a report."""
    best = plan.best
    kind = "a MoE model" if best.is_moe else "a model"
    parts = [
        f"Of {plan.n_feasible:,} designs that fit ({plan.n_designs:,} searched), train {kind} of {best.label}"
        f" ({best.config.n_layers} layers of width {best.config.d_model}) on {format_number(best.tokens)} tokens"
        f"{_epochs(best.epochs)}: {format_number(best.train_flops)} FLOPs, {format_bytes(best.memory_bytes)} to serve."
    ]
    if plan.p_moe_beats_dense is not None:
        parts.append(f"The probability that the best MoE beats the best dense model is {plan.p_moe_beats_dense:.0%}.")
    if plan.near_equal > 1:
        parts.append(f"{plan.near_equal:,} designs cannot be told apart from it ({plan.near_equal_rule}).")
    limits = [LIMIT_WORDS[name] for name in plan.binding if name in LIMIT_WORDS]
    if limits:
        parts.append(f"What decides: {' and '.join([', '.join(limits[:-1]), limits[-1]] if limits[1:] else limits)}.")
    return " ".join(parts)


def _epochs(epochs: float) -> str:
    return f" ({epochs:.2g} epochs)" if epochs > 1.001 else ""
