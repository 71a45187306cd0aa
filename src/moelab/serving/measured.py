"""Measured serving: a table of rows, one setup each, as benchmarks publish them.

Columns: model, hardware, precision, engine, gpus, input_length, output_length, concurrency (`max`: the server takes
all it can), and what was measured: median_tpot_s at a concurrency, output_tokens_per_s_per_gpu at maximum load. Further
columns that are read: dp_attention, kv_precision, speculative, date, requests (queued at the start of an offline run),
graph_sizes. Rows of engine `trtllm-bench` are taken as NVIDIA's published tables were made, unless they state these.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig, load_model
from moelab.errors import InputError
from moelab.files import read_text
from moelab.printable import short
from moelab.serving.hardware import Hardware, load_hardware
from moelab.serving.layout import Layout
from moelab.serving.traffic import Traffic

REQUIRED = ("model", "hardware", "precision", "engine", "gpus", "input_length", "output_length", "concurrency")
VALUES = ("median_tpot_s", "output_tokens_per_s_per_gpu")
ENGINE_NAMES = {
    "trt": "tensorrt-llm",
    "trtllm": "tensorrt-llm",
    "trtllm-bench": "tensorrt-llm",
    "tensorrt": "tensorrt-llm",
}
"""Other names of engines."""

PUBLISHED = "trtllm-bench"
"""The engine by which rows of NVIDIA's tables of throughput at maximum load are known."""

DATE = re.compile(r"(\d{4})(?:-(\d\d?)|(/\d\d))?")
BENCH_GRAPHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)
"""Captured graphs of NVIDIA's tables (TensorRT-LLM 1.2, docs/source/developer-guide/perf-overview.md)."""
BENCH_REQUESTS = {(1024, 1024): 3000, (8192, 1024): 1500, (1024, 8192): 1500, (32768, 1024): 1000, (1024, 32768): 1000}
"""Requests of those offline runs by lengths of prompt and answer (the same document)."""


@dataclass(frozen=True)
class Row:
    """One measured setup. `seconds` per output token at a concurrency, or `rate` of output tokens per second and device
    at maximum load; the other is None. `requests` were queued at the start of an offline run; None: a steady load."""

    number: int
    model: str
    config: ModelConfig
    hardware: str
    device: Hardware
    engine: str
    layout: Layout
    traffic: Traffic
    seconds: float | None
    rate: float | None
    date: str
    requests: int | None = None

    @property
    def value(self) -> float:
        """What was measured."""
        return float(self.seconds if self.seconds is not None else self.rate or math.nan)

    @property
    def year(self) -> float | None:
        """When it was measured, in years: from 2026-05, 2026 (its middle) or 2025/26 (the turn); None: no date."""
        found = DATE.match(self.date)
        if found is None:
            return None
        year, month, turn = found.groups()
        return int(year) + (1.0 if turn else 0.5 if month is None else (int(month) - 0.5) / 12)

    @property
    def setup(self) -> tuple[Any, ...]:
        """What a repeated measurement shares with this one."""
        return (self.model, self.hardware, self.engine, self.layout, self.traffic)


@dataclass(frozen=True)
class MeasuredRows:
    """The rows that can be fitted, and how many were left out because they drafted tokens (`speculative`)."""

    rows: tuple[Row, ...]
    speculative: int

    def newest(self) -> "MeasuredRows":
        """Of each setup the newest row: engines improve, and what runs today is asked for."""
        best: dict[tuple[Any, ...], Row] = {}
        for row in self.rows:
            if row.setup not in best or row.date >= best[row.setup].date:
                best[row.setup] = row
        return replace(self, rows=tuple(best.values()))

    def where(self, test: Callable[[Row], bool]) -> "MeasuredRows":
        """The rows that pass a test."""
        return replace(self, rows=tuple(row for row in self.rows if test(row)))

    def supported(self) -> dict[str, Any]:
        """What a fit to these rows supports: `precisions` of weights, `kv_precisions` of the cache, and `most_gpus`,
        the devices of the largest group."""
        return {
            f"{name}s": tuple(sorted({str(getattr(row.traffic, name)) for row in self.rows}))
            for name in ("precision", "kv_precision")
        } | {"most_gpus": max(row.layout.gpus for row in self.rows)}


def read_measured(path: str | Path, model_of: Callable[[str], ModelConfig]) -> MeasuredRows:
    """Read a CSV. `model_of` finds the architecture of a name. Raises InputError naming the row and the column."""
    return parse_measured(csv.DictReader(StringIO(read_text(Path(path), "measured rows"))), str(path), model_of)


def parse_measured(
    table: Iterable[Mapping[str, str | None]], where: str, model_of: Callable[[str], ModelConfig]
) -> MeasuredRows:
    """The rows of a table. Raises InputError naming the row and the column."""
    rows: list[Row] = []
    speculative = 0
    configs: dict[str, ModelConfig] = {}
    for number, cells in enumerate(table, start=2):
        if number == 2 and (missing := [name for name in REQUIRED if name not in cells]):
            raise InputError(f"{where}: columns are missing: {', '.join(missing)}")
        try:
            if (cells.get("speculative") or "none") != "none":
                speculative += 1
                continue
            rows.append(_row(number, cells, model_of, configs))
        except InputError as error:
            raise InputError(f"{where}, row {number}: {error}") from None
    if not rows:
        raise InputError(f"{where}: holds no row without speculative decoding")
    return MeasuredRows(tuple(rows), speculative)


def _row(
    number: int,
    cells: Mapping[str, str | None],
    model_of: Callable[[str], ModelConfig],
    configs: dict[str, ModelConfig],
) -> Row:
    model, hardware = _text(cells, "model"), _text(cells, "hardware")
    if model not in configs:
        configs[model] = model_of(model)
    engine = _text(cells, "engine").lower()
    engine = ENGINE_NAMES.get(engine, engine)
    gpus, most = _whole(cells, "gpus"), _text(cells, "concurrency") == "max"
    published = most and _text(cells, "engine").lower() == PUBLISHED
    parallel = (cells.get("dp_attention") or "").lower() == "true"
    device = load_hardware(hardware)
    precision, kv = _precision(_text(cells, "precision"), device)
    traffic = Traffic.parse(
        {
            "prompt": _whole(cells, "input_length"),
            "output": _whole(cells, "output_length"),
            "precision": precision,
            # SGLang keeps the cache in 16 bits unless asked; TensorRT-LLM's fp8 checkpoints keep it in 8.
            "kv_precision": cells.get("kv_precision") or ("bf16" if engine == "sglang" else kv),
            "batch": None if most else _whole(cells, "concurrency"),
            "gpus": gpus,
            "engine": engine,
            "graph_sizes": cells.get("graph_sizes") or (BENCH_GRAPHS if published else None),
        }
    )
    name = VALUES[1] if most else VALUES[0]
    value = _positive(cells, name)
    return Row(
        number=number,
        model=model,
        config=configs[model],
        hardware=hardware,
        device=device,
        engine=engine,
        layout=Layout(gpus, parallel and gpus > 1),
        traffic=traffic,
        seconds=None if most else value,
        rate=value if most else None,
        date=cells.get("date") or "",
        requests=_requests(cells, published) if most else None,
    )


def _precision(text: str, device: Hardware) -> tuple[str, str]:
    """Precision of weights and of the cache: `mxfp4/fp8` names weights and activations.

    fp8 and nvfp4 checkpoints keep the cache in 8 bits; mxfp4 ones, which gpt-oss has, do on devices with fp4 arithmetic
    alone (NVIDIA's tables: fp8, "Hopper: use auto", which is 16 bits there).
    """
    weights = text.partition("/")[0]
    narrow = weights in ("fp8", "nvfp4") or (weights == "mxfp4" and device.fp4 is not None)
    return weights, "fp8" if narrow else "bf16"


def _requests(cells: Mapping[str, str | None], published: bool) -> int | None:
    """Requests queued at the start of an offline run: as the row states, or as NVIDIA's tables were made."""
    if cells.get("requests"):
        return _whole(cells, "requests")
    lengths = (_whole(cells, "input_length"), _whole(cells, "output_length"))
    return BENCH_REQUESTS.get(lengths) if published else None


def _text(cells: Mapping[str, str | None], name: str) -> str:
    value = (cells.get(name) or "").strip()
    if not value:
        raise InputError(f"{name}: is empty")
    return value


def _positive(cells: Mapping[str, str | None], name: str) -> float:
    text = _text(cells, name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name}: expected a number above 0, got {short(text)}")
    return value


def _whole(cells: Mapping[str, str | None], name: str) -> int:
    value = _positive(cells, name)
    if value != int(value):
        raise InputError(f"{name}: expected a whole number, got {short(_text(cells, name))}")
    return int(value)


def plain_name(name: str) -> str:
    """A model's name as presets are named: lower case, without what stands in brackets and without a date."""
    text = re.sub(r"\(.*?\)", "", name).strip().lower().replace(" ", "-").replace("_", "-")
    return re.sub(r"-\d{4}$", "", text)


SAME_SHAPE = {
    "deepseek-r1": "deepseek-v3",
    "llama-3-70b": "llama3-70b",
    "llama-3.1-70b": "llama3-70b",
    "llama-3.3-70b": "llama3-70b",
    "llama-3-8b": "llama3-8b",
    "llama-3.1-8b": "llama3-8b",
}
"""Models that have the shape of a preset under another name."""


def find_model(name: str) -> ModelConfig:
    """A preset or file by the name that a table of measurements gives it. Raises InputError naming the known ones."""
    plain = plain_name(name)
    return load_model(name if Path(name).suffix in (".yaml", ".yml", ".json") else SAME_SHAPE.get(plain, plain))
