"""Fits and slices as rows for the report room's figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moelab.errors import InputError

if TYPE_CHECKING:
    from moelab.fitting.fitted import FittedLaw
    from moelab.fitting.slice import Slice
    from moelab.fitting.surface import Surface

GRID = (60, 40)
"""Rectangles of a drawn surface along size and sparsity."""


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


def plot_surface(found: "Surface") -> Any:
    """The surface in bands of colour with its runs, the best size per sparsity, and its lowest point."""
    from moelab.report.figures import surface

    params, sparsity, loss = found.points
    (n_low, n_high), (s_low, s_high) = found.limits
    n, s = np.linspace(n_low, n_high, GRID[0] + 1), np.linspace(s_low, s_high, GRID[1] + 1)
    sizes, sparsities = np.exp(n).tolist(), (-np.expm1(-s)).tolist()
    middle_n, middle_s = np.meshgrid((n[1:] + n[:-1]) / 2, (s[1:] + s[:-1]) / 2, indexing="ij")
    losses = found.loss(np.exp(middle_n), -np.expm1(-middle_s))
    cells = [
        {
            "params_low": sizes[i],
            "params_high": sizes[i + 1],
            "sparsity_low": sparsities[j],
            "sparsity_high": sparsities[j + 1],
            "loss": float(losses[i, j]),
        }
        for i in range(GRID[0])
        for j in range(GRID[1])
    ]
    runs = [
        {"params_total": float(a), "sparsity": float(b), "loss": float(c)}
        for a, b, c in zip(params, sparsity, loss, strict=True)
    ]
    best = found.optimum()
    lowest = {name: best[name]["value"] for name in ("params_total", "sparsity")}
    return surface(cells, runs, _valley(found) or None, [lowest])


def _valley(found: "Surface") -> list[dict[str, Any]]:
    """The best size at each sparsity, where it lies inside the runs' sizes."""
    (n_low, n_high), (s_low, s_high) = found.limits
    n, rows = np.linspace(n_low, n_high, 401), []
    for s in np.linspace(s_low, s_high, 81):
        losses = found.loss(np.exp(n), np.full_like(n, -np.expm1(-s)))
        at = int(np.argmin(losses))
        if 0 < at < len(n) - 1:
            rows.append({"params_total": float(np.exp(n[at])), "sparsity": float(-np.expm1(-s))})
    return rows


def _rows(x: Any, loss: Any) -> list[dict[str, Any]]:
    return [{"x": float(a), "loss": float(b)} for a, b in zip(x, loss, strict=True)]
