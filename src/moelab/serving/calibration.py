"""Calibrations: coefficients with the rows they were fitted to and their error on rows that were held out."""

import math
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from pydantic import Field

from moelab.config import Config, Count, CountOrZero, Positive
from moelab.serving.coefficients import Coefficients, roofline
from moelab.serving.products import ProductRates
from moelab.yaml_reader import parse_yaml

Z80 = 1.2815515594457
"""Half-width of the 80 % interval of a normal distribution, in standard deviations."""

ENOUGH_ROWS = 5
"""Rows of a device and an engine, of more than one model, from which on they state its error. With fewer it is that of
a device or an engine that was left out: 32 public rows of vLLM on MI300X, of which the fit saw one, were 29 % off."""

STATED = "stated shares"
"""The id of a calibration that a hardware file's own shares of peak make."""


def probability_below(value: float, limit: float, factor: float) -> float:
    """Of a prediction whose 80 % interval is value / factor to value x factor, being at most the limit: its logarithm
    is normal."""
    return 0.5 * math.erfc(math.log(value / limit) * Z80 / math.log(factor) / math.sqrt(2))


class Calibration(Config):
    """Coefficients, how slow the device is beside its data sheet, and how far predictions were off.

    `slowdown` multiplies every time: 1 for the device family that the coefficients come from. `error` is the median
    absolute relative error of what was held out, `held_out_by` what that was, `spread` the standard deviation of the
    logarithm from which 80 % intervals are made. All three are None for a roofline with stated shares. `products` are
    measured rates of products by precision: they replace the shares of peak and the reading of weights. `precisions`
    are those of the weights in the rows, `kv_precisions` of the cache, `most_gpus` the devices of the largest group;
    None where it is not known. `few` names rows that are too few, or of one model, to state an error: the error is
    that of a device or an engine without rows.
    """

    id: str
    coefficients: Coefficients
    slowdown: Positive = 1.0
    n_rows: CountOrZero = 0
    error: Annotated[float, Field(ge=0)] | None = None
    held_out_by: str | None = None
    spread: Annotated[float, Field(ge=0, le=3)] | None = None
    source: str = ""
    products: dict[str, ProductRates] | None = None
    precisions: tuple[str, ...] | None = None
    kv_precisions: tuple[str, ...] | None = None
    most_gpus: Count | None = None
    few: str | None = None

    def __hash__(self) -> int:
        """Of equal calibrations equal, though `products` has none of its own."""
        return hash((self.id, self.coefficients, self.slowdown, self.n_rows, self.error, tuple(self.products or ())))

    @property
    def factor(self) -> float | None:
        """The 80 % interval is value / factor to value x factor; None where the error is unknown."""
        return None if self.spread is None else math.exp(Z80 * self.spread)

    def summary(self) -> dict[str, Any]:
        """What stands beside every prediction in JSON."""
        return {"id": self.id, "n_rows": self.n_rows, "error": self.error, "held_out_by": self.held_out_by}

    def line(self) -> str:
        """The same for people."""
        if self.error is None:
            return f"{self.id}: no measured serving supports it, so it has no interval"
        rows = f"{self.n_rows} row{'s' * (self.n_rows > 1)}" if self.n_rows else "no rows of its own"
        rows += f" ({self.few})" if self.few else ""
        return f"{self.id}: {rows}, median error {self.error:.0%} held out by {self.held_out_by}"


@cache
def shipped() -> dict[str, Any]:
    """The file that the fit wrote: shared coefficients, engines, devices, and errors by what was held out."""
    text = files("moelab.serving").joinpath("calibrations.yaml").read_text(encoding="utf-8")
    value: dict[str, Any] = parse_yaml(text, "calibrations")
    return value


@cache
def stated(compute: float | None, bandwidth: float | None, link: float | None, latency: float | None) -> Calibration:
    """The calibration of a file that states its own shares of peak and latency: a roofline, as in version 0.1, with
    its defaults where one is None."""
    coefficients = roofline(compute or 0.7, bandwidth or 0.8, link or 0.8, 1e-5 if latency is None else latency)
    return Calibration(id=STATED, coefficients=coefficients, source="the hardware file")


@cache
def inherited(device: str, engine: str | None, name: str) -> Calibration:
    """The calibration of the nearest device for one called `name`, with the error measured for such a step."""
    own = shipped_for(device, engine)
    engine_known = _engine_known(own.id.partition("/")[2])
    return own.replace(
        id=f"{own.id} for {name}", n_rows=0, few=None, **_on_another_device("none" if engine_known else "engine")
    )


def _enough(device: str, engine: str) -> bool:
    """Whether rows of this device and engine state their error: of one model or of few rows they do not."""
    known = shipped()["devices"].get(device, {})
    return bool(known and known["rows"].get(engine, 0) >= ENOUGH_ROWS and known["models"][engine] > 1)


def _engine_known(engine: str) -> bool:
    """Whether some device has enough rows of this engine."""
    return any(_enough(device, engine) for device in shipped()["devices"])


def _error(step: str) -> dict[str, Any]:
    """`error`, `held_out_by` and `spread` of rows (`none`) or of an `engine` away: never less than with rows."""
    near, far = (shipped()["errors"][name] for name in ("none", step))
    larger = max(far, near, key=lambda one: float(one["error"]))
    spread = max(near["spread"], far["spread"])
    return {"error": larger["error"], "held_out_by": larger["held_out_by"], "spread": spread}


def _on_another_device(step: str) -> dict[str, Any]:
    """The same where the device has no rows: its error counts beside that of `step`, as independent errors do.

    The shipped spread of a device holds that of a model already: `inherited_spreads` of benchmarks/serving_accuracy.
    """
    near, none, device = _error(step), shipped()["errors"]["none"], shipped()["errors"]["device"]
    apart = device["spread"] ** 2 - none["spread"] ** 2
    return {
        "error": math.hypot(near["error"], device["error"]),
        "held_out_by": f"{near['held_out_by']} and device",
        "spread": math.sqrt(near["spread"] ** 2 + max(apart, 0.0)),
    }


DOUBTS = {
    "precision": "precision",
    "kv_precision": "kv_precision",
    "draft": "draft",
    "engine": "engine",
    "cached": "engine",
    "disaggregated": "engine",
    "gpus": "device",
    "nodes": "nodes",
}
"""What a calibration may have no rows of, and the shipped error that stands for it. Rows were left out by precision of
weights and cache and with drafted tokens; cached prefixes and disaggregated prompts have no rows, and are taken to be
as far off as another engine; groups of more devices as another device. Groups over several nodes have no rows either:
their error is that of four published rates of DeepSeek-V3 (`print_published` of benchmarks/serving_accuracy.py)."""


@cache
def doubted(calibration: Calibration, names: tuple[str, ...]) -> Calibration:
    """The calibration with the error and the spread of a prediction that it has no rows of, by `names` of DOUBTS.

    A shipped error of a step holds that of a left-out model, which counts once; the rest adds up as independent errors.
    """
    steps = list(dict.fromkeys(DOUBTS[name] for name in names if name in DOUBTS))
    if calibration.spread is None or calibration.error is None or not steps:
        return calibration
    errors = shipped()["errors"]
    inside = errors["none"]["spread"]
    further = sum(max(errors[step]["spread"] ** 2 - inside**2, 0.0) for step in steps)
    worst = max([calibration.error, *(errors[step]["error"] for step in steps)])
    by = ", ".join(errors[step]["held_out_by"] for step in steps)
    return calibration.replace(
        spread=math.sqrt(calibration.spread**2 + further),
        error=worst,
        held_out_by=f"{calibration.held_out_by}; also by {by}",
    )


@cache
def shipped_for(device: str | None, engine: str | None) -> Calibration:
    """The calibration of a device and an engine with rows, or of the device with another engine.

    `device` None is one that no shipped row resembles; `engine` None takes the device's engine with most rows.
    """
    value = shipped()
    known = value["devices"].get(device or "")
    rows: dict[str, int] = known["rows"] if known else {}
    chosen = engine or (max(rows, key=lambda name: rows[name]) if rows else value["default_engine"])
    fixed = value["engines"].get(chosen, 1.0)
    coefficients = {**value["coefficients"], "kernel": value["coefficients"]["kernel"] * fixed}
    n_rows, enough = rows.get(chosen, 0), _enough(device or "", chosen)
    # What has no rows: nothing, the engine on a device that others calibrate, or the device.
    others = any(_enough(device or "", name) for name in rows)
    step = "none" if enough or (_engine_known(chosen) and not others) else "engine"
    few = None
    if n_rows and not enough:
        few = "too few" if n_rows < ENOUGH_ROWS else "one model"
    return Calibration(
        id=f"{device or 'any'}/{chosen}",
        coefficients=Coefficients.parse(coefficients, "calibrations"),
        slowdown=known["slowdown"] if known else 1.0,
        n_rows=n_rows,
        few=few,
        **(_error(step) if enough or others else _on_another_device(step)),
        source=value["source"],
        precisions=tuple(value["precisions"]),
        kv_precisions=tuple(value["kv_precisions"]),
        most_gpus=value["most_gpus"],
    )
