"""IsoFLOP slices and surfaces: where along one axis, or over size and sparsity, the loss is lowest at one compute.

A slice is a parabola in one variable (arXiv 2203.15556, approach 2); a surface is Abnar's polynomial in n = ln N and
s = -ln(1 - S) (arXiv 2501.12370): powers of n, powers of s and powers of n s, degrees by cross-validation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import check_effort, check_seed

Array = NDArray[Any]
RANGE = (10, 90)
_FEWEST = 4


@dataclass(frozen=True)
class Slice:
    """The lowest point of a parabola, with the 10th and 90th percentile over draws of its coefficients.

    `curvature` is the second derivative of the loss by the axis (its logarithm where `log`); `outside` counts the
    draws whose parabola had no minimum among the points and which the interval therefore leaves out.
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

    def plot(self) -> Any:
        """The points, the parabola and its optimum with the interval, as an Altair chart."""
        from moelab.fitting.plots import plot_slice

        return plot_slice(self)

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
            f"{name}: the points lie on a straight line (its curvature cannot be told from 0), so they show no "
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
        optimum=_interval(float(np.exp(at) if log else at), unit),
        loss_at_optimum=_interval(float(c0 - c1**2 / (4 * c2)), bottoms),
        curvature=float(2 * a),
        n_points=len(x),
        outside=outside,
        coefficients=(float(a), float(b), float(c0 - c1 * centre / width + a * centre**2)),
        points=(x, loss),
    )


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


def _interval(value: float, draws: Array) -> dict[str, float | None]:
    if len(draws) < 10:
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(draws, RANGE)
    return {"value": value, "low": float(low), "high": float(high)}


@dataclass(frozen=True, eq=False)
class Surface:
    """L = sum a_i n^i + sum b_j s^j + sum c_k (n s)^k + d at one compute.

    `degrees` are (n, s, n s); `correlation` is that of predicted and measured loss on held-out folds; `subsamples`
    are re-fits on 80 % of the runs.
    """

    degrees: tuple[int, int, int]
    coefficients: Array
    subsamples: Array
    correlation: float
    error: float
    n_points: int
    limits: Array

    def loss(self, params: Any, sparsity: Any, coefficients: Array | None = None) -> Array:
        """The surface at total parameters and sparsity."""
        n, s = np.log(params), -np.log(1 - np.asarray(sparsity, float))
        return _terms(n, s, self.degrees) @ (self.coefficients if coefficients is None else coefficients)

    def optimum_at(self, sparsity: float) -> dict[str, dict[str, float | None]]:
        """N* and the loss there at one sparsity, with intervals over the subsamples. Refuses an edge optimum."""
        if not 0 <= sparsity < 1:
            raise InputError(f"sparsity: must be at least 0 and below 1, got {sparsity:g}")
        grid = np.exp(np.linspace(self.limits[0, 0], self.limits[0, 1], 2001))
        value, index = self._lowest(grid, sparsity, self.coefficients)
        if index in (0, len(grid) - 1):
            raise InputError(f"params_total: at sparsity {sparsity:g} the surface is lowest at the edge of the runs")
        draws = [self._lowest(grid, sparsity, row) for row in self.subsamples]
        params = np.array([grid[i] for _, i in draws if 0 < i < len(grid) - 1])
        return {
            "params_total": _interval(float(grid[index]), params),
            "params_active": _interval(float(grid[index] * (1 - sparsity)), params * (1 - sparsity)),
            "loss": _interval(value, np.array([v for v, _ in draws])),
        }

    def optimum(self) -> dict[str, dict[str, float | None]]:
        """S*, N*, N_a* = N* (1 - S*) and the loss, with intervals over the subsamples (see `at_edge`)."""
        points = np.array([self._lowest_point(row) for row in (self.coefficients, *self.subsamples)])
        names = ("params_total", "sparsity", "params_active", "loss")
        return {name: _interval(float(points[0, k]), points[1:, k]) for k, name in enumerate(names)}

    def at_edge(self) -> tuple[str, ...]:
        """Which of size and sparsity has its best value at the edge of the runs: there the optimum may lie beyond."""
        params, sparsity, _, _ = self._lowest_point(self.coefficients)
        found = []
        for name, value, limits in zip(
            ("params_total", "sparsity"), (np.log(params), -np.log(1 - sparsity)), self.limits, strict=True
        ):
            if min(abs(value - limits[0]), abs(value - limits[1])) < 1e-6 * max(1.0, float(np.ptp(limits))):
                found.append(name)
        return tuple(found)

    def _lowest(self, grid: Array, sparsity: float, coefficients: Array) -> tuple[float, int]:
        losses = self.loss(grid, np.full_like(grid, sparsity), coefficients)
        index = int(np.argmin(losses))
        return float(losses[index]), index

    def _lowest_point(self, coefficients: Array) -> tuple[float, float, float, float]:
        n, s = (np.linspace(low, high, 201) for low, high in self.limits)
        nn, ss = np.meshgrid(n, s, indexing="ij")
        params, sparsity = np.exp(nn.ravel()), 1 - np.exp(-ss.ravel())
        losses = self.loss(params, sparsity, coefficients)
        best = int(np.argmin(losses))
        return params[best], sparsity[best], params[best] * (1 - sparsity[best]), losses[best]


def isoflop_surface(
    params: Any, sparsity: Any, loss: Any, *, subsamples: int = 100, folds: int = 5, seed: int = 0, max_degree: int = 4
) -> Surface:
    """Fit Abnar's isoFLOP surface to runs of one compute. Degrees 0 to `max_degree` by cross-validated error.

    Raises InputError for too few runs or when all of them share one size or one sparsity.
    """
    check_effort("subsamples", subsamples)
    check_seed(seed)
    params, sparsity, loss = (np.asarray(values, float) for values in (params, sparsity, loss))
    if np.any((sparsity < 0) | (sparsity >= 1)) or np.any(params <= 0):
        raise InputError("sparsity: must be at least 0 and below 1, and params_total positive")
    n, s = np.log(params), -np.log(1 - sparsity)
    if len(loss) < 8 or min(len(np.unique(n)), len(np.unique(s))) < 3:
        raise InputError("params_total, sparsity: a surface needs 8 runs, 3 sizes and 3 sparsities at one compute")
    rng = np.random.default_rng(seed)
    fold = rng.permutation(len(loss)) % min(folds, len(loss))
    scored = [(*_cross_validated(_terms(n, s, d), loss, fold), d) for d in _degrees(max_degree, len(loss), fold)]
    error, correlation, degrees = min(scored, key=lambda item: item[0])
    terms = _terms(n, s, degrees)
    size = max(terms.shape[1] + 1, round(0.8 * len(loss)))
    rows = [rng.choice(len(loss), size, replace=False) for _ in range(subsamples)]
    return Surface(
        degrees=degrees,
        coefficients=_solve(terms, loss),
        subsamples=np.array([_solve(terms[r], loss[r]) for r in rows]),
        correlation=correlation,
        error=error,
        n_points=len(loss),
        limits=np.array([[n.min(), n.max()], [s.min(), s.max()]]),
    )


def _degrees(most: int, rows: int, fold: Array) -> Iterator[tuple[int, int, int]]:
    fitted = rows - int(np.bincount(fold).max())
    for a in range(most + 1):
        for b in range(most + 1):
            for c in range(most + 1):
                if a + b + c + 1 < fitted:
                    yield a, b, c


def _terms(n: Array, s: Array, degrees: tuple[int, int, int]) -> Array:
    a, b, c = degrees
    columns = (
        [n**i for i in range(1, a + 1)] + [s**j for j in range(1, b + 1)] + [(n * s) ** k for k in range(1, c + 1)]
    )
    return np.stack([*columns, np.ones_like(n)], axis=-1)


def _solve(terms: Array, loss: Array) -> Array:
    scale = np.abs(terms).max(axis=0) + 1e-300
    return np.linalg.lstsq(terms / scale, loss, rcond=1e-13)[0] / scale


def _cross_validated(terms: Array, loss: Array, fold: Array) -> tuple[float, float]:
    predicted = np.empty_like(loss)
    for k in range(int(fold.max()) + 1):
        predicted[fold == k] = terms[fold == k] @ _solve(terms[fold != k], loss[fold != k])
    if np.ptp(predicted) == 0 or np.ptp(loss) == 0:
        return float(np.mean((predicted - loss) ** 2)), 0.0
    return float(np.mean((predicted - loss) ** 2)), float(np.corrcoef(predicted, loss)[0, 1])
