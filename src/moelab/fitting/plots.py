"""Fits and slices as rows for the report room's figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moelab.errors import InputError

if TYPE_CHECKING:
    from moelab.fitting.fitted import FittedLaw
    from moelab.fitting.slice import Slice


def fit_rows(fitted: "FittedLaw") -> list[dict[str, Any]]:
    """Every run as the fit on all runs sees it; held-out ones as the fit without them predicted them."""
    held = {row["row"]: row for row in fitted.holdout.rows} if fitted.holdout else {}
    rows = []
    for i, (measured, predicted) in enumerate(zip(fitted.measured, fitted.predicted, strict=True)):
        seen = {"measured": float(measured), "predicted": float(predicted), "low": None, "high": None}
        drawn = {name: held[i][name] for name in seen} if i in held else seen
        about = {"law": fitted.law.id, "label": fitted.labels[i], "kind": fitted.kinds[i], "held_out": i in held}
        rows.append({**about, **drawn})
    return rows


def holdout_rows(fitted: "FittedLaw") -> list[dict[str, Any]]:
    """Error of each held-out run by how many times dearer it is than the dearest fitted one."""
    held = fitted.holdout.rows if fitted.holdout else []
    return [
        {
            "law": fitted.law.id,
            "extrapolation": row["factor"],
            "error_rel": row["predicted"] / row["measured"] - 1,
            "covered": row["low"] is not None and row["low"] <= row["measured"] <= row["high"],
        }
        for row in held
        if row["factor"] is not None
    ]


def plot_fits(fits: "Sequence[FittedLaw]") -> Any:
    """Predicted against measured, a panel per law."""
    from moelab.report.figures import predicted_measured

    return predicted_measured([row for fitted in fits for row in fit_rows(fitted)])


def plot_holdout(fits: "Sequence[FittedLaw]") -> Any:
    """Held-out errors against the extrapolation factor. Raises InputError where nothing was held out."""
    from moelab.report.figures import holdout_error

    rows = [row for fitted in fits for row in holdout_rows(fitted)]
    if not rows:
        raise InputError("plot: no runs were held out in the order of their compute")
    return holdout_error(rows)


def plot_slice(found: "Slice") -> Any:
    """The points of a slice, its parabola and the optimum with its interval."""
    from moelab.report.figures import isoflop

    x, loss = found.points
    low, high = float(x.min()), float(x.max())
    grid = np.geomspace(low, high, 121) if found.log else np.linspace(low, high, 121)
    best = {
        "x": found.optimum["value"],
        "low": found.optimum["low"],
        "high": found.optimum["high"],
        "loss": found.loss_at_optimum["value"],
    }
    return isoflop(_rows(x, loss), _rows(grid, found.loss(grid)), [best], x_title=found.x, log=found.log)


def _rows(x: Any, loss: Any) -> list[dict[str, Any]]:
    return [{"x": float(a), "loss": float(b)} for a, b in zip(x, loss, strict=True)]
