"""What is fitted: a law's log loss on n runs, for a batch of parameters at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.objective import Objective
from moelab.fitting.parameters import Parameters
from moelab.laws.law import Values

Array = NDArray[Any]
FAILED = 1e300
"""The objective where a law has no finite loss."""


@dataclass(frozen=True, eq=False)
class Problem:
    """n runs to be fitted: the law's variables and the logarithm of what was measured, both (n,)."""

    parameters: Parameters
    variables: Values
    log_loss: Array
    objective: Objective

    def take(self, rows: Any) -> "Problem":
        """The chosen rows, by index or slice."""
        variables = {name: values[rows] for name, values in self.variables.items()}
        return Problem(self.parameters, variables, self.log_loss[rows], self.objective)

    @np.errstate(all="ignore")
    def residuals(self, theta: Array) -> Array:
        """log measured - log predicted, (B, n)."""
        return self.raw_residuals(theta)

    @np.errstate(all="ignore")
    def value(self, theta: Array, weights: Array) -> Array:
        """The objective, (B,)."""
        return self.raw_total(self.raw_residuals(theta), weights)

    @np.errstate(all="ignore")
    def linearise(self, theta: Array) -> tuple[Array, Array]:
        """Residuals (B, n) and d log(predicted) / d theta (B, n, P)."""
        return self.raw_linearise(theta)

    def raw_residuals(self, theta: Array) -> Array:
        """`residuals` without a switch of NumPy's warnings, which takes as long as a sum: the solver's loop ignores
        them as a whole."""
        loss = self.parameters.law.formula(self.parameters.coefficients(theta), self.variables)[0]
        return self.log_loss - np.log(loss)

    def raw_linearise(self, theta: Array) -> tuple[Array, Array]:
        """`linearise` in the same way."""
        coefficients = self.parameters.coefficients(theta)
        loss, gradient = self.parameters.law.formula(coefficients, self.variables)
        loss = np.broadcast_to(loss, (len(theta), len(self.log_loss)))
        return self.log_loss - np.log(loss), self.parameters.jacobian(gradient(), coefficients, loss)

    def raw_total(self, r: Array, weights: Array) -> Array:
        """The objective of residuals (B, n), (B,), in the same way."""
        total = (weights * self.objective.penalty(r)).sum(axis=-1)
        if np.isfinite(total).all():
            return total
        finite = np.isfinite(r)
        total = (weights * self.objective.penalty(np.where(finite, r, 0.0))).sum(axis=-1)
        return np.where(finite.all(axis=-1), total, FAILED)
