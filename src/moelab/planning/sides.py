"""What a comparison of designs returns: each side with its resources and losses, and the differences between them."""

from dataclasses import dataclass
from typing import Any

from moelab.architecture import ModelConfig
from moelab.architecture.counts import CONVENTIONS
from moelab.notebook import html_table, short_repr
from moelab.planning.candidate import Prediction
from moelab.planning.costs import source_line
from moelab.quantities import format_bytes, format_number, format_outside, format_seconds


@dataclass(frozen=True, kw_only=True)
class Side:
    """One design of a comparison."""

    name: str
    config: ModelConfig
    params_total: int
    params_active: int
    activation_rate: float
    tokens: int
    unique_tokens: int
    epochs: float
    flops_per_token: float
    train_flops: float
    weight_bytes: float
    kv_bytes: float
    training_bytes: float
    serving: dict[str, Any] | None
    loss: dict[str, Prediction]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("config", "loss")}
        losses = {law: prediction.to_dict() for law, prediction in self.loss.items()}
        return plain | {"config": self.config.to_dict(), "loss": losses}

    def __repr__(self) -> str:
        size = f"{format_number(self.params_active)} of {format_number(self.params_total)}"
        return short_repr(self, name=self.name, params=size, tokens=self.tokens, train_flops=self.train_flops)


@dataclass(frozen=True, kw_only=True)
class DesignComparison:
    """Two or more designs. `differences` holds, by law, loss of each later side minus that of the first, with p10 and
    p90 over the draws, and the probability that the first is better. `causal`: FLOPs count the causal half of attention
    scores. `traffic` is what is assumed of serving, in words. `equal_loss_params`, where asked: by law, the parameters
    at which a dense model reaches the first side's loss on its tokens."""

    sides: list[Side]
    differences: list[dict[str, dict[str, float | None]]]
    warnings: list[str]
    causal: bool = False
    traffic: str | None = None
    equal_loss_params: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `moelab compare --json`."""
        found = {} if self.equal_loss_params is None else {"equal_loss_params": self.equal_loss_params}
        return {
            "designs": [side.to_dict() for side in self.sides],
            "loss_minus_first": self.differences,
            "warnings": self.warnings,
            "flops_convention": CONVENTIONS[self.causal],
            **found,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """What a table for people shows: a quantity and its value for every side, as text."""
        sides, convention = self.sides, CONVENTIONS[self.causal]
        rows: list[tuple[str, ...]] = [
            ("parameters", *(format_number(side.params_total, 4) for side in sides)),
            ("active", *(format_number(side.params_active, 4) for side in sides)),
            (
                f"training FLOPs per token ({convention})",
                *(format_number(side.flops_per_token, 4) for side in sides),
            ),
            (f"training FLOPs ({convention})", *(format_number(side.train_flops, 3) for side in sides)),
            ("tokens", *(format_number(side.tokens) for side in sides)),
            ("unique tokens", *(format_number(side.unique_tokens) for side in sides)),
            ("epochs", *(f"{side.epochs:.2f}" for side in sides)),
            ("query heads, KV heads", *(_heads_text(side.config) for side in sides)),
            ("weights", *(format_bytes(side.weight_bytes) for side in sides)),
            ("KV cache of one context", *(format_bytes(side.kv_bytes) for side in sides)),
            ("training state", *(format_bytes(side.training_bytes) for side in sides)),
        ]
        if any(side.serving for side in sides):
            served = [side.serving for side in sides]
            rows += [
                ("devices to serve", *("-" if cost is None else str(cost["gpus"]) for cost in served)),
                ("output tokens per second, 80 %", *(_with_ends(cost, "tokens_per_second") for cost in served)),
                ("time per output token, 80 %", *(_with_ends(cost, "time_per_output_token") for cost in served)),
                ("$ per million tokens, 80 %", *(_with_ends(cost, "cost_per_million_tokens") for cost in served)),
            ]
        for law in sides[0].loss:
            if any(side.loss[law].value is not None for side in sides):
                rows.append((f"loss, {law}", *(_loss_text(side.loss[law]) for side in sides)))
        return rows

    def notes(self) -> list[str]:
        """Lines below the table: what a star means, the warnings, and the differences that have an interval."""
        starred = any("x)" in cell for row in self.rows() if row[0].startswith("loss, ") for cell in row[1:])
        lines = ["(x): how far outside the range that the law was fitted on, as a factor"] if starred else []
        lines += self._of_equal_loss()
        lines += [f"Warning: {line}" for line in self.warnings]
        lines += [] if self.traffic is None else [f"Assumed traffic: {self.traffic}."]
        served = [(side.serving["calibration"], side.serving["not_calibrated"]) for side in self.sides if side.serving]
        lines += list(dict.fromkeys(f"Calibration of prices: {source_line('serving', *each)}." for each in served))
        return lines + [
            f"{law}: the loss of {side.name} minus that of {self.sides[0].name} is {gap['value']:+.4f} "
            f"[{gap['low']:+.4f}, {gap['high']:+.4f}]; {self.sides[0].name} is better with probability "
            f"{gap['p_first_better']:.0%}"
            for side, gaps in zip(self.sides[1:], self.differences, strict=True)
            for law, gap in gaps.items()
            if gap["p_first_better"] is not None
        ]

    def _of_equal_loss(self) -> list[str]:
        """How large the dense model of equal loss is by each law, and what its training takes."""
        if not self.equal_loss_params:
            return []
        first, dense = self.sides[:2]
        listed = ", ".join(f"{format_number(size)} by {law}" for law, size in self.equal_loss_params.items())
        median = "; the median is shown" if len(self.equal_loss_params) > 1 else ""
        return [
            f"A dense model reaches the loss of {first.name} on the same tokens with {listed}{median}. "
            f"It takes {dense.train_flops / first.train_flops:.3g} times the training FLOPs."
        ]

    def __repr__(self) -> str:
        return short_repr(self, designs=[side.name for side in self.sides], laws=list(self.sides[0].loss))

    def _repr_html_(self) -> str:
        return html_table(["", *(side.name for side in self.sides)], self.rows(), note=" ".join(self.notes()))


def _heads_text(config: ModelConfig) -> str:
    """Query heads and key-value heads, of which latent attention has one latent in place."""
    return f"{config.n_heads}, {'latent' if config.mla is not None else config.n_kv_heads}"


def _with_ends(cost: dict[str, Any] | None, name: str) -> str:
    """A predicted number with its 80 % interval, where it has one; times in their unit."""
    if cost is None:
        return "-"
    shown = format_seconds if name.startswith("time_") else lambda number: format_number(number, 3)
    value, low, high = (cost[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "-"
    ends = "" if low is None else f" [{shown(low)}, {shown(high)}]"
    return f"{shown(value)}{ends}"


def _loss_text(prediction: Prediction) -> str:
    if prediction.value is None:
        return "not covered"
    beyond = prediction.extrapolation or 0.0
    far = f" ({format_outside(beyond)})" if beyond >= 0.005 else ""
    if prediction.low is None:
        return f"{prediction.value:.3f}{far}"
    return f"{prediction.value:.3f} [{prediction.low:.3f}, {prediction.high:.3f}]{far}"
