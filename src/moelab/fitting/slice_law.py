"""The law-shaped curve of a slice: its least squared error at each place of the optimum.

L = E + R (b e^(-a d) + a e^(b d)) / (a + b) with d = u - u* is what a law of two power laws leaves along a slice.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
EXPONENTS = (0.05, 1.0)
"""Exponents of a law-shaped curve along the axis; published laws have 0.06 to 0.72."""
_GRID, _EXPONENT_GRID, _ZOOMS = 49, 9, 4


@dataclass(frozen=True)
class Profile:
    """The law-shaped curve's least squared error at each place of the optimum."""

    at: float
    rss: float
    places: Array
    errors: Array


def profile_of(u: Array, loss: Array) -> Profile:
    """The least squared error of the law-shaped curve at places from half the window below it to half above."""
    reach = float(np.ptp(u))
    low, high = u.min() - 0.5 * reach, u.max() + 0.5 * reach
    places = np.linspace(low, high, 2 * _GRID - 1)
    errors = _least_error(u, loss, places)
    for _ in range(_ZOOMS):
        best = int(np.argmin(errors))
        near = places[max(best - 1, 0)], places[min(best + 1, len(places) - 1)]
        finer = np.linspace(*near, 17)[1:-1]
        places, index = np.unique(np.concatenate([places, finer]), return_index=True)
        errors = np.concatenate([errors, _least_error(u, loss, finer)])[index]
    best = int(np.argmin(errors))
    return Profile(float(places[best]), float(errors[best]), places, errors)


def _least_error(u: Array, loss: Array, places: Array) -> Array:
    """(P,): over exponents a and b, by grids that close in on the best pair of each place."""
    low, high = np.log(EXPONENTS)
    half = np.full((len(places), 2), (high - low) / 2)
    middle = np.full((len(places), 2), (high + low) / 2)
    steps = np.linspace(-1, 1, _EXPONENT_GRID)
    best = np.full(len(places), np.inf)
    for _ in range(7):
        a = np.clip(middle[:, :1] + half[:, :1] * steps, low, high)
        b = np.clip(middle[:, 1:] + half[:, 1:] * steps, low, high)
        errors = _errors(u, loss, places, np.exp(a), np.exp(b)).reshape(len(places), -1)
        index = np.argmin(errors, axis=1)
        rows = np.arange(len(places))
        best = np.minimum(best, errors[rows, index])
        middle = np.stack([a[rows, index // _EXPONENT_GRID], b[rows, index % _EXPONENT_GRID]], axis=1)
        half = half * 0.4
    return best


def _errors(u: Array, loss: Array, places: Array, a: Array, b: Array) -> Array:
    """(P, A, B): the squared error of L0 + R f with 0 <= R <= L0; f >= 0 is the curve of R = 1, its lowest point 0."""
    d = u[None, :] - places[:, None]
    falling = np.exp(-a[:, :, None] * d[:, None, :])[:, :, None, :]
    rising = np.exp(b[:, :, None] * d[:, None, :])[:, None, :, :]
    a, b = a[:, :, None, None], b[:, None, :, None]
    f = (b * falling + a * rising) / (a + b) - 1
    f = f - (mean := f.mean(axis=-1, keepdims=True))
    centred = loss - loss.mean()
    ff, fl = np.einsum("...n,...n->...", f, f), f @ centred
    slope = np.maximum(fl / np.maximum(ff, 1e-300), 0.0)
    # R <= L0 where L0 = mean loss - R mean f: the constant of the law is not negative.
    slope = np.minimum(slope, loss.mean() / (1 + mean[..., 0]))
    return np.asarray(centred @ centred - 2 * slope * fl + slope**2 * ff)
