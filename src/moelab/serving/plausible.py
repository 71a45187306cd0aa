"""Measured rows beside what the data sheet allows: a wrong unit or count of devices is found before it is fitted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.quantities import format_number
from moelab.serving.coefficients import roofline
from moelab.serving.fit_rows import Fitted
from moelab.serving.measured import VALUES, MeasuredRows, Row

IDEAL = roofline(1.0, 1.0, 1.0, 0.0).model_copy(update={"max_batch": 10**6})
"""Every rate of the data sheet in full, nothing fixed, as many requests as memory holds."""
SLOWEST = 1 / 300
"""Share of the ideal speed below which a row is refused: of 430 measured rows the slowest reaches 0.09, the fastest
0.72 (`serving.csv`, MLPerf), and milliseconds in place of seconds are a factor of 1,000."""
APART = 3.0
"""Factor between measured and predicted, in the median, from which on it is noted."""


def check_rows(measured: MeasuredRows) -> None:
    """Raises InputError naming a row that no device can be as fast as, or that is slow beyond what engines are."""
    share = _speeds(measured.rows, Fitted(IDEAL, {}, {}, {}).predict(measured.rows))
    for row, of_ideal in zip(measured.rows, share.tolist(), strict=True):
        if of_ideal > 1:
            raise InputError(f"row {row.number}: {_impossible(row, of_ideal)}")
        if of_ideal < SLOWEST:
            raise InputError(f"row {row.number}: {_too_slow(row, 1 / of_ideal)}")


def notes_on(measured: MeasuredRows, predicted: NDArray[Any]) -> list[str]:
    """A line where the rows lie far from what was predicted of them before they were fitted, by kind of row."""
    lines = []
    for name in VALUES:
        of = [i for i, row in enumerate(measured.rows) if (row.seconds is None) == (name == VALUES[1])]
        if not of:
            continue
        rows = [measured.rows[i] for i in of]
        faster = float(np.nanmedian(_speeds(rows, predicted[of])))
        if max(faster, 1 / faster) > APART:
            how = f"{faster:.1f} times faster" if faster > 1 else f"{1 / faster:.1f} times slower"
            unit = "seconds" if name == VALUES[0] else "output tokens a second of one device, not of the server"
            lines.append(f"{name}: measured is {how} than the shipped calibration predicts; check that it is {unit}")
    return lines


def _speeds(rows: Any, predicted: NDArray[Any]) -> NDArray[Any]:
    """Measured speed over predicted speed (n,)."""
    value = np.array([row.value for row in rows])
    seconds = np.array([row.seconds is not None for row in rows])
    return np.where(seconds, predicted / value, value / predicted)


def _impossible(row: Row, of_ideal: float) -> str:
    name, gpus = VALUES[row.seconds is None], row.layout.gpus
    most = row.value * of_ideal if row.seconds is not None else row.value / of_ideal
    limit = "at least" if row.seconds is not None else "at most"
    hint = "" if row.seconds is not None or gpus == 1 else f"; of one device, not of all {gpus}"
    what = "seconds" if row.seconds is not None else "output tokens a second of one device"
    shown, got = (f"{value:.3g}" if value < 1 else format_number(value) for value in (most, row.value))
    return f"{name}: the data sheet of {row.hardware} allows {limit} {shown} ({what}), got {got}{hint}"


def _too_slow(row: Row, times: float) -> str:
    name = VALUES[row.seconds is None]
    what = "seconds, not milliseconds" if row.seconds is not None else "output tokens a second of one device"
    return (
        f"{name}: must be in {what}; {row.value:g} is {times:,.0f} times slower than the data sheet of {row.hardware}"
    )
