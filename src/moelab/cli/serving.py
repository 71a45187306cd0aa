"""`moelab serving`: the cost of serving a model on given hardware, before it is trained."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from moelab.architecture import ModelConfig
    from moelab.serving import Hardware, Traffic


def command(
    config: Annotated[str, typer.Argument(help="Model YAML, run YAML, run folder, or a preset's name.")],
    hardware: Annotated[str, typer.Option(help="a100, h100, h200, b200, mi300x, l40s, rtx4090, cpu, or YAML.")],
    gpus: Annotated[str, typer.Option(help="Number of devices, or auto for the cheapest power of two.")] = "auto",
    prompt: Annotated[str, typer.Option(help="Tokens of a prompt.")] = "1024",
    output: Annotated[str, typer.Option(help="Tokens of an answer.")] = "256",
    batch: Annotated[str, typer.Option(help="Requests in flight, or auto for the most that fit.")] = "auto",
    tpot: Annotated[str | None, typer.Option(help="Limit on the time per output token, such as 50ms.")] = None,
    ttft: Annotated[str | None, typer.Option(help="Limit on the time to the first token, such as 1s.")] = None,
    precision: Annotated[str, typer.Option(help="Of weights: bf16, fp8, int4.")] = "bf16",
    kv_precision: Annotated[str, typer.Option(help="Of the KV cache: bf16, fp8, int4.")] = "bf16",
    imbalance: Annotated[float, typer.Option(help="Busiest device's load over the mean (experts).")] = 1.0,
    gpu_price: Annotated[str | None, typer.Option(help="US dollars per device and hour.")] = None,
    tables: Annotated[
        str | None, typer.Option(help="Use measured latencies (YAML) and the simpler model of arXiv 2404.02852.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw throughput against latency as the batch grows (.html, .svg, .png, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Estimate devices, batch, throughput, latency and price of serving a model that need not be trained yet.

    Example: moelab serving mixtral-8x7b --hardware h100 --precision fp8 --tpot 50ms
    """
    from moelab.architecture import load_model
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.errors import InputError
    from moelab.quantities import MOST_PRICE, format_bytes, format_number, format_seconds, parse_price
    from moelab.serving import Traffic, batch_curve, load_hardware, serve_one
    from moelab.serving.cost import doubts

    model, device = load_model(config), load_hardware(hardware)
    price = device.price if gpu_price is None else parse_price(gpu_price, "--gpu-price")
    if not 0 <= price <= MOST_PRICE:
        raise InputError(f"--gpu-price: must be 0 to {MOST_PRICE:,.0f} dollars, got {gpu_price}")
    traffic = Traffic.parse(
        {
            "prompt": prompt,
            "output": output,
            "tpot": tpot,
            "ttft": ttft,
            "precision": precision,
            "kv_precision": kv_precision,
            "batch": None if batch == "auto" else batch,
            "gpus": None if gpus == "auto" else gpus,
            "imbalance": imbalance,
        },
        "serving",
    )
    check_output(plot, "--plot", FIGURES)
    if tables is not None:
        ignored = {
            "--plot": plot is not None,
            "--tpot": tpot is not None,
            "--ttft": ttft is not None,
            "--batch": batch != "auto",
            "--imbalance": imbalance != 1,
            "--kv-precision": kv_precision not in ("bf16", precision),
        }
        for flag, given in ignored.items():
            if given:
                raise InputError(f"{flag}: is for the roofline; with --tables the batch follows from memory alone")
        _simple(model, traffic, device, price, tables, json)
        return
    cost = serve_one(model, traffic, device, price)
    if plot is not None:
        from moelab.report.figures import save_figure, serving_curve

        rows_by_batch = batch_curve(model, traffic, device, cost, f"{config} on {cost['gpus']} x {device.name}")
        save_figure(serving_curve(rows_by_batch, title="Throughput against latency"), plot)
    if json:
        print_json({"hardware": hardware, "gpu_price": price, **cost, "warnings": doubts(model, cost)})
        return
    rows = [
        ("devices", f"{cost['gpus']} x {device.name}, {cost['parallel']}{' parallel' * (cost['gpus'] > 1)}"),
        ("memory", format_bytes(cost["memory_bytes"])),
        ("requests in flight", f"{cost['batch']:,}"),
        ("output tokens per second", format_number(cost["tokens_per_second"])),
        ("time to first token", format_seconds(cost["time_to_first_token"])),
        ("time per output token", format_seconds(cost["time_per_output_token"])),
        (f"$ per million tokens (${price:g} a device-hour)", f"{cost['cost_per_million_tokens']:.4g}"),
        ("$ per million output tokens", f"{cost['cost_per_million_output_tokens']:.4g}"),
    ]
    if cost["distinct_experts"]:
        rows.append(("distinct experts read per layer and step", f"{cost['distinct_experts']:.1f}"))
    print_table([f"{config}, {traffic.prompt:,} + {traffic.output:,} tokens, {precision}", ""], rows)
    for line in doubts(model, cost):
        print_line(f"note: {line}")


def _simple(
    model: "ModelConfig", traffic: "Traffic", device: "Hardware", price: float, tables: str, json: bool
) -> None:
    """Yun et al.'s model: latencies from tables, batch from memory alone."""
    from dataclasses import asdict

    from moelab.architecture import count_parameters
    from moelab.architecture.memory import bytes_of
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.quantities import format_bytes, format_number, format_seconds
    from moelab.serving.roofline import distinct_experts
    from moelab.serving.simple import load_tables, serve_simple

    prefill, decode = load_tables(tables)
    measured = tuple(sorted(set(prefill.gpus) & set(decode.gpus)))
    if not measured:
        raise InputError(
            f"latency table: prefill and decode share no number of devices: {list(prefill.gpus)}, {list(decode.gpus)}"
        )
    size = bytes_of(traffic.precision)
    cost = serve_simple(
        params_total=count_parameters(model).params_total,
        d_model=model.n_kv_heads * model.head_dim,
        n_layers=model.n_layers,
        prompt=traffic.prompt,
        output=traffic.output,
        memory_elements=device.memory / size,
        price_per_hour=price,
        prefill=prefill,
        decode=decode,
        gpus=measured if traffic.gpus is None else (traffic.gpus,),
    )
    doubts = cost.doubts(prefill, decode, traffic.output)
    if json:
        value = asdict(cost)
        value["memory_bytes"] = value.pop("memory_elements") * size
        moe = model.moe
        value["distinct_experts"] = float(distinct_experts(moe.n_experts, moe.top_k, cost.batch)) if moe else 0.0
        print_json({"gpu_price": price, **value, "warnings": doubts})
        return
    rows = [
        ("devices", f"{cost.gpus} x {device.name}"),
        ("memory", format_bytes(cost.memory_elements * size)),
        ("requests in flight", f"{cost.batch:,.1f}"),
        ("output tokens per second", format_number(cost.tokens_per_second)),
        ("time to first token", format_seconds(cost.time_to_first_token)),
        ("time per output token", format_seconds(cost.time_per_output_token)),
        (f"$ per million tokens (${price:g} a device-hour)", f"{cost.cost_per_million_tokens:.4g}"),
        ("$ per million output tokens", f"{cost.cost_per_million_output_tokens:.4g}"),
    ]
    print_table([f"from the latencies of {tables}", ""], rows)
    for line in doubts:
        print_line(f"note: {line}")
