"""`moelab compare`: two designs, or one and its dense baseline, at equal resources."""

from typing import Annotated

import typer

from moelab.cli.law_files import LawFiles


def command(
    design: Annotated[str, typer.Argument(help="Model or run YAML, a run, a preset, config.json or a GGUF file.")],
    other: Annotated[str | None, typer.Argument(help="Another; without it, the first one's dense baseline.")] = None,
    flops: Annotated[str, typer.Option(help="Training FLOPs of each.")] = "1e21",
    unique_tokens: Annotated[str | None, typer.Option(help="Distinct tokens for every design.")] = None,
    equal: Annotated[
        str,
        typer.Option(
            help="Of params, flops, tokens, unique_tokens: refuse if they differ. loss: the dense model of this loss."
        ),
    ] = "",
    seq_len: Annotated[str, typer.Option(help="Context at which FLOPs are counted.")] = "4096",
    hardware: Annotated[str | None, typer.Option(help="Devices that serve: h100, ..., or YAML.")] = None,
    precision: Annotated[str, typer.Option(help="Of served weights: bf16, fp8, int4, mxfp4, nvfp4.")] = "bf16",
    kv_precision: Annotated[str, typer.Option(help="Of the KV cache: bf16, fp8, int4.")] = "bf16",
    prompt: Annotated[str | None, typer.Option(help="Tokens of a prompt.", show_default="1024")] = None,
    output: Annotated[str | None, typer.Option(help="Tokens of an answer.", show_default="256")] = None,
    tpot: Annotated[str | None, typer.Option(help="Limit on the time per output token, such as 50ms.")] = None,
    ttft: Annotated[str | None, typer.Option(help="Limit on the time to the first token.")] = None,
    gpus: Annotated[str | None, typer.Option(help="Devices to serve on.", show_default="the cheapest")] = None,
    gpu_price: Annotated[
        str | None, typer.Option(help="US dollars per device and hour.", show_default="the catalogue's")
    ] = None,
    law: Annotated[list[str] | None, typer.Option("--law", help="A law's id, all, or a fit file; repeatable.")] = None,
    causal: Annotated[bool, typer.Option(help="Count only the causal half of the attention scores.")] = False,
    law_file: LawFiles = None,
    extrapolate: Annotated[bool, typer.Option(help="Use laws beyond their range of experts and sparsity.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare designs at equal resources.

    The table has parameters, FLOPs, tokens, epochs, memory, serving, and the loss by each law.

    One MoE design is compared with its dense baseline of equal parameters and FLOPs. The MoE is given the baseline's
    tokens only (strict reuse), or two epochs of its own (loose), as in arXiv 2506.12119. --equal unique_tokens keeps
    the strict pair; --equal loss sets the design beside the dense model that reaches its loss on the same tokens.

    Example: moelab compare olmoe-1b-7b --flops 1e22
    """
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.planning.compare import compare

    result = compare(
        *(name for name in (design, other) if name is not None),
        flops=flops,
        unique_tokens=unique_tokens,
        equal=[name.strip() for name in equal.split(",") if name.strip()],
        seq_len=seq_len,
        hardware=hardware,
        precision=precision,
        kv_precision=kv_precision,
        prompt=prompt,
        output=output,
        tpot=tpot,
        ttft=ttft,
        gpus=gpus,
        gpu_price=gpu_price,
        laws=law or law_file or None,
        extrapolate=extrapolate,
        causal=causal,
    )
    if json:
        print_json(result.to_dict())
        return
    print_table(["", *(side.name for side in result.sides)], result.rows())
    for line in result.notes():
        print_line(line)
