"""What the balance of loss against lifetime cost chose, in words: the knee, its bound, and what 0.001 nats cost."""

from typing import Any

from moelab.planning.result import Plan
from moelab.quantities import format_dollars, format_number

NOT_TAKEN = {
    "granularity": "the ensemble cannot distinguish the two, and laws of granularity settled against its experts",
    "cost": "the ensemble cannot distinguish the two, and the cheapest design of its experts costs more",
    "practice": "the ensemble cannot distinguish the two, and the experts of released models settled against it",
    "shape": "the ensemble cannot distinguish the two, and rules for the shape settled against it",
    "kind": "designs of one kind are settled among themselves",
    "requests": "it is served at fewer than 8 requests in flight",
    "within": "it lies beyond the excess compute that the balance allows",
}
"""Why a design of lower loss at no more cost was not taken, in words."""

SOURCES = {
    "stated": "as asked",
    "laws": "what the laws disagree by",
    "times": "the error of predicted training times",
    "least": "what laws distinguish at best",
}
"""What the excess allowed comes from, in words."""

NEARLY = 1.005
"""Factor within which a share rounds to another."""

BEND = 10
"""Price of a lower loss over what a higher one saves, from which on the frontier is called bent."""

AT_BOUND = 0.95
"""Share of the excess allowed from which on a design is at its edge, so that a smaller one would be beyond it."""


def balance_sentences(plan: Plan) -> list[str]:
    """Dollars against loss on either side of the recommendation."""
    if plan.lifetime is None:
        return []
    lines = [knee_sentence(plan), *_per_millinat(plan), *_fleet(plan)]
    tokens = plan.lifetime["implied_lifetime_tokens"]
    if tokens:
        lines.append(
            f"From {format_number(tokens)} served tokens on, this design costs less than a larger one that is trained "
            "to the same loss with less compute."
        )
    return lines


def _fleet(plan: Plan) -> list[str]:
    """The device-years of serving."""
    wanted, cost = plan.budget.serving, plan.best.cost or {}
    if wanted is None or not wanted.price or not cost.get("serve") or wanted.tokens is None:
        return []
    years = format_number(cost["serve"] / wanted.price / 8760)
    return [f"Serving {format_number(wanted.tokens)} tokens takes {years} device-years of {wanted.device_words}."]


def knee_sentence(plan: Plan) -> str:
    """What the balance of loss against lifetime cost chose, and whether the excess allowed decided."""
    assert plan.lifetime is not None
    within, excess = plan.lifetime["within"], plan.lifetime["recommended"]["excess_compute"]
    over = f"{excess:.0%} excess compute over the least loss under compute and data alone"
    source = SOURCES[plan.lifetime["within_source"]]
    if plan.confidence.meaningless:
        return "Design 1 is at the knee of loss against lifetime cost; no law supports how far behind it is in compute."
    if not plan.lifetime["within_attainable"]:
        return (
            f"No design within the limits is within the {within:.0%} of excess compute that is allowed ({source}): "
            f"design 1 has {over}. The limits decide, not the balance of loss and cost."
        )
    beyond = (
        " That is beyond what is allowed: the laws cannot distinguish it from designs with less, among which experts "
        "and shape decided."
    )
    more = beyond if excess > within * NEARLY else ""
    if plan.lifetime["within_decides"]:
        still = ", and more served tokens change nothing" if excess > within * AT_BOUND else ""
        return (
            f"By lifetime cost alone a smaller model would be chosen, but it has more than the {within:.0%} of excess "
            f"compute that is allowed ({source}; --within sets it). This bound decides{still}. Design 1 has {over}."
            f"{more}"
        )
    return (
        "Design 1 is at the knee of loss against lifetime cost, where one per cent of compute is worth one per cent of "
        f"that cost. It has {over}; {within:.0%} are allowed ({source}).{more}"
    )


def _bend(price: dict[str, Any]) -> str:
    """A sentence where the two sides, or a small and a larger step, differ much: the frontier bends there, and the next
    0.01 nats show how far."""
    less, saved, ten = price["lower_loss_costs"], price["higher_loss_saves"], price.get("higher_by_ten_saves")
    if ten is None or max(ten, less or 0.0) < BEND * saved:
        return ""
    return (
        " The frontier has a bend or a gap here, so neither price holds for larger steps: a loss higher by 0.01 nats "
        f"saves {format_dollars(ten)} per 0.001."
    )


def _per_millinat(plan: Plan) -> list[str]:
    """What 0.001 nats cost on the frontier; where a lower loss costs no more, the design, and why it was not taken."""
    assert plan.lifetime is not None
    price, lower = plan.lifetime["per_millinat"], plan.lifetime["lower_loss_at_no_more_cost"]
    less, saved = price["lower_loss_costs"], price["higher_loss_saves"]
    parts = []
    if lower is not None:
        reason = NOT_TAKEN[lower["not_taken"]]
        parts.append(
            f"A loss lower by {lower['nats']:.3f} nats costs no more over the model's life: {lower['design']} at "
            f"{format_dollars(lower['lifetime'])}; not taken, because {reason}."
        )
    elif less is not None and less > 0:
        parts.append(f"A loss lower by 0.001 nats costs {format_dollars(less)} more over the model's life.")
    off = price.get("off_frontier")
    if lower is not None and off is not None:
        parts.append(f"The frontier reaches this design's own loss for {format_dollars(off)} less.")
    elif saved is not None and saved > 0:
        parts.append(f"A loss higher by 0.001 nats saves {format_dollars(saved)}.{_bend(price)}")
    if price["by_training"] is not None:
        parts.append(f"By longer training of this design, 0.001 nats cost {format_dollars(price['by_training'])}.")
    return [" ".join(parts)] if parts else []
