"""The learning rate of every run: from a short sweep and a stated way to carry it over, or from a published rule."""

from typing import Any, Literal, Self, get_args

from pydantic import model_validator

from moelab.config import Config, Positive
from moelab.errors import InputError
from moelab.laws.catalogue import all_rules
from moelab.quantities import format_number
from moelab.runs import RunConfig, run_columns

Published = Literal["steplaw2025", "deepseek2024", "tian2025-dense", "tian2025-moe"]
_STEPLAW_SMALL = 10e6
_HIGHEST = 10.0
"""Highest learning rate that is accepted; above it the factor is wrong."""


class LearningRateRule(Config):
    """How a run gets its learning rate where its entry does not set one.

    `rule` sweep: what the study's `sweep` chose at its own (smallest) run, carried to other runs by the ratio of the
    rule `carry` (DeepSeek's C^-0.125 by default; `constant` leaves it). Any other rule gives the rate itself. Either is
    multiplied by `factor`. With `batch`, a published rule also sets the batch, rounded to whole sequences, and the
    steps to the whole number nearest to the run's FLOPs or tokens.
    """

    rule: Literal["sweep", Published] = "sweep"
    carry: Literal["constant", Published] = "deepseek2024"
    factor: Positive = 1.0
    batch: bool = False

    @model_validator(mode="after")
    def _no_unused_option(self) -> Self:
        if self.rule == "sweep" and self.batch:
            raise ValueError(f"batch: needs a rule that gives a batch ({', '.join(get_args(Published))}), not sweep")
        if self.rule != "sweep" and self.carry != type(self).model_fields["carry"].default:
            raise ValueError(f"carry: only the rule sweep carries its rate over, not {self.rule}")
        return self

    def apply(self, config: RunConfig, swept_at: RunConfig | None) -> RunConfig:
        """The run with its learning rate (and batch). Raises InputError for a rate out of range.

        Also without a sweep where the rule needs one.
        """
        if self.rule == "sweep":
            if swept_at is None:
                raise InputError("learning_rate.rule: sweep needs a sweep of train.learning_rate")
            if self.carry == "constant":
                return _with(config, learning_rate=self._sane(config, config.train.learning_rate * self.factor))
            ratio = _given(self.carry, config)["learning_rate"] / _given(self.carry, swept_at)["learning_rate"]
            rate = config.train.learning_rate * ratio * self.factor
            return _with(config, learning_rate=_rounded(self._sane(config, rate)))
        given = _given(self.rule, config)
        changes: dict[str, Any] = {"learning_rate": _rounded(self._sane(config, given["learning_rate"] * self.factor))}
        if self.batch:
            sequences = max(1, round(given["batch_tokens"] / config.train.seq_len))
            batch = sequences * config.train.seq_len
            changes["batch_tokens"] = batch
            changes["tokens"] = max(1, round(_tokens(config) / batch)) * batch
        return _with(config, **changes)

    def _sane(self, config: RunConfig, rate: float) -> float:
        """The rate. Raises InputError where the factor makes it too high, or zero."""
        if rate <= _HIGHEST and _rounded(rate) > 0:
            return rate
        raise InputError(
            f"learning_rate.factor: {self.factor:g} gives {config.name} a learning rate of {rate:.3g}; "
            f"it must be above 0 and at most {_HIGHEST:g}"
        )

    def warnings(self, configs: list[RunConfig]) -> list[str]:
        """Warnings about runs outside the range on which a rule was fitted."""
        name = self.carry if self.rule == "sweep" else self.rule
        if name == "constant" or self.rule == "sweep":
            return []
        rule = all_rules()[name]
        found = []
        columns = [run_columns(config) for config in configs]
        for column, limits in rule.ranges.items():
            values = [float(each[column]) for each in columns]
            if limits and values and (min(values) < limits[0] or max(values) > limits[1]):
                found.append(
                    f"{rule.title} was found on {column} from {_short(limits[0])} to {_short(limits[1])}; "
                    f"the runs have {_short(min(values))} to {_short(max(values))}"
                )
        if name == "steplaw2025" and min(float(each["params_non_embedding"]) for each in columns) < _STEPLAW_SMALL:
            found.append(
                "Step Law is about four times too high at a few hundred thousand parameters: sweep, or set factor 0.25"
            )
        return found


def _tokens(config: RunConfig) -> float:
    """The tokens of a run's budget, before rounding to whole steps."""
    aim = config.labels.get("aim_train_flops")
    return config.train.tokens if aim is None else float(aim) / float(run_columns(config)["flops_per_token"])


def _given(name: str, config: RunConfig) -> dict[str, float]:
    columns = run_columns(config)
    rule = all_rules()[name]
    return {key: float(value) for key, value in rule.apply(**{each: columns[each] for each in rule.needs}).items()}


def _with(config: RunConfig, **changes: Any) -> RunConfig:
    return config.replace(train={**config.train.to_dict(), **changes})


def _rounded(value: float) -> float:
    """Rounded to four digits, so that a printed config equals the trained one."""
    return float(f"{value:.4g}")


def _short(value: float) -> str:
    return format_number(value) if value < 1e15 else f"{value:.2g}"
