"""MoE runs whose experts, or the width of these, no column gives."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, finite_numbers, numeric, positive_numbers, variable
from moelab.fitting.findings import Finding
from moelab.fitting.run_kinds import FEWER
from moelab.laws import Law

_GIVE = "give a column granularity: the dense feed-forward's width over an expert's"
_SAME = 0.01
"""Difference of logarithms up to which two granularities are one: widths are rounded."""
MOST = 0.5
"""Share of runs with fewer active parameters than a dense model has."""


def expert_findings(columns: Columns, target: str) -> list[Finding]:
    """A finding where most runs have fewer active than total parameters, and nothing gives their number of experts."""
    if not {"params_active", "params_total"} <= set(columns):
        return []
    active, total = (finite_numbers(columns, name) for name in ("params_active", "params_total"))
    if active is None or total is None or len(active) != len(total) or not len(total):
        return []
    sparse = active < FEWER * total
    if np.mean(sparse) < MOST or variable(columns, "n_experts") is not None:
        return []
    text = (
        f"{int(sparse.sum())} of {len(total)} runs have fewer active than total parameters, but no column gives their "
        "experts: laws of MoE that need them are left out"
    )
    return [Finding(check="experts", text=text, mend="map one with --let 'n_experts = ...'")]


def width_notes(columns: Columns, law: Law, give: str = _GIVE) -> list[str]:
    """A note where a law's granularity is derived from the number of active experts, which is right only for experts
    that together are as wide as a dense feed-forward; and where widths that no law reads give another one.

    `give` is how to give the granularity."""
    if "granularity" not in law.variables or "granularity" in columns:
        return []
    derived, widths = numeric(columns, "granularity"), _by_widths(columns)
    derived = derived if derived is not None else np.ones(1)
    most = float(np.nanmax(derived, initial=1.0))
    taken = f"(up to {most:g})" if len(derived) > 1 else f"({most:g})"
    text = (
        f"granularity is taken to be the number of active experts {taken}, as if these together were as wide as a "
        "dense feed-forward"
    )
    if widths is not None and np.nanmax(np.abs(np.log(widths / derived)), initial=0.0) > _SAME:
        return [f"{text}, but d_ff / d_expert is up to {np.nanmax(widths):g}; --let 'granularity = d_ff / d_expert'"]
    return [f"{text}; otherwise {give}"] if most > 1 else []


def _by_widths(columns: Columns) -> NDArray[Any] | None:
    """The dense feed-forward's width over an expert's, where both are columns and positive."""
    dense, expert = (positive_numbers(columns, name) if name in columns else None for name in ("d_ff", "d_expert"))
    return None if dense is None or expert is None or len(dense) != len(expert) else np.asarray(dense / expert)
