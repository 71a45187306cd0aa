"""The parabola of a slice: how well it explains the losses, and draws of its lowest point."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
POOR = 0.8
"""R^2 below which a note reports that the parabola misses the points."""


def straight(z: Array, loss: Array, c2: float) -> bool:
    """Whether a parabola's curvature lies within twice its standard error, or within rounding, of zero."""
    basis = np.stack([z**2, z, np.ones_like(z)], axis=1)
    rest = loss - basis @ np.linalg.lstsq(basis, loss, rcond=None)[0]
    error = np.sqrt(np.sum(rest**2) / (len(z) - 3) * np.linalg.inv(basis.T @ basis)[0, 0])
    return bool(abs(c2) <= max(2 * error, 1e-9 * np.abs(loss).max()))


def slope_errors(z: Array, loss: Array) -> float:
    """The slope of a straight line through the points in units of its standard error."""
    line = np.polyfit(z, loss, 1)
    error = np.sqrt(np.sum((loss - np.polyval(line, z)) ** 2) / (len(z) - 2) / np.sum((z - z.mean()) ** 2))
    return float(abs(line[0]) / max(error, 1e-300))


def explained(u: Array, loss: Array) -> float:
    """R^2 of the parabola in u."""
    z = (u - u.mean()) / u.std()
    rest = loss - np.polyval(np.polyfit(z, loss, 2), z)
    return float(1 - np.sum(rest**2) / np.sum((loss - loss.mean()) ** 2))


def doubts(name: str, x: Array, loss: Array, log: bool) -> list[str]:
    """Where the parabola misses the points, or one on the other axis leaves less than a quarter of its rest."""
    here = explained(np.log(x) if log else x, loss)
    found = []
    if here < POOR:
        found.append(f"the parabola explains only {here:.0%} of the losses' variance")
    if np.all(x > 0):
        other = explained(x if log else np.log(x), loss)
        if 1 - here > max(4 * (1 - other), 1e-9):
            axis, advice = (name, "add --linear") if log else (f"ln {name}", "add --log")
            found.append(f"a parabola in {axis} fits better, R^2 {other:.4g} against {here:.4g}: {advice}")
    return found


def draw_parabolas(z: Array, loss: Array, count: int, seed: int) -> tuple[Array, Array, int]:
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
