"""`moelab train`: one run, from a YAML file to a run folder."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[Path, typer.Argument(help="Run YAML with model, data and train.", show_default=False)],
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. train.seed=1.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that gets a folder per run.")] = Path("runs"),
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 30.0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Data-parallel processes on this machine (sets train.processes).")
    ] = None,
    adopt: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on from an unfinished run in --out (id or name) that differs in threads, precision or the like.",
        ),
    ] = None,
    log: Annotated[str | None, typer.Option(help="Also log to `tensorboard` or `wandb`, in the run's folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run record as JSON.")] = False,
) -> None:
    """Train one model. Started again after an interruption, it goes on where it stopped and ends the same.
    Exit code 1 where the loss stops being finite.

    Example: moelab train configs/runs/small-moe.yaml --set train.tokens=2M --set model.moe.top_k=2

    Several processes: --processes 2, or torchrun --nproc-per-node 8 -m moelab train CONFIG on one or more machines.

    A model sharded over processes: train.parallel in CONFIG, started in the same two ways (docs/scale.md).
    """
    from moelab.cli.output import print_json, print_line
    from moelab.data import Dataset
    from moelab.data.checks import check_data
    from moelab.runs.config import check_tracker
    from moelab.runs.load_run import read_run_config

    changes = [*(assign or []), *([] if processes is None else [f"train.processes={processes}"])]
    # What is wrong with the config, the data or the log is reported before torch is imported.
    run = read_run_config(config, changes, out)
    check_data(run, Dataset.open(run.data.path))
    if log is not None:
        check_tracker(log)
    from moelab.training.train import train_here

    run, record, main = train_here(
        run,
        out,
        processes=processes,
        checkpoint_seconds=checkpoint_seconds,
        log=log,
        quiet=as_json,
        adopt=adopt,
    )
    if not main:
        return
    diverged = record.status == "diverged"
    if as_json:
        print_json(record.to_dict())
    elif diverged:
        print_line(f"diverged: the loss stopped being finite; see {out / record.run_id}")
    if diverged:
        raise SystemExit(1)
    if as_json:
        return
    alone = "" if record.loss_leak_free is None else f" (leak-free {record.loss_leak_free:.4f})"
    print_line(
        f"loss {record.loss:.4f} nats/token{alone}, {record.bits_per_byte:.4f} bits/byte "
        f"after {record.tokens:,} tokens "
        f"({record.tokens_per_second:,.0f} tokens/s, {record.dispatch} dispatch, {record.precision})"
    )
    for note in record.notes:
        print_line(note)
    if record.transition_step is not None:
        print_line(f"token choice since step {record.transition_step:,} of {run.train.steps:,}")
    print_line(str(out / record.run_id))
