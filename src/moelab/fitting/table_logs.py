"""Sizes and tokens that are logarithms, decimal or natural, and what separates them from billions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, finite_numbers
from moelab.fitting.findings import Finding
from moelab.fitting.table_mixed import SIZES, UNITS, looks_like

Array = NDArray[Any]
PER_PARAMETER = 20.0
"""Tokens per parameter that decide between two readings of a column (2203.15556)."""
RAW = 1e5
"""Parameters or tokens above which a column holds counts."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base of logarithms: its name, its expression, and the limits of sizes, of tokens and of their ratio."""

    name: str
    expression: str
    value: float
    sizes: tuple[float, float]
    tokens: tuple[float, float]
    widest: float


BASES = (
    Base(name="decimal", expression="POW(10, {})", value=10.0, sizes=(4, 13), tokens=(6, 15), widest=6),
    Base(name="natural", expression="EXP({})", value=float(np.e), sizes=(11, 30), tokens=(14, 35), widest=14),
)
"""Of 1e4 to 1e13 parameters and 1e6 to 1e15 tokens, over at most six decades."""
_LEAST, _MOST = 0.01, 1e5


def logarithms(columns: Columns) -> tuple[dict[str, Array], list[Finding]]:
    """The columns with logarithms of sizes and tokens as counts, and a note on each."""
    names = [name for name in (*SIZES, "tokens", "unique_tokens") if name in columns]
    known = {name: values for name in names if (values := finite_numbers(columns, name)) is not None}
    size = next((name for name in SIZES if name in known), None)
    for base in BASES:
        found = {name: values for name, values in known.items() if _looks(values, base, name)}
        if size not in found and "tokens" not in found:
            continue
        sure = _decided(known.get(size or ""), known.get("tokens"), size in found, "tokens" in found, base)
        if sure is None:
            continue
        even = {**columns, **{name: base.value**values for name, values in found.items()}}
        return even, [_finding(name, values, base, sure) for name, values in found.items()]
    return dict(columns), []


def _looks(values: Array, base: Base, name: str) -> bool:
    """Whether all values lie where logarithms do, over few decades, with digits that counts of billions do not have."""
    low, high = base.tokens if name.endswith("tokens") else base.sizes
    return bool(values.min() > low and values.max() < high and np.ptp(values) < base.widest and _digits(values))


def _digits(values: Array) -> bool:
    """Whether most values have more than two digits after the point."""
    return bool(np.mean(np.abs(values - np.round(values, 2)) > 1e-9) > 0.5)


def _decided(
    params: Array | None, tokens: Array | None, logs_of_params: bool, logs_of_tokens: bool, base: Base
) -> bool | None:
    """True: logarithms; False: logarithms or billions; None: another unit is the better reading."""
    if params is None or tokens is None:
        return False if base.name == "decimal" else None
    middle = {"params": float(np.median(params)), "tokens": float(np.median(tokens))}
    if logs_of_params and logs_of_tokens:
        ratio = base.value ** (middle["tokens"] - middle["params"])
        return _LEAST < ratio < _MOST or None
    other, own = ("tokens", "params") if logs_of_params else ("params", "tokens")
    if middle[other] < RAW:
        return None
    aim = np.log(middle[other] * (1 / PER_PARAMETER if logs_of_params else PER_PARAMETER))
    off = abs(middle[own] * np.log(base.value) - aim)
    unit = min(abs(np.log(middle[own] * unit) - aim) for unit in UNITS.values())
    if off > unit:
        return False if not logs_of_params and off < np.log(100) else None
    return bool(logs_of_params or unit > np.log(100))


def _finding(name: str, values: Array, base: Base, sure: bool) -> Finding:
    text = f"{name}: {looks_like(values, f'{base.name} logarithms')}"
    mend = f"--let '{name} = {base.expression.format(name)}'"
    if not sure:
        text, mend = f"{text} or billions", f"{mend} or --let '{name} = 1e9 * {name}'"
    return Finding(check="units", text=text, mend=mend)
