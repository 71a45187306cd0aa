"""The report of a study that ended because every run it rests on diverged: what was tried, and what to change."""

import polars as pl

from moelab.report import Page, Section, write_page
from moelab.runs.table import save_table
from moelab.studies.page_runs import runs_table
from moelab.studies.stages import Trained, each_once
from moelab.studies.training import Workshop


def report_diverged(workshop: Workshop, why: str, repeat: str) -> None:
    """Write `report.html` and `runs.csv` of a study that ended for this reason, with all the runs it had trained."""
    folder, once = workshop.folder, each_once(workshop.seen)
    rows = [record.row() for _, record in once]
    save_table(pl.DataFrame(rows, infer_schema_length=None), folder.path / "runs.csv")
    diverged = [pair for pair in once if pair[1].loss is None]
    page = Page(
        title=workshop.study.title,
        answer=[f"This study has no answer: {why.removeprefix('study: ')}.", *advice(diverged)],
        sections=[
            Section(
                "The runs",
                text=[
                    f"{len(diverged)} of {len(once)} runs diverged: at the step given, their training loss was no "
                    "finite number any more. What depends on them was not trained."
                ],
                tables=[runs_table(once)],
                warnings=[f"run {name} failed: {reason}" for name, reason in workshop.failed.items()],
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
    said = [f"Their learning rates were {span}: try lower ones, such as {min(rates) / 10:.2g}."]
    if any(train.grad_clip == 0 for train in trains):
        said.append("Gradients were not clipped: set `train.grad_clip` to 1.")
    after = sum((record.stopped_at or 0) > config.train.warmup for config, record in diverged)
    if after:
        said.append(f"{after} got past their warm-up: a longer one (`train.warmup_fraction`) may help as well.")
    if any(train.precision == "bf16" for train in trains):
        said.append("Some were trained in bf16: `train.precision: fp32` tells whether that is why.")
    return [*said, "A study that has been changed needs a folder of its own (`--out`)."]
