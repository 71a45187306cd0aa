"""Where a slice's loss is lowest, by curves of several kinds and windows, so that no one of them decides alone.

A parabola in log size is biased for windows wider than about x3 (arXiv 2603.22339). Beside parabola, cubic and quartic
stands a law-shaped curve, L = E + R (b e^(-a d) + a e^(b d)) / (a + b) with d = u - u*, which is what a law of two
power laws leaves along a slice: u* is a parameter of its own; its interval is the profile of the squared error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.slice_law import Profile, profile_of

Array = NDArray[Any]
OnAxis = Callable[[Array], Array]
LEVEL = 0.8
DEGREES = (2, 3, 4)
NAMES = {2: "parabola", 3: "cubic", 4: "quartic"}
WINDOWS = (16.0, 8.0, 4.0, 3.0, 2.0)
"""Half-widths of windows around the lowest loss, as factors of the axis."""
REJECTED = 0.02
"""A curve is rejected where noise alone would miss by so much more than the best curve with this probability."""
FEWEST_REPEATS = 2
"""Degrees of freedom of repeats from which they are held against the curves."""
UNBOUND = 0.25
"""Squared errors of the noise by which the farthest place searched must be worse to bound the optimum."""


@dataclass(frozen=True)
class Curve:
    """One curve's optimum `at` on the axis u with its 80 % ends (infinite: beyond the runs), the share of its draws
    that have no optimum, whether it was `rejected`, and its rows."""

    name: str
    window: str
    n_points: int
    at: float
    low: float
    high: float
    lost: float
    rejected: bool


@dataclass(frozen=True)
class Located:
    """The optimum on the axis u, its ends (infinite: open), the noise (standard deviation) and every curve tried.

    `repeats` are the degrees of freedom of runs at one place of the axis; `misfit` is the factor by which every curve
    misses more than those differ, where that is no chance.
    """

    at: float
    low: float
    high: float
    noise: float
    spare: int
    curves: tuple[Curve, ...]
    repeats: int = 0
    misfit: float | None = None


def locate(u: Array, loss: Array, draws: int, seed: int, linear: Array | None, to: OnAxis) -> Located:
    """The optimum of loss (n,) along u (n,), u in logarithms; `linear` is the axis itself, for curves in it, too (None:
    for none), and `to` gives its places on u."""
    rng = np.random.default_rng(seed)
    profile = profile_of(u, loss)
    whole = np.ones(len(u), bool)
    noise = _noise(u, loss, profile.rss)
    known = noise2, spare = noise.variance, noise.spare
    law = _law_curve(u, profile, noise2, spare)
    centre = float(np.clip(law.at, u.min(), u.max()))
    windows = [("all", whole), *_windows(u, centre)]
    axes = [("", u, None)] if linear is None else [("", u, None), (" in the axis itself", linear, to)]
    curves, accepted, narrow = [law], [], []
    for suffix, z, on_u in axes:
        for degree in DEGREES:
            tried = [_polynomial(z, loss, rows, degree, at, suffix, known, draws, rng, on_u) for at, rows in windows]
            fits = [curve for curve in tried if curve is not None]
            curves += fits
            kept = [curve for curve in fits if not curve.rejected and curve.lost < 0.1]
            accepted += kept[:1]
            narrow += [fits[-1]] if fits and not suffix else []
    low, high = law.low, law.high
    for curve in accepted:
        low, high = min(low, curve.low), max(high, curve.high)
    off = [curve.at - law.at for curve in narrow if np.isfinite(curve.at) and _significant(curve, law)]
    if off and np.isfinite(law.at):
        reach = max(abs(value) for value in off)
        low, high = (
            min(low, law.at + min(off), law.at - 0.5 * reach),
            max(high, law.at + max(off), law.at + 0.5 * reach),
        )
    return Located(law.at, low, high, float(np.sqrt(noise2)), spare, tuple(curves), noise.repeats, noise.misfit)


def _significant(curve: Curve, law: Curve) -> bool:
    """Whether a curve over the narrowest window differs from the law-shaped one by more than its noise."""
    half = max(curve.high - curve.at, curve.at - curve.low)
    return bool(np.isfinite(half) and abs(curve.at - law.at) > half)


@dataclass(frozen=True)
class _Noise:
    """The variance of the runs, its degrees of freedom, those of repeats among them, and the curves' misfit."""

    variance: float
    spare: int
    repeats: int
    misfit: float | None


def _noise(u: Array, loss: Array, law_rss: float) -> _Noise:
    """The variance of the runs about the best of the flexible curves, which includes how repeats differ.

    Where that curve misses by more than repeats of one place do (an F test), the repeats alone give the variance.
    """
    from scipy.special import fdtrc

    found = []
    if len(u) > 5:
        found.append((law_rss / (len(u) - 5), len(u) - 5))
    for degree in DEGREES:
        spare = len(u) - degree - 1
        if spare >= 1 and len(np.unique(u)) > degree + 1:
            found.append((_least_squares(_basis(u, u, degree), loss)[1] / spare, spare))
    variance, spare = min(found)
    within, repeats = _pure(u, loss)
    misfit = None
    if repeats >= FEWEST_REPEATS and within > 0:
        free = max(spare - repeats, 1)  # a law-shaped curve cannot pass through any five places
        ratio = max(variance * spare - within, 0.0) / free / (within / repeats)
        if fdtrc(free, repeats, ratio) < REJECTED:
            variance, spare, misfit = within / repeats, repeats, float(np.sqrt(ratio))
    floor = (1e-13 * float(np.abs(loss).max())) ** 2
    return _Noise(max(variance, floor), spare, repeats, misfit)


def _pure(u: Array, loss: Array) -> tuple[float, int]:
    """The squared error of runs about the mean of those at the same place of the axis, and its degrees of freedom."""
    index = np.unique(u, return_inverse=True)[1]
    counts = np.bincount(index)
    mean = np.bincount(index, loss) / counts
    return float(np.sum((loss - mean[index]) ** 2)), int(np.sum(counts - 1))


def _windows(u: Array, centre: float) -> list[tuple[str, Array]]:
    """Rows within each factor of the centre, narrower and narrower, those that leave out some of the rows before."""
    found, before = [], len(u)
    for factor in WINDOWS:
        rows = np.abs(u - centre) <= np.log(factor) + 1e-9
        if len(np.unique(u[rows])) >= 4 and rows.sum() < before:
            found.append((f"x{factor:g}", rows))
            before = int(rows.sum())
    return found


def _basis(z: Array, reference: Array, degree: int) -> Array:
    return np.vander((z - reference.mean()) / reference.std(), degree + 1, increasing=True)


def _least_squares(basis: Array, loss: Array) -> tuple[Array, float]:
    coefficients = np.linalg.lstsq(basis, loss, rcond=None)[0]
    rest = loss - basis @ coefficients
    return coefficients, float(rest @ rest)


def _polynomial(
    z: Array,
    loss: Array,
    rows: Array,
    degree: int,
    window: str,
    suffix: str,
    noise: tuple[float, int],
    draws: int,
    rng: np.random.Generator,
    to: OnAxis | None,
) -> Curve | None:
    """A polynomial in z over some rows: its lowest point there, on the axis u, over draws of its coefficients. `to`
    are places of z on u; None: z is u."""
    from scipy.special import fdtrc

    z, loss, (noise2, spare) = z[rows], loss[rows], noise
    if len(np.unique(z)) < degree + 2:
        return None
    basis = _basis(z, z, degree)
    best, rss = _least_squares(basis, loss)
    own = len(z) - degree - 1
    rejected = bool(fdtrc(own, spare, rss / own / noise2) < REJECTED)
    spread = np.sqrt(noise2 * spare / rng.chisquare(spare, draws))
    root = np.linalg.cholesky(np.linalg.inv(basis.T @ basis))
    drawn = best + spread[:, None] * (rng.standard_normal((draws, degree + 1)) @ root.T)
    grid = np.linspace(z.min(), z.max(), 401)
    powers = _basis(grid, z, degree)
    places = _lowest(np.vstack([best[None], drawn]) @ powers.T)
    at = np.interp(places, np.arange(len(grid)), grid)
    if to is not None:
        with np.errstate(divide="ignore"):
            at = to(at)
    at = np.where(places <= 0, -np.inf, np.where(places >= len(grid) - 1, np.inf, at))
    low, high = _ends(at[1:]) if draws else (float(at[0]), float(at[0]))
    lost = float(np.mean(~np.isfinite(at[1:]))) if draws else 0.0
    return Curve(NAMES[degree] + suffix, window, len(z), float(at[0]), low, high, lost, rejected)


def _lowest(values: Array) -> Array:
    """The place of each row's lowest value in steps of the grid, by the parabola through it and its neighbours."""
    index = np.argmin(values, axis=1)
    inner = np.clip(index, 1, values.shape[1] - 2)
    left, middle, right = (np.take_along_axis(values, inner[:, None] + k, axis=1)[:, 0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    with np.errstate(all="ignore"):
        shift = np.clip(np.where(bend > 0, 0.5 * (left - right) / bend, 0.0), -0.5, 0.5)
    return np.where(index == inner, inner + shift, index)


def _ends(values: Array) -> tuple[float, float]:
    """The 10th and 90th percentile of values that may be infinite."""
    ordered = np.sort(values)
    last = len(ordered) - 1
    return float(ordered[int(np.floor(0.1 * last))]), float(ordered[int(np.ceil(0.9 * last))])


def _law_curve(u: Array, profile: Profile, noise2: float, spare: int) -> Curve:
    """The law-shaped curve's optimum with the places whose squared error noise explains (Student's t).

    Where those reach the last place searched on a side, the end is the quantile of the profile likelihood over the
    places; it is open where that last place explains the runs about as well as the best one.
    """
    from scipy.special import stdtrit

    places, excess = profile.places, (profile.errors - profile.rss) / noise2
    density = np.exp(-(spare + 1) / 2 * np.log1p(excess / spare))
    mass = np.concatenate([[0.0], np.cumsum(np.diff(places) * (density[1:] + density[:-1]) / 2)])
    low, high = (float(end) for end in np.interp([(1 - LEVEL) / 2, (1 + LEVEL) / 2], mass / mass[-1], places))
    limit = float(stdtrit(spare, (1 + LEVEL) / 2)) ** 2
    inside = np.flatnonzero(excess <= limit)
    first, last = int(inside[0]), int(inside[-1])
    low = min(low, profile.at) if first == 0 else _crossing(places, excess, first - 1, first, limit)
    high = max(high, profile.at) if last == len(places) - 1 else _crossing(places, excess, last, last + 1, limit)
    low = -np.inf if excess[0] < UNBOUND else low
    high = np.inf if excess[-1] < UNBOUND else high
    return Curve("law", "all", len(u), profile.at, low, high, 0.0, False)


def _crossing(places: Array, excess: Array, a: int, b: int, limit: float) -> float:
    share = (limit - excess[a]) / (excess[b] - excess[a])
    return float(places[a] + np.clip(share, 0, 1) * (places[b] - places[a]))
