"""Units of a table before a fit: tokens in billions, losses in per cent or as perplexity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, finite_numbers
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import quoted
from moelab.fitting.table_logs import logarithms
from moelab.fitting.table_mixed import LEAST_RATIO, MOST_RATIO, SIZES, UNITS, looks_like, mixed_units, nearest_unit
from moelab.fitting.table_sizes import unit_pairs
from moelab.laws import Law

Array = NDArray[Any]
TOO_FEW_TOKENS, TOO_FEW_PARAMS = 1e5, 100.0
"""A column of tokens or parameters that lies below this throughout is in thousands, millions or billions."""
LEAST_TOKENS = 1e3
"""Tokens below which no run trains."""
MOST_NATS, HIGH_NATS, LEAST_NATS = 15.0, 7.0, 0.2
"""A loss above all training starts at (12.2 for a vocabulary of 200,000), a median above, and a loss below, any trained
model."""
RATES = ("learning_rate", "lr", "max_lr", "peak_lr")
MOST_RATE, LEAST_LOG_RATE = 1.0, -9.0
"""A median learning rate above which it is in another unit (published rules give 1e-5 to 0.03), and the least decimal
logarithm of one."""
UNTRAINED = 10.4
"""ln 32,768: about where training starts."""


def unit_findings(columns: Columns, target: str) -> list[Finding]:
    """Tokens, parameters and losses that look like another unit than tokens, parameters and nats per token."""
    columns, found = logarithms(columns)
    columns, mixed = mixed_units(columns)
    found += mixed
    params = next((v for n in SIZES if (v := finite_numbers(columns, n)) is not None), None)
    tokens = finite_numbers(columns, "tokens")
    ratio = float(np.median(tokens) / np.median(params)) if tokens is not None and params is not None else 20.0
    both = tokens is not None and _scaled(tokens)
    for name in (*SIZES, "tokens", "unique_tokens"):
        values = finite_numbers(columns, name) if name in columns else None
        if values is None or not (values > 0).any():
            continue
        of_tokens = name.endswith("tokens")
        small = values.max() < (TOO_FEW_TOKENS if of_tokens else TOO_FEW_PARAMS)
        if of_tokens and params is not None:
            small = ratio < LEAST_RATIO or _scaled(values) or (small and params.max() < TOO_FEW_PARAMS)
        elif not of_tokens and tokens is not None:
            small = small or (both and values.max() < TOO_FEW_TOKENS) or (ratio > MOST_RATIO and values.max() < 1e6)
        if not small:
            continue
        unit = _likely_unit(values, params if of_tokens else None)
        if not of_tokens:
            params = params if params is None else values * UNITS[unit]  # tokens are then held against these
        factor = f"{UNITS[unit]:g}".replace("e+0", "e").replace("e+", "e")
        found.append(
            Finding(
                check="units",
                text=f"{name}: {looks_like(values, unit)}",
                mend=f"--let '{name} = {factor} * {name}'",
            )
        )
    noted = {finding.text.split(":")[0] for finding in found}
    pairs = [] if noted & {*SIZES} else unit_pairs(columns)
    return found + pairs + _rate_unit(columns) + _loss_unit(columns, target)


def _rate_unit(columns: Columns) -> list[Finding]:
    """Learning rates above one, and their decimal logarithms."""
    found = []
    for name in (each for each in columns if each.lower() in RATES):
        values = finite_numbers(columns, name)
        if values is None or not len(values) or 0 <= np.median(values) <= MOST_RATE:
            continue
        text = f"{name}: {values.min():g} to {values.max():g}"
        if values.min() > LEAST_LOG_RATE and values.max() < 0:
            mend = f"--let '{name} = POW(10, {name})'"
            found.append(Finding(check="units", text=f"{text} look like decimal logarithms", mend=mend))
        else:
            text += " are no learning rates of language models: another unit, or multiplied?"
            found.append(Finding(check="units", text=text, mend=f"--let '{name} = ... * {name}'"))
    return found


def _scaled(tokens: Array) -> bool:
    """Whether numbers of tokens cannot be counts: no language model trains on a thousand, nor on a fraction of one."""
    few = tokens.max() < TOO_FEW_TOKENS
    return bool(tokens.max() < LEAST_TOKENS or (few and np.any(tokens != np.round(tokens))))


def units_of_fit(law: Law, ranges: Mapping[str, tuple[float, float]], measured: Array) -> list[Finding]:
    """Whether what a fit was given, ranges and measured values (n,), looks like another unit: predictions then need and
    give that unit."""
    columns = {name: np.array(limits) for name, limits in ranges.items()}
    return unit_findings({**columns, law.kind: measured}, law.kind)


def _likely_unit(values: Array, params: Array | None) -> str:
    """The unit that brings tokens nearest to twenty per parameter; of sizes, the one that brings them into the range
    of language models (1e6 to 1e12)."""
    return nearest_unit(
        values, 20 * float(np.median(params)) if params is not None and np.median(params) > 1e5 else 1e9
    )


def _loss_unit(columns: Columns, target: str) -> list[Finding]:
    values = finite_numbers(columns, target) if target in columns else None
    if values is None or not (values > 0).all():
        return []
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    if middle > HIGH_NATS or (low > 4 and high > MOST_NATS):
        # In per cent the losses of a table lie within a factor of a few; as perplexities they span far more.
        percent = low > 100 and middle / 100 < UNTRAINED and high < 4 * low
        change = f"{quoted(target)} / 100" if percent else f"LN({quoted(target)})"
        unit = "per cent" if percent else "perplexity"
        text = f"{target}: {low:.4g} to {high:.4g} look like {unit}, not nats per token"
        return [Finding(check="units", text=text, mend=f"--let '{quoted(target)} = {change}'")]
    if high < LEAST_NATS:
        text = (
            f"{target}: at most {high:.4g} nats per token, which no language model reaches: another unit, or no loss?"
        )
        return [Finding(check="units", text=text)]
    return []
