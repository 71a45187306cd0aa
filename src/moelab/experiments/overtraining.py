"""Smaller models trained for longer at one budget, by number of experts (Yun et al., arXiv 2404.02852)."""

from typing import Any, Literal

from moelab.config import Count
from moelab.experiments.base import Budgeted, Counts, Planned, Template
from moelab.experiments.shapes import Candidates, backbones, with_experts


class OverTraining(Budgeted):
    """Sizes x experts at equal compute: a smaller size sees more tokens.

    `params_dense` are the sizes of the dense backbones, without embeddings (the paper's N). The nearest real ones in
    `shapes` are taken, the same for every entry of `n_experts`, where 1 is dense. Experts are as wide as the
    dense feed-forward they replace; a token uses `top_k` of them in every `moe_every`-th layer
    (default: the base's, else every second as in the paper).
    """

    design: Literal["overtraining"] = "overtraining"
    params_dense: Counts
    n_experts: Counts = (1, 4, 8)
    top_k: Count = 2
    moe_every: Count | None = None
    moe: dict[str, Any] = {}
    shapes: dict[str, Any] = {}

    def plan(self, template: Template) -> list[Planned]:
        """Budget by budget, experts by experts, from the largest size to the smallest; one shape is run once."""
        choices = Candidates(backbones(template, self.shapes), template.seq_len)
        sizes = sorted(self.params_dense, reverse=True)
        chosen = choices.nearest(sizes, choices.params_non_embedding, "params_dense")
        every = self.moe_every or template.base.get("model", {}).get("moe_every", 2)
        planned = []
        for amount in self.amounts():
            for experts in self.n_experts:
                for backbone, size in chosen:
                    model = backbone
                    if experts > 1:
                        model = with_experts(
                            template, backbone, n_experts=experts, top_k=min(self.top_k, experts),
                            d_expert=backbone.d_ff, moe_every=every, options=self.moe,
                        )  # fmt: skip
                    labels = {"size": f"d{backbone.d_model} L{backbone.n_layers}", "experts": str(experts)}
                    run = amount.planned(template, model, self.min_steps, self.name, **labels)
                    run.aims["params_dense"] = size
                    planned.append(run)
        return planned
