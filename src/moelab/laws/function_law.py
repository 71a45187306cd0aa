"""A law's formula as a function of Python: its coefficients, its derivatives by the complex step, what is linear."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.forms import Array
from moelab.laws.law import RATES, SHARES, Formula, Values

STEP = 1e-20
"""Of the complex step, which has no cancellation."""


def listed_coefficients(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The coefficients of a function of Python."""
    names = given.get("coefficients")
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise InputError("coefficients: a formula that is a function needs the list of its coefficients")
    return tuple(str(name) for name in names)


def with_gradient(own: Callable[[Values, Values], Any], coefficients: tuple[str, ...]) -> Formula:
    """A function of coefficients and variables with its derivatives: its own where it returns (value, gradient), else
    by the complex step, for which it must hold for complex numbers."""

    def formula(c: Values, v: Values) -> tuple[Array, Any]:
        found = own(c, v)
        if isinstance(found, tuple):
            return found

        def gradient() -> dict[str, Array]:
            return {name: np.imag(own({**c, name: c[name] + 1j * STEP}, v)) / STEP for name in coefficients}

        return np.asarray(found), gradient

    return formula


def linear_in(
    formula: Formula,
    names: list[str],
    coefficients: tuple[str, ...],
    variables: tuple[str, ...],
    starts: Mapping[str, tuple[float, float]],
) -> list[str]:
    """Those of the names in which a function is linear jointly, at a few points, taken greedily from the first."""
    rng = np.random.default_rng(0)
    v = {name: rng.uniform(0.2, 0.8, 16) if name in (*SHARES, *RATES) else rng.uniform(2, 9, 16) for name in variables}
    at = {name: rng.uniform(*starts.get(name, (0.5, 2.0)), (4, 1)) for name in coefficients}
    move = {name: rng.uniform(0.1, 0.4, (4, 1)) for name in names}
    kept: list[str] = []
    for name in names:
        with np.errstate(all="ignore"):
            down, middle, up = (
                formula({**at, **{each: at[each] + side * move[each] for each in (*kept, name)}}, v)[0]
                for side in (-1, 0, 1)
            )
        if np.all(np.abs(up + down - 2 * middle) <= 1e-9 * (np.abs(up) + np.abs(down) + np.abs(middle))):
            kept.append(name)
    return kept
