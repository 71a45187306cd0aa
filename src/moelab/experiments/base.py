"""What every experiment design has: a name, a template, a budget, and the runs it plans with their aims."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.config import Config, Count, Positive
from moelab.errors import InputError
from moelab.quantities import format_flops, format_number, parse_count

MIN_STEPS = 50
"""Fewest optimiser steps of a run that can compare architectures."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Amounts = Annotated[tuple[Positive, ...], BeforeValidator(_listed)]
"""One positive number or a list of them."""
Counts = Annotated[tuple[Count, ...], BeforeValidator(_listed)]


def check_once(name: str, values: Sequence[Any]) -> None:
    """Raises ValueError where a value appears twice: its runs would be the same. The field's `name` may be empty."""
    for place, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:place]):
            shown = value if isinstance(value, str) else f"{value:.12g}" if isinstance(value, float) else repr(value)
            raise ValueError(f"{name}{': ' if name else ''}{shown} appears twice")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of an experiment design: dotted fields that override the study's base, and what the report needs.

    `model`, where given, replaces the base's. `match` names the runs of one budget; `aims` are the target values of
    the columns in which these have to match; `labels` are for the analysis.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig | None = None
    match: str | None = None
    aims: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def assignments(self) -> dict[str, Any]:
        """Flat {dotted field: value}, the labels among them."""
        chosen: dict[str, Any] = {} if self.model is None else {"model": self.model.to_dict()}
        labels = {**self.labels, **{f"aim_{name}": f"{value:.9g}" for name, value in self.aims.items()}}
        if self.match is not None:
            labels["match"] = self.match
        return {**chosen, **self.fields, **{f"labels.{name}": value for name, value in labels.items()}}


@dataclass(frozen=True, kw_only=True)
class Template:
    """What experiment designs start from: the study's base with the choices so far, and the entries planned before.

    `replicates` holds how many seeds each earlier entry's runs have, counted from their own seed.
    """

    base: dict[str, Any]
    earlier: dict[str, list[Planned]] = field(default_factory=dict)
    replicates: dict[str, int] = field(default_factory=dict)

    @property
    def seq_len(self) -> int:
        """Tokens per sequence."""
        return parse_count(self._train("seq_len"), "base.train.seq_len")

    @property
    def batch_tokens(self) -> int:
        """Tokens per optimiser step."""
        return parse_count(self._train("batch_tokens"), "base.train.batch_tokens")

    def _train(self, name: str) -> Any:
        try:
            return self.base["train"][name]
        except (KeyError, TypeError):
            raise InputError(f"base.train.{name}: is required by this experiment design") from None

    def model(self, changes: dict[str, Any] | None = None) -> ModelConfig:
        """The base's model with some of its fields changed."""
        value = {**self.base.get("model", {})}
        for key, change in (changes or {}).items():
            if change is None:
                value.pop(key, None)
            else:
                value[key] = change
        return ModelConfig.parse(value, "base.model")

    def backbone(self, changes: dict[str, Any] | None = None) -> ModelConfig:
        """The base's model, dense: without experts. Raises InputError where the base does not set `d_ff`."""
        value = {key: v for key, v in {**self.base.get("model", {}), **(changes or {})}.items() if key not in EXPERTS}
        if not value.get("d_ff"):
            raise InputError(
                "base.model.d_ff: is required by this experiment design: the dense width that the experts replace"
            )
        return ModelConfig.parse(value, "base.model")

    @property
    def expert_options(self) -> dict[str, Any]:
        """The base's MoE settings that are not sizes: router, losses, gates."""
        moe = dict(self.base.get("model", {}).get("moe") or {})
        return {key: value for key, value in moe.items() if key not in _SIZES}

    def expert_layers(self, n_dense_layers: int | None, moe_every: int | None) -> dict[str, Any]:
        """Which layers have experts: as given, else as in the base, else all of them."""
        own = self.base.get("model", {})
        return {
            "n_dense_layers": own.get("n_dense_layers", 0) if n_dense_layers is None else n_dense_layers,
            "moe_every": own.get("moe_every", 1) if moe_every is None else moe_every,
        }


EXPERTS = ("moe", "n_dense_layers", "moe_every")
"""The fields that make a model a MoE; without them it is its dense backbone."""

_SIZES = ("n_experts", "top_k", "d_expert", "n_shared_experts", "d_shared")


_CROSSED = ("sizes", "sparsity", "mixtures", "reuse")
"""Optional fields over which an experiment design crosses its runs: without a value there would be none."""


class ExperimentDesign(Config):
    """An entry of `runs`: a generator of run configs. `replicates` repeats each of its runs with that many seeds.

    `owned` are the MoE fields that the experiment design sets, which its option `moe` may not.
    """

    owned: ClassVar[tuple[str, ...]] = ("n_experts", "top_k", "d_expert")

    design: str
    name: str
    replicates: Count = 1

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        for name, info in type(self).model_fields.items():
            if getattr(self, name) in ((), []) and (info.is_required() or name in _CROSSED):
                raise ValueError(f"{name}: needs at least one value")
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        if not self.name.strip():
            raise ValueError("name: must not be empty")
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                check_once(name, value)
        return self

    @model_validator(mode="after")
    def _not_its_own(self) -> Self:
        for name in self.owned:
            if name in getattr(self, "moe", {}):
                raise ValueError(f"moe.{name}: is set by the experiment design {self.design}; leave it out")
        return self

    @abstractmethod
    def plan(self, template: Template) -> list[Planned]:
        """The runs, without the seeds of replicates. Raises InputError naming the field that cannot be met."""


@dataclass(frozen=True)
class Amount:
    """One training budget: FLOPs, tokens, or tokens per active parameter."""

    unit: str
    value: float

    @property
    def label(self) -> str:
        """For display: 3e12 FLOPs."""
        if self.unit == "flops":
            return f"{format_flops(self.value)} FLOPs"
        return f"{format_number(self.value)} {'tokens' if self.unit == 'tokens' else 'tokens per parameter'}"

    def _shown(self, value: float) -> str:
        return format_flops(value) if self.unit == "flops" else format_number(value)

    def tokens(self, template: Template, model: ModelConfig, min_steps: int) -> int:
        """Whole optimiser steps nearest to the budget, as tokens. Raises InputError naming the unit for too few."""
        per_token = count_flops(model, template.seq_len).train
        exact = self.value
        if self.unit == "flops":
            exact = self.value / per_token
        elif self.unit == "tokens_per_param":
            exact = self.value * count_parameters(model).params_active
        batch = template.batch_tokens
        steps = math.floor(exact / batch + 0.5)
        if steps < min_steps:
            raise InputError(
                f"{self.unit}: {self._shown(self.value)} trains {_short(model)} for {steps} steps of {batch:,} tokens; "
                f"at least {min_steps} (min_steps) are needed, so {self._shown(self.value * min_steps * batch / exact)}"
            )
        return steps * batch

    def planned(self, template: Template, model: ModelConfig, min_steps: int, name: str, **labels: str) -> Planned:
        """A run of this budget: its tokens, and the columns that have to match."""
        tokens = self.tokens(template, model, min_steps)
        aims = {"train_flops": self.value} if self.unit == "flops" else {}
        return Planned(
            model=model,
            fields={"train.tokens": tokens},
            match=f"{name}, {self.label}",
            aims=aims,
            labels={"budget": self.label, **labels},
        )


def _short(model: ModelConfig) -> str:
    experts = "" if model.moe is None else f" with {model.moe.n_experts} experts"
    return f"a model of width {model.d_model} and {model.n_layers} layers{experts}"


class Budgeted(ExperimentDesign):
    """One kind of budget: `flops`, `tokens` or `tokens_per_param` (per active parameter), one or more values."""

    flops: Amounts = ()
    tokens: Counts = ()
    tokens_per_param: Amounts = ()
    min_steps: Count = MIN_STEPS

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in _UNITS if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"{given[1] if given else 'flops'}: give exactly one of {', '.join(_UNITS)}")
        return self

    def amounts(self) -> Iterator[Amount]:
        """The budgets in the order given."""
        for unit in _UNITS:
            for value in getattr(self, unit):
                yield Amount(unit, float(value))


_UNITS = ("flops", "tokens", "tokens_per_param")
