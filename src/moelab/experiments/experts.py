"""Sweeps over the experts at fixed active size: granularity (arXiv 2402.07871) and expansion (2202.01169)."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import model_validator

from moelab.architecture import ModelConfig
from moelab.config import Count
from moelab.errors import InputError
from moelab.experiments.base import EXPERTS, Budgeted, Counts, Planned, Template
from moelab.experiments.shapes import with_experts


class ExpertSweep(Budgeted):
    """Shared by both sweeps: `sizes` are changes of the base's model, a backbone each; `dense` adds it as baseline."""

    sizes: tuple[dict[str, Any], ...] = ({},)
    moe: dict[str, Any] = {}
    moe_every: Count | None = None
    dense: bool = True

    @model_validator(mode="after")
    def _backbones_only(self) -> Self:
        for place, size in enumerate(self.sizes):
            name = next((name for name in EXPERTS if name in size), None)
            if name is not None:
                raise ValueError(
                    f"sizes.{place}.{name}: the experiment design {self.design} sets the experts; leave it out"
                )
        return self

    def plan(self, template: Template) -> list[Planned]:
        """Backbone by backbone, budget by budget: the dense baseline, then the experts."""
        planned = []
        for size in self.sizes:
            backbone = template.backbone(size)
            for amount in self.amounts():
                models = [("dense", backbone)] if self.dense else []
                for value, model in [*models, *self.models(template, backbone)]:
                    labels = {"size": f"d{backbone.d_model} L{backbone.n_layers}", "value": str(value)}
                    planned.append(amount.planned(template, model, self.min_steps, self.name, **labels))
        return planned

    @abstractmethod
    def models(self, template: Template, backbone: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
        """The swept value and its model."""


class Granularity(ExpertSweep):
    """G: each expert of a layer that multiplies the feed-forward by `expansion` is cut in G, and a token uses G.

    Active and total parameters stay the same but for the router's columns (G x expansion); with `flops` the router is
    paid for in tokens.
    """

    design: Literal["granularity"] = "granularity"
    granularity: Counts
    expansion: Count

    def models(self, template: Template, backbone: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
        """A MoE for each G. Raises InputError where G does not divide the feed-forward."""
        options = {**template.expert_options, **self.moe}
        for g in self.granularity:
            if g == 1 and options.get("output_norm") and options.get("router", "token_choice") == "token_choice":
                raise InputError(
                    "moe.output_norm: cancels the gate of a single expert (G = 1), whose router cannot learn"
                )
            if backbone.d_ff % g:
                raise InputError(f"granularity: {g} does not divide d_ff {backbone.d_ff}")
            yield str(g), with_experts(
                template, backbone, n_experts=self.expansion * g, top_k=g, d_expert=backbone.d_ff // g,
                options=self.moe, moe_every=self.moe_every,
            )  # fmt: skip


class Expansion(ExpertSweep):
    """X: the experts of a layer, each d_ff / G wide, are multiplied; a token uses G = `granularity` of them."""

    design: Literal["expansion"] = "expansion"
    expansion: Counts
    granularity: Count = 1

    @model_validator(mode="after")
    def _at_least_two(self) -> Self:
        if min(self.expansion) < 2:
            raise ValueError("expansion: must be at least 2; the dense baseline is 1")
        return self

    def models(self, template: Template, backbone: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
        """A MoE for each X. Raises InputError where G does not divide the feed-forward."""
        g = self.granularity
        if backbone.d_ff % g:
            raise InputError(f"granularity: {g} does not divide d_ff {backbone.d_ff}")
        for x in self.expansion:
            yield str(x), with_experts(
                template, backbone, n_experts=x * g, top_k=g, d_expert=backbone.d_ff // g, options=self.moe,
                moe_every=self.moe_every,
            )  # fmt: skip
