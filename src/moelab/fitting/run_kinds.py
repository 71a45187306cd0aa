"""Which runs of a table are dense and which MoE, and the condition that keeps one kind."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.blanks import DENSE, filled
from moelab.fitting.columns import Columns, numeric
from moelab.laws import Law

MOE = {
    "n_experts": "n_experts > 1", "expert_ratio": "expert_ratio > 1", "activation_rate": "activation_rate < 1",
    "sparsity": "sparsity > 0", "expert_activation": "expert_activation < 1",
}  # fmt: skip
"""Columns that distinguish dense from MoE runs, and the condition that keeps the MoE runs."""
FEWER = 0.8
"""Active over all parameters below which a run is an MoE where no column gives its experts: those of a dense run may
differ by its embeddings."""


def dense_runs(columns: Columns) -> tuple[NDArray[np.bool_], str] | None:
    """Which runs are dense (n,), by a column of experts or by active beside total parameters, and the condition that
    keeps the others; None where no column shows it."""
    for name, condition in MOE.items():
        values = numeric(columns, name) if name in columns else None
        if values is not None and np.isfinite(values).all():
            return np.asarray(values <= DENSE[name] if ">" in condition else values >= DENSE[name]), condition
    active, total = (numeric(columns, name) for name in ("params_active", "params_total"))
    if active is None or total is None:
        return None
    return np.asarray(active >= FEWER * total), f"params_active < {FEWER} * params_total"


def moe_runs(columns: Columns) -> NDArray[np.bool_] | None:
    """Which runs are MoE (n,): by all experts over those in use, else as `dense_runs`; None where none shows it."""
    ratio = numeric(columns, "expert_ratio")
    if ratio is not None:
        return np.asarray(ratio > 1)
    found = dense_runs(columns)
    return None if found is None else ~found[0]


def opposite(condition: str) -> str:
    """The condition that keeps the other kind."""
    return condition.replace(" > ", " <= ") if " > " in condition else condition.replace(" < ", " >= ")


def undescribed(law: Law, kinds: Sequence[str]) -> str:
    """What a fit to runs of these kinds (dense, moe) has of runs that its law does not describe; empty for none."""
    moe, rows = sum(kind == "moe" for kind in kinds), len(kinds)
    if moe and not law.covers_moe:
        verb = "are" if moe > 1 else "is"
        return (
            f"{moe} of {rows} runs {verb} MoE; {law.id} describes dense models: their {law.variables[0]} is read as a "
            "dense model's"
        )
    if moe < rows and not law.covers_dense:
        verb = "are" if rows - moe > 1 else "is"
        return f"{rows - moe} of {rows} runs {verb} dense, which this law does not describe"
    return ""


def undescribed_notes(law: Law, kinds: Sequence[str], columns: Columns) -> list[str]:
    """The same as a note of the fit to a table, with the `--where` that keeps the runs that the law describes."""
    text = undescribed(law, kinds)
    if not text:
        return []
    shown = dense_runs(filled(columns)[0])
    if len(set(kinds)) < 2 or shown is None:
        return [text]
    name = shown[1].split()[0]
    blank = name in columns and (values := numeric(columns, name)) is not None and np.isnan(values).any()
    dense = opposite(shown[1]) + (f" OR {name} IS NULL" if blank else "")
    kind, condition = ("MoE", shown[1]) if law.covers_moe else ("dense", dense)
    return [f"{text}; fit the {kind} runs alone with --where '{condition}'"]
