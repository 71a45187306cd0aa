"""Calibration to one's own rows: the shipped coefficients are the prior, the error is that of rows left out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moelab.errors import InputError
from moelab.serving.calibration import Calibration, shipped
from moelab.serving.coefficients import Coefficients
from moelab.serving.fit_rows import DEVICE_SPREAD, FIXED, Fitted, error_of, fit_rows, held_out
from moelab.serving.hardware import Hardware
from moelab.serving.measured import MeasuredRows, Row
from moelab.serving.plausible import check_rows, notes_on

PRIOR_SPREAD = 0.3
"""Spread of the logarithm of each coefficient around the shipped one, before a user's rows are seen."""
LEAST_ROWS = 3
"""Setups from which on a fit is made."""
LEAST_MODELS = 4
"""Models from which on their own errors make an 80 % interval: the rank of `error_of`, 0.8 (n + 1), is at most n."""


@dataclass(frozen=True)
class Calibrated:
    """The fit to a table: the device's hardware entry with its calibration, what was fitted with its intervals, and
    `notes` on rows far from what was predicted of them."""

    hardware: Hardware
    fitted: Fitted
    rows: int
    speculative: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab calibrate --json` prints."""
        calibration = self.hardware.calibration
        assert calibration is not None
        values = {
            name: {"value": value, **_ends(self.fitted.intervals.get(name))}
            for name, value in calibration.coefficients.model_dump().items()
        }
        return {
            "hardware": self.hardware.name,
            "rows": self.rows,
            "speculative_rows_left_out": self.speculative,
            "calibration": calibration.summary() | {"spread": calibration.spread, "slowdown": calibration.slowdown},
            "coefficients": values,
            "notes": list(self.notes),
        }


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def calibrate(measured: MeasuredRows, device: str | None = None, engine: str | None = None) -> Calibrated:
    """Fit to measured rows, and return the entry of one device and engine, those with most setups unless named.

    Raises InputError where the rows hold fewer than three setups, none of `device` or `engine`, or a value that no
    device reaches (a wrong unit, tokens of the whole server).
    """
    check_rows(measured)
    newest = measured.newest()
    if len(newest.rows) < LEAST_ROWS:
        raise InputError(f"measured rows: a fit needs at least {LEAST_ROWS} setups, got {len(newest.rows)}")
    device = _chosen("device", device, [row.hardware for row in newest.rows])
    engine = _chosen("engine", engine, [row.engine for row in newest.rows if row.hardware == device])
    value = shipped()
    prior = {name: (number, PRIOR_SPREAD) for name, number in value["coefficients"].items() if name not in FIXED}
    slowdowns = {row.hardware: (_slowdown(row), DEVICE_SPREAD) for row in newest.rows}

    def fit(rows: MeasuredRows) -> Fitted:
        return fit_rows(rows, slowdowns, prior, (value["progress"], PRIOR_SPREAD))

    fitted = fit(measured)
    what, group = _left_out(newest)
    _, ratio = held_out(measured, group, fit)
    stated = _stated_error(*error_of(ratio), what, len({row.model for row in newest.rows}))
    own = next(row for row in newest.rows if row.hardware == device and row.engine == engine)
    count = sum(row.hardware == device and row.engine == engine for row in newest.rows)
    calibration = fitted.calibration(
        device, engine, n_rows=count, **stated, source="moelab calibrate", **newest.supported()
    )
    checked = Calibration.parse(calibration.model_dump(), "calibration")
    entry = own.device.model_copy(update={"calibration": checked})
    shipped_fit = Fitted(
        Coefficients.parse(value["coefficients"], "calibrations"),
        value["engines"],
        {n: s for n, (s, _) in slowdowns.items()},
        {},
    )
    notes = tuple(notes_on(newest, shipped_fit.predict(newest.rows)))
    hardware = Hardware.parse(entry.to_dict(), "hardware")
    return Calibrated(hardware, fitted, len(newest.rows), measured.speculative, notes)


def _stated_error(error: float, spread: float, what: str, models: int) -> dict[str, Any]:
    """`error`, `spread` and `held_out_by` of a fit, of which `what` was left out in turn.

    A design that is planned is a new model: rows of few models state at least the error of models left out of the
    shipped rows, and have at least its interval.
    """
    if models >= LEAST_MODELS:
        return {"error": error, "spread": spread, "held_out_by": what}
    known = shipped()["errors"]["none"]
    by = f"model in the shipped rows ({models} model{'s' * (models > 1)} here, {error:.0%} by {what})"
    if error > known["error"]:
        by = f"{what}, and by model in the shipped rows"
    return {"error": max(error, known["error"]), "spread": max(spread, known["spread"]), "held_out_by": by}


def _slowdown(row: Row) -> float:
    calibration = row.device.calibrated(row.traffic.engine)
    return calibration.slowdown if calibration.error is not None else 1.0


def _chosen(what: str, name: str | None, present: list[str]) -> str:
    """The name given, or the one that most setups have."""
    names = list(dict.fromkeys(present))
    if name is None:
        return max(names, key=present.count)
    if name not in names:
        raise InputError(f"{what}: no row of {name!r}; the table has {', '.join(names)}")
    return name


def _left_out(measured: MeasuredRows) -> tuple[str, Callable[[Row], Any]]:
    """What is left out in turn: models where there are several, else batches, else setups."""
    if len({row.model for row in measured.rows}) > 1:
        return "model", lambda row: row.model
    if len({row.traffic.batch for row in measured.rows}) > 1:
        return "concurrency", lambda row: row.traffic.batch
    return "setup", lambda row: row.setup
