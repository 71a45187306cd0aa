"""The study's report: one self-contained page that opens with the answer and shows what it rests on."""

from typing import Any

from moelab.fitting import Comparison
from moelab.fitting.plots import fit_rows
from moelab.planning import Candidate, Plan
from moelab.quantities import format_number, format_seconds
from moelab.report import Fact, Figure, Page, Section, Table, figures, write_page
from moelab.runs import RunConfig, RunRecord
from moelab.studies.answer import describe_model
from moelab.studies.findings.base import power
from moelab.studies.outcome import StudyOutcome
from moelab.studies.page_designs import matching_section, stage_section
from moelab.studies.verify import ROLES

_SHOWN_CANDIDATES = 6


def write_report(outcome: StudyOutcome, repeat: str) -> None:
    """Write `report.html` into the study's folder; `repeat` is the command that makes it again."""
    page = Page(
        title=outcome.study.title,
        answer=outcome.answer,
        facts=[*(fact for finding in outcome.findings for fact in finding.facts), *_facts(outcome)],
        sections=_sections(outcome),
        versions=outcome.trained[0][1].versions,
        repeat=[repeat],
    )
    write_page(page, outcome.folder.report)


def _sections(outcome: StudyOutcome) -> list[Section]:
    sections = [finding.section for finding in outcome.findings]
    sections += [stage_section(stage) for stage in outcome.stages]
    if outcome.verified:
        sections.append(_verified(outcome))
    if outcome.plan is not None:
        sections.append(_plan(outcome, outcome.plan))
    if outcome.analysis.comparison is not None:
        sections.append(_laws(outcome, outcome.analysis.comparison))
    if outcome.matches:
        sections.append(matching_section(outcome.matches))
    return [*sections, _runs(outcome), _method(outcome)]


def _facts(outcome: StudyOutcome) -> list[Fact]:
    plan, verdict, step = outcome.plan, outcome.verdict, outcome.study.plan
    facts: list[Fact] = []
    if plan is not None and step is not None:
        best = plan.best
        facts = [
            Fact("Training compute", _power(best.train_flops), f"FLOPs, {step.flops_times:g} x the dearest run"),
            Fact("Recommended", "MoE" if best.is_moe else "dense", best.label),
            Fact("Tokens", format_number(best.tokens), f"{best.tokens / best.params_active:.0f} per active parameter"),
        ]
    if verdict is not None:
        noise = "" if verdict.noise is None else f", seed noise {verdict.noise.deviation:.3f}"
        ahead = "MoE ahead by" if verdict.margin > 0 else "Dense ahead by"
        facts.append(Fact(ahead, f"{abs(verdict.margin):.3f}", f"nats per token, measured{noise}"))
    if plan is not None and plan.p_moe_beats_dense is not None:
        facts.append(Fact("MoE wins", f"{plan.p_moe_beats_dense:.0%}", "of the bootstrap draws, before training it"))
    if outcome.noise is not None and verdict is None:
        facts.append(Fact("Seed noise", f"{outcome.noise.deviation:.3f}", "nats, one standard deviation"))
    runs = len(outcome.trained) + sum(len(stage.trained) for stage in outcome.stages)
    name = "Runs" if outcome.analysis.comparison is None else "Runs fitted"
    return [*facts, Fact(name, str(runs), f"this call took {format_seconds(outcome.seconds)}")]


def _verified(outcome: StudyOutcome) -> Section:
    rows = [
        {
            "label": f"{ROLES[each.role]}: {each.label}",
            "kind": each.kind,
            "law": law,
            "predicted": said["value"],
            "low": said["low"],
            "high": said["high"],
            "measured": each.record.loss,
            "seed_noise": None if outcome.noise is None else outcome.noise.deviation,
        }
        for each in outcome.verified
        if each.record.loss is not None
        for law, said in each.predicted.items()
    ]
    table = [
        [ROLES[each.role], each.label, each.record.loss, law, said["value"], _error(said["value"], each.record.loss)]
        for each in outcome.verified
        for law, said in each.predicted.items()
    ]
    return Section(
        "Predicted against measured",
        text=[
            "The recommendation and its best rival were trained with the settings of the fitted runs, at a budget "
            "above all of them. The intervals (80 %) are those of one more run: uncertainty of the fit plus scatter."
        ],
        figures=[
            Figure(
                figures.verification(rows) if rows else None,
                "Each law's prediction with its 80 % interval. Dark bar: measured; grey: one seed deviation.",
            )
        ],
        tables=[Table(["", "design", "measured", "law", "predicted", "error"], table)],
    )


def _plan(outcome: StudyOutcome, plan: Plan) -> Section:
    shown: list[Candidate] = plan.candidates[:_SHOWN_CANDIDATES]
    rival = plan.best_dense if plan.best.is_moe else plan.best_moe
    if rival is not None and rival not in shown:
        shown = [*shown, rival]
    rows = [
        {
            "label": f"{_rank(plan.candidates, design)} {design.label}",
            "law": law,
            "loss": said.value,
            "low": said.low,
            "high": said.high,
            "kind": "moe" if design.is_moe else "dense",
            "rank": place,
        }
        for place, design in enumerate(shown, 1)
        for law, said in design.loss.items()
        if said.value is not None
    ]
    table = [
        [
            _rank(plan.candidates, design),
            describe_model(design.config),
            design.params_total,
            design.params_active,
            design.tokens,
            design.mean_loss.value if design.mean_loss else None,
            design.regret_loss.value,
        ]
        for design in shown
    ]
    return Section(
        "What to train",
        text=[
            f"{plan.n_designs:,} real architectures were enumerated, {plan.n_feasible:,} fit the budget, and "
            f"{plan.near_equal - 1:,} others cannot be told apart from the best ({plan.near_equal_rule}). "
            f"Binding: {', '.join(plan.binding) or 'nothing'}."
        ],
        figures=[Figure(figures.candidates(rows), "Planned designs, best first, as each law sees them.")],
        tables=[Table(["rank", "design", "parameters", "active", "tokens", "loss", "regret, nats"], table)],
        warnings=outcome.warnings,
    )


def _laws(outcome: StudyOutcome, comparison: Comparison) -> Section:
    points = [row for fitted in comparison.fits.values() for row in fit_rows(fitted)]
    table = [
        [
            name,
            f"{fitted.in_sample['mean_abs_rel']:.1%}",
            f"{fitted.holdout.mean_abs_rel:.1%}" if fitted.holdout else None,
            f"{fitted.holdout.bias_rel:+.1%}" if fitted.holdout else None,
            _times(fitted.holdout.max_extrapolation) if fitted.holdout else None,
            f"{comparison.weights[name]:.2f}",
            ", ".join(fitted.held) or "none",
        ]
        for name, fitted in comparison.fits.items()
    ]
    columns = ["law", "error in sample", "held out", "bias held out", "reach", "weight", "held fixed"]
    notes = [f"{name}: {note}." for name, fitted in comparison.fits.items() for note in fitted.notes]
    return Section(
        "The laws",
        text=[
            "Each law was fitted to all runs, and once more without the dearest ones, which it then had to predict. "
            "The weights of the ensemble are the inverse mean-square errors on those held-out runs; reach says how "
            "much dearer the dearest of them is than the dearest run fitted.",
        ],
        figures=[Figure(figures.predicted_measured(points), "Predicted against measured loss of the runs.")],
        tables=[Table(columns, table)],
        warnings=[*(f"{name} was left out: {why}." for name, why in comparison.skipped.items()), *notes],
    )


def _runs(outcome: StudyOutcome) -> Section:
    rows = [_run_row(config, record) for config, record in outcome.trained]
    kept = [row for row in rows if row["loss"] is not None]
    columns = ["run", "parameters", "active", "tokens", "FLOPs", "loss", "bits/byte", "tokens/s"]
    table = [
        [
            row["label"],
            record.params_total,
            record.params_active,
            record.tokens,
            power(record.train_flops),
            record.loss,
            record.bits_per_byte,
            round(record.tokens_per_second),
        ]
        for row, (_, record) in sorted(zip(rows, outcome.trained, strict=True), key=lambda pair: pair[1][1].train_flops)
    ]
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
        tables=[Table(columns, table)],
    )


def _method(outcome: StudyOutcome) -> Section:
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
        return " for every run, MoE and the final ones included"
    rates = [config.train.learning_rate for config, _ in outcome.trained]
    return (
        f", carried to every other run by the ratio of the rule `{rule.carry}` ({min(rates):.3g} to {max(rates):.3g})"
    )


def _run_row(config: RunConfig, record: RunRecord) -> dict[str, Any]:
    names = ("params_active", "params_total", "tokens", "loss", "kind", "n_experts")
    return {"label": config.name or record.run_id, **{name: getattr(record, name) for name in names}}


def _rank(candidates: list[Candidate], design: Candidate) -> str:
    return f"{candidates.index(design) + 1}." if design in candidates else "rival"


def _error(predicted: float, measured: float | None) -> str | None:
    if measured is None:
        return None
    return f"{predicted / measured - 1:+.1%}".replace("-0.0%", "0.0%").replace("+0.0%", "0.0%")


def _times(factor: float | None) -> str | None:
    return None if factor is None else f"{factor:.3g} x"


def _power(value: float) -> str:
    return f"{value:.2g}".replace("e+", "e")
