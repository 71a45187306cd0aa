"""IsoFLOP slices: where along an axis the loss is lowest at one compute, by parabola (arXiv 2203.15556, approach 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import FEWEST_IN_INTERVAL, check_effort, check_seed
from moelab.fitting.columns import variable
from moelab.notebook import Shown, html_table, interval_text, short_repr

Array = NDArray[Any]
RANGE = (10, 90)
ONE_COMPUTE = 1.2
"""Largest ratio of training FLOPs among runs that count as runs of one compute."""
POOR = 0.8
"""R^2 below which a note reports that the parabola misses the points."""
_FEWEST = 4


@dataclass(frozen=True, repr=False)
class Slice(Shown):
    """The lowest point of a parabola, with the 10th and 90th percentile over draws of its coefficients.

    `curvature` is the second derivative of the loss by the axis (its logarithm where `log`); `outside` counts the
    draws whose parabola had no minimum among the points and which the interval therefore leaves out. `r_squared` is the
    share of the losses' variance that the parabola explains; `notes` list reasons not to trust it.
    """

    x: str
    log: bool
    optimum: dict[str, float | None]
    loss_at_optimum: dict[str, float | None]
    curvature: float
    n_points: int
    outside: int
    coefficients: tuple[float, float, float]
    points: tuple[Array, Array]
    r_squared: float
    notes: tuple[str, ...] = ()

    def plot(self) -> Any:
        """The points, the parabola and its optimum with the interval, as an Altair chart."""
        return plot_slice(self)

    def __repr__(self) -> str:
        optimum, loss = interval_text(**self.optimum), interval_text(**self.loss_at_optimum)
        return short_repr(self, x=self.x, optimum=optimum, loss=loss, n_points=self.n_points, r_squared=self.r_squared)

    def _repr_html_(self) -> str:
        rows = [(f"best {self.x}", *self.optimum.values()), ("loss there", *self.loss_at_optimum.values())]
        return html_table([f"{self.n_points} points", "value", "p10", "p90"], rows, note="; ".join(self.notes))

    def loss(self, x: Any) -> Array:
        """The parabola at x, in the axis's own unit."""
        u = np.log(x) if self.log else np.asarray(x, float)
        return np.polyval(self.coefficients, u)


def isoflop_slice(x: Any, loss: Any, *, name: str = "x", log: bool = False, draws: int = 1000, seed: int = 0) -> Slice:
    """Fit loss = c0 + c1 u + c2 u^2 with u = x, or ln x where `log`, and return its minimum with an interval.

    Raises InputError when there are fewer than four points, when the parabola opens downward, and when its lowest
    point lies outside the points: then the runs do not show where the optimum is.
    """
    check_effort("draws", draws)
    check_seed(seed)
    x, loss = np.asarray(x, float), np.asarray(loss, float)
    if x.shape != loss.shape or not np.isfinite(x).all() or not np.isfinite(loss).all():
        raise InputError(f"{name}, loss: must be finite numbers, one of each per run")
    if log and np.any(x <= 0):
        raise InputError(f"{name}: must be positive for a logarithmic axis")
    distinct = len(np.unique(x))
    if distinct < _FEWEST:
        raise InputError(f"{name}: {distinct} different values; a parabola with an interval needs {_FEWEST}")
    u = np.log(x) if log else x
    centre, width = u.mean(), u.std()
    z = (u - centre) / width
    c2, c1, c0 = np.polyfit(z, loss, 2)
    vertex = -c1 / (2 * c2) if c2 else np.inf
    if not (c2 > 0 and z.min() <= vertex <= z.max()) and _straight(z, loss, c2):
        raise InputError(
            f"{name}: the points lie on a straight line (its curvature is not distinguishable from 0), so they show no "
            f"optimum; add runs beyond {x.min():.4g} to {x.max():.4g}"
        )
    if not c2 > 0:
        raise InputError(f"{name}: the parabola opens downward, so these runs show no optimum")
    if not z.min() <= vertex <= z.max():
        at = centre + width * vertex
        side = "below" if vertex < z.min() else "above"
        raise InputError(
            f"{name}: the parabola's lowest point ({np.exp(at) if log else at:.4g}) lies {side} the points "
            f"({x.min():.4g} to {x.max():.4g}); add runs there"
        )
    vertices, bottoms, outside = _draw_parabolas(z, loss, draws, seed)
    unit = np.exp(centre + width * vertices) if log else centre + width * vertices
    at = centre + width * vertex
    a = c2 / width**2
    b = c1 / width - 2 * a * centre
    return Slice(
        x=name,
        log=log,
        optimum=interval_of(float(np.exp(at) if log else at), unit),
        loss_at_optimum=interval_of(float(c0 - c1**2 / (4 * c2)), bottoms),
        curvature=float(2 * a),
        n_points=len(x),
        outside=outside,
        coefficients=(float(a), float(b), float(c0 - c1 * centre / width + a * centre**2)),
        points=(x, loss),
        r_squared=_explained(u, loss),
        notes=tuple(_doubts(name, x, loss, log)),
    )


def _explained(u: Array, loss: Array) -> float:
    """R^2 of the parabola in u."""
    z = (u - u.mean()) / u.std()
    rest = loss - np.polyval(np.polyfit(z, loss, 2), z)
    return float(1 - np.sum(rest**2) / np.sum((loss - loss.mean()) ** 2))


def _doubts(name: str, x: Array, loss: Array, log: bool) -> list[str]:
    """Where the parabola misses the points, or one on the other axis leaves less than a quarter of its rest."""
    here = _explained(np.log(x) if log else x, loss)
    found = []
    if here < POOR:
        found.append(f"the parabola explains only {here:.0%} of the losses' variance")
    if np.all(x > 0):
        other = _explained(x if log else np.log(x), loss)
        if 1 - here > max(4 * (1 - other), 1e-9):
            axis, advice = (name, "leave out --log") if log else (f"ln {name}", "add --log")
            found.append(f"a parabola in {axis} fits better, R^2 {other:.4g} against {here:.4g}: {advice}")
    return found


def compute_notes(columns: Mapping[str, Array]) -> list[str]:
    """A word where the runs are not of one compute: the lowest loss then follows the compute, not the axis."""
    flops, most = variable(columns, "train_flops"), ONE_COMPUTE
    if flops is None:
        active, tokens = variable(columns, "params_active"), variable(columns, "tokens")
        if active is None or tokens is None:
            return []
        flops, most = active * tokens, 2.0  # leaves out attention, router and head
    flops = flops[np.isfinite(flops) & (flops > 0)]
    if not len(flops) or flops.max() <= most * flops.min():
        return []
    return [
        f"the runs are not of one compute: it spans a factor of {flops.max() / flops.min():.3g}, so this is no "
        "optimum at fixed compute; keep one budget with --where"
    ]


def _straight(z: Array, loss: Array, c2: float) -> bool:
    """Whether a parabola's curvature lies within twice its standard error, or within rounding, of zero."""
    basis = np.stack([z**2, z, np.ones_like(z)], axis=1)
    rest = loss - basis @ np.linalg.lstsq(basis, loss, rcond=None)[0]
    error = np.sqrt(np.sum(rest**2) / (len(z) - 3) * np.linalg.inv(basis.T @ basis)[0, 0])
    return bool(abs(c2) <= max(2 * error, 1e-9 * np.abs(loss).max()))


def _draw_parabolas(z: Array, loss: Array, count: int, seed: int) -> tuple[Array, Array, int]:
    """Vertices and lowest losses of parabolas drawn from the coefficients' t distribution; those without a minimum
    among the points are counted. With five points this covers 80 %, where resampling residuals covers 68 %."""
    if not count:
        return np.empty(0), np.empty(0), 0
    rng = np.random.default_rng(seed)
    basis = np.stack([z**2, z, np.ones_like(z)], axis=1)
    best = np.linalg.lstsq(basis, loss, rcond=None)[0]
    spare = len(z) - 3
    spread = np.sum((loss - basis @ best) ** 2) / rng.chisquare(spare, count)
    root = np.linalg.cholesky(np.linalg.inv(basis.T @ basis))
    c2, c1, c0 = (best + np.sqrt(spread)[:, None] * (rng.standard_normal((count, 3)) @ root.T)).T
    with np.errstate(all="ignore"):
        vertex, bottom = -c1 / (2 * c2), c0 - c1**2 / (4 * c2)
    good = (c2 > 0) & (vertex >= z.min()) & (vertex <= z.max())
    return vertex[good], bottom[good], int(count - good.sum())


def interval_of(value: float, draws: Array) -> dict[str, float | None]:
    """A value with the 10th and 90th percentile of its draws, null where there are fewer than ten."""
    if len(draws) < FEWEST_IN_INTERVAL:
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(draws, RANGE)
    return {"value": value, "low": float(low), "high": float(high)}


def plot_slice(found: Slice) -> Any:
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
