"""`moelab count`: parameters, FLOPs per token and memory of an architecture, by part."""

from typing import Annotated

import typer


def command(
    config: Annotated[str, typer.Argument(help="Model or run YAML, a run, a preset, config.json or a GGUF file.")],
    seq_len: Annotated[str, typer.Option(help="Context at which attention scores are counted.")] = "4096",
    causal: Annotated[bool, typer.Option(help="Count only the causal half of the scores.")] = False,
    precision: Annotated[str, typer.Option(help="Of weights and KV cache: fp32, bf16, fp8, int4.")] = "bf16",
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Count parameters, FLOPs and memory of an architecture.

    Counts are exact, per token and by part.

    Example: moelab count mixtral-8x7b --seq-len 8k
    """
    from moelab.architecture.count import count
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.runs.find import find_design

    counted = count(find_design(config), seq_len=seq_len, causal=causal, precision=precision)
    if json:
        print_json(counted.to_dict())
        return
    print_table(["parameters", "", "share"], counted.parameter_rows())
    print_line()
    print_table([counted.flop_title, "", "share"], counted.flop_rows())
    print_line()
    print_table(["memory", ""], counted.memory_rows())
