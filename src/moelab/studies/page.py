"""The study's report: one self-contained page with the answer first and the evidence after it."""

import polars as pl

from moelab.quantities import format_number, format_seconds
from moelab.report import Fact, Page, Section, write_page
from moelab.runs.table import save_table
from moelab.studies.outcome import StudyOutcome
from moelab.studies.page_designs import matching_section, stage_section
from moelab.studies.page_plan import laws_section, plan_section, verified_section
from moelab.studies.page_runs import curves_section, method_section, run_notes, runs_section, runs_table
from moelab.studies.seeds import Trained, each_once
from moelab.studies.training import StudyContext


def write_report(outcome: StudyOutcome, repeat: str) -> None:
    """Write `report.html` into the study's folder; `repeat` is the command that makes it again."""
    page = Page(
        title=outcome.study.title,
        answer=outcome.answer,
        facts=[*(fact for finding in outcome.findings for fact in finding.facts), *headline_facts(outcome)],
        sections=_sections(outcome),
        versions=outcome.trained[0][1].versions,
        repeat=[repeat],
    )
    write_page(page, outcome.folder.report)


def _sections(outcome: StudyOutcome) -> list[Section]:
    sections = [finding.section for finding in outcome.findings]
    sections += [stage_section(stage) for stage in outcome.stages]
    if outcome.verified:
        sections.append(verified_section(outcome))
    if outcome.plan is not None:
        sections.append(plan_section(outcome, outcome.plan))
    if outcome.analysis.comparison is not None:
        sections.append(laws_section(outcome.analysis.comparison))
    if outcome.matches:
        sections.append(matching_section(outcome.matches))
    return [*sections, runs_section(outcome), *curves_section(outcome), method_section(outcome)]


def headline_facts(outcome: StudyOutcome) -> list[Fact]:
    """The numbers at the top of the page: what was planned, what was measured, how many runs were fitted."""
    plan, verdict, step = outcome.plan, outcome.verdict, outcome.study.plan
    facts: list[Fact] = []
    if plan is not None and step is not None:
        best = plan.best
        facts = [
            Fact(
                "Training compute",
                _power(best.train_flops),
                f"FLOPs (full square), {step.flops_times:g} x the largest run fitted",
            ),
            Fact("Recommended", "MoE" if best.is_moe else "dense", best.label),
            Fact("Tokens", format_number(best.tokens), f"{best.tokens / best.params_active:.0f} per active parameter"),
        ]
    if verdict is not None:
        noise = "" if verdict.noise is None else f", seed noise {verdict.noise.deviation:.3f}"
        ahead = "MoE ahead by" if verdict.margin > 0 else "Dense ahead by"
        facts.append(Fact(ahead, f"{abs(verdict.margin):.3f}", f"nats per token, measured{noise}"))
    if plan is not None and plan.p_moe_beats_dense is not None:
        facts.append(
            Fact("MoE beats dense in", f"{plan.p_moe_beats_dense:.0%}", "of the bootstrap draws, as predicted")
        )
    if outcome.noise is not None and verdict is None:
        facts.append(Fact("Seed noise", f"{outcome.noise.deviation:.3f}", "nats, one standard deviation"))
    fitted = outcome.analysis.comparison is not None
    every = each_once(outcome.every)
    runs = outcome.analysis.table.height if fitted else len(every)
    name = "Runs fitted" if fitted else "Runs"
    seconds = sum(record.seconds or 0.0 for _, record in every)
    return [*facts, Fact(name, str(runs), f"{format_seconds(seconds)} of training")]


def _power(value: float) -> str:
    return f"{value:.2g}".replace("e+", "e")


def report_diverged(context: StudyContext, why: str, repeat: str) -> None:
    """Write `report.html` and `runs.csv` of a study that ended for this reason, with all the runs it had trained."""
    folder, once = context.folder, each_once(context.seen)
    rows = [record.row() for _, record in once]
    save_table(pl.DataFrame(rows, infer_schema_length=None), folder.path / "runs.csv")
    diverged = [pair for pair in once if pair[1].loss is None]
    page = Page(
        title=context.study.title,
        answer=[f"This study has no answer: {why.removeprefix('study: ')}.", *advice(diverged)],
        sections=[
            Section(
                "The runs",
                text=[
                    f"{len(diverged)} of {len(once)} runs diverged: their training loss was not finite from the "
                    "step given. Runs that depend on them were not trained."
                ],
                tables=[runs_table(once)],
                warnings=[
                    *(f"run {name} failed: {reason}" for name, reason in context.failed.items()),
                    *run_notes(once),
                ],
            )
        ],
        versions=once[0][1].versions,
        repeat=[repeat],
    )
    write_page(page, folder.report)


def advice(diverged: list[Trained]) -> list[str]:
    """What to change, by what the runs that diverged had in common."""
    trains = [config.train for config, _ in diverged]
    rates = [train.learning_rate for train in trains]
    span = f"{min(rates):g}" if min(rates) == max(rates) else f"{min(rates):g} to {max(rates):g}"
    found = [f"Their learning rates were {span}: try lower ones, such as {min(rates) / 10:.2g}."]
    if any(train.grad_clip == 0 for train in trains):
        found.append("Gradients were not clipped: set `train.grad_clip` to 1.")
    after = sum((record.stopped_at or 0) > config.train.warmup for config, record in diverged)
    if after:
        found.append(f"{after} diverged after their warm-up: a longer one (`train.warmup_fraction`) may help as well.")
    if any(train.precision == "bf16" for train in trains):
        found.append("Some were trained in bf16: `train.precision: fp32` shows whether that is the cause.")
    return [*found, "A changed study needs its own folder (`--out`)."]
