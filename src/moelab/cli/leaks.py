"""`moelab leaks`: does one token's output depend on later tokens or on other sequences?"""

from typing import Annotated

import typer


def command(
    config: Annotated[str, typer.Argument(help="Model YAML, run YAML, run folder, or a preset's name.")],
    batch: Annotated[int, typer.Option(help="Sequences in the batch.")] = 8,
    seq_len: Annotated[int, typer.Option(help="Tokens per sequence.")] = 16,
    trials: Annotated[int, typer.Option(help="Tokens changed, one at a time.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the weights and the tokens.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Certify that an architecture leaks nothing, or measure how much it does: fresh weights, fp64, reference path.

    Example: moelab leaks configs/models/expert-choice.yaml --batch 16
    """
    from dataclasses import asdict

    from moelab.architecture import count_parameters, load_model
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.evaluation.leaks import certify

    model = load_model(config)
    if count_parameters(model).params_total > 2e8:
        raise InputError(
            f"CONFIG: {config} is too large to build in fp64 here; give a small model with the same router"
        )
    found = certify(model, batch=batch, seq_len=seq_len, trials=trials, seed=seed)
    if as_json:
        print_json({**asdict(found), "clean": found.clean})
        return
    print_table(
        ["what changed when one token did", "share of positions", "largest change of a logit"],
        [
            ("earlier tokens of its sequence", f"{found.earlier_rate:.1%}", f"{found.earlier_change:.2g}"),
            ("tokens of other sequences", f"{found.others_rate:.1%}", f"{found.others_change:.2g}"),
            ("either, with mixing and capacity off", "-", f"{found.leak_free_change:.2g}"),
        ],
    )
    print_line("no leak" if found.clean else "leaks: report its loss as trained and leak-free")
