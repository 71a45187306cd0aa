"""`moelab leaks`: does one token's output depend on later tokens or on other sequences?"""

from typing import Annotated

import typer


def command(
    config: Annotated[str, typer.Argument(help="Model or run YAML, a run, a preset, config.json or a GGUF file.")],
    batch: Annotated[int, typer.Option(help="Sequences in the batch.")] = 8,
    seq_len: Annotated[int, typer.Option(help="Tokens per sequence.")] = 16,
    trials: Annotated[int, typer.Option(help="Tokens changed, one at a time.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the weights and the tokens.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Certify that an architecture leaks nothing, or measure it.

    Measured in fp64, on the reference path.

    A finished run is measured with its trained weights, everything else with fresh ones. The tokens are random, and
    then one token repeated, which overfills an expert with a capacity. The rows of layers change one vector of that
    layer's input.

    Example: moelab leaks configs/runs/small-moe.yaml --batch 16
    """
    from dataclasses import asdict
    from pathlib import Path

    from moelab.architecture import count_parameters, load_model
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.evaluation.leaks import Leak, certify
    from moelab.runs.find import find_design
    from moelab.runs.folder import WEIGHTS

    config = find_design(config)
    model = load_model(config)
    if count_parameters(model).params_total > 2e8:
        raise InputError(
            f"CONFIG: {config} is too large to build in fp64 here; give a small model with the same router"
        )
    trained = (Path(config) / WEIGHTS).is_file()
    if trained:
        from moelab.training import load_trained

    subject = load_trained(config)[1] if trained else model
    found = certify(subject, batch=batch, seq_len=seq_len, trials=trials, seed=seed)
    if as_json:
        print_json({**asdict(found), "seen": found.seen, "clean": found.clean, "trained": trained})
        return

    def row(name: str, leak: Leak) -> list[str]:
        rates = (f"{leak.earlier_rate:.1%}", f"{leak.others_rate:.1%}")
        return [name, *rates, f"{max(leak.earlier_change, leak.others_change):.2g}"]

    print_table(
        ["one token changes; its effect on", "earlier tokens", "other sequences", "largest change"],
        [
            row(f"logits, {'trained' if trained else 'fresh'} weights", found),
            row("logits, one token repeated", found.crowded),
            ["logits, mixing and capacity off", "-", "-", f"{found.leak_free_change:.2g}"],
            *(row(f"{name} alone", leak) for name, leak in found.kinds.items()),
        ],
    )
    if found.seen:
        print_line("leaks: report its loss as trained and leak-free")
    else:
        print_line(f"none seen in {trials} trials; this router can leak" if found.can_leak else "no leak")
