"""`moelab serving`: the cost of serving a model on given hardware, before it is trained."""

from typing import Annotated

import typer

from moelab.cli.shares import read_share


def command(
    config: Annotated[str, typer.Argument(help="Model or run YAML, a run, a preset, config.json or a GGUF file.")],
    hardware: Annotated[str, typer.Option(help="h100, h200, b200, gb200, mi300x, ..., cpu, or YAML.")],
    gpus: Annotated[str, typer.Option(help="Number of devices, or auto for the cheapest power of two.")] = "auto",
    prompt: Annotated[str, typer.Option(help="Tokens of a prompt.")] = "1024",
    output: Annotated[str, typer.Option(help="Tokens of an answer.")] = "256",
    batch: Annotated[str, typer.Option(help="Requests in flight, or auto for the most that fit.")] = "auto",
    tpot: Annotated[str | None, typer.Option(help="Limit on the time per output token, such as 50ms.")] = None,
    ttft: Annotated[str | None, typer.Option(help="Limit on the time to the first token, such as 1s.")] = None,
    precision: Annotated[str, typer.Option(help="Of weights: bf16, fp8, int4, mxfp4, nvfp4.")] = "bf16",
    kv_precision: Annotated[str, typer.Option(help="Of the KV cache: bf16, fp8, int4.")] = "bf16",
    imbalance: Annotated[
        float | None, typer.Option(help="Busiest device's load over the mean (experts).", show_default="as calibrated")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="tensorrt-llm, sglang or vllm.")] = None,
    parallel: Annotated[str, typer.Option(help="tensor, expert, or auto for the cheaper.")] = "auto",
    max_batch: Annotated[str | None, typer.Option(help="Requests per device kept in flight at most.")] = None,
    graph_sizes: Annotated[
        str | None, typer.Option(help="Batches with captured graphs, such as 8,64,512: steps are padded to them.")
    ] = None,
    cached: Annotated[
        float, typer.Option(parser=read_share, help="Share of prompt tokens found in a prefix cache.")
    ] = 0.0,
    draft: Annotated[int, typer.Option(help="Tokens guessed in each step (multi-token prediction).")] = 0,
    acceptance: Annotated[
        float | None, typer.Option(parser=read_share, help="Probability that a guessed token is kept.")
    ] = None,
    disaggregated: Annotated[
        bool, typer.Option("--disaggregated", help="Further devices read the prompts; they are paid for.")
    ] = False,
    gpu_price: Annotated[
        str | None, typer.Option(help="US dollars per device and hour.", show_default="the catalogue's")
    ] = None,
    tables: Annotated[
        str | None, typer.Option(help="Use measured latencies (YAML) and the simpler model of arXiv 2404.02852.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw throughput against latency as the batch grows (.html, .svg, .png, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Estimate throughput, latency and price of serving a model.

    The model need not be trained yet. Times, throughput and prices carry the 80 % interval of their calibration.

    Example: moelab serving mixtral-8x7b --hardware h100 --precision fp8 --tpot 50ms
    """
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.errors import InputError
    from moelab.runs.find import find_design
    from moelab.serving.serving_cost import serving_cost

    check_output(plot, "--plot", FIGURES)
    if tables is not None and plot is not None:
        raise InputError("--plot: is for the calibrated model; with --tables the batch follows from memory alone")
    design = find_design(config)
    served = serving_cost(
        design,
        hardware,
        gpus=None if gpus == "auto" else gpus,
        prompt=prompt,
        output=output,
        batch=None if batch == "auto" else batch,
        tpot=tpot,
        ttft=ttft,
        precision=precision,
        kv_precision=kv_precision,
        imbalance=imbalance,
        engine=engine,
        parallel=None if parallel == "auto" else parallel,
        max_batch=max_batch,
        graph_sizes=graph_sizes,
        cached=cached,
        draft=draft,
        acceptance=acceptance,
        disaggregated=disaggregated,
        gpu_price=gpu_price,
        tables=tables,
    )
    if plot is not None:
        from moelab.architecture import load_model
        from moelab.report.figures import save_figure, serving_curve
        from moelab.serving import batch_curve

        title = f"{config} on {served.gpus} x {served.device.name}"
        curve = batch_curve(load_model(design), served.traffic, served.device, served.to_dict(), title)
        save_figure(serving_curve(curve, title="Throughput against latency"), plot)
    if json:
        print_json(served.to_dict())
        return
    print_table([served.title, ""], served.rows())
    for line in served.warnings:
        print_line(f"note: {line}")
