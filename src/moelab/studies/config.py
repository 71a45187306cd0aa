"""What a study is: the text, the runs, the laws fitted to them, what is planned, and what is trained to check it."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from moelab.config import Config, Count, CountOrZero, Fraction, Positive
from moelab.data import PrepareConfig
from moelab.errors import InputError
from moelab.runs import RunConfig
from moelab.serving import Traffic
from moelab.studies.designs import Planned, RunSource, Template, parse_source
from moelab.studies.designs.ladder import BRANCH_OF, TRUNK, Ladder
from moelab.studies.designs.learning_rate import LearningRateRule
from moelab.studies.designs.mixtures import MixtureOfTokens
from moelab.studies.executors.options import ExecutorConfig


def _source(value: Any) -> RunSource:
    try:
        return parse_source(value)
    except InputError as error:
        name = value.get("name") if isinstance(value, dict) else None
        raise ValueError(f"{name}: {error}" if name else str(error)) from None


Source = Annotated[SerializeAsAny[RunSource], BeforeValidator(_source)]
"""An entry of `runs`: a design named by its key `design`, or a grid."""


class Sweep(Config):
    """A short sweep that chooses one field's value for all later runs: the lowest mean loss over its `runs` wins."""

    field: str = "train.learning_rate"
    values: list[float] = Field(min_length=1)
    runs: list[Source] = Field(min_length=1)


class FitStep(Config):
    """The laws fitted to the runs, with how many bootstrap replicates, and the share of dearest runs held out."""

    laws: list[str] = Field(min_length=1)
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

    seeds: list[CountOrZero] = Field(default=[0], min_length=1)
    strict: bool = False


class Stage(Config):
    """Runs whose winner sets fields of all later runs: the lowest mean loss over seeds wins.

    `carry` names what is taken over: `model`, or dotted fields of the run. Runs labelled dense do not compete.
    """

    name: str
    runs: list[Source] = Field(min_length=1)
    carry: list[str] = ["model"]


class ServingStep(Config):
    """For what serving the models would cost: hardware of the catalogue (or a file), traffic, the price of a GPU."""

    hardware: str = "h100"
    traffic: Traffic = Traffic()
    gpu_price: Positive | None = None


class StudyConfig(Config):
    """A whole study. `base` holds the fields of a run config that every run shares.

    Every design answers its own question. `stages` come before the runs and feed each winner to what follows. With
    `fit`, laws are fitted to the runs; with `plan`, a design is planned from them and, with `verify`, trained.
    """

    name: str
    title: str
    about: str = ""
    data: PrepareConfig
    base: dict[str, Any]
    sweep: Sweep | None = None
    learning_rate: LearningRateRule | None = None
    stages: list[Stage] = []
    runs: list[Source]
    fit: FitStep | None = None
    plan: PlanStep | None = None
    verify: VerifyStep | None = VerifyStep()
    serving: ServingStep = ServingStep()
    workers: CountOrZero = 0
    executor: ExecutorConfig = ExecutorConfig()

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name.strip() or "/" in name:
            raise ValueError(f"must name a folder, without slashes; got {name!r}")
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.runs:
            raise ValueError("runs: needs at least one entry")
        if self.plan is not None and self.fit is None:
            raise ValueError("fit: is required by `plan`: it plans with the fitted laws")
        names = [source.name for stage in self.stages for source in stage.runs] + [source.name for source in self.runs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"runs: the name {twice!r} stands twice")
        rule = self.learning_rate
        if rule is not None and rule.rule == "sweep" and (self.sweep is None or self.sweep.field != _RATE):
            raise ValueError(f"learning_rate.rule: sweep needs a `sweep` of {_RATE}")
        if rule is not None and rule.batch:
            self._check_batch()
        return self

    def _check_batch(self) -> None:
        for source in [source for stage in self.stages for source in stage.runs] + self.runs:
            if isinstance(source, MixtureOfTokens) or (isinstance(source, Ladder) and source.branch):
                kind = "mixture_of_tokens" if isinstance(source, MixtureOfTokens) else "a branched ladder"
                raise ValueError(f"learning_rate.batch: {source.name} is {kind}, planned for one batch; leave it out")


_RATE = "train.learning_rate"


def build_runs(
    study: StudyConfig, sources: list[RunSource], data_path: str, common: dict[str, Any], *, rates: bool = True
) -> list[RunConfig]:
    """The run configs of `sources`: base, then `common`, then each entry's own fields. Replicates differ in the seed.

    With `rates` the study's learning-rate rule is applied to every run that does not set its own. Raises InputError
    naming the study and the entry whose runs are not valid or whose budget cannot be met.
    """
    configs = []
    earlier: dict[str, list[Planned]] = {}
    replicates = {source.name: source.replicates for source in sources}
    for source in sources:
        try:
            planned = source.plan(Template(base=merged_base(study, common), earlier=earlier, replicates=replicates))
        except InputError as error:
            raise InputError(f"study {study.name}, runs {source.name}: {error}") from None
        earlier[source.name] = planned
        for run in planned:
            own = run.assignments()
            kept = {key: value for key, value in common.items() if "model" not in own or key.split(".")[0] != "model"}
            for replicate in range(source.replicates):
                configs.append(build_run(study, source.name, {**kept, **own}, replicate, data_path))
    return with_rates(study, configs, data_path) if rates else configs


def merged_base(study: StudyConfig, common: dict[str, Any]) -> dict[str, Any]:
    """The study's base with flat {dotted field: value} laid over it; a whole `model` replaces the base's."""
    base = {key: value for key, value in study.base.items() if key != "model" or "model" not in common}
    for key, value in common.items():
        base = _merge(base, _nested(key, value))
    return base


def swept_run(study: StudyConfig, data_path: str) -> RunConfig | None:
    """The cheapest run of the learning-rate sweep, where its choice holds; None without such a sweep."""
    sweep = study.sweep
    if sweep is None or sweep.field != _RATE:
        return None
    configs = build_runs(study, sweep.runs, data_path, {_RATE: sweep.values[0]}, rates=False)
    return min(configs, key=lambda config: config.train.tokens)


def with_rates(study: StudyConfig, configs: list[RunConfig], data_path: str) -> list[RunConfig]:
    """The study's rule for the learning rate applied; a branch has its trunk's, and a rate of one's own stays."""
    rule = study.learning_rate
    if rule is None:
        return configs
    swept = swept_run(study, data_path)
    trunks: dict[str, float] = {}
    found = []
    for config in configs:
        if config.labels.get("own_rate") is None:
            if config.labels.get(BRANCH_OF) in trunks:
                rate = trunks[config.labels[BRANCH_OF]]
                config = config.replace(train={**config.train.to_dict(), "learning_rate": rate})
            else:
                config = rule.apply(config, swept)
        if TRUNK in config.labels:
            trunks[config.labels[TRUNK]] = config.train.learning_rate
        found.append(config)
    return found


def build_run(study: StudyConfig, group: str, fields: dict[str, Any], replicate: int, data: str) -> RunConfig:
    """One run: the study's base with flat {dotted field: value} laid over it; a whole `model` replaces the base's.

    Raises InputError naming the study and the group when the result is not a valid run.
    """
    base = {key: value for key, value in study.base.items() if key != "model" or "model" not in fields}
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
    router = f" {moe.router}" if moe and moe.router != "token_choice" else ""
    turned = f" to {train.transition.to}" if train.transition else ""
    reused = f" of {config.data.unique_tokens / 1e6:.3g}M" if config.data.unique_tokens else ""
    name = f"d{model.d_model} L{model.n_layers} {ffn}{router}{turned} {tokens}{reused}"
    return name + (f" s{train.seed}" if train.seed else "")


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
