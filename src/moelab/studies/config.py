"""The config of a study: the text, the runs, the laws fitted to them, the plan, and its verification."""

from functools import cache
from types import UnionType
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, create_model, field_validator, model_validator

from moelab.config import Config, Count, CountOrZero, Fraction, Positive
from moelab.data import PrepareConfig
from moelab.errors import InputError
from moelab.executors.options import ExecutorConfig
from moelab.experiments import ExperimentDesign, RunGrid, parse_experiment
from moelab.experiments.base import check_once
from moelab.experiments.grid import NO_PARENT
from moelab.experiments.ladder import Ladder
from moelab.experiments.learning_rate import LearningRateRule
from moelab.experiments.mixtures import MixtureOfTokens
from moelab.runs import RunConfig
from moelab.serving import Traffic

RATE = "train.learning_rate"
OWN_TEXT = "every run reads the study's own text, prepared from its `data`; leave it out"


def _entry(value: Any) -> ExperimentDesign:
    try:
        return parse_experiment(value)
    except InputError as error:
        name = value.get("name") if isinstance(value, dict) else None
        raise ValueError(f"{name}: {error}" if name else str(error)) from None


Entry = Annotated[SerializeAsAny[ExperimentDesign], BeforeValidator(_entry)]
"""An entry of `runs`: an experiment design named by its key `design`, or a grid."""


class Sweep(Config):
    """A short sweep that chooses one field's value for all later runs: the lowest mean loss over its `runs` wins."""

    field: str = RATE
    values: list[float] = Field(min_length=1)
    runs: list[Entry] = Field(min_length=1)

    @model_validator(mode="after")
    def _leave_the_field(self) -> Self:
        check_once("values", self.values)
        for entry in self.runs:
            if isinstance(entry, RunGrid) and self.field in {*entry.set, *entry.zip}:
                raise ValueError(f"runs: {entry.name} sets {self.field} itself, which the sweep is to choose")
        return self


class FitStep(Config):
    """The laws fitted to the runs, the number of bootstrap replicates, the share of most expensive runs held out.

    `prior` is the file of a prior, or `none`; None: the prior that ships for a law, where it has one.
    """

    laws: list[str] = Field(min_length=1)
    bootstrap: Count = 200
    holdout: Fraction = Field(default=0.25, lt=1)
    seed: CountOrZero = 0
    prior: str | None = None

    @field_validator("laws")
    @classmethod
    def _each_once(cls, laws: list[str]) -> list[str]:
        check_once("", laws)
        return laws


class PlanStep(Config):
    """What to plan: `flops_times` the largest fitted run's training FLOPs, within limits, over a space of designs."""

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

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        check_once("", seeds)
        return seeds


class Stage(Config):
    """Runs whose winner sets fields of all later runs: the lowest mean loss over seeds wins.

    `carry` names what is taken over: `model`, or dotted fields of the run. Runs labelled dense do not compete.
    """

    name: str
    runs: list[Entry] = Field(min_length=1)
    carry: list[str] = Field(default=["model"], min_length=1)

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("must not be empty")
        return name


class ServingStep(Config):
    """The setting of serving costs: hardware of the catalogue (or a file), traffic, the price of a GPU."""

    hardware: str = "h100"
    traffic: Traffic = Traffic()
    gpu_price: Positive | None = None


class StudyConfig(Config):
    """A whole study. `base` holds the fields of a run config that every run shares.

    `runs` are entries, each with its experiment design. `stages` come before the runs, and each winner sets fields of
    what follows. With `fit`, laws are fitted to the runs; with `plan`, a design is planned and, with `verify`, trained.
    """

    name: str
    title: str
    about: str = ""
    data: PrepareConfig
    base: dict[str, Any]
    sweep: Sweep | None = None
    learning_rate: LearningRateRule | None = None
    stages: list[Stage] = []
    runs: list[Entry]
    fit: FitStep | None = None
    plan: PlanStep | None = None
    verify: VerifyStep | None = VerifyStep()
    serving: ServingStep = ServingStep()
    workers: CountOrZero = 0
    executor: ExecutorConfig = ExecutorConfig()

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name.strip() or "/" in name or name in (".", ".."):
            raise ValueError(f"must name a folder, without slashes; got {name!r}")
        return name

    @field_validator("data")
    @classmethod
    def _some_text(cls, data: PrepareConfig) -> PrepareConfig:
        if not data.sources:
            raise ValueError("sources: needs at least one")
        return data

    @field_validator("base")
    @classmethod
    def _of_a_run(cls, base: dict[str, Any]) -> dict[str, Any]:
        if isinstance(base.get("data"), dict) and "path" in base["data"]:
            raise ValueError(f"data.path: {OWN_TEXT}")
        if base.get("parent") is not None:
            raise ValueError(f"parent: {NO_PARENT}")
        try:
            check_base(base, "")
        except InputError as error:
            raise ValueError(str(error)) from None
        return base

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.runs:
            raise ValueError("runs: needs at least one entry")
        if self.plan is not None and self.fit is None:
            raise ValueError("fit: is required by `plan`: it plans with the fitted laws")
        if self.plan is None and self.verify not in (None, VerifyStep()):
            raise ValueError("plan: is required by `verify`: it trains what was planned")
        names = [entry.name for stage in self.stages for entry in stage.runs] + [entry.name for entry in self.runs]
        for field, given in (("runs", names), ("stages", [stage.name for stage in self.stages])):
            twice = next((name for name in given if given.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{field}: the name {twice!r} appears twice")
        rule = self.learning_rate
        if rule is not None and rule.rule == "sweep" and (self.sweep is None or self.sweep.field != RATE):
            raise ValueError(f"learning_rate.rule: sweep needs a `sweep` of {RATE}")
        if rule is not None and rule.batch:
            self._check_batch()
        return self

    def _check_batch(self) -> None:
        for entry in [entry for stage in self.stages for entry in stage.runs] + self.runs:
            if isinstance(entry, MixtureOfTokens) or (isinstance(entry, Ladder) and entry.branch):
                kind = "mixture_of_tokens" if isinstance(entry, MixtureOfTokens) else "a branched ladder"
                raise ValueError(f"learning_rate.batch: {entry.name} is {kind}, planned for one batch; leave it out")


def check_base(base: dict[str, Any], where: str = "base") -> None:
    """Check the given values; missing ones may still come from a stage, a sweep or an entry.

    Rules between fields (a batch of whole sequences) are checked when the run is built. Raises InputError naming
    the field and what it allows.
    """
    _partial(RunConfig).parse(base, where)


@cache
def _partial(whole: type[BaseModel]) -> type[Config]:
    """The same fields, none of them required, without the rules between them; configs inside likewise."""
    fields: dict[str, Any] = {}
    for name, info in whole.model_fields.items():
        kind = _annotation(info.annotation)
        for rule in info.metadata:
            kind = Annotated[kind, rule]
        fields[name] = (kind | None, None)
    return create_model(whole.__name__, __base__=Config, **fields)


def _annotation(annotation: Any) -> Any:
    """A configuration class, alone or with None, made partial; anything else as it is."""
    choices = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    inner = next((each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return annotation if inner is None else _partial(inner)
