"""Loss along one axis at equal compute: the parabola, its lowest point with an interval, and rows for the figure."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.fitting import Slice, isoflop_slice

Row = dict[str, Any]
_CURVE_POINTS = 60


@dataclass
class Curves:
    """Rows of `figures.isoflop`: points, curves and optima, gathered group by group."""

    points: list[Row] = field(default_factory=list)
    lines: list[Row] = field(default_factory=list)
    best: list[Row] = field(default_factory=list)

    def add(self, x: list[float], loss: list[float], group: str, name: str) -> Slice | str:
        """One group on a logarithmic axis: its slice, or the reason why there is none (then its points are joined)."""
        self.points += [{"x": a, "loss": b, "group": group} for a, b in zip(x, loss, strict=True)]
        try:
            found = bounded_slice(x, loss, name)
        except InputError as error:
            order = np.argsort(x)
            self.lines += [{"x": x[i], "loss": loss[i], "group": group} for i in order]
            return str(error)
        grid = np.geomspace(min(x), max(x), _CURVE_POINTS)
        self.lines += [{"x": float(a), "loss": float(found.loss(a)), "group": group} for a in grid]
        at = found.optimum
        self.best.append(
            {
                "x": at["value"],
                "low": at["low"],
                "high": at["high"],
                "loss": found.loss_at_optimum["value"],
                "group": group,
            }
        )
        return found

    def level(self, loss: float, low: float, high: float, group: str, x: float) -> None:
        """A horizontal line from low to high, such as a dense baseline's loss, with its own point at `x`."""
        self.points.append({"x": x, "loss": loss, "group": group})
        self.lines += [{"x": end, "loss": loss, "group": group} for end in (low, high)]

    def figure(self, x_title: str) -> Any:
        """The Altair chart; None without points."""
        from moelab.report import figures

        if not self.points:
            return None
        return figures.isoflop(self.points, self.lines, self.best or None, x_title=x_title)


def bounded_slice(x: list[float], loss: list[float], name: str) -> Slice:
    """A slice on a logarithmic axis. Raises InputError where its optimum lies beyond the runs."""
    found = isoflop_slice(x, loss, name=name, log=True)
    if found.edge is not None:
        raise InputError(f"{name}: the lowest loss lies {found.edge} the runs ({min(x):.4g} to {max(x):.4g})")
    return found


def format_optimum(optimum: dict[str, float | None], form: str = ".3g") -> str:
    """An optimum with its interval as text: `3.9 (80 %: 2.5 to 6.2)`."""
    from moelab.quantities import format_number

    def short(value: float) -> str:
        return format_number(value) if abs(value) >= 1e4 else f"{value:{form}}"

    value, low, high = optimum["value"], optimum["low"], optimum["high"]
    if value is None:
        return "unknown"
    if low is None and high is None:
        return short(value)
    if low is None or high is None:
        return f"{short(value)} (80 %: {'up to ' + short(high) if high is not None else 'from ' + short(low or value)})"
    return f"{short(value)} (80 %: {short(low)} to {short(high)})"
