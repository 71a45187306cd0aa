"""Compute-optimal points of many sets of coefficients at once, and the compute of a run in a law's own convention."""

from collections.abc import Mapping

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

COARSE = 41
"""Sizes tried at each zoom."""
SLOPE, NEAR = 0.25, 5.0
"""Decades of compute on either side over which an exponent is taken, and ln size searched around a known optimum."""


def optimum_draws(
    law: Law,
    flops: float,
    settings: Mapping[str, float],
    draws: Values,
    max_memory: float | None = None,
    slopes: bool = True,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """`optimum` for B sets of coefficients at once: name -> (B, 1).

    Returns every variable of the optimum and its loss by name, (B,), and the exponents d ln x / d ln C of the law's
    sizes and tokens, (B,), with each draw's discrete choices held (none without `slopes`). Where a draw has no optimum
    among the sizes, its size is infinite or 0, its other values NaN.
    """
    choices, pinned = considered(law, flops, settings)
    size = len(next(iter(draws.values())))
    columns = {**combined(choices), **pinned}
    centre, score = search(law, flops, columns, draws, max_memory, whole_range(size, count_of(choices)), 3, COARSE)
    winner = np.argmin(score, axis=1)[:, None]
    held = {k: np.take_along_axis(v, winner, axis=1) if len(v) > 1 else v[0][winner] for k, v in columns.items()
            if np.ndim(v)} | pinned  # fmt: skip
    found = {}
    for factor in (1.0, 10**-SLOPE, 10**SLOPE) if slopes else (1.0,):
        start = np.take_along_axis(centre, winner, axis=1)[..., None] + np.log(factor)
        bounds = np.maximum(start - NEAR, np.log(SMALLEST)), np.minimum(start + NEAR, np.log(LARGEST))
        log_size, _ = search(law, flops * factor, held, draws, max_memory, bounds, ZOOMS // 2, COARSE)
        values = {**held, **point_at(law, np.exp(log_size), flops * factor, held)}
        with np.errstate(all="ignore"):
            values["loss"] = np.asarray(law.loss(draws, {name: values[name] for name in law.variables}))
        found[factor] = {name: np.broadcast_to(value, (size, 1))[:, 0] for name, value in values.items()}
        found[factor]["log_size"] = log_size[:, 0]
    middle = found.pop(1.0)
    if not slopes:
        return _open_ended(middle, law), {}
    below, above = found.values()
    scaled = [name for name in law.variables if name.startswith("params_") or name == "tokens"]
    with np.errstate(all="ignore"):
        exponents = {name: np.log(above[name] / below[name]) / (2 * SLOPE * np.log(10)) for name in scaled}
    return _open_ended(middle, law), exponents


def _open_ended(values: dict[str, Array], law: Law) -> dict[str, Array]:
    """Draws that ended at the smallest or largest size have no optimum: 0 or infinite sizes, NaN for the rest."""
    log_size = values.pop("log_size")
    low, high = (np.abs(log_size - np.log(end)) < 1e-6 for end in (SMALLEST, LARGEST))
    searched = any(np.allclose(values[name], np.exp(log_size)) for name in values if name.startswith("params_"))
    if not searched:  # a law that fixes its size by the compute
        return values
    ends = {}
    for name, value in values.items():
        outside = (0.0, np.inf) if name.startswith("params_") else (np.nan, np.nan)
        ends[name] = np.where(low, outside[0], np.where(high, outside[1], value))
    return ends


def law_compute(law: Law, variables: Mapping[str, float]) -> float | None:
    """The compute of one run in the law's own convention, from its variables; None where the law states none."""
    names = [name for name in law.variables if name.startswith("params_")]
    if law.at_compute is None or "tokens" not in variables or not names:
        return None
    try:
        at = law.at_compute(np.array([variables[names[0]]]), 1.0, choices_of(law, variables))
    except (KeyError, InputError):
        return None
    if names[0] not in at or not np.isclose(at[names[0]], variables[names[0]]).all():
        return None
    flops = variables["tokens"] / float(np.broadcast_to(at["tokens"], (1,))[0])
    return flops if np.isfinite(flops) and flops > 0 else None


def choices_of(law: Law, variables: Mapping[str, float]) -> dict[str, float]:
    """A run's choices, as the settings of the law's optimum: under its own names, or as they follow from others."""
    found = {name: values[0] for name, values in law.choices.items() if len(values) == 1}
    found |= {name: variables[name] for name in (*law.choices, *law.settings) if name in variables}
    if "n_experts" in law.choices and "expert_ratio" in variables:
        found["n_experts"] = variables["expert_ratio"]
    if "activation_rate" in law.choices and {"params_active", "params_total"} <= set(variables):
        found["activation_rate"] = variables["params_active"] / variables["params_total"]
    return {name: value for name, value in found.items() if name != "unique_tokens"}
