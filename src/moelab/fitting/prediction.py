"""What a fit predicts, each with its interval, and how well it predicted runs that it did not see."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from moelab.fitting.coefficients import LEVEL
from moelab.notebook import Shown, html_table, interval_text, short_repr
from moelab.quantities import format_outside

Array = NDArray[Any]
MISSED, CHANCE = 0.1, 0.01
"""Mean error of held-out losses, and probability of so few of them inside intervals that are right, that a fit fails
by."""
MOST_ROWS = 20
"""Designs that a notebook shows of many."""


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """One number per design. `low` and `high` are the 10th and 90th percentile (NaN without bootstrap draws);
    `extrapolation` is the largest log10 distance outside the fitted range."""

    value: Array
    low: Array
    high: Array
    extrapolation: Array

    def __repr__(self) -> str:
        shown = [interval_text(*ends) for ends in self._ends(3)]
        return short_repr(self, designs=len(self.value), value="; ".join(shown) + ("; ..." * (len(self.value) > 3)))

    def _repr_html_(self) -> str:
        rows = [
            (*ends, format_outside(far))
            for ends, far in zip(self._ends(), self.extrapolation[:MOST_ROWS].tolist(), strict=True)
        ]
        more = f"{len(self.value):,} designs; the first {MOST_ROWS} are shown" if len(self.value) > MOST_ROWS else ""
        return html_table(["value", "p10", "p90", "outside the fitted range"], rows, note=more)

    def _ends(self, most: int = MOST_ROWS) -> list[tuple[float, float, float]]:
        arrays = (self.value, self.low, self.high)
        return list(zip(*(array[:most].tolist() for array in arrays), strict=True))


@dataclass(frozen=True, kw_only=True, repr=False)
class Holdout(Shown):
    """How well runs that the fit did not see were predicted. `rows` has one entry per held-out run."""

    n_runs: int
    mean_abs_rel: float
    bias_rel: float
    coverage_80: float | None
    max_extrapolation: float | None
    by: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def failure(self, kind: str = "loss") -> str:
        """What was held out where it was predicted badly: losses a tenth off on average, or fewer runs inside their
        80 % intervals than chance leaves there; empty otherwise. `kind` is what was predicted."""
        from scipy.special import bdtr

        known = [row for row in self.rows if row.get("low") is not None]
        inside = sum(row["low"] <= row["measured"] <= row["high"] for row in known)
        few = bool(known) and bdtr(inside, len(known), LEVEL) < CHANCE
        if not few and (kind != "loss" or self.mean_abs_rel < MISSED):
            return ""
        held = f"; {inside or 'none'} of {len(known)} inside their 80 % intervals" if known else ""
        return f"its hold-out ({self.by}) was missed by {self.mean_abs_rel:.1%} on average{held}"
