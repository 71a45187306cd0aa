"""Sections of a study's report on its runs: each run's loss or step of divergence, and the training settings."""

from typing import Any

from moelab.report import Figure, Section, Table, figures
from moelab.runs import RunConfig, RunRecord
from moelab.studies.findings.base import power
from moelab.studies.outcome import StudyOutcome
from moelab.studies.seeds import Trained, each_once

_TITLES = {"train.learning_rate": "learning rate", "train.batch_tokens": "batch"}
"""Fields that get a column wherever runs differ in them. Other fields get one where runs of one name differ."""


def runs_table(trained: list[Trained]) -> Table:
    """A row per run, cheapest first, with its loss or step of divergence, and a column per field in which runs differ.

    Epochs have one where a text was repeated.
    """
    once = each_once(trained)
    apart = _distinguishing(once)
    columns = ["run", *(_TITLES.get(name, name) for name in apart)]
    repeated = any(record.epochs > 1 for _, record in once)
    columns += [
        "parameters",
        "active",
        "tokens",
        *(["epochs"] if repeated else []),
        "FLOPs",
        "loss",
        "bits/byte",
        "tokens/s",
    ]
    rows = [
        [
            config.name or record.run_id,
            *(_shown(values.get(config.run_id)) for values in apart.values()),
            record.params_total,
            record.params_active,
            record.tokens,
            *([record.epochs] if repeated else []),
            power(record.train_flops),
            f"diverged at step {record.stopped_at}" if record.loss is None else record.loss,
            record.bits_per_byte,
            round(record.tokens_per_second),
        ]
        for config, record in sorted(once, key=lambda pair: pair[1].train_flops)
    ]
    return Table(columns, rows)


MOST_NOTES = 20
"""Notes of runs that a report shows one by one."""


def run_notes(trained: list[Trained]) -> list[str]:
    """What the runs' records note of their health, for people: a line each, the rest as a number."""
    found = [
        f"run {config.name or record.run_id}: {note}." for config, record in each_once(trained) for note in record.notes
    ]
    more = [f"{len(found) - MOST_NOTES} more notes stand in the runs' record.json."] if len(found) > MOST_NOTES else []
    return found[:MOST_NOTES] + more


def _distinguishing(trained: list[Trained]) -> dict[str, dict[str, Any]]:
    """Dotted field -> its value by run id: fields of `_TITLES` that differ, and fields that differ at one name."""
    fields = {config.run_id: _flat(config.model_dump(mode="json", include={"model", "train"})) for config, _ in trained}
    names: dict[str, list[dict[str, Any]]] = {}
    for config, record in trained:
        names.setdefault(config.name or record.run_id, []).append(fields[config.run_id])
    differ = [name for name in _TITLES if _several(list(fields.values()), name)]
    for same in names.values():
        differ += [name for name in dict.fromkeys(key for own in same for key in own) if _several(same, name)]
    return {name: {run: own.get(name) for run, own in fields.items()} for name in dict.fromkeys(differ)}


def _several(runs: list[dict[str, Any]], name: str) -> bool:
    return any(own.get(name) != runs[0].get(name) for own in runs)


def _flat(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    """{a: {b: 1}} -> {a.b: 1}."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{before}{key}.") if isinstance(inner, dict) else {f"{before}{key}": inner}
    return found


def _shown(value: Any) -> Any:
    """A value as a table shows it: floats with four digits."""
    if value is None or isinstance(value, bool | int | str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def runs_section(outcome: StudyOutcome) -> Section:
    """The study's runs and the noise between seeds."""
    rows = [_run_row(config, record) for config, record in each_once(outcome.trained)]
    kept = [row for row in rows if row["loss"] is not None]
    noise = (
        "No run was repeated."
        if outcome.noise is None
        else f"Seed noise: {outcome.noise.deviation:.3f} nats ({outcome.noise.freedom} degrees of freedom)."
    )
    text = [" ".join([*outcome.study.about.split(), noise])]
    drawn = outcome.analysis.comparison is not None or not outcome.findings
    if outcome.analysis.note:
        text.append(f"No law was fitted: {outcome.analysis.note}.")
    return Section(
        "The runs",
        text=text,
        figures=[Figure(figures.loss_by_size(kept), "Loss against size and tokens.")] if drawn else [],
        tables=[runs_table(outcome.trained)],
        warnings=run_notes(outcome.every),
    )


MOST_CURVES = 60
"""Learning curves in one figure; of more runs, the best and worst and some between are drawn."""


def curves_section(outcome: StudyOutcome) -> list[Section]:
    """The learning curves of the runs, and how the routers of the MoE runs fared."""
    once = sorted(each_once(outcome.every), key=lambda pair: (pair[1].loss is None, pair[1].loss or 0.0))
    drawn = once if len(once) <= MOST_CURVES else [once[i * len(once) // MOST_CURVES] for i in range(MOST_CURVES)]
    points = [
        {"run": record.run_id, "label": config.name or record.run_id, "kind": record.kind, **point}
        for config, record in drawn
        for point in ({"tokens": row.get("tokens"), "loss": row.get("loss")} for row in record.loss_curve)
        if point["tokens"] and point["loss"] is not None
    ]
    rows = [[config.name or record.run_id, *_health(record.routing)] for config, record in once if record.routing]
    if not points and not rows:
        return []
    some = f"{MOST_CURVES} of {len(once)} runs, evenly by loss. " if len(drawn) < len(once) else ""
    figure = [Figure(figures.learning_curves(points), f"{some}Validation loss.")] if points else []
    caption = (
        "Worst MoE layer at the last evaluation. Violation: the busiest expert's load over the mean, less 1. Load "
        "deviation: that of the loads, over their mean. Dropped: the share of choices beyond capacity. "
        "Near ties: the share of tokens whose last chosen and first rejected expert differ by less than "
        "0.001 in probability."
    )
    table = [Table(["run", "violation", "idle experts", "load deviation", "dropped", "near ties"], rows, caption)]
    return [Section("Learning curves and routing", figures=figure, tables=table if rows else [])]


def _health(layers: list[dict[str, float]]) -> list[float | None]:
    """The worst layer's numbers."""
    names = ("max_violation", "dead_experts", "load_cv", "drop_rate", "near_ties")
    return [max((layer[name] for layer in layers if name in layer), default=None) for name in names]


def method_section(outcome: StudyOutcome) -> Section:
    """The training settings: the sweep, the device, the rule for the learning rate."""
    text = []
    if outcome.sweep is not None:
        sweep = outcome.sweep
        tried = ", ".join(f"{value:g} ({loss:.3f})" for value, loss in sweep.losses.items())
        edge = " This is the edge of the values tried." if sweep.at_edge else ""
        text.append(
            f"A sweep over one small model set `{sweep.field}` to {sweep.chosen:g}{_reach(outcome)}; "
            f"tried: {tried}.{edge}"
        )
    record = outcome.trained[0][1]
    text.append(
        f"Trained on {record.device} in {record.precision}, {record.threads} thread per run. Losses are cross-entropy "
        "in nats per token on held-out documents of every source. FLOPs are exact counts: attention scores, router and "
        "head included."
    )
    rule = outcome.study.learning_rate
    if rule is not None and rule.rule != "sweep":
        text.append(f"Every run's learning rate comes from the rule `{rule.rule}`, times {rule.factor:g}.")
    return Section("How", text=text, warnings=[] if outcome.plan is not None else outcome.warnings)


def _reach(outcome: StudyOutcome) -> str:
    """Which runs use the swept value."""
    rule = outcome.study.learning_rate
    if rule is None or rule.carry == "constant":
        times = "" if rule is None or rule.factor == 1 else f", times {rule.factor:g},"
        return f"{times} for every run, MoE and the final ones included"
    rates = [config.train.learning_rate for config, _ in outcome.trained]
    return (
        f", carried to every other run by the ratio of the rule `{rule.carry}` ({min(rates):.3g} to {max(rates):.3g})"
    )


def _run_row(config: RunConfig, record: RunRecord) -> dict[str, Any]:
    names = ("params_active", "params_total", "tokens", "loss", "kind", "n_experts")
    return {"label": config.name or record.run_id, **{name: getattr(record, name) for name in names}}
