"""The devices that train and serve: a catalogue with its sources, or a file measured on one's own machine."""

from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from moelab.config import Bytes, Config, Count, Fraction, Positive, at_most, read_by
from moelab.errors import InputError
from moelab.printable import suggest
from moelab.quantities import MOST_PRICE, parse_bandwidth, parse_flop_rate, parse_price, parse_seconds
from moelab.serving.calibration import Calibration, inherited, shipped, shipped_for, stated
from moelab.yaml_reader import parse_yaml

Rate = Annotated[float, read_by(parse_flop_rate), Field(gt=0, le=1e20)]
Bandwidth = Annotated[float, read_by(parse_bandwidth), Field(gt=0, le=1e18)]
Price = Annotated[float, read_by(parse_price), Field(ge=0, le=MOST_PRICE)]
"""US dollars per device and hour."""

HELD_BACK = 0.05
"""Share of memory for the driver, activations, captured graphs and buffers of exchanges: 4 GB of 80."""
CACHE_SHARE = 0.85
"""Share of what weights leave that engines give to the KV cache: SGLang and vLLM 0.85 to 0.9, TensorRT-LLM 0.9."""
STATED_MEMORY = 0.9
"""Share of memory for weights and cache of a file that states its own shares."""
RATE_OF = {
    "fp16": ("bf16",),
    "fp8": ("fp8",),
    "int8": ("int8", "fp8"),
    "mxfp8": ("fp8",),
    "mxfp4": ("fp4",),
    "nvfp4": ("fp4",),
}
"""Format of matrix products -> the fields of a device that hold its rate, the first one given."""
Format = Literal["fp16", "fp8", "int8", "mxfp8", "mxfp4", "nvfp4"]
SHARES = ("compute_efficiency", "bandwidth_efficiency", "link_efficiency", "latency")


def _latency(text: str | float) -> float:
    """Seconds also without a unit: to YAML, 1e-6 is a text."""
    try:
        return float(text)
    except ValueError:
        return parse_seconds(text)


class Prices(Config):
    """Dollars per device and hour as published on a date: the lowest, a typical and the highest offer."""

    low: Price
    typical: Price
    high: Price
    date: str
    source: str

    @property
    def single(self) -> bool:
        """Whether they are one offer, not a range."""
        return self.low == self.high

    def __str__(self) -> str:
        offers = "one offer" if self.single else f"offers of ${self.low:.2f} to ${self.high:.2f}"
        return f"{offers}, as of {self.date}"


class Hardware(Config):
    """One device. Rates in FLOPs per second (dense), memory in bytes, bandwidths in bytes per second and direction.

    Numbers may carry units: `bf16: 989.4 TFLOPs`, `memory: 80GB`, `bandwidth: 3.35 TB/s`, `network: 400 Gbit/s`,
    `price: $2.5/h`, `latency: 10us`. `node` devices share `link`: the scale-up domain;
    `pair` is the bandwidth between two of them where no switch connects them. `power` is a board's, in watts.
    `formats` are those that its matrix units multiply beside bf16 and fp32: it trains in no other, and stores alone
    what is served in another. Without the field they are those with a rate.

    What of these rates is reached follows from `calibration`, or else from the shipped calibration of this device, or
    of the one it is `like`. A file that states any of the shares (`compute_efficiency`, `bandwidth_efficiency`,
    `link_efficiency`, `latency`) and no calibration is served by a roofline with them. `usable_memory` is the share of
    memory for weights and KV cache together; without it 5 % is held back, and the cache gets 85 % of what weights
    leave.
    """

    name: str
    source: str
    bf16: Rate
    fp8: Rate | None = None
    int8: Rate | None = Field(default=None, description="integers of 8 bits; null: as fp8")
    fp4: Rate | None = None
    formats: tuple[Format, ...] | None = Field(
        default=None, description="what its matrix units multiply beside bf16; null: every format with a rate"
    )
    memory: Annotated[Bytes, at_most(1e18)]
    bandwidth: Bandwidth
    link: Bandwidth
    network: Bandwidth
    pair: Bandwidth | None = Field(default=None, description="bandwidth between two devices of a node without a switch")
    node: Count = Field(default=8, description="devices that share `link`")
    price: Price | None = 0.0
    prices: Prices | None = None
    power: Positive | None = Field(default=None, description="watts of one board")
    like: str | None = Field(default=None, description="the calibrated device that this one resembles")
    calibration: Calibration | None = None
    compute_efficiency: Fraction | None = None
    bandwidth_efficiency: Fraction | None = None
    link_efficiency: Fraction | None = None
    latency: Annotated[float, read_by(_latency), Field(ge=0, le=1)] | None = Field(
        default=None, description="seconds of one collective, whatever its size"
    )
    usable_memory: Fraction | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("compute_efficiency", "bandwidth_efficiency", "link_efficiency", "usable_memory"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}: must be above 0 and at most 1, got 0")
        if self.like is not None and self.like not in shipped()["devices"]:
            raise ValueError(f"like: no such calibrated device {self.like!r}; known: {', '.join(shipped()['devices'])}")
        for name in self.formats or ():
            if self._rate(name) is None:
                raise ValueError(f"formats: {name} needs a rate, {' or '.join(RATE_OF[name])}; give it or leave it out")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back: a price that is not known is written, as a missing one is 0."""
        return super().to_dict() | ({"price": None} if self.price is None else {})

    def peak(self, precision: str) -> float:
        """FLOPs per second of the data sheet. In a format that its matrix units do not multiply a device stores weights
        and computes in bf16, as engines do (W4A16 or W8A16 kernels); int4 is always so."""
        if precision == "fp32":
            return self.bf16 / 2
        rate = self._rate(precision) if self.multiplies(precision) else None
        return self.bf16 if rate is None else rate

    def multiplies(self, precision: str) -> bool:
        """Whether its matrix units multiply numbers of this format; False for int4, which is weight-only."""
        if precision in ("fp32", "bf16"):
            return True
        return precision in RATE_OF and (
            self._rate(precision) is not None if self.formats is None else precision in self.formats
        )

    def _rate(self, precision: str) -> float | None:
        return next((rate for name in RATE_OF.get(precision, ()) if (rate := getattr(self, name)) is not None), None)

    def calibrated(self, engine: str | None = None) -> Calibration:
        """The calibration that predictions use."""
        if self.calibration is not None:
            return self.calibration
        if self._stated:
            return stated(self.compute_efficiency, self.bandwidth_efficiency, self.link_efficiency, self.latency)
        if self.like is None or self.like == self.key:
            return shipped_for(self.like, engine)
        return inherited(self.like, engine, self.name)

    @property
    def _stated(self) -> bool:
        """Whether the file states any share of peak."""
        return any(getattr(self, name) is not None for name in SHARES)

    @cached_property
    def key(self) -> str | None:
        """The catalogue's key of this device; None for one that is not of the catalogue."""
        return next((key for key, known in catalogue().items() if known.name == self.name), None)

    @property
    def capacity(self) -> tuple[float, float]:
        """Bytes a, and a share s: beside w bytes of weights, one device has a - s w bytes for the KV cache."""
        if self.usable_memory is not None or self._stated:
            return self.memory * (self.usable_memory or STATED_MEMORY), 1.0
        return self.memory * (1 - HELD_BACK) * CACHE_SHARE, CACHE_SHARE

    def between(self, gpus: int) -> float:
        """Bytes per second between `gpus` devices of one node, in one direction, as on the data sheet.

        Without a switch, a group uses only its own `pair` connections: two MI300X share 64 of 448 GB/s.
        """
        return self.link if self.pair is None else min(self.link, self.pair * max(gpus - 1, 1))

    def dollars(self, given: float | str | None = None) -> float:
        """Dollars per device and hour: as given, else the catalogue's. Raises InputError where neither is known."""
        if given is not None:
            return parse_price(given, "gpu_price")
        if self.price is None:
            raise InputError(f"gpu_price: {self.name} has no published price here; give one, such as 2.5")
        return self.price


def catalogue_name(name: str) -> str:
    """The catalogue's key for a name in any case (H200: h200); what is none stays."""
    return name.lower() if name.lower() in catalogue() else name


def load_hardware(name: str) -> Hardware:
    """A device of the catalogue, its name in any case, or a YAML file with the same fields. Raises InputError naming
    the known ones."""
    if (key := catalogue_name(name)) in (known := catalogue()):
        return known[key]
    if Path(name).suffix in (".yaml", ".yml"):
        return Hardware.from_yaml(name, "hardware")
    raise InputError(
        f"hardware: no such device {name!r}; {suggest(name, known)}known: {', '.join(known)}, or a YAML file"
    )


def device_words(name: str) -> str:
    """What sentences call the devices of `load_hardware(name)`: the catalogue's key, or the name in the file."""
    key = catalogue_name(name)
    return key if key in catalogue() else load_hardware(name).name


@cache
def catalogue() -> dict[str, Hardware]:
    """Every device by its name."""
    text = files("moelab.serving").joinpath("hardware.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = parse_yaml(text, "hardware")
    return {name: Hardware.parse(value, f"hardware {name}") for name, value in entries.items()}
