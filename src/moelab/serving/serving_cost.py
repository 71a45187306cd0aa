"""What one model costs to serve, in one call: by rooflines, or by latencies that were measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig, count_parameters, load_model
from moelab.architecture.memory import bytes_of
from moelab.errors import InputError
from moelab.notebook import html_table, short_repr
from moelab.quantities import MOST_PRICE, format_bytes, format_number, format_seconds, parse_price
from moelab.serving.cost import doubts, serve_one
from moelab.serving.hardware import Hardware, load_hardware
from moelab.serving.roofline import distinct_experts
from moelab.serving.simple import load_tables, serve_simple
from moelab.serving.traffic import Traffic

_NUMBERS = (
    "gpus",
    "batch",
    "tokens_per_second",
    "time_to_first_token",
    "time_per_output_token",
    "cost_per_million_tokens",
    "cost_per_million_output_tokens",
    "memory_bytes",
    "distinct_experts",
)


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The cheapest way to serve one model that meets the limits.

    Times in seconds, prices in US dollars (`gpu_price` per device and hour, prompt and output tokens together in
    `cost_per_million_tokens`), `memory_bytes` and `tokens_per_second` (output) of all devices together, `batch` is
    requests in flight. `parallel` is one device, tensor or expert; None where measured latencies (`tables`) decide.
    """

    model: str
    hardware: str
    device: Hardware
    traffic: Traffic
    gpu_price: float
    gpus: int
    batch: float
    parallel: str | None
    tokens_per_second: float
    time_to_first_token: float
    time_per_output_token: float
    cost_per_million_tokens: float
    cost_per_million_output_tokens: float
    memory_bytes: float
    distinct_experts: float
    tables: str | None
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab serving --json` prints."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        if self.tables is not None:
            return {"gpu_price": self.gpu_price, **numbers, "warnings": self.warnings}
        numbers |= {"parallel": self.parallel}
        return {"hardware": self.hardware, "gpu_price": self.gpu_price, **numbers, "warnings": self.warnings}

    @property
    def title(self) -> str:
        """The head of the table: the model and its traffic, or the table of latencies."""
        if self.tables is not None:
            return f"from the latencies of {self.tables}"
        return f"{self.model}, {self.traffic.prompt:,} + {self.traffic.output:,} tokens, {self.traffic.precision}"

    def rows(self) -> list[tuple[str, str]]:
        """What a table for people shows, as text."""
        how = "" if self.parallel is None else f", {self.parallel}{' parallel' * (self.gpus > 1)}"
        batch = f"{self.batch:,}" if self.tables is None else f"{self.batch:,.1f}"
        rows = [
            ("devices", f"{self.gpus} x {self.device.name}{how}"),
            ("memory", format_bytes(self.memory_bytes)),
            ("requests in flight", batch),
            ("output tokens per second", format_number(self.tokens_per_second)),
            ("time to first token", format_seconds(self.time_to_first_token)),
            ("time per output token", format_seconds(self.time_per_output_token)),
            (f"$ per million tokens (${self.gpu_price:g} a device-hour)", f"{self.cost_per_million_tokens:.4g}"),
            ("$ per million output tokens", f"{self.cost_per_million_output_tokens:.4g}"),
        ]
        if self.distinct_experts and self.tables is None:
            rows.append(("distinct experts read per layer and step", f"{self.distinct_experts:.1f}"))
        return rows

    def __repr__(self) -> str:
        return short_repr(
            self,
            model=self.model,
            devices=f"{self.gpus} x {self.device.name}",
            batch=self.batch,
            tokens_per_second=self.tokens_per_second,
            time_per_output_token=self.time_per_output_token,
            cost_per_million_tokens=self.cost_per_million_tokens,
        )

    def _repr_html_(self) -> str:
        return html_table([self.title, ""], self.rows(), note=" ".join(f"note: {line}" for line in self.warnings))


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
    imbalance: float = 1.0,
    gpu_price: float | str | None = None,
    tables: str | Path | None = None,
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
        precision: Of the weights: fp32, bf16, fp16, fp8, int8, int4.
        kv_precision: Of the KV cache.
        imbalance: Load of the busiest device over the mean under expert parallelism, at least 1.
        gpu_price: US dollars per device and hour; None: the catalogue's.
        tables: A YAML of measured latencies: use the simpler model of arXiv 2404.02852, where the batch follows from
            memory alone.

    Returns:
        A ServedModel: devices, batch, tokens per second, times in seconds, prices in US dollars, bytes, warnings.

    Raises:
        InputError: What is not known or not allowed, and a limit that cannot be met, with the nearest value.

    >>> import moelab
    >>> served = moelab.serving_cost("mixtral-8x7b", "h100", precision="fp8", tpot="50ms")
    >>> served.gpus, served.parallel, served.time_per_output_token <= 0.05
    (4, 'expert', True)
    """
    config = model if isinstance(model, ModelConfig) else load_model(model)
    device = hardware if isinstance(hardware, Hardware) else load_hardware(hardware)
    price = device.price if gpu_price is None else parse_price(gpu_price, "gpu_price")
    if not 0 <= price <= MOST_PRICE:
        raise InputError(f"gpu_price: must be 0 to {MOST_PRICE:,.0f} dollars, got {gpu_price}")
    values = {"prompt": prompt, "output": output, "tpot": tpot, "ttft": ttft, "precision": precision}
    values |= {"kv_precision": kv_precision, "batch": batch, "gpus": gpus, "imbalance": imbalance}
    traffic = Traffic.parse(values, "serving")
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
            "imbalance": imbalance != 1,
            "kv_precision": kv_precision not in ("bf16", precision),
        }
        for name, given in ignored.items():
            if given:
                raise InputError(f"{name}: is for the roofline; with tables the batch follows from memory alone")
        return ServedModel(**common, **_from_tables(config, traffic, device, price, str(tables)))
    cost = serve_one(config, traffic, device, price)
    return ServedModel(**common, **cost, tables=None, warnings=doubts(config, cost))


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
    numbers = {name: getattr(cost, name) for name in _NUMBERS if name not in ("memory_bytes", "distinct_experts")}
    return numbers | {
        "memory_bytes": cost.memory_elements * size,
        "distinct_experts": float(distinct_experts(moe.n_experts, moe.top_k, cost.batch)) if moe else 0.0,
        "parallel": None,
        "tables": tables,
        "warnings": cost.doubts(prefill, decode, traffic.output),
    }
