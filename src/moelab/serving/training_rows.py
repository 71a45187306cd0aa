"""Measured training runs: rows of a CSV as architectures, layouts and seconds per token."""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from moelab.architecture import PRESETS, ModelConfig, load_model
from moelab.architecture.counts import count_flops
from moelab.architecture.layout import Layout
from moelab.architecture.shape import Shape
from moelab.errors import InputError
from moelab.files import read_text
from moelab.serving.hardware import Hardware, load_hardware
from moelab.serving.training_time import TrainingSetup, training_peak

PRECISIONS = {"BF16": "bf16", "FP8": "fp8", "FP8-CS": "fp8", "MXFP8": "mxfp8", "FP8-MX": "mxfp8", "NVFP4": "nvfp4"}
GRAPHS = (26, 6)
"""Megatron-Bridge's release since when rows of MoE models run 1.2 to 1.6 times faster than those of the release before,
at equal layouts."""


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """One measured run. `tokens_per_second` is per device; `release` (year, month, patch) is the software's."""

    model: str
    hardware: str
    config: ModelConfig
    layout: Layout
    setup: TrainingSetup
    tokens_per_second: float
    release: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        """The architecture's sizes."""
        return Shape.of(self.config)

    @property
    def seconds(self) -> float:
        """Device-seconds per token."""
        return 1.0 / self.tokens_per_second

    @property
    def flops_per_second(self) -> float:
        """Model FLOPs per second and device by moelab's count, attention scores as causal."""
        return float(count_flops(self.shape, self.setup.seq_len, causal=True).train * self.tokens_per_second)

    @property
    def mfu(self) -> float:
        """Of the bf16 peak, attention scores as causal; FP8 and NVFP4 may exceed 1."""
        return self.flops_per_second / self.setup.device.bf16

    @property
    def mfu_own(self) -> float:
        """Of the peak of the row's own arithmetic."""
        return self.flops_per_second / training_peak(self.setup.device, self.setup.precision)


def read_training_rows(path: str | Path, *, newest: bool = True) -> list[TrainingRow]:
    """Rows of a CSV with the columns of Megatron-Bridge's performance pages; rows without a precision are left out.
    Read too: `recompute` (`full`), and `power` and `bandwidth` where a row's device has other than its data sheet.

    `newest` keeps the newest release of each setup: model, device, number of devices, precision and sequence length.
    Raises InputError naming the file, the line and the column.
    """
    table = list(csv.DictReader(StringIO(read_text(Path(path), "training rows"))))
    rows = []
    for line, values in enumerate(table, start=2):
        if not (values.get("precision") or "").strip():
            continue
        try:
            rows.append(_row(values))
        except (KeyError, ValueError, InputError) as error:
            problem = f"missing column {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"training rows: {path}, line {line}: {problem}") from None
    return _newest(rows) if newest else rows


def _row(values: dict[str, str]) -> TrainingRow:
    """Raises KeyError for a missing column, ValueError or InputError for a wrong value."""
    precision = PRECISIONS.get(values["precision"].strip().upper(), values["precision"].strip().lower())
    name = values["model"].strip()
    config = load_model(_preset(name))
    tp, pp, cp, ep, vp = (_size(values[key]) for key in ("tp", "pp", "cp", "ep", "vp"))
    gpus, group = int(values["gpus"]), tp * pp * cp
    if gpus % group:
        raise InputError(f"tp x pp x cp ({group}) must divide gpus ({gpus})")
    zero = 3 if _size(values.get("fsdp") or "", 0) > 1 else 1
    layout = Layout(tp=tp, pp=pp, cp=cp, ep=ep, dp=gpus // group, vp=vp if pp > 1 else 1, zero=zero)
    hardware, release = values["hardware"].strip().lower(), _release(values["release"])
    layout.check(config)
    setup = TrainingSetup(
        device=_device(hardware, values),
        precision=precision,
        layout=layout.sizes,
        seq_len=int(values["seq_len"]),
        micro_batch=int(values["mbs"]),
        global_batch=int(values["gbs"]),
        recent=release[:2] >= GRAPHS,
        forwards=2.0 if values.get("recompute") == "full" else 1.0,
    )
    return TrainingRow(
        model=name,
        hardware=hardware,
        config=config,
        layout=layout,
        setup=setup,
        tokens_per_second=float(values["tokens_per_s_per_gpu"]),
        release=release,
    )


def _device(hardware: str, values: dict[str, str]) -> Hardware:
    """The device, with the row's own `power` (watts) and `bandwidth` of memory where it states them."""
    device = load_hardware(hardware)
    stated = {name: float(values[name]) for name in ("power", "bandwidth") if (values.get(name) or "").strip()}
    return device.replace(**stated) if stated else device


def _preset(name: str) -> str:
    """The preset whose letters and digits are those of the name (`GPT OSS 120B`, `DeepSeekV3`), or the name itself."""
    return next((preset for preset in PRESETS if _letters(preset) == _letters(name)), name)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _size(text: str, default: int = 1) -> int:
    return int(text) if text.strip().isdecimal() else default


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split()[0].split(".")) if text.strip() else GRAPHS


def _newest(rows: list[TrainingRow]) -> list[TrainingRow]:
    best: dict[tuple[object, ...], TrainingRow] = {}
    for row in rows:
        setup = row.setup
        key = (row.model, row.hardware, row.layout.devices, setup.precision, setup.seq_len)
        if key not in best or row.release > best[key].release:
            best[key] = row
    return list(best.values())
