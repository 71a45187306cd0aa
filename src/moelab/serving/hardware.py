"""The devices that train and serve: a catalogue with its sources, or a file measured on one's own machine."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from moelab.config import Bytes, Config, Count, Fraction, Positive, at_most, read_by
from moelab.errors import InputError
from moelab.printable import suggest
from moelab.quantities import MOST_PRICE, parse_bandwidth, parse_flop_rate, parse_price, parse_seconds
from moelab.yaml_reader import parse_yaml

Rate = Annotated[float, read_by(parse_flop_rate), Field(gt=0, le=1e20)]
Bandwidth = Annotated[float, read_by(parse_bandwidth), Field(gt=0, le=1e18)]
Price = Annotated[float, read_by(parse_price), Field(ge=0, le=MOST_PRICE)]
"""US dollars per device and hour."""


def _latency(text: str | float) -> float:
    """Seconds also without a unit: to YAML, 1e-6 is a text."""
    try:
        return float(text)
    except ValueError:
        return parse_seconds(text)


class Hardware(Config):
    """One device. Rates in FLOPs per second (dense), memory in bytes, bandwidths in bytes per second and direction.

    Numbers may carry units: `bf16: 989.4 TFLOPs`, `memory: 80GB`, `bandwidth: 3.35 TB/s`, `network: 400 Gbit/s`,
    `price: $2.5/h`, `latency: 10us`.
    """

    name: str
    source: str
    bf16: Rate
    fp8: Rate | None = None
    fp4: Rate | None = None
    memory: Annotated[Bytes, at_most(1e18)]
    bandwidth: Bandwidth
    link: Bandwidth
    network: Bandwidth
    node: Count = Field(default=8, description="devices that share `link`")
    price: Price = 0.0
    power: Annotated[Positive, at_most(1e6)] | None = Field(default=None, description="watts of a board")
    compute_efficiency: Fraction = 0.7
    bandwidth_efficiency: Fraction = 0.8
    link_efficiency: Fraction = 0.8
    latency: Annotated[float, read_by(_latency)] = Field(
        default=1e-5, ge=0, le=1, description="seconds of one collective, whatever its size"
    )
    usable_memory: Fraction = 0.9

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("compute_efficiency", "bandwidth_efficiency", "link_efficiency", "usable_memory"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}: must be above 0 and at most 1, got 0")
        return self

    def rate(self, precision: str) -> float:
        """FLOPs per second that arithmetic reaches; int4 is weight-only, so it computes in bf16."""
        peak = self.fp8 if precision in ("fp8", "int8") and self.fp8 else self.bf16
        return (peak / 2 if precision == "fp32" else peak) * self.compute_efficiency

    @property
    def reach(self) -> float:
        """Bytes per second that memory reaches."""
        return self.bandwidth * self.bandwidth_efficiency

    def between(self, gpus: int) -> float:
        """Bytes per second between devices of a group of this size, in one direction."""
        return (self.link if gpus <= self.node else min(self.link, self.network)) * self.link_efficiency


def load_hardware(name: str) -> Hardware:
    """A device of the catalogue, or a YAML file with the same fields. Raises InputError naming the known ones."""
    if name in (known := catalogue()):
        return known[name]
    if Path(name).suffix in (".yaml", ".yml"):
        return Hardware.from_yaml(name, "hardware")
    raise InputError(
        f"hardware: no such device {name!r}; {suggest(name, known)}known: {', '.join(known)}, or a YAML file"
    )


@cache
def catalogue() -> dict[str, Hardware]:
    """Every device by its name."""
    text = files("moelab.serving").joinpath("hardware.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = parse_yaml(text, "hardware")
    return {name: Hardware.parse(value, f"hardware {name}") for name, value in entries.items()}
