"""What a plan returns: ranked candidates, the best of each kind, how sure, what binds, and what to beware of."""

from dataclasses import dataclass
from typing import Any

from moelab.errors import InputError
from moelab.notebook import Shown, html_table, short_repr
from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval
from moelab.planning.plan_table import candidate_table
from moelab.planning.space import Space
from moelab.quantities import format_bytes, format_number

Row = dict[str, Any]
PLOTS = ("candidates", "pareto", "slices")

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(Shown):
    """The answer. `candidates` are distinct to the laws, best first; `near_equal` counts those not told apart from the
    first, itself among them (1: it stands alone); `choices` holds each law's own optimum."""

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
    relaxed: dict[str, dict[str, float]]
    warnings: list[str]
    voting: list[str]
    n_designs: int
    n_feasible: int
    slices: dict[str, list[dict[str, Any]]]

    @property
    def best(self) -> Candidate:
        """The recommended design."""
        return self.candidates[0]

    @property
    def sentence(self) -> str:
        """The answer in plain words."""
        return answer_of(self)

    @property
    def loss_name(self) -> str:
        """What a design's single number is: the loss of the fit or law that votes, or, of several, compute wasted;
        where money is to be saved over the whole life, dollars."""
        if self.budget.objective == "lifetime-cost":
            return "$ over the whole life, all at the same loss"
        if self.best.mean_loss is None:
            return "compute wasted (median of the voting laws)"
        return f"loss ({self.voting[0] if len(self.voting) == 1 else 'mean of the fitted laws'})"

    def plot(self, kind: str = "candidates") -> Any:
        """An Altair chart: `candidates` with intervals, the `pareto` front, or `slices` of the best loss."""
        return figure(self, kind)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the candidates, as text."""
        priced = self.budget.train_hardware is not None
        return candidate_table(self.candidates, self.best_dense, self.budget.objective, priced)

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
        return html_table(columns, rows, title=self.sentence, note=" ".join(self.warnings))

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
            "relaxed": self.relaxed,
            "warnings": self.warnings,
            "voting": self.voting,
            "n_designs": self.n_designs,
            "n_feasible": self.n_feasible,
        }


def answer_of(plan: Plan) -> str:
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


def figure(plan: Plan, kind: str) -> Any:
    """An Altair chart: `candidates` with their intervals, the `pareto` front, or the `slices` through the optimum."""
    from moelab.report import figures

    if kind not in PLOTS:
        raise InputError(f"plot: no such figure {kind!r}; known: {', '.join(PLOTS)}")
    if kind == "candidates":
        return figures.candidates(candidate_rows(plan))
    if kind == "slices":
        return figures.budget_slices(plan.slices)
    traded = "lifetime price" if plan.budget.objective == "lifetime-cost" else "loss"
    counts = f"{traded} and size" if plan.best.serving is None else f"{traded}, size and price of serving"
    title = f"No other design is better in {counts} at once"
    rows = pareto_rows(plan)
    return figures.pareto(rows, loss_title=plan.loss_name, cost_title="$ per million tokens served", title=title)


def candidate_rows(plan: Plan) -> list[Row]:
    """A row per candidate and voting law: label, law, loss, low, high, kind, rank."""
    shown = [*plan.candidates]
    if plan.best_dense is not None and all(design.is_moe for design in shown):
        shown.append(plan.best_dense)
    return [
        {
            # The best dense design stands beside the ranked ones without a place among them.
            "label": f"{rank}. {design.label}" if rank <= len(plan.candidates) else f"best dense: {design.label}",
            "law": law,
            "loss": design.loss[law].value,
            "low": design.loss[law].low,
            "high": design.loss[law].high,
            "kind": "moe" if design.is_moe else "dense",
            "rank": rank,
        }
        for rank, design in enumerate(shown, 1)
        for law in plan.voting
        if design.loss[law].value is not None
    ]


def pareto_rows(plan: Plan) -> list[Row]:
    """A row per design of the front, and the recommended one: label, kind, params_total, loss, on_front, recommended,
    dollars per million tokens served or None.

    The recommended design need not lie on the front: of designs that are one to the laws it is the one that Li et al.'s
    rules prefer, and with money as the objective another count decides.
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
    """The ensemble's loss; of members that cannot be averaged, the excess compute; or the lifetime's dollars."""
    if plan.budget.objective == "lifetime-cost" and design.cost is not None:
        return design.cost["lifetime"]
    return design.regret_compute.value if design.mean_loss is None else design.mean_loss.value
