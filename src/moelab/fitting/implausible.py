"""What is implausible of a prediction: values in another unit, more active than there are, a loss worse than guessing.

Units and experts are checked as those of a table are, by the same functions.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from moelab.fitting.fitted import FittedLaw
from moelab.fitting.table_mixed import SIZES, swapped_sizes
from moelab.fitting.table_refused import active_above_total
from moelab.fitting.table_units import unit_findings, units_of_fit

VOCABULARY = 65_536
"""Entries of the largest vocabulary assumed for a published law, whose own vocabulary is not the design's."""

MEANINGLESS = 3.0
"""log10 distance outside the fitted range beyond which a prediction has no support from the runs."""


def guessing_loss(vocab_size: int, published: bool = True) -> float:
    """The loss of guessing, ln(vocab_size), in nats; for a published law, whose vocabulary differs, a large one."""
    return float(np.log(max(vocab_size, VOCABULARY) if published else vocab_size))


def meaningless(
    losses: Mapping[str, float], guesses: Mapping[str, float], distances: Mapping[str, float | None], where: str = ""
) -> list[str]:
    """Lines on the laws whose loss is worse than guessing's, and on those a factor of a thousand outside their runs.

    `losses` and `guesses` are in nats, `distances` in log10 outside the fitted range, of laws of other kinds (leverage)
    too; `where` ends the first line.
    """
    worse = [law for law, loss in losses.items() if law in guesses and loss > guesses[law]]
    far = [law for law, distance in distances.items() if law not in worse and (distance or 0.0) > MEANINGLESS]
    lines = []
    if worse:
        lines.append(f"meaningless by {', '.join(worse)}: the loss is worse than guessing, ln(vocab_size){where}")
    if far:
        its = "its" if len(far) == 1 else "their"
        lines.append(f"meaningless by {', '.join(far)}: a factor of {10**MEANINGLESS:,.0f} or more outside {its} runs")
    return lines


def value_notes(values: Mapping[str, float], fits: Sequence[FittedLaw] = ()) -> list[str]:
    """Notes on a design's variables: another unit, size and tokens swapped, more in use than there are.

    No note on units where a fit was itself given another one: its values are in that unit.
    """
    columns = {name: np.array([float(value)]) for name, value in values.items()}
    found = [*active_above_total(columns)]
    if not any(units_of_fit(fitted.law, fitted.ranges, fitted.measured) for fitted in fits):
        units = unit_findings(columns, "loss")
        size = next((name for name in ("params_active", *SIZES) if name in values), None)
        if not units and size is not None and "tokens" in values:
            units = swapped_sizes(columns["tokens"] / columns[size], size)
        found += units
    return [finding.text for finding in found]
