"""One served model: devices, batch, throughput, latencies and prices, with intervals, as data and for people."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moelab.notebook import html_table, short_repr
from moelab.quantities import format_bytes, format_number, format_seconds
from moelab.serving.doubts import calibration_of
from moelab.serving.hardware import Hardware
from moelab.serving.traffic import Traffic

NUMBERS = (
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
"""What a prediction and measured latencies both give."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The cheapest way to serve one model that meets the limits.

    Times in seconds, prices in US dollars (`gpu_price` per device and hour, prompt and output tokens together in
    `cost_per_million_tokens`; None without a price), `memory_bytes` and `tokens_per_second` (output) of all devices
    together, `batch` is requests in flight; `time_per_output_token` is from the first token of an answer to its last,
    without its own prompt, as engines report it. `parallel` is one device, tensor or expert; None where measured
    latencies (`tables`) decide. `overlapped`: exchanges between devices run beside computing, in two half batches.
    `intervals` holds NAME_low and NAME_high, the ends of 80 % intervals, of every time, throughput and price;
    `calibration` is what they come from: id, n_rows, error (median, relative), held_out_by. Both are None with
    `tables`. `prefill_gpus` are further devices that read prompts alone; `joules_per_output_token` takes every board at
    its full power. `not_calibrated` names what no measured rows support.
    """

    model: str
    hardware: str
    device: Hardware
    traffic: Traffic
    gpu_price: float | None
    gpus: int
    batch: float
    parallel: str | None
    tokens_per_second: float
    time_to_first_token: float
    time_per_output_token: float
    cost_per_million_tokens: float | None
    cost_per_million_output_tokens: float | None
    memory_bytes: float
    distinct_experts: float
    tables: str | None
    warnings: list[str]
    overlapped: bool = False
    prefill_gpus: float = 0.0
    joules_per_output_token: float | None = None
    intervals: dict[str, float | None] | None = None
    calibration: dict[str, Any] | None = None
    not_calibrated: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab serving --json` prints."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        if self.tables is not None:
            return {"gpu_price": self.gpu_price, **numbers, "warnings": self.warnings}
        numbers |= {"parallel": self.parallel, "overlapped": self.overlapped, **(self.intervals or {})}
        more = {
            "prefill_gpus": self.prefill_gpus,
            "joules_per_output_token": self.joules_per_output_token,
            "calibration": self.calibration,
            "not_calibrated": list(self.not_calibrated),
        }
        return {"hardware": self.hardware, "gpu_price": self.gpu_price, **numbers, **more, "warnings": self.warnings}

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
            ("output tokens per second", self._within("tokens_per_second", format_number)),
            ("time to first token", self._within("time_to_first_token", format_seconds)),
            ("time per output token", self._within("time_per_output_token", format_seconds)),
            (self._per_million, self._within("cost_per_million_tokens", _dollars)),
            ("$ per million output tokens", self._within("cost_per_million_output_tokens", _dollars)),
        ]
        if self.prefill_gpus:
            rows.append(("devices that read prompts (not calibrated)", f"{self.prefill_gpus:.2f}"))
        if self.joules_per_output_token is not None:
            rows.append(("joules per output token (not calibrated)", f"{self.joules_per_output_token:.3g}"))
        if self.distinct_experts and self.tables is None:
            rows.append(("distinct experts read per layer and step", f"{self.distinct_experts:.1f}"))
        if self.calibration is not None:
            rows.append(("calibration", calibration_of(self.device, self.traffic, self.gpus).line()))
        return rows

    @property
    def _per_million(self) -> str:
        price = "no price known" if self.gpu_price is None else f"${self.gpu_price:g} a device-hour"
        return f"$ per million tokens ({price})"

    def _within(self, name: str, shown: Callable[[float], str]) -> str:
        """A value with its interval."""
        value, ends = getattr(self, name), self.intervals or {}
        if value is None:
            return "-"
        low, high = ends.get(f"{name}_low"), ends.get(f"{name}_high")
        return shown(value) if low is None or high is None else f"{shown(value)} [{shown(low)}, {shown(high)}]"

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


def _dollars(value: float) -> str:
    return f"{value:.4g}"
