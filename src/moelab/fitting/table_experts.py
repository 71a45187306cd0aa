"""MoE runs whose experts no column gives: the laws of MoE would be left out of their fit."""

import numpy as np

from moelab.fitting.columns import Columns, finite_numbers, variable
from moelab.fitting.findings import Finding

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
