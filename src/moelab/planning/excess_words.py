"""What excess compute means, and over which optimum each table and figure counts it."""

from moelab.planning.budget import COSTS
from moelab.planning.result import Plan

MEANING = "An excess of 20 % means that the optimum reaches the same loss with 20 % less compute (1 - C'/C)."
"""The one definition; each table names its optimum."""

OVER_LAW = f"{MEANING} Here the optimum is the law's own within the limits."
"""The definition for the table of laws."""

OVER_DESIGN = (
    "The excess is over design 1: 20 % means that a design as good as design 1 needs 20 % less compute for the model's "
    "loss (1 - C'/C); it is negative where the model is ahead."
)
"""The definition for released models."""


def excess_note(plan: Plan) -> str:
    """The definition of the excess of a plan's designs, with its optimum; empty where no law supports an excess."""
    if plan.confidence.meaningless:
        return ""
    if plan.budget.objective in COSTS:
        return "An excess of 20 % means that the cheapest design of the same loss costs 20 % less."
    if plan.lifetime is not None:
        return f"{MEANING} Here the optimum is the least loss under compute and data alone."
    return f"{MEANING} Here the optimum is the least loss within the limits{_over_laws(plan)}."


def _over_laws(plan: Plan) -> str:
    return ", by the median of the laws, each over its own optimum" if plan.best.mean_loss is None else ""


def order_note(plan: Plan) -> str:
    """What the rows of the table of designs are, and their order."""
    ranked = "excess compute plus the logarithm of the lifetime cost" if plan.lifetime is not None else "loss"
    if plan.budget.objective in COSTS:
        ranked = "cost"
    return (
        f"Rows are sizes, in the order of the best {ranked} at each. In each row, near-equal designs are settled by "
        "laws of granularity, released models' experts and rules for the shape, so the excess shown need not rise."
    )
