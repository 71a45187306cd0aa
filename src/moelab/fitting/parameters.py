"""Between a law's coefficients and the numbers a solver moves: logarithms, fixed and shared coefficients, bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.laws import Law

Array = NDArray[Any]
SMALLEST, LARGEST = 1e-12, 1e30


@dataclass(frozen=True, eq=False)
class Parameters:
    """`theta` has one column per free coefficient: its logarithm where the law calls it positive, else itself.

    `member[k]` is the column that coefficient k follows (-1: fixed at `fixed[k]`); shared coefficients have one column.
    """

    law: Law
    free: tuple[str, ...]
    member: Array
    fixed: Array
    logged: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, law: Law, fix: Mapping[str, float] | None = None, share: Sequence[Sequence[str]] = ()) -> "Parameters":
        """Raises InputError for an unknown name, a value outside the bounds, or shares that mix kinds."""
        fixed = {known_name(law, name, "fix"): float(value) for name, value in (fix or {}).items()}
        if len(fixed) < len(fix or {}):
            raise InputError(f"fix: {', '.join(fix or {})} name one coefficient of {law.id} twice")
        leader = _leaders(law, share, fixed)
        free = tuple(name for name in law.coefficients if name not in fixed and leader[name] == name)
        column = {name: index for index, name in enumerate(free)}
        for name, value in fixed.items():
            if name in law.positive and not value > 0:
                raise InputError(f"fix: {name} must be positive in {law.id}, got {value:g}")
            low, high = law.bounds.get(name, (0.0 if name in law.positive else -LARGEST, LARGEST))
            if not low <= value <= high:
                raise InputError(f"fix: {name} must lie in {low:g} to {high:g} in {law.id}, got {value:g}")
        limits = [_limits(law, name) for name in free]
        return cls(
            law=law,
            free=free,
            member=np.array([column.get(leader[name], -1) for name in law.coefficients]),
            fixed=np.array([fixed.get(name, np.nan) for name in law.coefficients]),
            logged=np.array([name in law.positive for name in free], bool),
            low=np.array([low for low, _ in limits]),
            high=np.array([high for _, high in limits]),
        )

    @property
    def held(self) -> dict[str, float]:
        """The fixed coefficients."""
        return {n: float(v) for n, v in zip(self.law.coefficients, self.fixed, strict=True) if not np.isnan(v)}

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """(B, P) -> name -> (B, 1), ready to broadcast against n runs."""
        values = np.where(self.logged, np.exp(theta), theta)
        return {
            name: values[:, m : m + 1] if m >= 0 else np.full((len(theta), 1), fixed)
            for name, m, fixed in self._columns
        }

    def theta(self, coefficients: Mapping[str, Any]) -> Array:
        """name -> (B,) or scalar, into (B, P) within the bounds."""
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(coefficients[name], float)) for name in self.free))
        stacked = np.stack(columns, axis=-1)
        stacked = np.where(self.logged, np.log(np.maximum(stacked, SMALLEST)), stacked)
        return np.clip(stacked, self.low, self.high)

    @cached_property
    def _columns(self) -> list[tuple[str, int, float]]:
        """Every coefficient with the column of theta that it follows, or -1, and its fixed value."""
        return list(zip(self.law.coefficients, self.member.tolist(), self.fixed.tolist(), strict=True))

    def jacobian(self, gradient: Mapping[str, Array], coefficients: Mapping[str, Array], loss: Array) -> Array:
        """d log(loss) / d theta, (B, n, P), from the law's gradient by coefficient at `coefficients`; n is the last
        axis in memory."""
        result = np.empty((len(loss), len(self.free), loss.shape[1]))
        inverse, logged, filled = 1 / loss, self.logged.tolist(), set()
        for name, m, _ in self._columns:
            if m < 0:
                continue
            slope = gradient[name] * coefficients[name] if logged[m] else gradient[name]
            if m in filled:
                result[:, m] += slope * inverse
            else:
                np.multiply(slope, inverse, out=result[:, m])
                filled.add(m)
        return result.transpose(0, 2, 1)


def known_name(law: Law, name: str, option: str) -> str:
    """A coefficient by our name or the paper's. Raises InputError listing the law's names."""
    name = law.aliases.get(name, name)
    if name not in law.coefficients:
        raise InputError(f"{option}: {law.id} has no coefficient {name!r}; it has {', '.join(law.coefficients)}")
    return name


def _leaders(law: Law, share: Sequence[Sequence[str]], fixed: Mapping[str, float]) -> dict[str, str]:
    leader = {name: name for name in law.coefficients}
    for group in share:
        names = [known_name(law, name, "share") for name in group]
        if len(set(names)) < 2:
            raise InputError(f"share: expected two coefficients or more, got {', '.join(group)}")
        if len({name in law.positive for name in names}) > 1:
            raise InputError(f"share: {', '.join(names)} cannot be one number: only some of them must be positive")
        if any(name in fixed for name in names):
            raise InputError(f"share: {', '.join(names)}: one of them is fixed; fix all of them instead")
        leader |= dict.fromkeys(names, names[0])
    return leader


def _limits(law: Law, name: str) -> tuple[float, float]:
    if name in law.positive:
        low, high = law.bounds.get(name, (SMALLEST, LARGEST))
        return float(np.log(max(low, SMALLEST))), float(np.log(high))
    return law.bounds.get(name, (-np.inf, np.inf))


def limits_of(law: Law, name: str) -> tuple[float, float]:
    """The least and the greatest value that a fit may give a coefficient."""
    low, high = _limits(law, name)
    return (float(np.exp(low)), float(np.exp(high))) if name in law.positive else (low, high)
