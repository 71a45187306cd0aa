"""The search for a law's compute-optimal point: over its discrete choices and, by zooming, over sizes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.law import COUNTS, RATES, SHARES, Array, Law, Values
from moelab.quantities import MOST_FLOPS, check_at_most

SMALLEST, LARGEST, GRID, ZOOMS = 1e4, 1e15, 161, 12


def considered(law: Law, flops: float, settings: Mapping[str, float]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The discrete choices with the values considered, and what is pinned. Raises InputError as `optimum` does."""
    if law.at_compute is None:
        raise InputError(f"{law.id}: states no compute convention to optimise under")
    check_at_most(flops, MOST_FLOPS, "flops")
    pinned = _pinned(law, settings)
    choices = {name: np.array([pinned.pop(name)]) if name in pinned else np.array(values)
               for name, values in choices_given(law, settings).items()}  # fmt: skip
    return choices, pinned


def choices_given(law: Law, settings: Mapping[str, float]) -> Mapping[str, tuple[float, ...]]:
    """The law's choices; without `expert_ratio` where a law with granularity is given `n_experts`, from which the ratio
    follows. Raises InputError for settings out of range, where both are given, and for fewer experts than in use."""
    _pinned(law, settings)
    if "n_experts" not in settings or "expert_ratio" not in law.choices:
        return law.choices
    if "expert_ratio" in settings:
        raise InputError("set: expert_ratio follows from n_experts and granularity; give n_experts or expert_ratio")
    experts = settings["n_experts"]
    in_use = round(settings.get("granularity", 1.0) * (1 - settings.get("shared_share", 0.0)), 9)
    if experts < in_use:
        raise InputError(f"set: n_experts is {experts:g}, fewer than the {in_use:g} in use at this granularity")
    return {name: values for name, values in law.choices.items() if name != "expert_ratio"}


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


def combined(choices: Mapping[str, Array]) -> dict[str, Array]:
    """Every combination of the choices, (1, count) by name."""
    grid = np.meshgrid(*choices.values(), indexing="ij") if choices else []
    return {name: axis.reshape(1, -1) for name, axis in zip(choices, grid, strict=True)}


def count_of(choices: Mapping[str, Array]) -> int:
    return max(1, int(np.prod([len(values) for values in choices.values()])))


def whole_range(draws: int, count: int) -> tuple[Array, Array]:
    """The whole range of ln size, (draws, count, 1) each end."""
    return np.full((draws, count, 1), np.log(SMALLEST)), np.full((draws, count, 1), np.log(LARGEST))


def search(
    law: Law,
    flops: float,
    columns: Values,
    coefficients: Values | None,
    max_memory: float | None,
    bounds: tuple[Array, Array],
    zooms: int,
    points: int = GRID,
) -> tuple[Array, Array]:
    """ln size of the best point within bounds (B, count, 1), and its score, both (B, count)."""
    low, high = bounds
    steps = np.linspace(0, 1, points)
    for _ in range(zooms):
        sizes = low + (high - low) * steps
        best = np.argmin(score_of(law, sizes, flops, columns, coefficients, max_memory), axis=2)
        width = (high - low) / (points - 1)
        centre = np.take_along_axis(sizes, best[..., None], axis=2)
        low, high = np.maximum(centre - 2 * width, low), np.minimum(centre + 2 * width, high)
    return centre[..., 0], score_of(law, centre, flops, columns, coefficients, max_memory)[..., 0]


def score_of(
    law: Law, sizes: Array, flops: float, columns: Values, coefficients: Values | None, max_memory: float | None
) -> Array:
    """What is minimised at ln sizes (B, count, n), in columns of (1 or B, count)."""
    shape = sizes.shape
    spread = {k: np.repeat(v, shape[2], axis=1) if np.ndim(v) else v for k, v in columns.items()}
    params = np.exp(sizes).reshape(shape[0], -1)
    values = point_at(law, params, flops, spread)
    with np.errstate(all="ignore"):
        loss = law.loss(coefficients, values)
    loss = np.broadcast_to(-loss if law.kind == "leverage" else loss, params.shape)
    usable = np.isfinite(loss) & np.broadcast_to(values.get("tokens", 1.0) > 0, params.shape)
    if max_memory is not None:
        if "memory_bytes" not in values:
            raise InputError(f"max_memory: {law.id} has no variable for memory")
        usable &= np.broadcast_to(values["memory_bytes"] <= max_memory, params.shape)
    return np.where(usable, loss, np.inf).reshape(shape)


def point_at(law: Law, params: Array, flops: float, columns: Values) -> dict[str, Array]:
    assert law.at_compute is not None
    return law.at_compute(params, flops, columns)
