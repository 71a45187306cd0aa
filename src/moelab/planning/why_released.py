"""Released models beside a plan, in words: one that the laws put ahead and why it is not the answer, and its tokens."""

from typing import Any

from moelab.architecture.released import released_models
from moelab.planning.nearest import PRICE
from moelab.planning.result import Plan
from moelab.planning.why import LEAST_SHARE

Row = dict[str, Any]

MOST_TIMES = 100
"""Tokens of released models over those of a plan, above which the number means no more than that it is large."""

OTHER_LIMITS = (
    "gpus", "max_memory", "max_tokens", "min_tokens_per_active", "max_tokens_per_active", "min_tokens_per_total",
    "target_loss", "target_experts", "train_hardware",
)  # fmt: skip
"""Limits of a budget that a row of released models has no number for; `gpus` and `train_hardware` limit its layout."""


def ahead_of_design(plan: Plan) -> list[str]:
    """What a negative excess of a released model means, where there is one, and what left that model out."""
    ahead = [row for row in plan.nearest_released if (row["excess_compute"] or 0) < -LEAST_SHARE]
    if not ahead or plan.confidence.meaningless:
        return []
    first = min(ahead, key=lambda row: float(row["excess_compute"]))
    times = 1 - float(first["excess_compute"])
    return [
        f"A negative excess: the laws put that model ahead. For the loss of {first['name']} the laws' optima need "
        f"{times:.2f} times the compute of those as good as design 1. {_why_not(plan, first)}"
    ]


def _why_not(plan: Plan, row: Row) -> str:
    """The sentence that names every reason found in the plan itself; else what can leave a model out."""
    reasons = [*_kind(plan, row), *_laws(row), *_sizes(plan, row), *_served(plan, row)]
    if reasons:
        return f"It is not the answer: {'; '.join(reasons)}."
    if any(getattr(plan.budget, name) is not None for name in OTHER_LIMITS) or plan.budget.serving is not None:
        return "The limits leave it out, or the designs that were searched do not include it."
    return "The designs that were searched do not include it: --near or a space of one's own searches around it."


def _kind(plan: Plan, row: Row) -> list[str]:
    kind = "dense" if released_models()[row["name"]].config.moe is None else "moe"
    return (
        []
        if kind in plan.space.kinds
        else [f"--kinds {','.join(plan.space.kinds)} leaves {kind.replace('moe', 'MoE')} models out"]
    )


def _laws(row: Row) -> list[str]:
    covering, all_of = len(row["laws"]), row["of_laws"]
    few = f"only {covering} of the {all_of} laws that cover design 1 cover{'s' * (covering == 1)} it"
    return [f"{few}, and designs that more laws cover come first"] if covering < all_of else []


def _sizes(plan: Plan, row: Row) -> list[str]:
    limits = (("max_params", "params_total"), ("max_active", "params_active"))
    passed = [limit for limit, size in limits if (most := getattr(plan.budget, limit)) and row[size] > most]
    return [f"it is above --{limit.replace('_', '-')}" for limit in passed]


def _served(plan: Plan, row: Row) -> list[str]:
    """The limits on serving, where it has no price, or its price, where the cost of serving counts."""
    wanted, own = plan.budget.serving, plan.best.serving
    if wanted is None or own is None or wanted.price is None:
        return []
    if row[PRICE] is None:
        return ["the serving devices and their limits have no place for it"]
    if wanted.max_price is not None and row[PRICE] > wanted.max_price:
        return ["it is above --max-price"]
    return ["it costs more to serve"] if plan.budget.objective != "loss" and row[PRICE] > own[PRICE] else []


def beside_released(plan: Plan) -> list[str]:
    """How far the nearest released models were trained beyond this plan, and why."""
    ratios = [
        _float(row["trained_tokens"]) / plan.best.tokens * plan.best.params_active / _float(row["params_active"])
        for row in plan.nearest_released
        if row["trained_tokens"] is not None
    ]
    if not ratios:
        return []
    times = sorted(ratios)[len(ratios) // 2]
    if times < 2:
        return []
    often = f"over {MOST_TIMES}" if times > MOST_TIMES else f"about {times:.0f}"
    return [
        f"Released models of this size saw {often} times as many tokens per active parameter: labs train "
        "smaller models beyond the training optimum, because serving is paid as well."
    ]


def _float(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
