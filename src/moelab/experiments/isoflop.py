"""IsoFLOP runs over total parameters and sparsity (Abnar et al., arXiv 2501.12370): all of a group cost the same."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from moelab.architecture import ModelConfig
from moelab.config import Count
from moelab.errors import InputError
from moelab.experiments.base import (
    MIN_STEPS,
    Amount,
    Amounts,
    Counts,
    ExperimentDesign,
    Planned,
    Template,
    _listed,
)
from moelab.experiments.shapes import Candidates, backbones, with_experts

Shares = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], BeforeValidator(_listed)]


class IsoFlop(ExperimentDesign):
    """For each of `flops`: sizes x sparsities, the tokens set so that every run costs the same.

    Sizes are `params_total` (embeddings included), or `tokens_per_param` (per active parameter), which spreads the
    sizes by how long each is trained. Sparsity S = 1 - K/E with `top_k` experts in use; S = 0 is dense. Experts are
    d_ff / K wide, so that a MoE layer uses as much as the dense one. Shapes are the nearest real ones in `shapes`.
    """

    design: Literal["isoflop"] = "isoflop"
    flops: Amounts
    sparsity: Shares = (0.0,)
    params_total: Counts = ()
    tokens_per_param: Amounts = ()
    top_k: Count = 1
    moe: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    min_steps: Count = MIN_STEPS

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if bool(self.params_total) == bool(self.tokens_per_param):
            raise ValueError("params_total: give either params_total or tokens_per_param")
        return self

    def plan(self, template: Template) -> list[Planned]:
        """The runs, budget by budget, sparsity by sparsity; sizes that meet the same shape are run once."""
        dense = backbones(template, self.shapes)
        candidates = {s: Candidates(self._candidates(template, dense, s), template.seq_len) for s in self.sparsity}
        planned: list[Planned] = []
        for flops in self.flops:
            amount = Amount("flops", flops)
            for sparsity, choices in candidates.items():
                for model, aims in self._sized(choices, flops):
                    run = amount.planned(template, model, self.min_steps, self.name, sparsity=f"{sparsity:g}")
                    run.aims.update(aims)
                    planned.append(run)
        return planned

    def _candidates(self, template: Template, dense: list[ModelConfig], sparsity: float) -> list[ModelConfig]:
        if sparsity == 0:
            return dense
        experts = self.top_k / (1 - sparsity)
        if abs(experts - round(experts)) > 1e-6 * experts:
            raise InputError(
                f"sparsity: {sparsity:g} with top_k {self.top_k} would need {experts:.4g} experts, not a whole number"
            )
        divisible = [each for each in dense if each.d_ff % self.top_k == 0]
        if not divisible:
            raise InputError(f"top_k: {self.top_k} divides none of the widths d_ff in shapes")
        return [
            with_experts(
                template, each, n_experts=round(experts), top_k=self.top_k, d_expert=each.d_ff // self.top_k,
                options=self.moe,
            )
            for each in divisible
        ]  # fmt: skip

    def _sized(self, choices: Candidates, flops: float) -> list[tuple[ModelConfig, dict[str, float]]]:
        """The models for one budget, each with the size or ratio it was chosen for."""
        name, targets, reached = "params_total", tuple(map(float, self.params_total)), choices.params_total
        if self.tokens_per_param:
            name, targets = "tokens_per_param", self.tokens_per_param
            reached = flops / choices.flops_per_token / choices.params_active
        return [(model, {name: target}) for model, target in choices.nearest(targets, reached, name)]
