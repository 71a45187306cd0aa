"""A scaling ladder: sizes x tokens, the shorter runs as decays branched off one trunk of constant learning rate."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.architecture import ModelConfig
from moelab.config import Fraction
from moelab.errors import InputError
from moelab.experiments.base import Budgeted, Planned, Template
from moelab.quantities import parse_count, parse_number
from moelab.runs import TrainConfig

TRUNK, BRANCH_OF, BRANCH_STEP = "trunk", "branch_of", "branch_step"
"""Labels: a trunk's name, and for a branch the trunk it continues and the step it leaves it."""
_DECAY, _WARMUP = (TrainConfig.model_fields[name].default for name in ("decay_fraction", "warmup_fraction"))


class Ladder(Budgeted):
    """Every size with every number of tokens. `sizes` are changes of the base's model.

    With `branch` each size trains one trunk at a constant rate (arXiv 2405.18392, 2404.06395): from its checkpoints a
    linear decay over the last `decay_fraction` of each run's steps (the base's where not given, else 0.2) makes the run
    of that length, so several lengths cost little more than the longest. All warm up over the base's `warmup_steps`,
    else its `warmup_fraction` of the longest. Trunks are in no fit. Without `branch` every run is trained from the
    start, by the base's schedule.
    """

    design: Literal["ladder"] = "ladder"
    sizes: tuple[dict[str, Any], ...] = ({},)
    branch: bool = True
    decay_fraction: Fraction | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _no_replicated_trunks(self) -> Self:
        if self.branch and self.replicates != 1:
            raise ValueError("replicates: a branched ladder has none; set branch: false, or add an entry")
        if not self.branch and self.decay_fraction is not None:
            raise ValueError("decay_fraction: only branches decay so; without them set it, and schedule, in base.train")
        return self

    def plan(self, template: Template) -> list[Planned]:
        """Size by size: the trunk, then its branches from the shortest to the longest."""
        planned = []
        for place, size in enumerate(self.sizes, 1):
            model = template.model(size)
            runs = [amount.planned(template, model, self.min_steps, self.name) for amount in self.amounts()]
            runs.sort(key=lambda run: run.fields["train.tokens"])
            planned += self._branched(template, model, runs, place) if self.branch else runs
        return planned

    def _branched(self, template: Template, model: ModelConfig, runs: list[Planned], place: int) -> list[Planned]:
        batch = template.batch_tokens
        share = self._share(template)
        starts = []
        for run in runs:
            steps = run.fields["train.tokens"] // batch
            decay = math.ceil(share * steps)
            starts.append(steps - decay)
            run.fields.update({"train.schedule": "wsd", "train.decay_steps": decay})
        longest = runs[-1].fields["train.tokens"] // batch
        warmup = self._warmup(template, longest)
        if starts[0] <= warmup:
            raise InputError(
                f"tokens: the shortest run branches after {starts[0]} steps, within the warm-up ({warmup})"
            )
        experts = f" {model.moe.n_experts}e" if model.moe else ""
        trunk = f"{self.name} size {place}: d{model.d_model} L{model.n_layers}{experts}"
        for run, start in zip(runs, starts, strict=True):
            run.fields["train.warmup_steps"] = warmup
            run.labels.update({BRANCH_OF: trunk, BRANCH_STEP: str(start)})
        fields = {
            "train.tokens": starts[-1] * batch,
            "train.schedule": "constant",
            "train.warmup_steps": warmup,
            "train.keep_steps": sorted(set(starts)),
        }
        return [Planned(model=model, fields=fields, labels={TRUNK: trunk, "role": TRUNK}), *runs]

    def _share(self, template: Template) -> float:
        """Which share of a run's steps decays."""
        if self.decay_fraction is not None:
            return self.decay_fraction
        share = parse_number(template.base["train"].get("decay_fraction", _DECAY), "base.train.decay_fraction")
        if not 0 < share < 1:
            raise InputError(f"base.train.decay_fraction: a branch needs a decay between 0 and 1, got {share:g}")
        return share

    @staticmethod
    def _warmup(template: Template, longest: int) -> int:
        """Steps of warm-up, the same for every run: a branch goes on from what its trunk did."""
        train = template.base["train"]
        if train.get("warmup_steps") is not None:
            return parse_count(train["warmup_steps"], "base.train.warmup_steps")
        return math.ceil(parse_number(train.get("warmup_fraction", _WARMUP), "base.train.warmup_fraction") * longest)
