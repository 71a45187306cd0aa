"""Sections of a study's report on its runs: each with its loss or where it diverged, and how they were trained."""

from typing import Any

from moelab.report import Figure, Section, Table, figures
from moelab.runs import RunConfig, RunRecord
from moelab.studies.findings.base import power
from moelab.studies.outcome import StudyOutcome
from moelab.studies.stages import Trained


def runs_table(trained: list[Trained]) -> Table:
    """A row per run, cheapest first; in place of its loss, where a run diverged."""
    columns = ["run", "parameters", "active", "tokens", "FLOPs", "loss", "bits/byte", "tokens/s"]
    rows = [
        [
            config.name or record.run_id,
            record.params_total,
            record.params_active,
            record.tokens,
            power(record.train_flops),
            f"diverged at step {record.stopped_at}" if record.loss is None else record.loss,
            record.bits_per_byte,
            round(record.tokens_per_second),
        ]
        for config, record in sorted(trained, key=lambda pair: pair[1].train_flops)
    ]
    return Table(columns, rows)


def runs_section(outcome: StudyOutcome) -> Section:
    """The study's runs and the noise between seeds."""
    rows = [_run_row(config, record) for config, record in outcome.trained]
    kept = [row for row in rows if row["loss"] is not None]
    noise = (
        "No run was repeated."
        if outcome.noise is None
        else f"Seed noise: {outcome.noise.deviation:.3f} nats ({outcome.noise.freedom} degrees of freedom)."
    )
    text = [f"{outcome.study.about} {noise}".strip()]
    drawn = outcome.analysis.comparison is not None or not outcome.findings
    if outcome.analysis.note:
        text.append(f"No law was fitted: {outcome.analysis.note}.")
    return Section(
        "The runs",
        text=text,
        figures=[Figure(figures.loss_by_size(kept), "Loss falls with size and with tokens.")] if drawn else [],
        tables=[runs_table(outcome.trained)],
    )


def method_section(outcome: StudyOutcome) -> Section:
    """How the runs were trained: the sweep, the device, the rule for the learning rate."""
    text = []
    if outcome.sweep is not None:
        sweep = outcome.sweep
        tried = ", ".join(f"{value:g} ({loss:.3f})" for value, loss in sweep.losses.items())
        edge = " It is the end of what was tried." if sweep.at_edge else ""
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
        text.append(f"Every run's learning rate is that of the rule `{rule.rule}`, times {rule.factor:g}.")
    return Section("How", text=text, warnings=[] if outcome.plan is not None else outcome.warnings)


def _reach(outcome: StudyOutcome) -> str:
    """Which runs have the swept value."""
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
