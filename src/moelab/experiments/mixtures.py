"""Mixture of Tokens against dense and token choice (Antoniak et al., arXiv 2310.15961)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from moelab.architecture import ModelConfig, MoEConfig
from moelab.config import Count, CountOrZero, Fraction
from moelab.errors import InputError
from moelab.experiments.base import Budgeted, Counts, Planned, Template
from moelab.experiments.shapes import with_experts


class MixtureOfTokens(Budgeted):
    """MoT sized to the FLOPs of the dense feed-forward: X = `group_size` times its parameters, Y = `mixtures`.

    Beside each: the dense baseline and, with `token_choice`, a MoE of the same experts routed by token. With
    `transition` each MoT is trained again and switches to token choice at that share of the steps; then nothing leaks.
    `n_dense_layers` counts the leading layers that stay dense (the paper's second version: half of them); default: the
    base's.
    """

    owned: ClassVar[tuple[str, ...]] = ("n_experts", "top_k", "d_expert", "router", "group_size")

    design: Literal["mixture_of_tokens"] = "mixture_of_tokens"
    group_size: Count
    mixtures: Counts = (1,)
    transition: Fraction | None = Field(default=None, gt=0, lt=1)
    token_choice: bool = True
    n_dense_layers: CountOrZero | None = None
    moe: dict[str, Any] = {}

    def plan(self, template: Template) -> list[Planned]:
        """Budget by budget: dense, then for each number of mixtures token choice, MoT and MoT with transition."""
        dense = template.backbone()
        batch = template.batch_tokens // template.seq_len
        if batch % self.group_size:
            raise InputError(f"group_size: {self.group_size} does not divide the {batch} sequences of a batch")
        planned = []
        for amount in self.amounts():
            planned.append(self._run(amount.planned(template, dense, self.min_steps, self.name), "dense"))
            for mixtures in self.mixtures:
                mot = self._mot(template, dense, mixtures)
                if self.token_choice:
                    choice = self._choice(template, dense, mixtures)
                    run = amount.planned(template, choice, self.min_steps, self.name)
                    planned.append(self._run(run, "token choice", mixtures))
                run = amount.planned(template, mot, self.min_steps, self.name)
                planned.append(self._run(run, "mixture", mixtures))
                if self.transition is not None:
                    turned = self._run(run, "transition", mixtures)
                    turned.fields["train.transition"] = {"at": self.transition}
                    planned.append(turned)
        return planned

    @staticmethod
    def _run(run: Planned, role: str, mixtures: int = 0) -> Planned:
        return Planned(
            fields=dict(run.fields),
            model=run.model,
            match=run.match,
            aims=run.aims,
            labels={**run.labels, "role": role, "mixtures": str(mixtures)},
        )

    def _mot(self, template: Template, dense: ModelConfig, mixtures: int) -> ModelConfig:
        options = {**template.expert_options, **self.moe}
        for name in ("router", "normalize_gates", "score"):
            options.pop(name, None)
        options = {"balance_loss": 0.0, "z_loss": 0.0, **options}
        moe = MoEConfig.mixture_of_tokens(d_ff=dense.d_ff, group_size=self.group_size, mixtures=mixtures, **options)
        layers = template.expert_layers(self.n_dense_layers, None)
        return ModelConfig.parse({**dense.to_dict(), "moe": moe.to_dict(), **layers})

    def _choice(self, template: Template, dense: ModelConfig, mixtures: int) -> ModelConfig:
        return with_experts(
            template, dense, n_experts=self.group_size * mixtures, top_k=mixtures, d_expert=dense.d_ff // mixtures,
            n_dense_layers=self.n_dense_layers, options=self.moe,
        )  # fmt: skip
