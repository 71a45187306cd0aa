"""A plan: ranked candidates, the best design of each kind, uncertainty, binding limits, warnings, figures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from moelab.architecture import count_flops
from moelab.errors import InputError
from moelab.machine import freed_memory_kept
from moelab.notebook import Shown, html_table, short_repr
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval
from moelab.planning.confidence import Confidence, confidence_of
from moelab.planning.phrases import (
    as_sentence,
    binding_sentence,
    compute_sentence,
    searched_sentence,
    train_words,
    training_sentence,
)
from moelab.planning.plan_table import EXCESS_COMPUTE, candidate_table, layers_note
from moelab.planning.space import Space

Row = dict[str, Any]
PLOTS = ("candidates", "pareto", "slices")
"""Figures of a plan."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(Shown):
    """The result of `plan`.

    `candidates` differ in their law inputs, best first. `near_equal` counts the designs as good as the first, itself
    included, by `near_equal_rule`. `p_moe_beats_dense` is None without bootstrap draws. `optimum` gives the location of
    the optimum by property, and `choices` each law's own optimum. `binding` names the binding limits, and `sensitivity`
    holds the gain from 10 % more of each. The laws of `ensemble` rank the designs; the others only predict. `slices`
    holds the rows of the figure of that name, `deferred_what_if` computes `what_if`; `ranked_note`: what laws exclude.
    """

    budget: Budget
    space: Space
    candidates: list[Candidate]
    best_dense: Candidate | None
    best_moe: Candidate | None
    pareto: list[Candidate]
    near_equal: int
    near_equal_rule: str
    p_moe_beats_dense: float | None
    optimum: dict[str, Interval]
    choices: dict[str, Candidate]
    binding: list[str]
    sensitivity: dict[str, dict[str, Any]]
    warnings: list[str]
    ensemble: list[str]
    n_designs: int
    n_feasible: int
    slices: dict[str, list[dict[str, Any]]]
    equivalent: list[str] = field(default_factory=list)
    open_axes: dict[str, tuple[float, float]] = field(default_factory=dict)
    settled_by: list[dict[str, Any]] = field(default_factory=list)
    lifetime: dict[str, Any] | None = None
    deferred_what_if: Callable[[], list[Row]] = field(default=list, compare=False)
    nearest_released: list[Row] = field(default_factory=list)
    released_rates: list[Row] = field(default_factory=list)
    ranked_note: str = ""

    @property
    def best(self) -> Candidate:
        """The recommended design."""
        return self.candidates[0]

    @cached_property
    def confidence(self) -> Confidence:
        """How far the plan can be trusted."""
        return confidence_of(self.best, self.ensemble, self.choices)

    @cached_property
    def what_if(self) -> list[Row]:
        """A row per change of a limit or a law, with the design that is then recommended; computed at first use."""
        with freed_memory_kept():
            return self.deferred_what_if()

    @property
    def train_flops_causal(self) -> float:
        """Training FLOPs of the recommended design with causal attention scores, half of the square."""
        return float(count_flops(self.best.config, self.space.seq_len, causal=True).train * self.best.tokens)

    @property
    def sentence(self) -> str:
        """The result in a few sentences."""
        return summary(self)

    @property
    def loss_name(self) -> str:
        """The name of a design's single number: the loss of the only member of the ensemble, else the excess compute.
        With the lifetime cost as the objective, dollars."""
        if self.budget.objective == "lifetime-cost":
            return "lifetime cost in $, all at the same loss"
        if self.best.mean_loss is None:
            return EXCESS_COMPUTE
        return f"loss ({self.ensemble[0] if len(self.ensemble) == 1 else 'mean of the fitted laws'})"

    def plot(self, kind: str = "candidates") -> Any:
        """An Altair chart: `candidates` with intervals, the `pareto` front, or `slices` of the best loss.

        Raises InputError for another `kind`.
        """
        return figure(self, kind)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the candidates, as text."""
        priced = self.budget.train_hardware is not None
        shares = not self.confidence.meaningless
        return candidate_table(self.candidates, self.best_dense, self.budget.objective, priced, shares)

    def __repr__(self) -> str:
        return short_repr(
            self,
            best=self.best.label,
            tokens=self.best.tokens,
            candidates=len(self.candidates),
            near_equal=self.near_equal,
            feasible=self.n_feasible,
            binding=", ".join(self.binding),
            warnings=len(self.warnings),
        )

    def _repr_html_(self) -> str:
        columns, rows = self.table()
        note = " ".join(filter(None, (layers_note(self.candidates), *self.warnings)))
        return html_table(columns, rows, title=self.sentence, note=note)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of `moelab plan --json`."""
        return {
            "budget": self.budget.to_dict(),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "best_dense": None if self.best_dense is None else self.best_dense.to_dict(),
            "best_moe": None if self.best_moe is None else self.best_moe.to_dict(),
            "pareto": [candidate.to_dict() for candidate in self.pareto],
            "near_equal": self.near_equal,
            "near_equal_rule": self.near_equal_rule,
            "p_moe_beats_dense": self.p_moe_beats_dense,
            "optimum": {name: interval.to_dict() for name, interval in self.optimum.items()},
            "choices": {law: candidate.to_dict() for law, candidate in self.choices.items()},
            "binding": self.binding,
            "relaxed": self.sensitivity,
            "warnings": self.warnings,
            "voting": self.ensemble,
            "n_designs": self.n_designs,
            "n_feasible": self.n_feasible,
            "equivalent": self.equivalent,
            "open_axes": {name: list(ends) for name, ends in self.open_axes.items()},
            "settled_by": self.settled_by,
            "lifetime": self.lifetime,
            "implied_lifetime_tokens": None if self.lifetime is None else self.lifetime["implied_lifetime_tokens"],
            "what_if": self.what_if,
            "nearest_released": self.nearest_released,
            "confidence": self.confidence.to_dict(),
            "train_flops_causal": self.train_flops_causal,
            "rates": [rate.to_dict() for rate in self.best.rates],
            "released_rates": self.released_rates,
        }


def summary(plan: Plan) -> str:
    """A few sentences: any doubt first, then the recommended design, its uncertainty, and the binding limits."""
    best, doubt, budget = plan.best, plan.confidence, plan.budget
    assumed = budget.serving.device_words if budget.serving is not None and budget.train_hardware is None else None
    parts = [
        *([doubt.sentence] if doubt.sentence else []),
        f"Train {train_words(best)}.",
        *([as_sentence(plan.ranked_note)] if plan.ranked_note else []),
        compute_sentence(best, plan.train_flops_causal, budget.precision, budget.context or plan.space.seq_len),
        *([training_sentence(best.training, assumed)] if best.training else []),
        searched_sentence(plan.n_feasible, plan.n_designs, plan.space),
    ]
    if plan.p_moe_beats_dense is not None and not doubt.doubtful:
        parts.append(f"The probability that the best MoE beats the best dense model is {plan.p_moe_beats_dense:.0%}.")
    if plan.near_equal > 1:
        rule = "" if doubt.meaningless else f" ({plan.near_equal_rule})"
        parts.append(f"{plan.near_equal:,} designs, this one included, are near-equal{rule}.")
    return " ".join([*parts, *binding_sentence(plan.binding)])


def figure(plan: Plan, kind: str) -> Any:
    """The chart `kind` of a plan, one of `PLOTS`. Raises InputError for another."""
    from moelab.report import figures

    if kind not in PLOTS:
        raise InputError(f"plot: no such figure {kind!r}; known: {', '.join(PLOTS)}")
    if kind == "candidates":
        return figures.candidates(candidate_rows(plan))
    if kind == "slices":
        return figures.budget_slices(plan.slices)
    traded = "lifetime cost" if plan.budget.objective == "lifetime-cost" else "loss"
    counts = f"{traded} and size" if plan.best.serving is None else f"{traded}, size and price of serving"
    title = f"No other design is better in {counts} at once"
    rows = pareto_rows(plan)
    share, cost = plan.loss_name == EXCESS_COMPUTE, "$ per million tokens served"
    return figures.pareto(rows, loss_title=plan.loss_name, cost_title=cost, title=title, share=share)


def candidate_rows(plan: Plan) -> list[Row]:
    """A row per candidate and law of the ensemble: label, law, loss, low, high, kind, rank."""
    shown = [*plan.candidates]
    if plan.best_dense is not None and all(design.is_moe for design in shown):
        shown.append(plan.best_dense)
    return [
        {
            # The best dense design is shown beside the ranked ones, without a rank of its own.
            "label": f"{rank}. {design.label}" if rank <= len(plan.candidates) else f"best dense: {design.label}",
            "law": law,
            "loss": design.loss[law].value,
            "low": design.loss[law].low,
            "high": design.loss[law].high,
            "kind": "moe" if design.is_moe else "dense",
            "rank": rank,
        }
        for rank, design in enumerate(shown, 1)
        for law in plan.ensemble
        if design.loss[law].value is not None
    ]


def pareto_rows(plan: Plan) -> list[Row]:
    """A row per design of the front, and the recommended one: label, kind, params_total, loss, on_front, recommended,
    dollars per million tokens served or None.

    The recommended design need not lie on the front. Of equivalent designs it is the one that Li et al.'s rules prefer,
    and where a cost is minimised it is the cheapest.
    """
    best = next((design for design in plan.pareto if design.config == plan.best.config), None)
    return [
        {
            "label": design.label,
            "kind": "moe" if design.is_moe else "dense",
            "params_total": design.params_total,
            "loss": _loss(plan, design),
            "on_front": design is not plan.best or design is best,
            "recommended": design is (best or plan.best),
            "serving_cost": None if design.serving is None else design.serving["cost_per_million_tokens"],
        }
        for design in (*plan.pareto, *(() if best else (plan.best,)))
    ]


def _loss(plan: Plan, design: Candidate) -> float:
    """The number that `Plan.loss_name` names: a loss, a share of excess compute, or dollars."""
    if plan.budget.objective == "lifetime-cost" and design.cost is not None:
        return design.cost["lifetime"]
    return design.regret_compute.value if design.mean_loss is None else design.mean_loss.value
