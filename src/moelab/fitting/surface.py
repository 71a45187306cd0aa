"""IsoFLOP surfaces: the loss over size and sparsity at one compute (arXiv 2501.12370).

Abnar's polynomial in n = ln N and s = -ln(1 - S): powers of n, powers of s and powers of n s, degrees by
cross-validation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import check_effort, check_seed
from moelab.fitting.intervals import interval_of, outside_note
from moelab.notebook import Shown, html_table, interval_text, short_repr

Array = NDArray[Any]
STEPS = 200
AXES = ("params_total", "sparsity")
GRID = (60, 40)
"""Rectangles of a drawn surface along size and sparsity."""


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Shown):
    """L = sum a_i n^i + sum b_j s^j + sum c_k (n s)^k + d at one compute.

    `degrees` are (n, s, n s), `coefficients` (t,), `subsamples` (draws, t) of re-fits on 80 % of the runs;
    `correlation` and `error` (mean square, nats squared) compare predicted and measured loss on held-out folds;
    `limits` (2, 2) are the least and greatest n and s; `points` are params_total, sparsity and loss of the runs.
    """

    degrees: tuple[int, int, int]
    coefficients: Array
    subsamples: Array
    correlation: float
    error: float
    limits: Array
    points: tuple[Array, Array, Array]

    @property
    def n_points(self) -> int:
        """Runs that the surface was fitted to."""
        return len(self.points[0])

    def plot(self) -> Any:
        """Loss over size and sparsity with the runs, the best size per sparsity and the optimum: an Altair chart."""
        return plot_surface(self)

    def __repr__(self) -> str:
        best = {name: interval_text(**ends) for name, ends in self.optimum().items()}
        return short_repr(self, n_points=self.n_points, correlation=self.correlation, **best)

    def _repr_html_(self) -> str:
        rows = [(name, *ends.values()) for name, ends in self.optimum().items()]
        return html_table([f"{self.n_points} runs", "value", "p10", "p90"], rows, note="; ".join(self.notes))

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
            "params_total": interval_of(float(grid[index]), params),
            "params_active": interval_of(float(grid[index] * (1 - sparsity)), params * (1 - sparsity)),
            "loss": interval_of(value, np.array([v for v, _ in draws])),
        }

    def optimum(self) -> dict[str, dict[str, float | None]]:
        """S*, N*, N_a* = N* (1 - S*) and the loss, with intervals over the subsamples (see `at_edge`)."""
        points = self._lowest_points
        names = ("params_total", "sparsity", "params_active", "loss")
        return {name: interval_of(float(points[0, k]), points[1:, k]) for k, name in enumerate(names)}

    def at_edge(self) -> tuple[str, ...]:
        """Which of size and sparsity has its best value at the edge of the runs: there the optimum may lie beyond."""
        params, sparsity, _, _ = self._lowest_points[0]
        found = []
        for name, value, limits in zip(AXES, (np.log(params), -np.log(1 - sparsity)), self.limits, strict=True):
            # Two steps of the grid: noise alone moves the lowest point of a surface that falls to its edge that far.
            if min(abs(value - limits[0]), abs(value - limits[1])) <= 2.5 * float(np.ptp(limits)) / STEPS:
                found.append(name)
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before its optimum is read: a negative loss, values outside their intervals, an edge."""
        found = [note for name, ends in self.optimum().items() for note in outside_note(name, ends, "subsamples")]
        least = self.least()
        if least <= 0:
            found.append(
                f"the surface predicts a loss of {least:.3g} among these runs, which none can have: it has too many "
                "terms for them; add runs, or fit slices"
            )
        return (*found, *(f"the best {name} lies at the edge of the runs" for name in self.at_edge()))

    def least(self) -> float:
        """The least loss that the surface, or any of its subsamples, predicts within the runs' sizes and sparsities."""
        n, s = (np.linspace(low, high, STEPS // 4 + 1) for low, high in self.limits)
        nn, ss = (axis.ravel() for axis in np.meshgrid(n, s, indexing="ij"))
        own = self.loss(np.exp(nn), -np.expm1(-ss))
        return float(min(own.min(), *(ends["low"] for ends in [self.optimum()["loss"]] if ends["low"] is not None)))

    def curvature(self, axis: str) -> float:
        """The second derivative of the loss at its lowest point by ln N (`params_total`) or -ln(1 - S) (`sparsity`)."""
        params, sparsity, _, _ = self._lowest_points[0]
        at, k = np.array([np.log(params), -np.log(1 - sparsity)]), AXES.index(axis)
        step = np.zeros(2)
        step[k] = 0.01 * float(np.ptp(self.limits[k]))
        n, s = np.stack([at - step, at, at + step], axis=1)
        low, middle, high = self.loss(np.exp(n), 1 - np.exp(-s))
        return float((low - 2 * middle + high) / step[k] ** 2)

    def _lowest(self, grid: Array, sparsity: float, coefficients: Array) -> tuple[float, int]:
        losses = self.loss(grid, np.full_like(grid, sparsity), coefficients)
        index = int(np.argmin(losses))
        return float(losses[index]), index

    @cached_property
    def _lowest_points(self) -> Array:
        """Size, sparsity, active size and loss at the lowest point of the surface and of each subsample, (1 + B, 4)."""
        n, s = (np.linspace(low, high, STEPS + 1) for low, high in self.limits)
        nn, ss = np.meshgrid(n, s, indexing="ij")
        params, sparsity = np.exp(nn.ravel()), 1 - np.exp(-ss.ravel())
        terms, found = _terms(np.log(params), -np.log(1 - sparsity), self.degrees), []
        for coefficients in (self.coefficients, *self.subsamples):
            losses = terms @ coefficients
            best = int(np.argmin(losses))
            found.append((params[best], sparsity[best], params[best] * (1 - sparsity[best]), losses[best]))
        return np.array(found)


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
        limits=np.array([[n.min(), n.max()], [s.min(), s.max()]]),
        points=(params, sparsity, loss),
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


def plot_surface(found: Surface) -> Any:
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


def _valley(found: Surface) -> list[dict[str, Any]]:
    """The best size at each sparsity, where it lies inside the runs' sizes."""
    (n_low, n_high), (s_low, s_high) = found.limits
    n, rows = np.linspace(n_low, n_high, 401), []
    for s in np.linspace(s_low, s_high, 81):
        losses = found.loss(np.exp(n), np.full_like(n, -np.expm1(-s)))
        at = int(np.argmin(losses))
        if 0 < at < len(n) - 1:
            rows.append({"params_total": float(np.exp(n[at])), "sparsity": float(-np.expm1(-s))})
    return rows
