"""Fits and slices as rows for the report room's figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from moelab.fitting.fitted import FittedLaw
    from moelab.fitting.isoflop import Slice


def fit_rows(fitted: "FittedLaw") -> list[dict[str, Any]]:
    """Every run as the fit on all runs sees it; held-out ones as the fit without them predicted them."""
    held = fitted.holdout.rows if fitted.holdout else []
    unseen = {row["measured"] for row in held}
    rows = [
        {"measured": float(m), "predicted": float(p), "low": None, "high": None, "held_out": False}
        for m, p in zip(fitted.measured, fitted.predicted, strict=True)
        if float(m) not in unseen
    ]
    rows += [
        {**{name: row[name] for name in ("measured", "predicted", "low", "high")}, "held_out": True} for row in held
    ]
    return [{"law": fitted.law.id, "label": "", "kind": "moe" if fitted.law.covers_moe else "dense", **r} for r in rows]


def holdout_rows(fitted: "FittedLaw") -> list[dict[str, Any]]:
    """Error of each held-out run by how many times dearer it is than the dearest fitted one."""
    held = fitted.holdout.rows if fitted.holdout else []
    return [
        {
            "law": fitted.law.id,
            "factor": row["factor"],
            "error": row["predicted"] / row["measured"] - 1,
            "low": None if row["low"] is None else row["low"] / row["measured"] - 1,
            "high": None if row["high"] is None else row["high"] / row["measured"] - 1,
        }
        for row in held
        if row["factor"] is not None
    ]


def plot_fits(fits: "Sequence[FittedLaw]") -> Any:
    """Predicted against measured, a panel per law."""
    from moelab.report.figures import predicted_measured

    return predicted_measured([row for fitted in fits for row in fit_rows(fitted)])


def slice_rows(found: "Slice") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The points of a slice and its curve."""
    x, loss = found.points
    low, high = float(x.min()), float(x.max())
    grid = np.geomspace(low, high, 121) if found.log else np.linspace(low, high, 121)
    points = [{"x": float(a), "loss": float(b)} for a, b in zip(x, loss, strict=True)]
    return points, [{"x": float(a), "loss": float(b)} for a, b in zip(grid, found.loss(grid), strict=True)]
