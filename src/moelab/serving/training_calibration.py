"""Calibrated training time: coefficients with the fits that left one model out, and predictions with an interval."""

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from pydantic import Field, field_validator

from moelab.architecture.counts import count_flops
from moelab.architecture.layers import Numbers
from moelab.architecture.shape import Shape
from moelab.config import Config, Count, NonNegative
from moelab.serving.hardware import Hardware
from moelab.serving.replicates import Replicates
from moelab.serving.training_time import TrainingSetup, assumed_slowdown, seconds_per_token, training_peak
from moelab.yaml_reader import parse_yaml

NAMES = ("products", "narrow", "power", "stream", "hidden", "launch", "older", "waited")
"""The coefficients. `products`: share of the bf16 peak that large products reach. `narrow`: exponent of the peak's gain
in narrower arithmetic. `power`: exponent of board power over peak. `stream`, `hidden`: bytes of memory traffic per
element of the residual stream and of a feed-forward's hidden state, per layer. `launch`: seconds of a MoE layer's
launches per micro-batch. `older`: how much longer these took before they were captured as graphs. `waited`: share of
the exchanges between nodes that computation waits for."""
INTERVAL = {2: 3.078, 3: 1.886, 4: 1.638, 5: 1.533, 6: 1.476, 7: 1.44, 8: 1.415, 9: 1.397, 10: 1.383}
"""Standard deviations to each side of an 80 % interval, by the number of models: Student's t, one degree fewer."""
NORMAL = 1.2816
"""The same where models abound: of the normal distribution."""
HARDWARE, PRECISION, BOTH = "hardware", "precision", "hardware and precision"
"""What no row of a fit may have, and with which error a prediction is made then."""
KINDS = {"dense": "dense designs", "moe": "MoE designs"}


class OutsideRows(Config):
    """Predictions of what no row has, from fits without the model and without that: the median over models of the
    median absolute relative error, and the residual that stands for `TrainingCalibration.residual`."""

    residual: NonNegative
    error: NonNegative


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """Device-seconds per token with an 80 % interval, and the utilisation that they mean (numbers or arrays).

    FLOPs are the model's, attention scores counted as causal. `mfu` is of the bf16 peak, `mfu_own` of the peak of the
    arithmetic that trains.
    """

    seconds: Numbers
    seconds_low: Numbers
    seconds_high: Numbers
    flops: Numbers
    bf16_peak: float
    own_peak: float

    @property
    def mfu(self) -> Numbers:
        """Share of the bf16 peak."""
        return self.flops / self.seconds / self.bf16_peak

    @property
    def mfu_low(self) -> Numbers:
        """The lower end of its 80 % interval."""
        return self.flops / self.seconds_high / self.bf16_peak

    @property
    def mfu_high(self) -> Numbers:
        """The upper end of its 80 % interval."""
        return self.flops / self.seconds_low / self.bf16_peak

    @property
    def mfu_own(self) -> Numbers:
        """Share of the arithmetic's own peak."""
        return self.flops / self.seconds / self.own_peak


class TrainingCalibration(Config):
    """Coefficients of `training_time`, fitted to `n_rows` runs. `members` are the fits without one model each; their
    spread and `residual`, a standard deviation of log seconds, make the interval. `error` is the median over left-out
    models of the median absolute relative error, each row on the layout that was measured. `setups` are the precisions
    of the rows by device and by kind of design (`dense`, `moe`); `outside` replaces `residual` and `error` where no row
    has the device, the precision with this kind and on this device, or both."""

    id: str
    source: str
    coefficients: dict[str, float]
    members: tuple[dict[str, float], ...]
    residual: NonNegative
    n_rows: Count
    models: tuple[str, ...]
    hardware: tuple[str, ...]
    pair_residual: NonNegative = Field(default=0.0, description="of the log ratio of two designs, see replicates.py")
    error: NonNegative = Field(description="median over left-out models of the median absolute relative error")
    setups: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)
    outside: dict[str, OutsideRows] = Field(default_factory=dict)

    @field_validator("coefficients", "members")
    @classmethod
    def _named(cls, value: object) -> object:
        for each in value if isinstance(value, tuple) else (value,):
            if set(each) != set(NAMES) or min(each.values()) <= 0:
                raise ValueError(f"expected positive numbers by the names {', '.join(NAMES)}")
        return value

    def missing(self, device: Hardware, precision: str, kind: str) -> list[str]:
        """Names of what no row has: `hardware`, and `precision` with this `kind` of design and on this device. A device
        that is only in a file counts as the one that it is like."""
        if not self.setups:
            return []
        key = device.key or device.like
        here = self.setups.get(key or "")
        with_kind = any(precision in kinds.get(kind, ()) for kinds in self.setups.values())
        on_device = here is None or any(precision in found for found in here.values())
        return [HARDWARE] * (here is None) + [PRECISION] * (not (with_kind and on_device))

    def missing_words(self, device: Hardware, precision: str, kind: str) -> list[str]:
        """The same for people: what the calibration has no rows with."""
        names = self.missing(device, precision, kind)
        slow = assumed_slowdown(device)
        beside = "" if slow == 1 else f" ({slow:.2f} times slower beside its data sheet is assumed, as in serving)"
        words = [device.name + beside] * (HARDWARE in names)
        if PRECISION in names:
            with_kind = any(precision in kinds.get(kind, ()) for kinds in self.setups.values())
            words.append(f"{precision} on {device.name}" if with_kind else f"{KINDS[kind]} in {precision}")
        return words

    def known(self, device: Hardware, precision: str, kind: str) -> OutsideRows:
        """The error and the residual of such a design. Where a slowdown is assumed, no row was left out so: its 80 %
        interval reaches from none to its square, and the error is at least that of leaving the slowdown out."""
        names, slow = self.missing(device, precision, kind), assumed_slowdown(device)
        inside = OutsideRows(residual=self.residual, error=self.error)
        found = self.outside.get(BOTH if len(names) > 1 else "".join(names), inside)
        if slow == 1:
            return found
        return OutsideRows(
            residual=math.hypot(found.residual, math.log(slow) / NORMAL), error=max(found.error, 1 - 1 / slow)
        )

    def seconds(self, shape: Shape, setup: TrainingSetup) -> Numbers:
        """Device-seconds per token."""
        return seconds_per_token(shape, setup, self.coefficients)

    def replicates(self, shape: Shape, setup: TrainingSetup) -> Replicates:
        """Log seconds under the fits without one model over those under the fit to all, of n designs."""
        logs = np.stack([np.log(seconds_per_token(shape, setup, member)) for member in self.members])
        apart = np.atleast_2d(logs.T).T - np.log(self.seconds(shape, setup))
        widths = np.broadcast_to(np.asarray(shape.d_expert, float), apart[0].shape)
        return Replicates(apart, widths, self.pair_residual)

    def spread(self, shape: Shape, setup: TrainingSetup) -> Numbers:
        """Standard deviation of log seconds over the fits without one model (jackknife)."""
        n = len(self.members)
        logs = np.stack([np.log(seconds_per_token(shape, setup, member)) for member in self.members])
        return np.sqrt((n - 1) / n * ((logs - logs.mean(0)) ** 2).sum(0))

    def predict(self, shape: Shape, setup: TrainingSetup) -> TrainingSpeed:
        """Seconds per token and utilisation, with an 80 % interval."""
        seconds = self.seconds(shape, setup)
        deviations = INTERVAL.get(len(self.models), NORMAL)
        of_moe, of_dense = (self.known(setup.device, setup.precision, kind).residual for kind in ("moe", "dense"))
        residual = np.where(np.asarray(shape.n_experts) > 0, of_moe, of_dense)
        factor = np.exp(deviations * np.sqrt(residual**2 + self.spread(shape, setup) ** 2))
        return TrainingSpeed(
            seconds=seconds,
            seconds_low=seconds / factor,
            seconds_high=seconds * factor,
            flops=count_flops(shape, setup.seq_len, causal=True).train,
            bf16_peak=setup.device.bf16,
            own_peak=training_peak(setup.device, setup.precision),
        )


@cache
def training_calibration() -> TrainingCalibration:
    """The one that ships, fitted to Megatron-Bridge's performance pages (Apache-2.0)."""
    text = files("moelab.serving").joinpath("training.yaml").read_text(encoding="utf-8")
    return TrainingCalibration.parse(parse_yaml(text, "training calibration"), "training calibration")
