"""The published split of compute between tokens and active parameters beside a plan's own, by the rules of Ling."""

from dataclasses import dataclass

import numpy as np

from moelab.laws import get_rule
from moelab.laws.design import Design
from moelab.planning.result import Plan
from moelab.planning.space import Space
from moelab.quantities import format_number, format_outside

RULES = {True: "tian2025-moe", False: "tian2025-dense"}
"""The rule for MoE designs and for dense ones (arXiv 2507.17702), in which M is the training FLOPs per token without
embeddings, attention scores included."""

APART = 2.0
"""Factor between the tokens of a plan and those of the rule from which on the difference is a doubt."""

FEW_TOKENS = 5.0
"""Tokens per active parameter below which a plan is warned of: a fourth of the 20 of compute-optimal dense models
(Hoffmann et al. 2022). Released models saw 38 and more."""


@dataclass(frozen=True)
class Allocation:
    """What a rule gives for a plan's compute: `tokens`, and `active` parameters as M/6, a little too many, since M has
    the attention scores. `distance` is the log10 of the compute over that of its runs, `own` the plan's tokens."""

    rule: str
    tokens: float
    active: float
    distance: float
    own: float

    @property
    def sentence(self) -> str:
        """What the rule gives, and its distance from its runs."""
        far = f"{format_outside(self.distance)} outside its runs" if self.distance else "inside its runs"
        return (
            f"the published allocation of {self.rule} takes {format_number(self.tokens)} tokens on about "
            f"{format_number(self.active)} active parameters for this compute ({far})"
        )


def published_allocation(plan: Plan) -> Allocation | None:
    """What the rule of the recommended design's kind gives for its compute; None with serving, which asks for more
    tokens, where a cost is minimised, and below the compute of the rule's runs."""
    best, budget = plan.best, plan.budget
    if budget.serving is not None or budget.serve_flops_tokens:
        return None
    rule = get_rule(RULES[best.is_moe])
    ends = rule.ranges["train_flops"]
    assert ends is not None
    design = Design.of(best.config, best.tokens, plan.space.seq_len)
    compute = float(np.ravel(design.train_flops_without_head)[0])
    if compute < ends[0]:
        return None
    given = rule.apply(train_flops=compute)
    distance = max(0.0, float(np.log10(compute / ends[1])))
    return Allocation(rule.id, float(given["tokens"]), float(given["flops_per_token"]) / 6, distance, best.tokens)


def beside_published(plan: Plan) -> list[str]:
    """The published split of compute, where the plan has as many tokens or more."""
    found = published_allocation(plan)
    if found is None or found.tokens > APART * found.own:
        return []
    times = found.own / found.tokens
    shown = f"{times:.2f}" if times < APART else f"{times:.1f}"
    return [f"{found.sentence[0].upper()}{found.sentence[1:]}; this plan has {shown} times as many tokens."]


def allocation_doubts(plan: Plan) -> list[str]:
    """A doubt where the plan's tokens are far below those of the published split, or few for its size; none where its
    first sentence has it."""
    if plan.confidence.out_of_range:
        return []
    found = published_allocation(plan)
    ratio = plan.best.tokens / plan.best.params_active
    here = f"{ratio:.3g} tokens per active parameter"
    if found is not None and found.tokens > APART * found.own:
        more = f"{found.sentence}: {found.tokens / found.own:.1f} times the tokens of this plan, which has {here}"
        return [more + _way_there(plan, found)]
    if ratio < FEW_TOKENS:
        return [
            f"{here} are few: compute-optimal dense models have about 20 (arXiv 2203.15556), released models 38 and "
            "more; --min-tokens-per-active asks for more"
        ]
    return []


def _way_there(plan: Plan, found: Allocation) -> str:
    """What keeps a plan from the published split: the data, a limit, or a space without such sizes; else the option
    that asks for it."""
    budget, asked = plan.budget, found.tokens / found.active
    if found.tokens > budget.max_data:
        return f"; the data allows {format_number(budget.max_data)}"
    if budget.max_tokens is not None and found.tokens > budget.max_tokens:
        return f"; the limit on tokens is {format_number(budget.max_tokens)}"
    if budget.max_tokens_per_active is not None and asked > budget.max_tokens_per_active:
        return f"; the limit is {budget.max_tokens_per_active:g} tokens per active parameter"
    usual = Space()
    if plan.space.template is not None or (plan.space.d_model, plan.space.n_layers) != (usual.d_model, usual.n_layers):
        return "; a space with smaller designs may have that split"
    return f"; --min-tokens-per-active {asked:.2g} asks for about that split"
