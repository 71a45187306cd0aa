"""Charts of isoFLOP slices, one or several budgets'."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
GRID = 121
"""Points at which a curve is drawn."""


@dataclass(frozen=True)
class Drawn:
    """A slice to draw: its points (x, loss), its curve, its optimum with interval, the loss there, and its label."""

    points: tuple[Array, Array]
    curve: Callable[[Array], Array]
    optimum: dict[str, float | None]
    lowest: float | None
    label: str | None = None


def plot_slices(slices: Sequence[Drawn], x: str, log: bool) -> Any:
    """Points, curves and optima as an Altair chart; slices with a label have a colour each."""
    from moelab.report.figures import isoflop

    points, lines, best = [], [], []
    for one in slices:
        group = {} if one.label is None else {"group": one.label}
        low, high = float(one.points[0].min()), float(one.points[0].max())
        grid = np.geomspace(low, high, GRID) if log else np.linspace(low, high, GRID)
        points += _rows(*one.points, group)
        lines += _rows(grid, one.curve(grid), group)
        ends = {"low": one.optimum["low"], "high": one.optimum["high"]}
        best.append({"x": one.optimum["value"], **ends, "loss": one.lowest, **group})
    return isoflop(points, lines, best, x_title=x, log=log)


def _rows(x: Array, loss: Array, group: dict[str, str]) -> list[dict[str, Any]]:
    return [{"x": float(a), "loss": float(b), **group} for a, b in zip(x, loss, strict=True)]
