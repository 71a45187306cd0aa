"""What a study is: the text, the runs, the laws fitted to them, what is planned, and what is trained to check it."""

import itertools
from typing import Any, Self

from pydantic import model_validator

from moelab.config import Config, Count, CountOrZero, Fraction, Positive
from moelab.data import PrepareConfig
from moelab.errors import InputError
from moelab.runs import RunConfig


class RunGrid(Config):
    """Some runs: dotted fields of a run config, each with a value or a list; lists are crossed.

    `zip` lists advance together instead: {"model.d_model": [32, 64], "model.d_ff": [88, 176]} is two runs.
    """

    name: str
    set: dict[str, Any] = {}
    zip: dict[str, list[Any]] = {}
    replicates: Count = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({len(values) for values in self.zip.values()}) > 1:
            raise ValueError(f"zip: the lists of {self.name} must be equally long")
        return self

    def assignments(self) -> list[dict[str, Any]]:
        """One flat {dotted field: value} per run, without the seeds of replicates."""
        rows = [dict(zip(self.zip, values, strict=True)) for values in zip(*self.zip.values(), strict=True)] or [{}]
        crossed = {key: value if isinstance(value, list) else [value] for key, value in self.set.items()}
        products = [dict(zip(crossed, values, strict=True)) for values in itertools.product(*crossed.values())]
        return [{**row, **product} for row in rows for product in products]


class Sweep(Config):
    """A short sweep that chooses one field's value for all later runs: the lowest mean loss over its `runs` wins."""

    field: str = "train.learning_rate"
    values: list[float]
    runs: list[RunGrid]


class FitStep(Config):
    """The laws fitted to the runs, with how many bootstrap replicates, and the share of dearest runs held out."""

    laws: list[str]
    bootstrap: Count = 200
    holdout: Fraction = 0.25
    seed: CountOrZero = 0


class PlanStep(Config):
    """What to plan: `flops_times` the dearest fitted run's training FLOPs, within limits, over a space of designs."""

    flops_times: Positive = 4.0
    max_params: Count | None = None
    max_tokens: Count | None = None
    space: dict[str, Any] = {}


class VerifyStep(Config):
    """The recommendation and the best design of the other kind are trained at the end, with each of these seeds.

    `strict` also trains the strict pair of a recommended MoE (arXiv 2506.12119): a dense model of equal total
    parameters and FLOPs, and the MoE on no more unique tokens than that dense model sees.
    """

    seeds: list[CountOrZero] = [0]
    strict: bool = False


class StudyConfig(Config):
    """A whole study. `base` holds the fields of a run config that every run shares."""

    name: str
    title: str
    about: str = ""
    data: PrepareConfig
    base: dict[str, Any]
    sweep: Sweep | None = None
    runs: list[RunGrid]
    fit: FitStep
    plan: PlanStep
    verify: VerifyStep = VerifyStep()
    workers: CountOrZero = 0


def build_runs(study: StudyConfig, grids: list[RunGrid], data_path: str, common: dict[str, Any]) -> list[RunConfig]:
    """The run configs of `grids`: base, then `common`, then each grid's own fields. Replicates differ in the seed.

    Raises InputError naming the grid whose runs are not valid.
    """
    configs = []
    for grid in grids:
        for fields in grid.assignments():
            for replicate in range(grid.replicates):
                configs.append(build_run(study, grid.name, {**common, **fields}, replicate, data_path))
    return configs


def build_run(
    study: StudyConfig, group: str, fields: dict[str, Any], replicate: int, data: str, replace: tuple[str, ...] = ()
) -> RunConfig:
    """One run: the study's base with flat {dotted field: value} laid over it; `replace` names parts to drop.

    Raises InputError naming the study and the group when the result is not a valid run.
    """
    base = {key: value for key, value in study.base.items() if key not in replace}
    value = _merge(base, {"data": {"path": data}, "labels": {"group": group}})
    for key, field_value in fields.items():
        value = _merge(value, _nested(key, field_value))
    train = value.setdefault("train", {})
    train["seed"] = int(train.get("seed", 0)) + replicate
    try:
        config = RunConfig.parse(value)
    except InputError as error:
        raise InputError(f"study {study.name}, runs {group}: {error}") from None
    return config if config.name else config.replace(name=describe(config))


def describe(config: RunConfig) -> str:
    """A short name for people: d48 8e2x32 .8M s1."""
    model, train = config.model, config.train
    moe = model.moe
    shared = f"+{moe.d_shared}" if moe and moe.d_shared else ""
    ffn = f"{moe.n_experts}e{moe.top_k}x{moe.d_expert}{shared}" if moe else f"ff{model.d_ff}"
    tokens = f"{train.tokens / 1e6:.3g}M"
    return f"d{model.d_model} L{model.n_layers} {ffn} {tokens}" + (f" s{train.seed}" if train.seed else "")


def _nested(key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with `change` laid over it; a null removes a key."""
    merged = {key: _merge(value, {}) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = _merge(value, {}) if isinstance(value, dict) else value
    return merged
