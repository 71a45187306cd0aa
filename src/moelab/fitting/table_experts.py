"""MoE runs whose experts, or the width of these, no column gives."""

import numpy as np

from moelab.fitting.columns import Columns, finite_numbers, variable
from moelab.fitting.findings import Finding
from moelab.laws import Law

FEWER, MOST = 0.8, 0.5
"""Active over all parameters below which a run is an MoE, whatever counts as embedding; share of such runs."""


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


def width_notes(columns: Columns, law: Law) -> list[str]:
    """A note where a law's granularity is derived from the number of active experts, which is right only for experts
    that together are as wide as a dense feed-forward."""
    if "granularity" not in law.variables or "granularity" in columns or "top_k" not in columns:
        return []
    derived = variable(columns, "granularity")
    most = 1.0 if derived is None else float(np.nanmax(derived, initial=1.0))
    if most <= 1:
        return []
    return [
        f"granularity is taken to be the number of active experts (up to {most:g}), as if these together were as wide "
        "as a dense feed-forward; otherwise give a column granularity: the dense feed-forward's width over an expert's"
    ]
