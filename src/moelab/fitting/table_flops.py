"""The unit of train_flops: held against six times parameters and tokens of each run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, positive_numbers
from moelab.fitting.findings import Finding
from moelab.fitting.table_logs import logarithms
from moelab.fitting.table_mixed import mixed_units

Array = NDArray[Any]
FAR = 100.0
"""Factor from 6 N D beyond which FLOPs are in another unit, which are a thousand apart: attention, embeddings and
counting conventions (forward alone is 2 N D) stay well within it."""
SCATTER = 4.0
"""Factor between the 15th and 85th percentile of FLOPs over 6 N D beyond which they do not follow the runs."""
NEAR = 3.0
"""Factor from a unit within which FLOPs are in it."""
LEAST_ACTIVE = 1e-3
"""Active share below which no MoE lies: the least train_flops beside total parameters alone."""
_UNITS = (
    ("units of 1e9", 1e9), ("teraFLOPs", 1e12), ("petaFLOPs", 1e15), ("exaFLOPs", 1e18), ("petaFLOP/s-days", 8.64e19),
    ("zettaFLOPs", 1e21), ("units of 1e24", 1e24),
)  # fmt: skip
_ACTIVE = ("params_active", "params_active_non_embedding")
_TOTAL = ("params_total", "params_non_embedding", "params_dense")


def flops_findings(columns: Columns, target: str) -> list[Finding]:
    """FLOPs far from 6 N D: in another unit throughout, as logarithms, or in some rows."""
    columns = mixed_units(logarithms(columns)[0])[0]
    flops, tokens = (positive_numbers(columns, name) for name in ("train_flops", "tokens"))
    name = next((n for n in (*_ACTIVE, *_TOTAL) if positive_numbers(columns, n) is not None), None)
    params = None if name is None else positive_numbers(columns, name)
    if "train_flops" not in columns or flops is None or tokens is None or params is None:
        return []
    if not len(flops) == len(tokens) == len(params) or not _counts(params, tokens):
        return []
    ratio = flops / (6 * params * tokens)
    ratio = ratio[np.isfinite(ratio)]
    sparse = name in _TOTAL and _has_experts(columns)
    low = LEAST_ACTIVE if sparse else 1 / FAR
    if not len(ratio):
        return []
    middle = float(np.median(ratio))
    usual = low <= middle <= FAR
    off = (ratio < low) | (ratio > FAR)
    scattered = not sparse and len(ratio) > 4 and np.ptp(np.log(np.quantile(ratio, [0.15, 0.85]))) > np.log(SCATTER)
    if usual and not off.any() and not scattered:
        return []
    text = f"train_flops is {_span(ratio)} times 6 x {name} x tokens"
    own = f"--let 'train_flops = 6 * {name} * tokens'"
    if usual and off.any():
        text = f"{int(off.sum())} of {len(ratio)} rows: {text}, the median {middle:.3g}: is their unit another one?"
        return [Finding(check="flops", text=text, mend="" if sparse else own)]
    if not usual and np.nanmax(flops) < 40 and np.nanmin(flops) > 10:
        text = f"train_flops: {np.nanmin(flops):g} to {np.nanmax(flops):g} look like decimal logarithms"
        return [Finding(check="flops", text=text, mend="--let 'train_flops = POW(10, train_flops)'")]
    unit, factor = min(_UNITS, key=lambda each: abs(np.log(middle * each[1])))
    if abs(np.log(middle * factor)) > np.log(10 if sparse else NEAR) or np.ptp(np.log10(ratio)) > 1:
        return [Finding(check="flops", text=text, mend="" if sparse else own)]
    short = f"{factor:g}".replace("e+", "e")
    text = f"train_flops: {_span(flops)} look like {unit}"
    return [Finding(check="flops", text=text, mend=f"--let 'train_flops = {short} * train_flops'")]


def _counts(params: Array, tokens: Array) -> bool:
    """Whether parameters and tokens are counts; where they are in another unit, that is noted first."""
    return bool(np.nanmedian(params) > 1e3 and np.nanmedian(tokens) > 1e3)


def _has_experts(columns: Columns) -> bool:
    names = ("n_experts", "top_k", "expert_ratio", "sparsity", "activation_rate", "expert_activation")
    return any(name in columns for name in names)


def _span(values: Array) -> str:
    low, high = f"{np.nanmin(values):.3g}", f"{np.nanmax(values):.3g}"
    return low if low == high else f"{low} to {high}"
