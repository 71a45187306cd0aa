"""What one model costs to serve, in one call: by the calibrated model, or by latencies that were measured."""

from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig, count_parameters, load_model
from moelab.architecture.memory import bytes_of
from moelab.errors import InputError
from moelab.quantities import MOST_PRICE, parse_price
from moelab.serving.cost import serve_one
from moelab.serving.doubts import doubts, without_effect
from moelab.serving.hardware import Hardware, load_hardware
from moelab.serving.limit_kept import limit_kept
from moelab.serving.served_model import NUMBERS, ServedModel
from moelab.serving.simple import load_tables, serve_simple
from moelab.serving.slips import odd_price
from moelab.serving.step import distinct_experts
from moelab.serving.traffic import Traffic


def serving_cost(
    model: ModelConfig | str | Path,
    hardware: Hardware | str,
    *,
    gpus: int | str | None = None,
    prompt: int | str = 1024,
    output: int | str = 256,
    batch: int | str | None = None,
    tpot: float | str | None = None,
    ttft: float | str | None = None,
    precision: str = "bf16",
    kv_precision: str = "bf16",
    imbalance: float | None = None,
    gpu_price: float | str | None = None,
    tables: str | Path | None = None,
    engine: str | None = None,
    parallel: str | None = None,
    max_batch: int | str | None = None,
    graph_sizes: str | tuple[int, ...] | None = None,
    cached: float = 0.0,
    draft: int = 0,
    acceptance: float | None = None,
    disaggregated: bool = False,
) -> ServedModel:
    """Estimate devices, batch, throughput, latency and price of serving a model that need not exist yet.

    Args:
        model: A ModelConfig, a model or run YAML, a run's folder, or a preset's name.
        hardware: A device of the catalogue (h100, ...), a hardware YAML, or a Hardware.
        gpus: Number of devices; None: the cheapest power of two.
        prompt: Tokens of a prompt.
        output: Tokens of an answer.
        batch: Requests in flight; None: the most that fit the memory and the limits.
        tpot: Limit on the time per output token, in seconds or as "50ms".
        ttft: Limit on the time to the first token, in seconds or as "1s".
        precision: Of the weights: fp32, bf16, fp16, fp8, int8, int4, mxfp4 (experts alone), nvfp4.
        kv_precision: Of the KV cache.
        imbalance: Load of the busiest device over the mean under expert parallelism, at least 1; None: as calibrated.
        gpu_price: US dollars per device and hour; None: the catalogue's.
        tables: A YAML of measured latencies: use the simpler model of arXiv 2404.02852, where the batch follows from
            memory alone.
        engine: tensorrt-llm, sglang or vllm; None: the one that the device's calibration has most rows of.
        parallel: tensor or expert; None: the cheaper.
        max_batch: Requests per device that the server keeps in flight at most; None: as calibrated.
        graph_sizes: Batches for which the server captured graphs, such as "8,64,512": steps are padded to them.
        cached: Share of prompt tokens found in a prefix cache. Not calibrated.
        draft: Further tokens guessed in each step by multi-token prediction. Not calibrated.
        acceptance: Probability that a guessed token is kept, if those before it were.
        disaggregated: Further devices read the prompts; they are counted and paid for. Not calibrated.

    Returns:
        A ServedModel: devices, batch, tokens per second, times in seconds, prices in US dollars, bytes, warnings, with
        80 % intervals and the calibration that they come from.

    Raises:
        InputError: What is not known or not allowed, and a limit that cannot be met, with the nearest value.

    >>> import moelab
    >>> served = moelab.serving_cost("mixtral-8x7b", "h100", precision="fp8", tpot="50ms")
    >>> served.gpus, served.parallel, served.time_per_output_token <= 0.05
    (1, 'one device', True)
    """
    config = model if isinstance(model, ModelConfig) else load_model(model)
    device = hardware if isinstance(hardware, Hardware) else load_hardware(hardware)
    price = device.price if gpu_price is None else parse_price(gpu_price, "gpu_price")
    if price is not None and not 0 <= price <= MOST_PRICE:
        raise InputError(f"gpu_price: must be 0 to {MOST_PRICE:,.0f} dollars, got {gpu_price}")
    values = {"prompt": prompt, "output": output, "tpot": tpot, "ttft": ttft, "precision": precision}
    values |= {"kv_precision": kv_precision, "batch": batch, "gpus": gpus, "imbalance": imbalance}
    values |= {"engine": engine, "parallel": parallel, "max_batch": max_batch, "cached": cached, "draft": draft}
    values |= {"acceptance": acceptance, "disaggregated": disaggregated}
    asked = Traffic.parse({**values, "graph_sizes": graph_sizes}, "serving")
    _check_pairs(config, asked)
    traffic = asked.for_model(config)
    common: dict[str, Any] = {
        "model": "model" if isinstance(model, ModelConfig) else str(model),
        "hardware": hardware.name if isinstance(hardware, Hardware) else hardware,
        "device": device,
        "traffic": traffic,
        "gpu_price": price,
    }
    if tables is not None:
        ignored = {
            "tpot": tpot is not None,
            "ttft": ttft is not None,
            "batch": batch is not None,
            "imbalance": imbalance not in (None, 1),
            "kv_precision": kv_precision not in ("bf16", precision),
        }
        for name, given in ignored.items():
            if given:
                raise InputError(
                    f"{name}: is for the calibrated model; with tables the batch follows from memory alone"
                )
        return ServedModel(**common, **_from_tables(config, traffic, device, device.dollars(gpu_price), str(tables)))
    cost = serve_one(config, traffic, device, price)
    sure = limit_kept(config, cost, traffic, device, price)
    ends = {name: cost.pop(name) for name in list(cost) if name.endswith(("_low", "_high"))}
    missing = tuple(cost.pop("not_calibrated"))
    warnings = without_effect(config, cost, asked) + doubts(config, cost, device, traffic) + sure
    warnings += odd_price("gpu_price", None if gpu_price is None else price, device)
    return ServedModel(**common, **cost, tables=None, warnings=warnings, intervals=ends, not_calibrated=missing)


def _check_pairs(model: ModelConfig, traffic: Traffic) -> None:
    """Raises InputError where one option leaves another without effect."""
    if traffic.batch is not None and traffic.max_batch is not None:
        raise InputError("max_batch: contradicts batch, which sets the requests in flight; give one of them")
    if traffic.parallel == "expert" and model.moe is None:
        raise InputError("parallel: expert needs experts, and the model is dense; give tensor or leave it out")


def _from_tables(model: ModelConfig, traffic: Traffic, device: Hardware, price: float, tables: str) -> dict[str, Any]:
    """Yun et al.'s model: latencies from tables, batch from memory alone."""
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
    moe = model.moe
    numbers = {name: getattr(cost, name) for name in NUMBERS if name not in ("memory_bytes", "distinct_experts")}
    return numbers | {
        "memory_bytes": cost.memory_elements * size,
        "distinct_experts": float(distinct_experts(moe.n_experts, moe.top_k, cost.batch)) if moe else 0.0,
        "parallel": None,
        "tables": tables,
        "warnings": cost.doubts(prefill, decode, traffic.output),
    }
