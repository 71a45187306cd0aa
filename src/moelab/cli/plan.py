"""`moelab plan`: the best architectures under limits of compute, memory, data and serving, with the uncertainty."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moelab.cli.law_files import LawFiles

if TYPE_CHECKING:
    from moelab.planning.request import PlanRequest


OUTPUTS = ("plot", "out", "report", "json", "next_runs", "flops_each", "law_file")
"""Options that are no part of the question."""


def command(
    asked: typer.Context,
    flops: Annotated[str | None, typer.Option(help="Training FLOPs, such as 1e21.")] = None,
    gpus: Annotated[str | None, typer.Option(help="Instead of --flops: devices, with --days.")] = None,
    days: Annotated[str | None, typer.Option(help="Days of training on --gpus.")] = None,
    train_hardware: Annotated[str | None, typer.Option(help="Devices that train (h100, ..., or YAML).")] = None,
    train_gpu_price: Annotated[
        str | None,
        typer.Option(help="US dollars per training device and hour.", show_default="as they serve, or the catalogue's"),
    ] = None,
    mfu: Annotated[
        str | None,
        typer.Option(
            help="Share of the bf16 peak in training (above 1 in fp8), or a YAML table by expert width.",
            show_default="predicted",
        ),
    ] = None,
    mfu_convention: Annotated[
        str | None,
        typer.Option(help="FLOPs of --mfu: attention scores causal, or the full square.", show_default="causal"),
    ] = None,
    train_precision: Annotated[
        str | None,
        typer.Option(help="Arithmetic of training: bf16, fp8, mxfp8, nvfp4, fp16, fp32.", show_default="bf16"),
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="Limit on all parameters, such as 10B.")] = None,
    max_active: Annotated[str | None, typer.Option(help="Limit on the parameters a token uses.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Limit on weights + KV cache, such as 80GB.")] = None,
    precision: Annotated[str, typer.Option(help="Of served weights: bf16, fp8, int4, mxfp4, nvfp4.")] = "bf16",
    kv_precision: Annotated[
        str | None,
        typer.Option(help="Of the KV cache: bf16, fp8, int4.", show_default="bf16, in --max-memory as the weights"),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens in the KV cache of --max-memory.", show_default="--seq-len")
    ] = None,
    max_tokens: Annotated[str | None, typer.Option(help="Limit on training tokens.")] = None,
    unique_tokens: Annotated[str | None, typer.Option(help="Distinct tokens available.")] = None,
    max_epochs: Annotated[str | None, typer.Option(help="How often they may be repeated.", show_default="4")] = None,
    min_tokens_per_active: Annotated[
        str | None, typer.Option(help="Fewest training tokens per active parameter.")
    ] = None,
    max_tokens_per_active: Annotated[
        str | None, typer.Option(help="Most training tokens per active parameter.")
    ] = None,
    min_tokens_per_total: Annotated[str | None, typer.Option(help="Fewest training tokens per parameter.")] = None,
    serve_tokens: Annotated[str | None, typer.Option(help="Tokens to serve in all, prompt + output.")] = None,
    pay_serving: Annotated[bool, typer.Option(help="--flops also pays for serving --serve-tokens.")] = False,
    hardware: Annotated[str | None, typer.Option(help="Devices that serve: h100, ..., or YAML.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Tokens of a prompt.", show_default="1024")] = None,
    output: Annotated[str | None, typer.Option(help="Tokens of an answer.", show_default="256")] = None,
    tpot: Annotated[str | None, typer.Option(help="Limit on the time per output token, such as 50ms.")] = None,
    ttft: Annotated[str | None, typer.Option(help="Limit on the time to the first token.")] = None,
    serve_gpus: Annotated[str | None, typer.Option(help="Devices to serve on.", show_default="the cheapest")] = None,
    gpu_price: Annotated[
        str | None, typer.Option(help="US dollars per serving device and hour.", show_default="the catalogue's")
    ] = None,
    max_price: Annotated[float | None, typer.Option(help="Limit in dollars per million tokens served.")] = None,
    price_like_experts: Annotated[
        int | None,
        typer.Option(help="Serve at no more than the price of the best design of so many experts (1: dense)."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="loss, balance, serving-cost or lifetime-cost.", show_default="balance with --serve-tokens, else loss"
        ),
    ] = None,
    within: Annotated[
        str | None, typer.Option(help="Excess compute that balance may give for a lower cost, such as 0.1 or 10%.")
    ] = None,
    target_loss: Annotated[str | None, typer.Option(help="For the costs: the loss to reach.")] = None,
    target_experts: Annotated[
        int | None, typer.Option(help="Or: the loss of the best design with this many experts (1: dense).")
    ] = None,
    law: Annotated[
        list[str] | None, typer.Option("--law", help="A law's id, all, or a file of fits or rules; repeatable.")
    ] = None,
    law_file: LawFiles = None,
    extrapolate: Annotated[bool, typer.Option(help="Use laws beyond their range of experts and sparsity.")] = False,
    space: Annotated[str | None, typer.Option(help="YAML describing the architectures to search.")] = None,
    near: Annotated[
        str | None, typer.Option(help="Instead of --space: this model (CONFIG) and one step around it on every axis.")
    ] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of architecture: moe, dense, or moe,dense.")] = None,
    seq_len: Annotated[
        str | None, typer.Option(help="Context at which FLOPs are counted.", show_default="4096")
    ] = None,
    next_runs: Annotated[int | None, typer.Option(help="Print this many runs to train next instead.")] = None,
    flops_each: Annotated[
        str | None, typer.Option(help="Compute of each such run.", show_default="a hundredth of the plan's")
    ] = None,
    top: Annotated[int, typer.Option(help="How many candidates to show.")] = 10,
    plot: Annotated[
        str | None, typer.Option(help="Write figures here and beside it (.html, .svg, .png, .pdf).")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Write run.yaml, config.json, torchtitan.py, megatron.args and plan.json to this folder."),
    ] = None,
    report: Annotated[str | None, typer.Option(help="Write one page that can be shared, such as plan.html.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Find the best architectures under a budget.

    Every law's prediction and the uncertainty stand beside each other.

    Example: moelab plan --flops 1e21 --max-params 10B --unique-tokens 300B --hardware h100 --tpot 50ms
    """
    from moelab.cli.given import refuse_given
    from moelab.cli.output import print_json, print_line
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.cli.plan_tables import print_plan
    from moelab.errors import InputError
    from moelab.planning.request import plan_request

    check_output(plot, "--plot", FIGURES)
    check_output(report, "--report", (".html",))
    given = {name: value for name, value in asked.params.items() if name not in OUTPUTS}
    request = plan_request({**given, "law": law or law_file})
    if next_runs is not None:
        refuse_given(asked, ("out", "report", "plot", "top"), "contradicts --next-runs, which plans other runs")
        _next(request, next_runs, flops_each, json)
        return
    if flops_each is not None:
        raise InputError("--flops-each: needs --next-runs")
    if out is not None:
        from moelab.export.plan_files import check_plan_folder

        check_plan_folder(out)
    result = request.plan()
    if plot:
        from moelab.planning.result import PLOTS
        from moelab.report.save import save_figure

        for kind in PLOTS:
            save_figure(result.plot(kind), _beside(plot, kind))
    files = None if out is None else _write(result, out)
    if report:
        from moelab.app.labels import worded_page
        from moelab.cli.command_line import command_line
        from moelab.planning.plan_page import plan_page
        from moelab.report.page import write_page

        write_page(worded_page(plan_page(result, command_line())), report)
    if json:
        print_json(result.to_dict() | ({} if files is None else {"files": files.to_dict()}))
        return
    print_plan(result)
    if files is not None:
        for line in files.lines:
            print_line(line)
    if report:
        print_line(f"Report: {report}")


def _write(result: Any, out: str) -> Any:
    from moelab.export.plan_files import write_plan

    return write_plan(result, out)


def _beside(path: str, kind: str) -> str:
    """plan.html for the candidates, plan-pareto.html and plan-slices.html beside it."""
    from pathlib import Path

    file = Path(path)
    return path if kind == "candidates" else str(file.with_name(f"{file.stem}-{kind}{file.suffix}"))


def _next(request: "PlanRequest", count: int, flops_each: str | None, json: bool) -> None:
    from moelab.cli.output import print_json, print_line
    from moelab.cli.plan_tables import print_next_runs
    from moelab.planning.next_runs import next_runs
    from moelab.quantities import parse_number

    each = None if flops_each is None else parse_number(flops_each, "--flops-each")
    chosen = next_runs(
        request.budget, request.laws, request.space, count=count, flops_each=each, extrapolate=request.extrapolate
    )
    if json:
        print_json(chosen.to_dict())
        return
    print_next_runs(chosen)
    if each is None:
        print_line("Each run has a hundredth of the plan's compute; --flops-each sets another.")
