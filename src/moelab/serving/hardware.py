"""The devices that train and serve: a catalogue with its sources, or a file measured on one's own machine."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from moelab.config import Config, Count, Fraction, NonNegative, Positive
from moelab.errors import InputError


class Hardware(Config):
    """One device. Rates in FLOPs per second (dense), memory in bytes, bandwidths in bytes per second and direction."""

    name: str
    source: str
    bf16: Positive
    fp8: Positive | None = None
    memory: Positive
    bandwidth: Positive
    link: Positive
    network: Positive
    node: Count = Field(default=8, description="devices that share `link`")
    price: NonNegative = Field(default=0.0, description="US dollars per device and hour")
    compute_efficiency: Fraction = 0.7
    bandwidth_efficiency: Fraction = 0.8
    link_efficiency: Fraction = 0.8
    latency: NonNegative = Field(default=1e-5, description="seconds of one collective, whatever its size")
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
        return Hardware.from_yaml(name)
    raise InputError(f"hardware: no such device {name!r}; known: {', '.join(known)}, or a YAML file")


@cache
def catalogue() -> dict[str, Hardware]:
    """Every device by its name."""
    text = files("moelab.serving").joinpath("hardware.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = yaml.safe_load(text)
    return {name: Hardware.parse(value, f"hardware {name}") for name, value in entries.items()}
