"""Calibrated training time: coefficients with the fits that left one model out, and predictions with an interval."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from pydantic import Field, field_validator

from moelab.architecture.counts import count_flops
from moelab.architecture.layers import Numbers
from moelab.architecture.shape import Shape
from moelab.config import Config, Count, NonNegative
from moelab.serving.replicates import Replicates
from moelab.serving.training_time import TrainingSetup, seconds_per_token, training_peak
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
    models of the median absolute relative error."""

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

    @field_validator("coefficients", "members")
    @classmethod
    def _named(cls, value: object) -> object:
        for each in value if isinstance(value, tuple) else (value,):
            if set(each) != set(NAMES) or min(each.values()) <= 0:
                raise ValueError(f"expected positive numbers by the names {', '.join(NAMES)}")
        return value

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
        factor = np.exp(deviations * np.sqrt(self.residual**2 + self.spread(shape, setup) ** 2))
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
