"""What laws that see the granularity of experts make of it, in compute, within the ranges they were fitted on.

Krajewski et al. (arXiv 2402.07871) give loss against G = d_ff / d_expert at an expansion of 16 or 64. Tian et al.
(Ling, 2507.17702) give the leverage over dense against 2 d_model / d_expert. The five-factor law (2509.23678) gives
loss against the experts in use and the share of shared ones. Where a law's range of sizes and data is known, these are
clipped to it: only the effect of granularity is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.laws import Law, get_law
from moelab.laws.design import Design
from moelab.laws.forms import saturate

Array = NDArray[Any]

STEP = 0.1
"""Step in log compute, size and data growing together, over which a law's own slope is taken."""

EXPANSIONS = {"krajewski2024": 64.0, "krajewski2024-x16": 16.0}
"""Krajewski's laws by the expansion that their coefficients hold for."""

MOST_ACTIVE = 16
"""Most experts in use at which the five-factor law is asked."""

ROUNDED = 0.01
"""Share by which a granularity may lie outside a range, since widths are rounded."""


def granularity_excess(design: Design) -> dict[str, Array]:
    """By law, the excess log compute (n,) of each design's granularity over the law's best within its range.

    NaN where the design's granularity lies outside that range. Dense designs have none: 0.
    """
    found = {name: rule(design) for name, rule in _RULES.items()}
    return {name: np.where(design.dense, 0.0, excess + 0 * design.tokens) for name, excess in found.items()}


def mean_excess(columns: Sequence[Array], uncovered: float | None = None) -> Array:
    """Mean excess (n,) over the laws that cover a design; one that none covers has `uncovered`, by default more than
    all that some covers."""
    stacked = np.stack(columns)
    count = np.isfinite(stacked).sum(axis=0)
    mean = np.nansum(np.where(np.isfinite(stacked), stacked, 0.0), axis=0) / np.maximum(count, 1)
    if uncovered is None:
        uncovered = 1.0 + (float(mean[count > 0].max()) if (count > 0).any() else 0.0)
    return np.asarray(np.where(count > 0, mean, uncovered))


def _inside(values: Array, ends: tuple[float, float]) -> Array:
    """Which values lie within a fitted range, up to rounded widths."""
    return np.asarray((values >= ends[0] * (1 - ROUNDED)) & (values <= ends[1] * (1 + ROUNDED)))


def _clipped(values: Any, ends: tuple[float, float] | None) -> Array:
    assert ends is not None
    return np.clip(np.asarray(values, float), *ends)


def _published(name: str) -> tuple[Law, Mapping[str, float]]:
    law = get_law(name)
    assert law.published is not None
    return law, law.published


def _tian(design: Design) -> Array:
    """Excess log compute: equal loss takes C_dense / EL, with EL = Â^(... + gamma (log2 G)^2 + beta log2 G)."""
    law, c = _published("tian2025")
    ends = law.ranges["granularity_ling"]
    assert ends is not None
    own = 2 * np.asarray(design.shape.d_model, float) / np.maximum(np.asarray(design.shape.d_expert, float), 1.0)
    shared = design.n_shared
    activation = _clipped((design.top_k + shared) / (design.n_experts + shared), law.ranges["expert_activation"])
    log_g, best = np.log2(own), np.clip(-c["beta"] / (2 * c["gamma"]), *np.log2(ends))
    power = c["gamma"] * (log_g**2 - best**2) + c["beta"] * (log_g - best)
    log_a = np.log(saturate(activation, c["A_start"], c["A_max"])[0])
    return np.where(_inside(own, ends), -log_a * power, np.nan)


def _krajewski(design: Design) -> Array:
    """Excess log compute: extra loss over the law's own slope against compute, size and data growing together.

    By the law of the nearest expansion, 64 or 16; its loss falls with G over all of its range.
    """
    law = get_law("krajewski2024")
    ends = law.ranges["granularity"]
    assert ends is not None
    own = design.granularity
    narrow = np.maximum(design.expansion, 1.0) < np.sqrt(np.prod(list(EXPANSIONS.values())))
    size = _clipped(design.params_without_router, law.ranges["params_non_embedding"])
    tokens = _clipped(design.tokens, law.ranges["tokens"])

    def loss(granularity: Any, growth: float = 1.0) -> Array:
        wide, close = (_published(name) for name in EXPANSIONS)
        values = {"params_non_embedding": size * growth, "tokens": tokens * growth, "granularity": granularity}
        return np.where(narrow, close[0].loss(close[1], values), wide[0].loss(wide[1], values))

    here = loss(own)
    slope = (here - loss(own, float(np.exp(STEP / 2)))) / STEP
    return np.where(_inside(own, ends), (here - loss(ends[1])) / slope, np.nan)


def _five_factor(design: Design) -> Array:
    """As `_krajewski`, with both sizes and data growing. The law's own range is not known: up to `MOST_ACTIVE`."""
    _, c = _published("fivefactor2025")
    active = design.top_k + design.n_shared
    share = design.n_shared / active
    shape = c["e"] * active + c["f"] / active + c["m"] * share**2 + c["n"] * share
    best = 2 * np.sqrt(c["e"] * c["f"]) - c["n"] ** 2 / (4 * c["m"])
    total, used = design.params_total ** -c["alpha"], design.params_active ** -c["alpha"]
    factor = total + c["k"] * used + c["h"] * design.params_active / design.params_total
    powers = (shape + c["a"]) * total + (shape * c["k"] + c["c"]) * used
    slope = (c["alpha"] * powers + c["beta"] * c["b"] * design.tokens ** -c["beta"]) / 2
    return np.where(active <= MOST_ACTIVE, (shape - best) * factor / slope, np.nan)


_RULES: dict[str, Callable[[Design], Array]] = {
    "tian2025": _tian,
    "krajewski2024": _krajewski,
    "fivefactor2025": _five_factor,
}
