"""One proposed design: an architecture, its tokens, each law's prediction, and its costs."""

from dataclasses import dataclass, field
from typing import Any

from moelab.architecture import ModelConfig
from moelab.notebook import Shown, interval_text, short_repr
from moelab.planning.rates import Rate
from moelab.quantities import format_number


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with p10 and p90; both are None where the uncertainty is unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def around(cls, value: float, low: float, high: float) -> "Interval":
        """From p10 to p90 of the draws, widened to hold the point estimate."""
        return cls(value, min(low, value), max(high, value))

    def to_dict(self) -> dict[str, float | None]:
        """{value, low, high}."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Prediction(Shown):
    """One law's loss for one design, in nats per token; `not_covered` is the reason where there is none.

    `extrapolation` is the largest log10 distance outside the fitted range (None: range unknown). `behind_loss` and
    `behind_compute` are the distance from this law's own optimum under the same limits: the extra loss, and the excess
    compute as a share. `farthest` is the variable whose distance `extrapolation` is, and `beyond_compute` the log10 of
    the design's training FLOPs over those of the largest run, where they are known.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    extrapolation: float | None = None
    behind_loss: float | None = None
    behind_compute: float | None = None
    not_covered: str | None = None
    farthest: str | None = None
    beyond_compute: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `not_covered`, `farthest` and `beyond_compute` only where there is one."""
        names = ("value", "low", "high", "extrapolation", "behind_loss", "behind_compute")
        plain: dict[str, Any] = {name: getattr(self, name) for name in names}
        more = {name: getattr(self, name) for name in ("not_covered", "farthest", "beyond_compute")}
        return plain | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Candidate(Shown):
    """A design that fits the budget. `undetermined` names axes on which designs with equal law inputs differ, and
    `loss_tokens` are those of `tokens` that count for the loss (`credit.py`)."""

    config: ModelConfig
    params_total: int
    params_active: int
    params_non_embedding: int
    params_active_non_embedding: int
    activation_rate: float
    n_experts: int
    top_k: int
    granularity: float
    sparsity: float
    tokens: int
    loss_tokens: int
    unique_tokens: int
    epochs: float
    train_flops: float
    loss: dict[str, Prediction]
    regret_loss: Interval
    regret_compute: Interval
    memory_bytes: float
    learning_rate: float
    batch_tokens: int
    mean_loss: Interval | None = None
    serving: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None
    undetermined: tuple[str, ...] = field(default=())
    rates: list[Rate] = field(default_factory=list)
    training: dict[str, Any] | None = None

    @property
    def is_moe(self) -> bool:
        """Whether the design has experts."""
        return self.config.moe is not None

    @property
    def experts(self) -> str:
        """64 top-8, with one shared expert 64 top-8+1, or dense."""
        moe = self.config.moe
        if moe is None:
            return "dense"
        return f"{moe.n_experts} top-{moe.top_k}" + (f"+{moe.n_shared_experts}" if moe.n_shared_experts else "")

    @property
    def label(self) -> str:
        """A short name for tables and figures: 1.3B of 6.9B, 64 top-8; or 1.1B dense."""
        if self.config.moe is None:
            return f"{format_number(self.params_total)} dense"
        return f"{format_number(self.params_active)} of {format_number(self.params_total)}, {self.experts}"

    def __repr__(self) -> str:
        shape = f"{self.config.n_layers} x {self.config.d_model}"
        loss = "-" if self.mean_loss is None else interval_text(**self.mean_loss.to_dict())
        excess = f"{self.regret_compute.value:.1%}"
        return short_repr(
            self, label=self.label, shape=shape, tokens=self.tokens, epochs=self.epochs, loss=loss, excess=excess
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of `moelab plan --json`."""
        return {
            "label": self.label,
            "config": self.config.to_dict(),
            "params_total": self.params_total,
            "params_active": self.params_active,
            "params_non_embedding": self.params_non_embedding,
            "params_active_non_embedding": self.params_active_non_embedding,
            "activation_rate": self.activation_rate,
            "n_experts": self.n_experts,
            "top_k": self.top_k,
            "granularity": self.granularity,
            "sparsity": self.sparsity,
            "tokens": self.tokens,
            "loss_tokens": self.loss_tokens,
            "unique_tokens": self.unique_tokens,
            "epochs": self.epochs,
            "train_flops": self.train_flops,
            "loss": {name: prediction.to_dict() for name, prediction in self.loss.items()},
            "mean_loss": None if self.mean_loss is None else self.mean_loss.to_dict(),
            "regret_loss": self.regret_loss.to_dict(),
            "regret_compute": self.regret_compute.to_dict(),
            "memory_bytes": self.memory_bytes,
            "serving": self.serving,
            "cost": self.cost,
            "learning_rate": self.learning_rate,
            "batch_tokens": self.batch_tokens,
            "undetermined": list(self.undetermined),
            "rates": [rate.to_dict() for rate in self.rates],
            "training": self.training,
        }
