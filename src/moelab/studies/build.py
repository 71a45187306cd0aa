"""The runs of a study from its entries: the base, the choices so far, each entry's own fields, then the rates."""

from typing import Any

from moelab.errors import InputError
from moelab.experiments import ExperimentDesign, Planned, Template
from moelab.experiments.ladder import BRANCH_OF, TRUNK
from moelab.runs import RunConfig
from moelab.studies.config import OWN_TEXT, RATE, StudyConfig, check_base
from moelab.studies.stages import carried, competes


def build_runs(
    study: StudyConfig, entries: list[ExperimentDesign], data_path: str, common: dict[str, Any], *, rates: bool = True
) -> list[RunConfig]:
    """The run configs of `entries`: base, then `common`, then each entry's own fields. Replicates differ in the seed.

    With `rates` the study's learning-rate rule is applied to every run that does not set its own. Raises InputError
    naming the study and the entry whose runs are not valid or whose budget cannot be met.
    """
    base = merged_base(study, common)
    if common:
        check_base(base, f"study {study.name}, base with {', '.join(common)} as chosen")
    configs = []
    earlier: dict[str, list[Planned]] = {}
    replicates = {entry.name: entry.replicates for entry in entries}
    for entry in entries:
        try:
            planned = entry.plan(Template(base=base, earlier=earlier, replicates=replicates))
        except InputError as error:
            raise InputError(f"study {study.name}, runs {entry.name}: {error}") from None
        earlier[entry.name] = planned
        for run in planned:
            own = run.assignments()
            kept = {key: value for key, value in common.items() if "model" not in own or key.split(".")[0] != "model"}
            for replicate in range(entry.replicates):
                configs.append(build_run(study, entry.name, {**kept, **own}, replicate, data_path))
    if not rates:
        return configs
    rated = with_rates(study, configs, data_path)
    _check_steps(study, entries, configs, rated)
    return rated


def merged_base(study: StudyConfig, common: dict[str, Any]) -> dict[str, Any]:
    """The study's base overridden by flat {dotted field: value}; a whole `model` replaces the base's."""
    base = {key: value for key, value in study.base.items() if key != "model" or "model" not in common}
    for key, value in common.items():
        base = _merge(base, _nested(key, value))
    return base


def swept_run(study: StudyConfig, data_path: str) -> RunConfig | None:
    """The cheapest run of the learning-rate sweep, for which the swept rate was chosen; None without such a sweep."""
    sweep = study.sweep
    if sweep is None or sweep.field != RATE:
        return None
    configs = build_runs(study, sweep.runs, data_path, {RATE: sweep.values[0]}, rates=False)
    return min(configs, key=lambda config: config.train.tokens)


def with_rates(study: StudyConfig, configs: list[RunConfig], data_path: str) -> list[RunConfig]:
    """The study's rule for the learning rate applied; a branch has its trunk's rate, and a run's own rate stays."""
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


def _check_steps(
    study: StudyConfig, entries: list[ExperimentDesign], planned: list[RunConfig], rated: list[RunConfig]
) -> None:
    """Raises InputError where the batch that a rule chose leaves a run fewer steps than its entry asks for."""
    asked = {entry.name: getattr(entry, "min_steps", 1) for entry in entries}
    for before, run in zip(planned, rated, strict=True):
        group, train = run.labels["group"], run.train
        least = asked.get(group, 1)
        if train.batch_tokens != before.train.batch_tokens and train.steps < least:
            raise InputError(
                f"study {study.name}, runs {group}: learning_rate.batch: {train.batch_tokens:,} tokens leave "
                f"{run.name} {train.steps} steps; at least {least} (min_steps) are needed"
            )


def build_run(study: StudyConfig, group: str, fields: dict[str, Any], replicate: int, data: str) -> RunConfig:
    """One run: the study's base overridden by flat {dotted field: value}; a whole `model` replaces the base's.

    Raises InputError naming the study and the group when the result is not a valid run.
    """
    base = {key: value for key, value in study.base.items() if key != "model" or "model" not in fields}
    value = _merge(base, {"data": {"path": data}, "labels": {"group": group}})
    for key, field_value in fields.items():
        value = _merge(value, _nested(key, field_value))
    if isinstance(value["data"], dict) and value["data"].get("path") != data:
        raise InputError(f"study {study.name}, runs {group}: data.path: {OWN_TEXT}")
    try:
        config = RunConfig.parse(value)
    except InputError as error:
        raise InputError(f"study {study.name}, runs {group}: {error}") from None
    if replicate:
        config = config.replace(train={**config.train.to_dict(), "seed": config.train.seed + replicate})
    return config if config.name else config.replace(name=describe(config))


def describe(config: RunConfig) -> str:
    """A short name for display: d48 L3 8e2x32 0.8M s1."""
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
    """A deep copy of `base` overridden by `change`; a null removes a key."""
    merged = {key: _merge(value, {}) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = _merge(value, {}) if isinstance(value, dict) else value
    return merged


def preview(study: StudyConfig, data_path: str = "data") -> dict[str, list[RunConfig]]:
    """Part of the study (sweep, each stage, runs) -> its runs, nothing trained.

    The choices of training are replaced by the middle value of the sweep and the first design of a stage. Sizes and
    costs of what follows a stage are therefore those of that design. Raises InputError naming what cannot be met.
    """
    parts: dict[str, list[RunConfig]] = {}
    common: dict[str, Any] = {}
    if study.sweep is not None:
        sweep = study.sweep
        parts["sweep"] = [
            config.replace(name=f"{config.name} {value:g}")
            for value in sweep.values
            for config in build_runs(study, sweep.runs, data_path, {sweep.field: value}, rates=False)
        ]
        common[sweep.field] = sweep.values[len(sweep.values) // 2]
    for stage in study.stages:
        configs = build_runs(study, stage.runs, data_path, common)
        first = next((config for config in configs if competes(config)), None)
        if first is None:
            raise InputError(f"study {study.name}, stage {stage.name}: no run competes; give it one that is not dense")
        parts[f"stage {stage.name}"] = configs
        common |= carried(stage, first)
    parts["runs"] = build_runs(study, study.runs, data_path, common)
    return parts
