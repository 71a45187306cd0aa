"""Designs of the front that are better in excess and price than the recommended one, and why they were not taken."""

from moelab.planning.candidate import Candidate
from moelab.planning.result import Plan
from moelab.planning.why_balance import NOT_TAKEN
from moelab.quantities import format_dollars, format_number

PRICE = "cost_per_million_tokens"


def better_on_front(plan: Plan) -> dict[str, list[Candidate]]:
    """By reason, a key of `NOT_TAKEN`: the designs of the front with less excess at no higher price than design 1.

    Without a price of serving the total parameters take its place. On a balance of loss and lifetime cost there are
    none: its frontier gives the reason.
    """
    found: dict[str, list[Candidate]] = {}
    if plan.lifetime is not None or plan.confidence.meaningless:
        return found
    best = plan.best
    for design in plan.pareto:
        if design.regret_compute.value < best.regret_compute.value and _size(design) <= _size(best):
            found.setdefault(_reason(plan, design), []).append(design)
    return found


def _size(design: Candidate) -> float:
    price = None if design.serving is None else design.serving[PRICE]
    return float(design.params_total if price is None else price)


def _reason(plan: Plan, design: Candidate) -> str:
    """The step that left out the design's experts; the rules for the shape where none did."""
    if design.is_moe != plan.best.is_moe:
        return "kind"
    return next((str(step["by"]) for step in plan.settled_by if design.experts not in step["experts"]), "shape")


def not_taken_sentences(plan: Plan) -> list[str]:
    """A sentence for each reason; empty where no design of the front is better in both."""
    lines = []
    for reason, designs in better_on_front(plan).items():
        named = "; ".join(
            f"{design.label} ({design.regret_compute.value:.1%}, {_priced(design)})" for design in designs
        )
        lines.append(f"Less excess than design 1 at no more {_what(plan)}: {named}. Not taken: {NOT_TAKEN[reason]}.")
    return lines


def _what(plan: Plan) -> str:
    priced = plan.best.serving is not None and plan.best.serving[PRICE] is not None
    return "cost per token served" if priced else "parameters"


def _priced(design: Candidate) -> str:
    price = None if design.serving is None else design.serving[PRICE]
    if price is None:
        return f"{format_number(design.params_total)} parameters"
    return f"{format_dollars(price)} per million tokens"
