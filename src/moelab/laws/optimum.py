"""A law's own compute-optimal point, in its own convention of N and C: `moelab laws NAME --optimum --flops F`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.law import COUNTS, RATES, SHARES, Array, Law, Values
from moelab.notebook import Shown
from moelab.quantities import MOST_FLOPS, check_at_most, format_bytes, format_number

SMALLEST, LARGEST, GRID, ZOOMS = 1e4, 1e15, 161, 12


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
) -> Optimum:
    """Minimise the loss (maximise the leverage) over size and the law's discrete choices at a fixed compute.

    `settings` pins a choice or a variable such as `unique_tokens`; `max_memory` bounds `memory_bytes` where the law has
    it. Raises InputError for unknown settings and for laws without coefficients or without a convention of compute.
    """
    if law.at_compute is None:
        raise InputError(f"{law.id}: states no compute convention to optimise under")
    check_at_most(flops, MOST_FLOPS, "flops")
    pinned = _pinned(law, settings or {})
    choices = {name: np.array([pinned.pop(name)]) if name in pinned else np.array(values)
               for name, values in law.choices.items()}  # fmt: skip
    grid = np.meshgrid(*choices.values(), indexing="ij") if choices else []
    columns = {name: axis.reshape(-1, 1) for name, axis in zip(choices, grid, strict=True)} | pinned
    count = max(1, int(np.prod([len(values) for values in choices.values()])))
    low, high = np.full((count, 1), np.log(SMALLEST)), np.full((count, 1), np.log(LARGEST))
    steps = np.linspace(0, 1, GRID)[None, :]
    for _ in range(ZOOMS):
        params = low + (high - low) * steps
        score = _score(law, np.exp(params), flops, columns, coefficients, max_memory)
        best = np.argmin(score, axis=1)
        width = (high - low) / (GRID - 1)
        centre = np.take_along_axis(params, best[:, None], axis=1)
        low, high = np.maximum(centre - 2 * width, low), np.minimum(centre + 2 * width, high)
    score = _score(law, np.exp(centre), flops, columns, coefficients, max_memory)[:, 0]
    winner = int(np.argmin(score))
    if not np.isfinite(score[winner]):
        limit = (
            "" if max_memory is None else f": max_memory is {format_bytes(max_memory)} (a unit may be missing: 80GB)"
        )
        raise InputError(f"{law.id}: no size fits these limits{limit}")
    values = _at(law, np.exp(centre), flops, columns)
    chosen = {name: float(np.broadcast_to(value, (count, 1))[winner, 0]) for name, value in values.items()}
    variables = {name: np.array([value]) for name, value in chosen.items()}
    distance = float(law.extrapolation(variables)[0])
    return Optimum(
        values={**{k: float(v[winner, 0]) for k, v in columns.items() if np.ndim(v)}, **chosen},
        loss=float(law.loss(coefficients, variables)[0]),
        decided_by=(
            *_size_bounds(float(centre[winner, 0]), chosen),
            *_bounds(law, choices, columns, winner, chosen, max_memory),
        ),
        extrapolation=None if np.isnan(distance) else distance,
    )


def _score(
    law: Law, params: Array, flops: float, columns: Values, coefficients: Values | None, max_memory: float | None
) -> Array:
    values = _at(law, params, flops, columns)
    with np.errstate(all="ignore"):
        loss = law.loss(coefficients, values)
    loss = np.broadcast_to(-loss if law.kind == "leverage" else loss, params.shape)
    usable = np.isfinite(loss) & np.broadcast_to(values.get("tokens", 1.0) > 0, params.shape)
    if max_memory is not None:
        if "memory_bytes" not in values:
            raise InputError(f"max_memory: {law.id} has no variable for memory")
        usable &= np.broadcast_to(values["memory_bytes"] <= max_memory, params.shape)
    return np.where(usable, loss, np.inf)


def _at(law: Law, params: Array, flops: float, columns: Values) -> dict[str, Array]:
    assert law.at_compute is not None
    return law.at_compute(params, flops, columns)


def _pinned(law: Law, settings: Mapping[str, float]) -> dict[str, Any]:
    known = {*law.choices, *law.settings}
    for name, value in settings.items():
        if name not in known:
            raise InputError(f"set: {law.id} takes {', '.join(sorted(known)) or 'no settings'}, not {name!r}")
        if name == "expansion" and value not in law.choices[name]:
            allowed = ", ".join(f"{choice:g}" for choice in law.choices[name])
            raise InputError(f"set: {law.id} holds for expansion {allowed} only, got {value:g}")
        allowed_zero = name in SHARES or name == "tokens_served"
        if not 0 <= value < np.inf or (value == 0 and not allowed_zero) or (name in SHARES and value >= 1):
            raise InputError(f"set: {name} is out of range, got {value:g}")
        if name in COUNTS and value < 1:
            raise InputError(f"set: {name} must be at least 1, got {value:g}")
        if name in RATES and value > 1:
            raise InputError(f"set: {name} must be at most 1, got {value:g}")
    return dict(settings)


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
    """The choices at an end of their range, beyond which the law's optimum may lie."""
    found = []
    for name, values in choices.items():
        value = columns[name][winner, 0]
        if len(values) > 1 and value in (values.min(), values.max()):
            side = "largest" if value == values.max() else "smallest"
            found.append(f"{name} at the {side} considered ({format_number(float(value))})")
    if max_memory is not None and chosen["memory_bytes"] > 0.99 * max_memory:
        found.append(f"memory at its limit ({format_bytes(max_memory)})")
    return tuple(found)
