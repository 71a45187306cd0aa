"""The whole loop: text -> runs -> laws -> plan -> the trained and verified recommendation -> a report.

Every step reuses what is already in the folder, so a study killed at any moment continues where it stopped.
"""

import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from moelab.data.progress import no_report, rich_report
from moelab.errors import InputError, MoelabError
from moelab.executors import session
from moelab.executors.display import Display
from moelab.fitting import save_fits
from moelab.printable import suggest
from moelab.runs import find_runs
from moelab.runs.table import save_table
from moelab.studies.analysis import Analysis, analyse
from moelab.studies.answer import answer, best_design
from moelab.studies.build import preview
from moelab.studies.config import StudyConfig
from moelab.studies.findings import find_all
from moelab.studies.folder import StudyFolder
from moelab.studies.outcome import StudyOutcome
from moelab.studies.page import report_diverged, write_report
from moelab.studies.seeds import seed_noise
from moelab.studies.stages import AllDiverged
from moelab.studies.text import check_plan, check_prior, check_study
from moelab.studies.training import StudyContext
from moelab.studies.verify import judge, verify
from moelab.yaml_reader import parse_yaml

READY = (
    "quickstart",
    *(
        f"{paper}-{size}"
        for paper in ("krajewski2024", "yun2024", "abnar2025", "li2025", "antoniak2023")
        for size in ("minutes", "hours", "gpu")
    ),
)
"""Studies that come with moelab, by name: the first loop, and one per paper at three sizes."""


def load_study(name: str) -> StudyConfig:
    """A ready study by name, or a study YAML by path. Raises InputError for a bad field or prior."""
    if name in READY and not Path(name).is_file():
        place = f"ready/{name.replace('-', '/', 1)}.yaml"
        text = files("moelab.studies").joinpath(place).read_text(encoding="utf-8")
        return StudyConfig.parse(parse_yaml(text, name), name)
    if not Path(name).exists():
        raise InputError(
            f"study: no file and no ready study {name!r}; {suggest(str(name), READY)}ready: {', '.join(READY)}"
        )
    study = StudyConfig.from_yaml(name)
    check_prior(study)
    return study


def run_study(
    study: StudyConfig | str | Path, out: str | Path, *, workers: int = 0, quiet: bool = False
) -> StudyOutcome:
    """Run a study in its folder, finish one that was interrupted, or join one that is running there.

    Args:
        study: A StudyConfig, the path of a study YAML, or the name of a ready study.
        out: The study's folder: text, runs, fits, plan and report.
        workers: Runs at a time; 0: the study's own number, or what its executor chooses.
        quiet: Show no progress on stderr.

    Returns:
        A StudyOutcome: the runs, findings, fitted laws, the plan, what was verified, the answer in words, and the runs
        that failed and were left out.

    Raises:
        InputError: A folder that holds another study, an executor that is not there, text that is too short.
        MoelabError: So much failed, or diverged, that the study cannot go on (where all diverged, a report names what
            was tried).

    After the example of `moelab.prepare`:

    >>> import moelab
    >>> model = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}
    >>> train = {"tokens": 2048, "seq_len": 32, "batch_tokens": 256, "eval_tokens": 512}
    >>> text = {"sources": ["texts"], "vocab_size": 300, "validation_share": 0.2}
    >>> runs = [{"name": "rates", "set": {"train.learning_rate": [0.003, 0.01]}}]
    >>> fields = {"name": "tiny", "title": "Two rates", "data": text, "base": {"model": model, "train": train}}
    >>> study = moelab.StudyConfig(**fields, runs=runs)
    >>> outcome = moelab.run_study(study, "studies/tiny", workers=1, quiet=True)
    >>> len(outcome.trained), outcome.failed
    (2, {})
    """
    study = study if isinstance(study, StudyConfig) else load_study(str(study))
    folder, display, started = StudyFolder(out), Display(quiet), time.monotonic()
    context = StudyContext(
        study=study, folder=folder, display=display, executor=study.executor, workers=workers or study.workers
    )
    check_study(study, folder)
    folder.claim(study)
    with session(study.executor):
        try:
            return _run(context, started, quiet)
        except AllDiverged as error:
            report_diverged(context, str(error), _command(study, folder))
            raise MoelabError(f"{error}; {folder.report} shows where, and what to change") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_continues(folder)) from None
        finally:
            display.close()


def _run(context: StudyContext, started: float, quiet: bool) -> StudyOutcome:
    study, folder, display = context.study, context.folder, context.display
    display.stage("Preparing the text")
    with rich_report() if not quiet else _no_progress() as report:
        dataset = context.prepare_data(report)
    check_plan(study, preview(study), len(dataset.train) - 1)
    common: dict[str, Any] = {}
    sweep = None
    if study.sweep is not None:
        display.stage(f"Choosing {study.sweep.field} by a short sweep")
        sweep = context.sweep(study.sweep, dataset)
        common = {sweep.field: sweep.chosen}
        tried = ", ".join(f"{value:g}: {loss:.3f}" for value, loss in sweep.losses.items())
        display.line(f"{sweep.field} = {sweep.chosen:g} (loss by value: {tried})")
    stages = []
    for stage in study.stages:
        display.stage(f"Stage {stage.name}: its winner sets {', '.join(stage.carry)}")
        stages.append(context.stage(stage, common, dataset))
        common |= stages[-1].chosen
    display.stage("Training the runs of the study" if study.fit is None else "Training the runs for the laws")
    trained = context.designs(common, dataset)
    every = [pair for stage in stages for pair in stage.trained] + trained
    noise = seed_noise(every)
    display.stage("Analysing")
    findings = find_all(study, every, noise)
    analysis = analyse(study, [record for _, record in trained])
    _keep(folder, display, analysis)
    verified, verdict = [], None
    if analysis.plan is not None and analysis.comparison is not None and study.verify is not None:
        display.stage("Training the recommendation and its baseline")
        verified = verify(context, analysis.plan, analysis.comparison, common, dataset)
        verdict = judge(verified, seed_noise(every + [(each.config, each.record) for each in verified]))
    outcome = StudyOutcome(
        study=study,
        folder=folder,
        sweep=sweep,
        stages=stages,
        trained=trained,
        noise=noise,
        findings=findings,
        analysis=analysis,
        verified=verified,
        verdict=verdict,
        answer=answer(study, stages, findings, analysis, verified, verdict, best_design(trained, noise)),
        seconds=time.monotonic() - started,
        failed=context.failed,
    )
    _write(outcome)
    return outcome


def _keep(folder: StudyFolder, display: Display, analysis: Analysis) -> None:
    """Save and print the fits and the plan, before the recommendation is trained."""
    if analysis.comparison is None:
        return
    save_fits(analysis.comparison.fits, folder.path / "fits.json")
    if analysis.plan is not None:
        folder.save("plan", analysis.plan.to_dict())
    for name, fitted in analysis.comparison.fits.items():
        held = fitted.holdout
        score = f", held out {held.mean_abs_rel:.1%} on {held.n_runs} runs" if held else ""
        display.line(f"{name}: in-sample {fitted.in_sample['mean_abs_rel']:.1%}{score}")
    for name, reason in analysis.comparison.skipped.items():
        display.line(f"{name}: left out ({reason})")
    if analysis.plan is not None:
        display.line(f"recommended: {analysis.plan.best.label} on {analysis.plan.best.tokens / 1e6:.2f}M tokens")


def _write(outcome: StudyOutcome) -> None:
    folder = outcome.folder
    if outcome.findings:
        folder.save("findings", {each.name: each.data for each in outcome.findings})
    if outcome.plan is not None:
        folder.save("verify", [each.to_dict() for each in outcome.verified])
    save_table(outcome.analysis.table, folder.path / "runs.csv")
    write_report(outcome, _command(outcome.study, folder))


def _continues(folder: StudyFolder) -> str:
    """What the same call continues with after an interruption."""
    runs = find_runs(folder.runs) if folder.runs.is_dir() else []
    finished = sum(run.finished for run in runs)
    return (
        f"the same command keeps the {finished} finished runs of {folder.path} and continues with the rest, "
        "each from its newest checkpoint"
    )


def _command(study: StudyConfig, folder: StudyFolder) -> str:
    """The command that writes the report again."""
    again = study.name if study.name in READY else f"{folder.path / 'study.yaml'} --out {folder.path}"
    return f"moelab study {again}"


def _no_progress() -> Any:
    from contextlib import nullcontext

    return nullcontext(no_report)
