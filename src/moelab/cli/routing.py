"""`moelab routing`: what the experts of a trained run do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moelab.cli.outputs import FIGURES, check_output

_WORTH = 1.1
"""Kinds and sources that are taken less often than this, against at random, are not listed."""


def command(
    run: Annotated[Path, typer.Argument(help="A finished run: folder, start of its id, or name.", show_default=False)],
    tokens: Annotated[int, typer.Option(min=1, help="Held-out tokens to look at.")] = 65_536,
    top: Annotated[int, typer.Option(min=1, help="Tokens to list for each expert.")] = 6,
    data: Annotated[Path | None, typer.Option(help="Prepared data, if it moved since training.")] = None,
    out: Annotated[str | None, typer.Option(help="Figure: .svg, .png, .pdf, .html or .json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Measure which tokens and sources each expert takes.

    Measured on held-out text, with the kinds of token and the experts that work together.

    A number after an x is the frequency over that of a random choice.

    Example: moelab routing runs/3f2a... --out experts.svg
    """
    check_output(out, "--out", FIGURES)
    from moelab.cli.output import print_json
    from moelab.evaluation.specialisation import measure
    from moelab.training.open import open_run

    _, config, model, dataset = open_run(run, data)
    dataset.verify_validation()
    train = config.train
    rows = train.micro_batch or train.local_batch_size
    found = measure(model, dataset, seq_len=train.seq_len, max_tokens=max(tokens, train.seq_len), trained_rows=rows)
    report = found.to_dict(top)
    if out is not None:
        from moelab.report.figures_routing import specialisation
        from moelab.report.save import save_figure

        save_figure(specialisation(report), out)
    if as_json:
        print_json(report)
        return
    _show(report)


def _show(report: dict[str, Any]) -> None:
    from moelab.cli.output import print_line, print_table

    keys = ("max_violation", "load_cv", "dead_experts", "known_from_token", "known_from_class", "known_from_source")
    names = ["layer", "max violation", "load cv", "dead", "known from token", "from class", "from source"]
    layers = report["layers"]
    print_table(
        names,
        ([layer["layer"], *(f"{layer[key]:.3f}" if isinstance(layer[key], float) else layer[key] for key in keys)]
         for layer in layers),
        title=f"Routing of {report['tokens']:,} held-out tokens",
    )  # fmt: skip
    for layer in layers:
        print_line()
        print_table(
            ["expert", "load", "tokens it takes above all", "kinds", "sources", "works with"],
            ([index, f"{row['load']:.1%}", *_words(row)] for index, row in enumerate(layer["experts"])),
            title=f"Layer {layer['layer']}",
        )


def _words(row: dict[str, Any]) -> list[str]:
    tokens = " ".join(_shown(token["text"]) for token in row["tokens"])
    kinds = ", ".join(f"{each['class']} x{each['lift']:.1f}" for each in row["classes"] if each["lift"] >= _WORTH)
    sources = ", ".join(f"{each['source']} x{each['lift']:.1f}" for each in row["sources"] if each["lift"] >= _WORTH)
    partner = row["partner"]
    return [
        tokens or "-",
        kinds or "-",
        sources or "-",
        f"{partner['expert']} x{partner['lift']:.1f}" if partner else "-",
    ]


def _shown(text: str) -> str:
    return text.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
