"""What predictions, plans and optima repeat of a fit that they use: the units that it was given, runs that its law does
not describe, and a hold-out that failed."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from moelab.fitting.prediction import Holdout
from moelab.fitting.run_kinds import undescribed
from moelab.fitting.table_units import units_of_fit
from moelab.laws import Law


def unit_notes(law: Law, ranges: Mapping[str, tuple[float, float]], measured: NDArray[Any]) -> list[str]:
    """Lines on what looks like another unit in a fit with these ranges and measured values (n,)."""
    return [f"the fit was given another unit: {finding.text}" for finding in units_of_fit(law, ranges, measured)]


def carried_notes(name: str, law: Law, kinds: Sequence[str], holdout: Holdout | None) -> list[str]:
    """Lines on a fit called `name`, to runs of these kinds (dense, moe), with its hold-out."""
    failure = "" if holdout is None else holdout.failure(law.kind)
    return [f"the fit of {name}: {text}" for text in (undescribed(law, kinds), failure) if text]
