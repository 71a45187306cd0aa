"""Laws fitted side by side: their scores, the ensemble they form, and where they differ."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.blanks import filled
from moelab.fitting.budget_groups import ONE_COMPUTE
from moelab.fitting.columns import columns_of
from moelab.fitting.disagreement import Disagreement, predictions_by_law
from moelab.fitting.findings import Finding
from moelab.fitting.fitted import FittedLaw, plot_fits, plot_holdout
from moelab.notebook import Shown, html_table, short_repr

Array = NDArray[Any]
SCORES = ("law", "in-sample error", "held-out error", "bias", "coverage of 80 %", "held-out / fitted compute", "weight")
"""Columns of a comparison's `rows`."""


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """`fits` in the order of their rank; `weights` sum to 1; `skipped` gives the reason for each law left out.
    `findings` are those of `check_table`; `differ_most` are the designs at which the laws differ most.

    Where some laws have a held-out error, a law without one (too few rows to hold any out) comes last with weight 0.
    Its in-sample error cannot be compared with theirs: more coefficients always lower it.
    """

    fits: dict[str, FittedLaw]
    weights: dict[str, float]
    skipped: dict[str, str]
    findings: tuple[Finding, ...] = ()
    differ_most: tuple[Disagreement, ...] = ()

    def predict(self, **values: Any) -> Array:
        """The ensemble: the weighted mean of the laws' predicted logarithms."""
        logs = [w * np.log(self.fits[name].predict(**values).value) for name, w in self.weights.items() if w]
        return np.exp(np.sum(logs, axis=0))

    def plot(self) -> Any:
        """Predicted against measured loss, a panel per law, held-out runs marked, as an Altair chart."""
        return plot_fits(list(self.fits.values()))

    def plot_holdout(self) -> Any:
        """Error of each held-out run by how far beyond the fitted ones it lies, a colour per law."""
        return plot_holdout(list(self.fits.values()))

    def rows(self) -> list[tuple[str, ...]]:
        """Per law, as text and by rank: the columns of `SCORES`, errors relative to the measured loss."""
        return [(name, *_score(fitted), f"{self.weights[name]:.2f}") for name, fitted in self.fits.items()]

    def reach_note(self) -> str | None:
        """A line where the held-out runs lie at the compute of the fitted ones; None where they reach beyond it."""
        held = [fitted.holdout.max_extrapolation for fitted in self.fits.values() if fitted.holdout is not None]
        reach = [factor for factor in held if factor is not None]
        if not reach or max(reach) > ONE_COMPUTE:
            return None
        return (
            f"the held-out runs have {max(reach):.2g} times the compute of the largest fitted one: their error tests "
            "no extrapolation; hold out the largest budget with --holdout-where"
        )

    def __repr__(self) -> str:
        weights = {name: f"{weight:.2f}" for name, weight in self.weights.items()}
        return short_repr(self, weights=", ".join(f"{n} {w}" for n, w in weights.items()), skipped=len(self.skipped))

    def _repr_html_(self) -> str:
        left_out = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
        lines = [self.reach_note() or "", f"left out: {left_out}" if left_out else ""]
        return html_table(SCORES, self.rows(), note="; ".join(line for line in lines if line))

    def disagreement(self, table: Any) -> list[dict[str, Any]]:
        """Per row of a table: every law's prediction and the spread between the highest and the lowest."""
        columns = predictions_by_law(self.fits, filled(columns_of(table))[0])
        spread = np.ptp(np.stack(list(columns.values())), axis=0)
        return [
            {**{name: float(values[i]) for name, values in columns.items()}, "spread": float(spread[i])}
            for i in range(len(spread))
        ]


def _score(fitted: FittedLaw) -> tuple[str, ...]:
    held, seen = fitted.holdout, f"{fitted.in_sample['mean_abs_rel']:.2%}"
    if held is None:
        return (seen, "-", "-", "-", "-")
    coverage = "-" if held.coverage_80 is None else f"{held.coverage_80:.0%}"
    reach = "-" if held.max_extrapolation is None else f"{held.max_extrapolation:.2g}x"
    return (seen, f"{held.mean_abs_rel:.2%}", f"{held.bias_rel:+.2%}", coverage, reach)
