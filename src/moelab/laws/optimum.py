"""A law's own compute-optimal point, in its own convention of N and C: `moelab laws NAME --optimum --flops F`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moelab.errors import InputError
from moelab.laws.law import Array, Law, Values
from moelab.laws.optimum_search import (
    LARGEST,
    SMALLEST,
    ZOOMS,
    combined,
    considered,
    count_of,
    point_at,
    search,
    whole_range,
)
from moelab.notebook import Shown
from moelab.quantities import format_bytes, format_number


@dataclass(frozen=True, repr=False)
class Optimum(Shown):
    """The best point at a compute: every variable by name, the loss (or leverage), and the bounds that decided it."""

    values: dict[str, float]
    loss: float
    decided_by: tuple[str, ...]
    extrapolation: float | None


def optimum(
    law: Law,
    flops: float,
    settings: Mapping[str, float] | None = None,
    coefficients: Values | None = None,
    max_memory: float | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Optimum:
    """Minimise the loss (maximise the leverage) over size and the law's discrete choices at a fixed compute.

    `settings` pins a choice or a variable such as `unique_tokens`; `max_memory` bounds `memory_bytes` where the law has
    it; `ranges` are those of a fit of one's own. Raises InputError for unknown settings and for laws without
    coefficients or without a convention of compute.
    """
    choices, pinned = considered(law, flops, settings or {})
    columns = {**combined(choices), **pinned}
    count = count_of(choices)
    centre, score = search(law, flops, columns, coefficients, max_memory, whole_range(1, count), ZOOMS)
    winner = int(np.argmin(score[0]))
    if not np.isfinite(score[0, winner]):
        limit = (
            "" if max_memory is None else f": max_memory is {format_bytes(max_memory)} (a unit may be missing: 80GB)"
        )
        raise InputError(f"{law.id}: no size fits these limits{limit}")
    values = point_at(law, np.exp(centre), flops, columns)
    chosen = {name: float(np.broadcast_to(value, (1, count))[0, winner]) for name, value in values.items()}
    variables = {name: np.array([value]) for name, value in chosen.items()}
    distance = float(law.extrapolation(variables, ranges)[0])
    return Optimum(
        values={**{k: float(v[0, winner]) for k, v in columns.items() if np.ndim(v)}, **chosen},
        loss=float(law.loss(coefficients, variables)[0]),
        decided_by=(
            *_size_bounds(float(centre[0, winner]), chosen),
            *_bounds(law, choices, columns, winner, chosen, max_memory),
        ),
        extrapolation=None if np.isnan(distance) else distance,
    )


def _size_bounds(log_size: float, chosen: Values) -> tuple[str, ...]:
    """The end of the sizes considered, where the optimum ended there. Laws that fix N by the compute search none."""
    for side, size in (("smallest", SMALLEST), ("largest", LARGEST)):
        ended = [name for name, value in chosen.items() if name.startswith("params_") and np.isclose(value, size)]
        if ended and abs(log_size - np.log(size)) < 1e-6:
            return (f"{ended[0]} at the {side} considered ({format_number(size)})",)
    return ()


def _bounds(
    law: Law, choices: Mapping[str, Array], columns: Values, winner: int, chosen: Values, max_memory: float | None
) -> tuple[str, ...]:
    """The choices at an end of their range, beyond which the law's optimum may lie; a dense one has no granularity."""
    found = []
    for name, values in choices.items():
        value, unread = columns[name][0, winner], name == "granularity" and chosen.get("expert_ratio") == 1
        if not unread and len(values) > 1 and value in (values.min(), values.max()):
            side = "largest" if value == values.max() else "smallest"
            found.append(f"{name} at the {side} considered ({format_number(float(value))})")
    if max_memory is not None and chosen["memory_bytes"] > 0.99 * max_memory:
        found.append(f"memory at its limit ({format_bytes(max_memory)})")
    return tuple(found)
