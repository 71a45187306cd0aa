"""Why this design, in words: what dense would need, why these experts, what a lower loss costs."""

import math
from typing import Any

from moelab.architecture import count_flops
from moelab.planning.allocation import beside_published
from moelab.planning.candidate import Candidate
from moelab.planning.paired import PairedErrors
from moelab.planning.result import Plan
from moelab.planning.why_balance import balance_sentences
from moelab.quantities import format_number

SURE = 0.95
"""Share of the draws in which MoE is better from which dense is in no doubt behind."""
LEAST_SHARE = 0.005
"""Share of compute that would round to 0 %."""

PAID = 1.0
"""FLOPs of serving over those of training from which both ways to count serving are worth a sentence."""

SETTLED = {
    "granularity": "laws of granularity ({laws})",
    "cost": "the cost over the model's life",
    "practice": "the experts of released models",
}
"""The steps that settle near-equal designs, in words."""

NAMES = {"n_experts": "experts", "top_k": "top-k", "granularity": "granularity", "n_shared_experts": "shared experts"}
"""The axes that are named where draws leave them open."""

WEIGHED = {"utilisation": "the utilisation of training", "cost": "the lifetime cost"}
"""What the laws of granularity are weighed against, in words."""


def why(plan: Plan) -> list[str]:
    """Sentences that argue for the recommendation."""
    balance = [*balance_sentences(plan), *_served_flops(plan)]
    return [*_dense(plan), *_experts(plan), *beside_published(plan), *_utilisation(plan), *balance]


def _dense(plan: Plan) -> list[str]:
    """What the best dense model under the same limits is worth."""
    best, dense = plan.best, plan.best_dense
    if not best.is_moe or dense is None or plan.budget.objective in ("serving-cost", "lifetime-cost"):
        return []
    size = format_number(dense.params_total)
    name = f"The best dense model under the same limits ({size})"
    times = _times(dense, best)
    if plan.lifetime is not None and times is not None and times <= 1:
        name = f"The best dense model that costs no more over its life ({size})"
    share = (1 - dense.regret_compute.value) / max(1 - best.regret_compute.value, 1e-9)
    if share >= 1:
        return [f"{name} {_against_dense(plan, dense, share > 1)}."]
    if plan.confidence.meaningless:
        return [f"{name} is behind; no law supports how far."]
    needs = "less than 1%" if share < LEAST_SHARE else f"{share:.0%}"
    chance = plan.p_moe_beats_dense
    doubt = "" if chance is None or chance >= SURE else f"; in {1 - chance:.0%} of the draws dense is better"
    return [f"{name} reaches a loss for which MoE needs {needs} of its compute{doubt}."]


def _against_dense(plan: Plan, dense: Candidate, ahead: bool) -> str:
    """A dense model whose excess is no larger: its loss where one law gives it, and its cost where there is one."""
    best, here, there = plan.best, plan.best.mean_loss, dense.mean_loss
    if here is not None and there is not None:
        nats = there.value - here.value
        loss = f"reaches a loss {'lower' if nats < 0 else 'higher'} by {abs(nats):.3f} nats" if nats else "ties in loss"
    else:
        loss = "has less excess compute" if ahead else "ties in excess compute"
    times = _times(dense, best)
    return loss if times is None else f"{loss}; over its life it costs {times:.2f} times as much"


def _times(one: Candidate, other: Candidate) -> float | None:
    """The lifetime cost of one design over that of another; None where one of them has none."""
    costs: list[Any] = [(design.cost or {}).get("lifetime") for design in (one, other)]
    return None if None in costs else float(costs[0] / costs[1])


def _experts(plan: Plan) -> list[str]:
    """The axes that the ensemble leaves open, and what settled them."""
    if not plan.best.is_moe:
        return []
    lines = []
    if len(plan.equivalent) > 1:
        shown = ", ".join(plan.equivalent[:6]) + (", ..." if len(plan.equivalent) > 6 else "")
        steps = [f"{_settler(step)} left {_some(step['experts'])}" for step in plan.settled_by]
        settled = f" {'; then '.join(steps)}." if steps else ""
        lines.append(f"The ensemble cannot distinguish {shown}:{settled or ' practice decides.'}")
    if plan.best.regret_loss.low is not None and plan.near_equal > 1:
        axes = [f"{NAMES[name]} {_ends(ends)}" for name, ends in plan.open_axes.items() if name in NAMES]
        if axes:
            lines.append(f"The draws leave open: {', '.join(axes)}. Design 1 is settled by the fit itself.")
    return lines


def _ends(ends: tuple[float, float]) -> str:
    return f"{format_number(ends[0])} to {format_number(ends[1])}"


def _utilisation(plan: Plan) -> list[str]:
    """How far predicted training times must differ before the difference counts."""
    error = PairedErrors.of(plan.budget).training
    if plan.budget.flops is not None or not error:
        return []
    return [
        f"Predicted training times of two designs are known to a factor of {math.exp(error):.2f} (80 %): smaller "
        "differences count as ties in the excess."
    ]


def _settler(step: dict[str, Any]) -> str:
    """What settled the experts in one step, in words."""
    text = SETTLED[step["by"]].format(laws=", ".join(step.get("laws", [])))
    weighed = [WEIGHED[name] for name in step.get("weighed_against", [])]
    return f"{text}, weighed against {' and '.join(weighed)}," if weighed else text


def _some(experts: list[str]) -> str:
    return " and ".join(experts) if len(experts) < 3 else f"{len(experts)} of them"


def _served_flops(plan: Plan) -> list[str]:
    """How serving counted in FLOPs differs from serving that is priced."""
    best, budget = plan.best, plan.budget
    forward = float(count_flops(best.config, plan.space.seq_len).forward)
    if budget.serve_flops_tokens:
        served = forward * budget.serve_flops_tokens
        share = served / (served + best.train_flops)
        return [
            f"Of the compute, {share:.0%} serves {format_number(budget.serve_flops_tokens)} tokens, counted as FLOPs "
            "alone; --hardware prices memory, latency and devices instead."
        ]
    if plan.lifetime is None or budget.serving is None or budget.serving.tokens is None:
        return []
    times = forward * budget.serving.tokens / best.train_flops
    if times < PAID:
        return []
    return [
        f"Serving takes {times:.1f} times the FLOPs of training. Other devices serve here, and their dollars count; "
        "with --pay-serving one compute must hold both, so its --flops must be larger."
    ]
