"""Mixture-of-Experts against dense at equal parameters, compute and data (Li et al., arXiv 2506.12119)."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from moelab.architecture import ModelConfig, count_parameters
from moelab.config import Count, CountOrZero
from moelab.errors import InputError
from moelab.experiments.base import MIN_STEPS, Amount, Amounts, ExperimentDesign, Planned, Template, _listed
from moelab.experiments.shapes import PARAMS_OFF, experts_at_rate
from moelab.planning.baselines import dense_baseline

Reuse = Literal["fresh", "strict", "loose"]
Rates = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], BeforeValidator(_listed)]
Reuses = Annotated[tuple[Reuse, ...], BeforeValidator(_listed)]


_FOR_RATES = ("top_k", "shared", "n_dense_layers", "d_expert_step", "moe", "reuse_rates")
"""Options that shape the MoEs of given activation rates."""


class EqualResources(ExperimentDesign):
    """Every model has N = `params_total` and costs C = `flops`; MoEs differ in their activation rate r_a.

    The MoEs stand on the base's backbone. `top_k`, `shared` (one shared expert as wide as the routed ones in use) and
    `n_dense_layers` are the base's MoE's where not given, else the paper's: 2, true, 1. Without
    `activation_rates` the base's own MoE is the only one (what an earlier step chose) and N is its size. Dense models
    of N parameters are trained with C times each of `dense_flops`. A MoE costs less per token and so sees more tokens;
    `reuse` sets which: `fresh` text; `strict`, only the tokens that the dense model saw with C; `loose`, half of its
    own, twice. Each epoch has its own order.
    """

    owned: ClassVar[tuple[str, ...]] = ("n_experts", "top_k", "d_expert", "n_shared_experts", "d_shared")

    design: Literal["equal_resources"] = "equal_resources"
    flops: Amounts
    params_total: Count | None = None
    activation_rates: Rates = ()
    reuse: Reuses = ("fresh",)
    reuse_rates: Rates = ()
    dense_flops: Amounts = (1.0, 2.0)
    top_k: Count | None = None
    shared: bool | None = None
    n_dense_layers: CountOrZero | None = None
    d_expert_step: Count = 1
    moe: dict[str, Any] = {}
    min_steps: Count = MIN_STEPS

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.activation_rates and self.params_total is None:
            raise ValueError("params_total: is required with activation_rates")
        for name in () if self.activation_rates else _FOR_RATES:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: needs activation_rates; without them the base's own MoE is trained as it is")
        if self.reuse_rates and set(self.reuse) == {"fresh"}:
            raise ValueError("reuse_rates: needs reuse strict or loose")
        if set(self.reuse_rates) - set(self.activation_rates):
            raise ValueError(f"reuse_rates: must be among activation_rates {list(self.activation_rates)}")
        return self

    def plan(self, template: Template) -> list[Planned]:
        """The dense models, then the MoEs, each with every kind of reuse that differs from fresh text."""
        moes = self._moes(template)
        size = float(self.params_total or count_parameters(next(iter(moes.values()))).params_total)
        dense = dense_baseline(next(iter(moes.values())), int(size))
        planned = []
        for flops in self.flops:
            budget = Amount("flops", flops)
            dense_tokens = budget.tokens(template, dense, self.min_steps)
            for times in self.dense_flops:
                role = {"role": "dense", "times": f"{times:g}"}
                run = Amount("flops", flops * times).planned(template, dense, self.min_steps, self.name, **role)
                planned.append(self._sized(run, flops, size))
            for rate, model in moes.items():
                aims = {"activation_rate": rate} if self.activation_rates else {}
                for reuse in self.reuse:
                    if reuse != "fresh" and self.reuse_rates and rate not in self.reuse_rates:
                        continue
                    run = budget.planned(template, model, self.min_steps, self.name, role="moe", reuse=reuse)
                    seen = self._unique(reuse, run.fields["train.tokens"], dense_tokens)
                    if seen is not None:
                        run.fields["data.unique_tokens"] = seen
                    planned.append(self._sized(run, flops, size, aims))
        return planned

    def _moes(self, template: Template) -> dict[float, ModelConfig]:
        if not self.activation_rates:
            model = template.model()
            if model.moe is None:
                raise InputError("activation_rates: is required, because the base's model has no experts")
            counts = count_parameters(model)
            self._check_size(counts.params_total)
            return {float(counts.activation_rate): model}
        base = template.base.get("model", {})
        moe = base.get("moe") or {}
        top_k = self.top_k or moe.get("top_k", 2)
        shared = bool(moe.get("n_shared_experts", 0 if moe else 1)) if self.shared is None else self.shared
        leading = base.get("n_dense_layers", 0 if moe else 1) if self.n_dense_layers is None else self.n_dense_layers
        return {
            rate: experts_at_rate(
                template,
                template.backbone(),
                params_total=float(self.params_total or 0),
                activation_rate=rate,
                top_k=top_k,
                shared=shared,
                n_dense_layers=leading,
                step=self.d_expert_step,
                options=self.moe,
            )
            for rate in self.activation_rates
        }

    def _check_size(self, found: int) -> None:
        """Raises InputError where the base's own MoE is not as large as asked for."""
        if self.params_total is not None and abs(found / self.params_total - 1) > PARAMS_OFF:
            raise InputError(
                f"params_total: the base's MoE has {found:,} parameters, {found / self.params_total - 1:+.1%} off "
                f"{self.params_total:,}; leave params_total out to take its size, or give activation_rates"
            )

    def _sized(self, run: Planned, flops: float, size: float, aims: dict[str, float] | None = None) -> Planned:
        run.aims.update({"params_total": size, **(aims or {})})
        label = Amount("flops", flops).label
        return Planned(
            fields=run.fields,
            model=run.model,
            match=f"{self.name}, {label}" + (f" x {t}" if (t := run.labels.get("times", "1")) != "1" else ""),
            aims=run.aims,
            labels={**run.labels, "budget": label},
        )

    @staticmethod
    def _unique(reuse: Reuse, tokens: int, dense_tokens: int) -> int | None:
        if reuse == "fresh":
            return None
        unique = dense_tokens if reuse == "strict" else tokens // 2
        return unique if unique < tokens else None
