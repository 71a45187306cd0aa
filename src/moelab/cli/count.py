"""`moelab count`: parameters, FLOPs per token and memory of an architecture, by part."""

from typing import Annotated

import typer


def command(
    config: Annotated[str, typer.Argument(help="Model or run YAML, a run, a preset, config.json or a GGUF file.")],
    seq_len: Annotated[str, typer.Option(help="Context at which attention scores are counted.")] = "4096",
    causal: Annotated[bool, typer.Option(help="Count only the causal half of the scores.")] = False,
    precision: Annotated[
        str,
        typer.Option(
            help="Of weights and KV cache: fp32, bf16, fp16, fp8, int8, int4; of weights alone: mxfp4, nvfp4."
        ),
    ] = "bf16",
    train_memory: Annotated[bool, typer.Option("--train-memory", help="Also memory of training per device.")] = False,
    layout: Annotated[
        str | None,
        typer.Option(help="Its parallel layout: tp=8,pp=4,cp=1,ep=8,dp=16,vp=1,zero=1.", show_default="all 1"),
    ] = None,
    micro_batch: Annotated[
        str | None, typer.Option(help="Sequences a device works on at a time.", show_default="1")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Count parameters, FLOPs and memory of an architecture.

    Counts are exact, per token and by part.

    Example: moelab count mixtral-8x7b --seq-len 8k
    """
    from moelab.architecture.count import count
    from moelab.architecture.training_memory import count_training_memory
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.runs.find import find_design

    for flag, value in {"--layout": layout, "--micro-batch": micro_batch}.items():
        if value is not None and not train_memory:
            raise InputError(f"{flag}: needs --train-memory")
    model = find_design(config)
    counted = count(model, seq_len=seq_len, causal=causal, precision=precision)
    training = (
        count_training_memory(counted.config, layout or "", micro_batch=micro_batch or 1, seq_len=seq_len)
        if train_memory
        else None
    )
    if json:
        print_json(counted.to_dict() | ({"training_memory": training.to_dict()} if training else {}))
        return
    print_table(["parameters", "", "share"], counted.parameter_rows())
    print_line()
    print_table([counted.flop_title, "", "share"], counted.flop_rows())
    print_line()
    print_table(["memory", ""], counted.memory_rows())
    if training is not None:
        print_line()
        print_line(training.title)
        print_table(["recomputation", *training.by_recomputation], training.rows())
