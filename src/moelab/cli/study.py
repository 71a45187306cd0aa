"""`moelab study`: the whole loop, from text to a verified recommendation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moelab.cli.law_files import LawFiles
from moelab.printable import printable, warn

if TYPE_CHECKING:
    from moelab.studies.config import StudyConfig
    from moelab.studies.estimate import Estimate
    from moelab.studies.outcome import StudyOutcome


def command(
    study: Annotated[str, typer.Argument(help="A study YAML, or the name of a ready study.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The study's folder.", show_default="studies/NAME")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Runs at a time; 0: as many as the cores allow.")] = 0,
    executor: Annotated[
        str | None, typer.Option(help="Executor: local, ray or slurm.", show_default="the study's, else local")
    ] = None,
    executor_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="For the executor: partition=gpu, time=2h, gpus=1, address=auto."),
    ] = None,
    law_file: LawFiles = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, FLOPs, hours and disk; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
) -> None:
    """Train runs, fit laws, plan, and verify the recommendation.

    A study prepares its text first and writes report.html at the end.

    A repeated call continues where the last one stopped. A second call beside a running one shares its work. A finished
    study is only read.

    Example: moelab study quickstart --out studies/quickstart --dry-run
    """
    from moelab.cli.output import print_json
    from moelab.studies import load_study, run_study

    config = load_study(study)
    _check_laws(config, law_file or [])
    config = config.replace(executor=config.executor.with_options(executor, executor_option or []).to_dict())
    folder = out or Path("studies") / config.name
    if dry_run:
        from moelab.studies.estimate import estimate

        found = estimate(config, folder, workers=workers, report=None if as_json else _print_progress)
        if as_json:
            print_json(found.to_dict())
        else:
            _print_estimate(found)
        return
    outcome = run_study(config, folder, workers=workers, quiet=as_json)
    if as_json:
        print_json(outcome.to_dict())
    else:
        _print_outcome(outcome)
    for reason in outcome.unfitted:
        warn(reason)
    if outcome.failed:
        from moelab.errors import MoelabError

        raise MoelabError(f"study: {len(outcome.failed)} runs failed and were left out; call again to retry them")


def _check_laws(config: "StudyConfig", own: list[str]) -> None:
    """Raises InputError for a law of one's own that the study fits nowhere."""
    from moelab.errors import InputError

    laws = config.fit.laws if config.fit is not None else []
    for name in own:
        if name.removesuffix("+reuse") not in [each.removesuffix("+reuse") for each in laws] and "all" not in laws:
            named = ", ".join(laws) or "no laws"
            raise InputError(f"--law-file: {name} is not among the study's fit.laws ({named}); add it there")


def _print_progress(text: str) -> None:
    typer.echo(printable(text), err=True)


def _print_outcome(outcome: "StudyOutcome") -> None:
    from moelab.cli.output import print_line
    from moelab.quantities import format_seconds

    print_line()
    for sentence in outcome.answer:
        print_line(sentence)
    print_line()
    for warning in outcome.warnings:
        print_line(f"Warning: {warning}")
    print_line(f"Report: {outcome.folder.report} ({format_seconds(outcome.seconds)})")


def _shown(value: object) -> object:
    from moelab.quantities import format_number

    return format_number(value) if isinstance(value, int | float) else value


def _print_estimate(found: "Estimate") -> None:
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_bytes, format_flops, format_seconds

    rows = [each.to_dict() for each in found.runs]
    apart = [name for name in ("learning_rate", "batch_tokens") if len({row[name] for row in rows}) > 1]
    columns = ("step", "name", *apart, "kind", "params_active", "params_total", "tokens")
    print_table(
        (*columns, "train_flops", "time"),
        (
            [f"{row[c]:.4g}" if c == "learning_rate" else _shown(row[c]) for c in columns]
            + [format_flops(row["train_flops"]), "done" if row["done"] else format_seconds(row["seconds"])]
            for row in rows
        ),
    )
    print_line()
    steps = [(each.step, format_seconds(each.seconds)) for each in found.steps]
    print_table(
        ("step", "runs", "train_flops", "time", "note"),
        ((step.name, step.n_runs, format_flops(step.train_flops), time, step.note) for step, time in steps),
    )
    print_line()
    for match in found.matches:
        spread = "" if match.aim is None else f", spread {match.spread:.2%}"
        print_line(f"{match.group}: {match.n_runs} runs, {match.column} at most {match.miss:+.2%} off its aim{spread}")
    time = "unknown" if found.hours is None else f"about {format_seconds(found.hours * 3600)}"
    speed = f"no speed: {found.speeds.missing}" if found.speeds.missing else found.speeds.origin
    print_line(f"Time: {time} with {found.workers} workers ({speed})")
    print_line(f"Training FLOPs: {format_flops(found.train_flops)} (full-square attention)")
    without = " without the text (not prepared, and data.max_tokens sets no limit)" if found.text_bytes is None else ""
    print_line(f"Disk: {format_bytes(found.disk_bytes)}{without}, memory: {format_bytes(found.memory_bytes)}")
