"""IsoFLOP slices: where along an axis the loss is lowest at one compute (arXiv 2203.15556, approach 2).

The interval covers the choice of curve and of window beside the runs' noise: see `slice_curves`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import check_effort, check_seed
from moelab.fitting.intervals import interval_of
from moelab.fitting.slice_axis import Axis
from moelab.fitting.slice_curves import Curve, Located, locate
from moelab.fitting.slice_parabola import doubts, draw_parabolas, explained, slope_errors, straight
from moelab.fitting.slice_plots import Drawn, plot_slices
from moelab.notebook import Shown, html_table, interval_text, short_repr

Array = NDArray[Any]
RESOLUTION = 2e-4
"""Share of the slice's width by which either end of an interval lies farther out: curves agree by chance below it."""

_LOGARITHMIC = ("n_experts", "active_experts", "expert_ratio", "top_k", "train_flops", "flops_per_token")
_FEWEST = 4
_CLEAR = 6.0
"""Standard errors of a slope from which a straight line is no scatter about a flat optimum."""


@dataclass(frozen=True, repr=False)
class Slice(Shown):
    """The lowest point of a slice with its 80 % interval, which covers curves of several kinds and windows.

    An end of the interval is None where it is open: the runs do not bound the optimum there. `edge` is `below` or
    `above` where the optimum lies beyond the runs on that side; its value is then the outermost run. `curves` are those
    that were tried. The value is the parabola's where noise explains how it misses the points, else the law-shaped
    curve's. `curvature` is the parabola's second derivative by the axis (its logarithm where `log`); `outside` counts
    its draws that had no minimum among the points. `r_squared` is the share of the losses' variance that it explains;
    `noise` is the runs' standard deviation about the best curve, or of repeats at one place where every curve misses by
    more (`repeats` are the latter's degrees of freedom); `notes` list reasons not to trust the parabola.
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
    edge: str | None = None
    noise: float | None = None
    curves: tuple[Curve, ...] = ()
    repeats: int = 0

    def plot(self) -> Any:
        """The points, the parabola and its optimum with the interval, as an Altair chart."""
        return plot_slices([self.drawn()], self.x, self.log)

    def drawn(self, label: str | None = None) -> Drawn:
        """What a chart draws of it."""
        return Drawn(self.points, self.loss, self.optimum, self.loss_at_optimum["value"], label)

    def __repr__(self) -> str:
        optimum, loss = interval_text(**self.optimum), interval_text(**self.loss_at_optimum)
        return short_repr(self, x=self.x, optimum=optimum, loss=loss, n_points=self.n_points, r_squared=self.r_squared)

    def _repr_html_(self) -> str:
        rows = [(f"best {self.x}", *self.optimum.values()), ("loss there", *self.loss_at_optimum.values())]
        return html_table([f"{self.n_points} points", "value", "p10", "p90"], rows, note="; ".join(self.notes))

    def curve_rows(self) -> list[tuple[str, str, int, bool, dict[str, float | None]]]:
        """Per curve: its name, window and runs, whether it was rejected, and its optimum; None beyond the runs."""
        axis = Axis.of(self.x, self.points[0])
        rows = []
        for curve in self.curves:
            ends = {"value": curve.at, "low": curve.low, "high": curve.high}
            shown = {name: axis.back(end) if np.isfinite(end) else None for name, end in ends.items()}
            rows.append((curve.name, curve.window, curve.n_points, curve.rejected, shown))
        return rows

    def loss(self, x: Any) -> Array:
        """The parabola at x, in the axis's own unit."""
        u = np.log(x) if self.log else np.asarray(x, float)
        return np.polyval(self.coefficients, u)


def logarithmic(name: str) -> bool:
    """Whether an axis is one of sizes, tokens, experts or FLOPs, along which losses follow the logarithm."""
    return name.startswith("params_") or name.endswith("tokens") or name in _LOGARITHMIC


def isoflop_slice(
    x: Any, loss: Any, *, name: str = "x", log: bool | None = None, draws: int = 1000, seed: int = 0
) -> Slice:
    """The lowest point along an axis: u = ln x, or -ln(1 - x) for a share such as sparsity; x itself where it is not
    positive. `log` chooses the parabola that is drawn and that gives the value where it fits: in ln x, or in x;
    None: in the logarithm for positive values of an axis that is `logarithmic` by its name.

    Raises InputError when there are fewer than four different points, and when they show no optimum at all: all losses
    equal, points on a straight line, or a curve that opens downward. `edge` reports an optimum beyond the points.
    """
    check_effort("draws", draws)
    check_seed(seed)
    try:
        x, loss = np.asarray(x, float), np.asarray(loss, float)
    except (TypeError, ValueError):
        raise InputError(
            f"{name}, loss: expected two columns of numbers, such as table['{name}'] and table['loss']"
        ) from None
    if x.shape != loss.shape or not np.isfinite(x).all() or not np.isfinite(loss).all():
        raise InputError(f"{name}, loss: must be finite numbers, one of each per run")
    log = logarithmic(name) and bool(np.all(x > 0)) if log is None else log
    if log and np.any(x <= 0):
        raise InputError(f"{name}: must be positive for a logarithmic axis")
    distinct = len(np.unique(x))
    if distinct < _FEWEST:
        raise InputError(f"{name}: {distinct} different values; a parabola with an interval needs {_FEWEST}")
    if np.ptp(loss) == 0:
        raise InputError(f"{name}: the points lie on a straight line: all {len(loss)} losses are {loss[0]:g}")
    u = np.log(x) if log else x
    centre, width = u.mean(), u.std()
    z = (u - centre) / width
    c2, c1, c0 = np.polyfit(z, loss, 2)
    vertex = -c1 / (2 * c2) if c2 else np.inf
    axis = Axis.of(name, x)
    located = locate(axis.to(x), loss, draws, seed, None if log else x, axis.to)
    inside = c2 > 0 and z.min() <= vertex <= z.max()
    if not inside:
        _check_shape(name, x, loss, z, c2, located, axis.to(x))
    _, bottoms, outside = draw_parabolas(z, loss, draws, seed)
    a = c2 / width**2
    b = c1 / width - 2 * a * centre
    at = centre + width * vertex
    fitting = inside and _accepted(located, "parabola" if log or axis.kind == "x" else "parabola in the axis itself")
    value = float(np.exp(at) if log else at) if fitting else axis.back(located.at)
    edge = None if fitting else _edge(located, axis.to(x))
    if edge is not None:
        value = float(x.max() if edge == "above" else x.min())
    low, high = (axis.back(end) if np.isfinite(end) else None for end in _ends(located, edge, axis.to(x)))
    low = None if low is None else min(low, value)
    high = None if high is None else max(high, value)
    bottom = float(c0 - c1**2 / (4 * c2)) if fitting else _lowest_loss(located, axis.to(x), loss)
    optimum = {"value": value, "low": low if draws else None, "high": high if draws else None}
    return Slice(
        x=name,
        log=log,
        optimum=optimum,
        loss_at_optimum=interval_of(bottom, bottoms + bottom - float(np.median(bottoms)) if len(bottoms) else bottoms),
        curvature=float(2 * a),
        n_points=len(x),
        outside=outside,
        coefficients=(float(a), float(b), float(c0 - c1 * centre / width + a * centre**2)),
        points=(x, loss),
        r_squared=explained(u, loss),
        notes=tuple(doubts(name, x, loss, log) + _spread(name, located, edge) + _beyond(name, optimum, x)),
        edge=edge,
        noise=located.noise,
        curves=located.curves,
        repeats=located.repeats,
    )


def _accepted(located: Located, name: str) -> bool:
    """Whether noise explains how the curve over all points misses them."""
    return any(c.name == name and c.window == "all" and not c.rejected for c in located.curves)


def _edge(located: Located, u: Array) -> str | None:
    """The side on which the optimum lies beyond the points, by the law-shaped curve and most of the others that fit."""
    if u.min() < located.at < u.max():
        return None
    side, beyond = ("above", np.inf) if located.at >= u.max() else ("below", -np.inf)
    others = [curve.at for curve in located.curves[1:] if curve.window == "all" and not curve.rejected]
    return side if sum(at == beyond for at in others) >= len(others) / 2 else None


def _ends(located: Located, edge: str | None, u: Array) -> tuple[float, float]:
    """The interval's ends on the axis, open on the side of an edge; never narrower than curves can resolve."""
    least = RESOLUTION * float(np.ptp(u))
    return (
        -np.inf if edge == "below" else located.low - least,
        np.inf if edge == "above" else located.high + least,
    )


def _lowest_loss(located: Located, u: Array, loss: Array) -> float:
    """The loss at the optimum by a cubic through the runs at the six places of the axis nearest to it."""
    at = float(np.clip(located.at, u.min(), u.max()))
    places = np.unique(u)
    places = places[np.argsort(np.abs(places - at), kind="stable")[:6]]
    near = np.isin(u, places)
    degree = min(3, len(places) - 2)
    return float(np.polyval(np.polyfit(u[near] - at, loss[near], degree), 0.0))


def _check_shape(name: str, x: Array, loss: Array, z: Array, c2: float, located: Located, u: Array) -> None:
    """Raises InputError where the points show no optimum, nor on which side of them it lies: neither by the parabola
    along z nor by the curves along u, the axis's logarithm."""
    bounded = u.min() < located.at < u.max() and np.isfinite([located.low, located.high]).all()
    if bounded and np.polyfit(u, loss, 2)[0] > 0:
        return
    if straight(z, loss, c2) and slope_errors(z, loss) > _CLEAR:
        raise InputError(
            f"{name}: the points lie on a straight line (its curvature is not distinguishable from 0), so they show no "
            f"optimum; add runs beyond {x.min():.4g} to {x.max():.4g}"
        )
    if not c2 > 0 and not straight(z, loss, c2):
        raise InputError(f"{name}: the parabola opens downward, so these runs show no optimum")


def _spread(name: str, located: Located, edge: str | None) -> list[str]:
    """Notes on an optimum beyond the points and on curves that miss or disagree."""
    found = []
    if located.misfit is not None:
        found.append(f"every curve misses these runs by {located.misfit:.1f} times as much as repeats differ")
    if edge is not None:
        found.append(f"the best {name} lies {edge} these runs: add runs there")
    elif np.isinf(located.low) or np.isinf(located.high):
        side = "from below" if np.isinf(located.low) else "from above"
        found.append(f"these runs do not bound the best {name} {side}")
    return found


def _beyond(name: str, optimum: dict[str, float | None], x: Array) -> list[str]:
    """A note on ends of the interval that lie where no run is."""
    ends = {"p10": optimum["low"], "p90": optimum["high"]}
    out = [each for each, end in ends.items() if end is not None and not x.min() <= end <= x.max()]
    if not out:
        return []
    lie = "lies" if len(out) == 1 else "lie"
    return [f"{' and '.join(out)} of the best {name} {lie} beyond these runs, {x.min():.4g} to {x.max():.4g}"]
