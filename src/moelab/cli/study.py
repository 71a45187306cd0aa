"""`moelab study`: the whole loop, from text to a verified recommendation."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    study: Annotated[str, typer.Argument(help="A study YAML, or the ready study `quickstart`.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The study's folder; default studies/NAME.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Runs at a time; 0: one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON.")] = False,
) -> None:
    """Prepare the text, train the runs, fit the laws, plan, train the recommendation, and write report.html.

    Called again it goes on where it stopped; a finished study is only read.

    Example: moelab study quickstart --out studies/quickstart
    """
    from moelab.cli.output import print_json, print_line
    from moelab.quantities import format_seconds
    from moelab.studies import load_study, run_study

    config = load_study(study)
    outcome = run_study(config, out or Path("studies") / config.name, workers=workers, quiet=as_json)
    if as_json:
        print_json(outcome.to_dict())
        return
    print_line()
    for sentence in outcome.answer:
        print_line(sentence)
    print_line()
    for warning in outcome.warnings:
        print_line(f"Mind: {warning}")
    print_line(f"Report: {outcome.folder.report} ({format_seconds(outcome.seconds)})")
