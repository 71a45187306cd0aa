"""What a plan returns: ranked candidates, the best of each kind, how sure, what binds, and what to beware of."""

from dataclasses import dataclass
from typing import Any

from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval
from moelab.planning.space import Space


@dataclass(frozen=True, kw_only=True)
class Plan:
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
        from moelab.planning.words import answer_of

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
        from moelab.planning.plots import figure

        return figure(self, kind)

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
