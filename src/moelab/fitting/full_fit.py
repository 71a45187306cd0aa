"""A law in size and tokens fitted to the runs of all budgets at once: what isoFLOP parabolas are held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.columns import variable
from moelab.fitting.fit import fit_table
from moelab.laws import get_law

Array = NDArray[Any]


@dataclass(frozen=True)
class FullFit:
    """A law in size and tokens fitted to all budgets at once, and its optimum ln N* = constant + exponent ln C."""

    law: str
    constant: float
    exponent: float

    def at(self, flops: float) -> float:
        """The optimum at a compute."""
        return float(np.exp(self.constant + self.exponent * np.log(flops)))


def full_fit(columns: Mapping[str, Array], x: str, loss: str = "loss", seed: int = 0) -> FullFit | None:
    """Chinchilla's form with the axis as its size, fitted to all runs, C = k N D with the runs' own k; None for an axis
    that is no size, or where it cannot be fitted."""
    size, tokens, losses = (variable(columns, name) for name in (x, "tokens", loss))
    if not x.startswith("params_") or size is None or tokens is None or losses is None:
        return None
    flops = variable(columns, "train_flops")
    k = 6.0 if flops is None else float(np.exp(np.mean(np.log(flops / (size * tokens)))))
    usable = np.isfinite(losses)
    table = {"params_total": size[usable], "tokens": tokens[usable], "loss": losses[usable]}
    try:
        fitted = fit_table(table, get_law("hoffmann2022"), bootstrap=0, seed=seed, group="none")
    except InputError:
        return None
    c = fitted.coefficients
    both = c["alpha"] + c["beta"]
    if not min(c["alpha"], c["beta"]) > 1e-3:
        return None
    # d/dN of A N^-alpha + B (C / (k N))^-beta is 0 at N^(alpha + beta) = alpha A / (beta B) (C / k)^beta.
    constant = (np.log(c["alpha"] * c["A"] / (c["beta"] * c["B"])) - c["beta"] * np.log(k)) / both
    return FullFit(fitted.law.id, float(constant), c["beta"] / both)
