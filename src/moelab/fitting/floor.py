"""What a law's floor decides: predictions, and which of several designs is best, across the floor's posterior.

Runs of one range of sizes hardly identify the irreducible loss, and it decides how much a larger model gains. Where a
fit has draws, they are parted by their floor. Where there are none, the floor is swept and the reducible loss scaled so
that the prediction at the centre of the fitted range stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.checks import FEWEST_DRAWS
from moelab.fitting.fitted import FittedLaw
from moelab.laws import Law

Array = NDArray[Any]
FLOOR = "E_0"
PARTS = 5
DRIFTS = 200
"""Errors beyond the fitted runs for each draw of a floor's part."""
SWEEP = (0.8, 0.9, 1.0, 1.1, 1.2)
"""Factors on the floor where there is no posterior."""


@dataclass(frozen=True, kw_only=True)
class FloorPart:
    """One part of the floor's posterior (or one step of a sweep): the floor, the mean loss of each design, and the
    share of its draws in which each has the lowest loss. `at` is where it lies: p10 to p90 for fifths of the
    posterior, 0.8x to 1.2x for a sweep."""

    at: str
    floor: float
    losses: tuple[float, ...]
    lowest: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: an entry of `moelab predict --json`."""
        return {"at": self.at, "floor": self.floor, "losses": list(self.losses), "lowest": list(self.lowest)}


def across_floor(source: FittedLaw | Law, designs: Mapping[str, Any], parts: int = PARTS) -> list[FloorPart]:
    """The parts from the lowest floor to the highest, for designs given by the law's variables, each (n,).

    Empty for a law without a floor, for a fit that holds it, and where neither draws nor a range are known.
    """
    law = source.law if isinstance(source, FittedLaw) else source
    if FLOOR not in law.coefficients or law.kind != "loss":
        return []
    numbers = {name: np.atleast_1d(np.asarray(values, float)) for name, values in designs.items()}
    if isinstance(source, FittedLaw) and len(source.draws) >= FEWEST_DRAWS:
        return _posterior(source, numbers, parts)
    return _sweep(source, law, numbers)


def _posterior(fitted: FittedLaw, designs: Mapping[str, Array], parts: int) -> list[FloorPart]:
    """Losses by the draws alone: the drift beyond the runs is drawn apart from the floor and would hide what it
    decides. Which design is lowest is counted with the drift, as often drawn for each of the draws."""
    errors = fitted.widening.log_errors(DRIFTS, designs)
    fitted = replace(fitted, widening=replace(fitted.widening, drift=0.0))
    floors = fitted.draws[:, fitted.law.coefficients.index(FLOOR)]
    losses = fitted.draw_losses(designs)
    usable = np.isfinite(losses).all(axis=1) & np.isfinite(floors)
    if np.ptp(floors[usable]) == 0:
        return []
    order = np.flatnonzero(usable)[np.argsort(floors[usable], kind="stable")]
    split = [(f"p{100 * (k + 0.5) / parts:.0f}", rows) for k, rows in enumerate(np.array_split(order, parts))]
    return [_part(at, float(np.median(floors[rows])), losses[rows], errors) for at, rows in split if len(rows)]


def _part(at: str, floor: float, losses: Array, errors: Array | None = None) -> FloorPart:
    erring = losses if errors is None else (losses[:, None] * np.exp(errors)).reshape(-1, losses.shape[1])
    first = np.bincount(np.argmin(erring, axis=1), minlength=losses.shape[1]) / len(erring)
    return FloorPart(at=at, floor=floor, losses=tuple(losses.mean(axis=0).tolist()), lowest=tuple(first.tolist()))


def _sweep(source: FittedLaw | Law, law: Law, designs: Mapping[str, Array]) -> list[FloorPart]:
    coefficients = dict(source.coefficients) if isinstance(source, FittedLaw) else law.published
    ranges = source.ranges if isinstance(source, FittedLaw) else law.ranges
    known = {name: ranges.get(name) for name in law.variables}
    if coefficients is None or not all(known.values()):
        return []
    centre = {name: _middle(*ends) for name, ends in known.items() if ends is not None}
    floor = float(coefficients[FLOOR])
    middle = float(law.loss(coefficients, {name: np.array([value]) for name, value in centre.items()})[0])
    predicted = np.asarray(law.loss(coefficients, designs), float)
    found = []
    for factor in SWEEP:
        if factor * floor < middle:
            scale = (middle - factor * floor) / (middle - floor)
            losses = factor * floor + scale * np.atleast_2d(predicted - floor)
            found.append(_part(f"{factor:g}x", factor * floor, losses))
    return found


def _middle(low: float, high: float) -> float:
    return float(np.sqrt(low * high)) if low > 0 else 0.5 * (low + high)
