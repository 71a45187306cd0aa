"""Residuals of a fit tested against every column: variables, settings, their pairs, texts and outcomes.

Each is an F test on log residuals; Holm's correction (1979) holds the chance of any false finding over all of them.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns
from moelab.fitting.observations import Observations
from moelab.fitting.table_columns import is_label, is_loss, is_outcome, known_names, setting_columns

Array = NDArray[Any]
SIGNIFICANT = 0.01
"""Probability, over all tests together, of a finding by chance."""
Kind = Literal["variable", "setting", "pair", "text", "outcome"]
_MOST_PAIRS, _FEWEST_ROWS, _MOST_VALUES, _MOST_TEXTS = 28, 12, 12, 100_000
_SAME = 0.999


@dataclass(frozen=True, kw_only=True)
class ResidualTest:
    """Whether residuals follow a column: p of the test by itself and `p_all`, corrected for all tests of the fit.
    `slope_rel` is the mean change of measured over predicted by one standard deviation of the column (its logarithm
    where positive); None for texts."""

    name: str
    kind: Kind
    p: float
    p_all: float
    slope_rel: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: an entry of a fit's JSON."""
        return asdict(self)


def residual_tests(
    measured: Array, predicted: Array, free: int, data: Observations, columns: Columns, target: str
) -> tuple[ResidualTest, ...]:
    """Every column tested, the least probable first. Outcomes are tested on what the most significant variable or
    setting leaves, so that one which only grows with size is no finding of its own."""
    residuals = np.log(measured / predicted)
    if len(residuals) < _FEWEST_ROWS or not np.ptp(residuals) > 1e-6:
        return ()
    r, units = _clipped(residuals), _units(data)
    terms = _terms(data, columns, target)
    found: list[tuple[str, Kind, float, float | None]] = [
        (name, kind, _probability(r, basis, units, free), _slope(r, basis, kind))
        for name, (kind, basis) in terms.items()
    ]
    given = None
    if found:
        best = min(found, key=lambda each: each[2])
        given = terms[best[0]][1] if best[2] * len(found) < SIGNIFICANT else None
    for name, z in _outcomes(columns, target, {n: b for n, (_, b) in terms.items()}, len(r)).items():
        basis = np.stack([z, z**2], axis=1)
        left, rest = (r, basis) if given is None else (_without(r, given), _without(basis, given))
        found.append((name, "outcome", _probability(left, rest, units, free), _slope(left, rest, "outcome")))
    return _corrected(found)


def _corrected(found: list[tuple[str, Kind, float, float | None]]) -> tuple[ResidualTest, ...]:
    """Holm's step-down correction."""
    ordered, highest, tests = sorted(found, key=lambda each: each[2]), 0.0, []
    for k, (name, kind, p, slope) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(ordered) - k)))
        tests.append(ResidualTest(name=name, kind=kind, p=p, p_all=highest, slope_rel=slope))
    return tuple(tests)


def _terms(data: Observations, columns: Columns, target: str) -> dict[str, tuple[Kind, Array]]:
    """The law's variables, the table's settings, pairs of both, and texts of a few values: name -> kind, (n, terms)."""
    rows, known = len(data), known_names()
    settings = {n: columns[n] for n in setting_columns(columns, target) if n not in data.variables}
    axes: dict[str, Array] = {}
    found: dict[str, tuple[Kind, Array]] = {}
    for name, given in {**data.variables, **settings}.items():
        z = _standardised(given, rows)
        if z is None or not all(abs(np.mean(z * other)) < _SAME for other in axes.values()):
            continue
        axes[name] = z
        found[name] = ("variable" if name in data.variables else "setting", np.stack([z, z**2], axis=1))
    paired = [name for name in axes if name in data.variables or name in known]
    pairs = [(a, b) for i, a in enumerate(paired) for b in paired[i + 1 :]][:_MOST_PAIRS]
    found |= {f"{a} x {b}": ("pair", (axes[a] * axes[b])[:, None]) for a, b in pairs}
    for name, given in settings.items():
        levels = _levels(given, rows)
        if levels is not None:
            found[name] = ("text", levels)
    return found


def _outcomes(columns: Columns, target: str, terms: dict[str, Array], rows: int) -> dict[str, Array]:
    """Columns of numbers that a run measured beside its loss: no other loss, no label, nothing tested already."""
    found: dict[str, Array] = {}
    tested = [basis[:, 0] for basis in terms.values()]
    for name, given in columns.items():
        if not is_outcome(name, target) and name in terms:
            continue
        if name == target or name in terms or is_loss(name) or is_label(name) or name in known_names():
            continue
        z = _standardised(given, rows)
        if z is not None and all(abs(np.mean(z * other)) < _SAME for other in (*tested, *found.values())):
            found[name] = z
    return found


def _standardised(given: Any, rows: int) -> Array | None:
    """The logarithm of a positive column of finite numbers (else the column), with mean 0 and deviation 1."""
    values = np.asarray(given)
    if values.dtype.kind not in "fiub" or len(values) != rows:
        return None
    values = values.astype(float)
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return None
    z = np.log(values) if (values > 0).all() else values
    deviation = z.std()
    return None if not deviation > 1e-12 * np.abs(z).max() else (z - z.mean()) / deviation


def _levels(given: Any, rows: int) -> Array | None:
    """An indicator (n, values - 1) of a column of text with a few values that each stand in several rows."""
    values = np.asarray(given)
    if values.dtype.kind in "fiub" or len(values) != rows or rows > _MOST_TEXTS:
        return None
    names, index, counts = np.unique([str(value) for value in values], return_inverse=True, return_counts=True)
    if not 2 <= len(names) <= min(_MOST_VALUES, rows // 5) or counts.min() < 2:
        return None
    return np.asarray(index[:, None] == np.arange(1, len(names))).astype(float)


def _clipped(residuals: Array) -> Array:
    """Residuals about their median, clipped to four robust deviations: no single run makes a trend."""
    centred = residuals - np.median(residuals)
    scale = 1.4826 * float(np.median(np.abs(centred))) + 1e-300
    r = np.clip(centred, -4 * scale, 4 * scale)
    return np.asarray(r - r.mean())


def _without(values: Array, given: Array) -> Array:
    """What a projection on the columns of `given` leaves of values (n,) or (n, k)."""
    basis = given - given.mean(axis=0)
    return np.asarray(values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0])


def _units(data: Observations) -> int:
    """How many runs are independent: the groups, where rows are checkpoints of runs."""
    return len(data) if data.groups is None else len(np.unique(data.groups))


def _probability(r: Array, terms: Array, units: int, fitted: int) -> float:
    """Of an F test that r (n,) has no part along the terms, n rows counting as so many independent units."""
    from scipy.special import fdtrc

    rest = _without(r, terms)
    left, whole = float(rest @ rest), float(r @ r)
    count = terms.shape[1]
    free = max(units - fitted - count, 1)
    return float(fdtrc(count, free, max(whole - left, 0.0) / count / max(left / free, 1e-300)))


def _slope(r: Array, terms: Array, kind: Kind) -> float | None:
    if kind == "text":
        return None
    z = terms[:, 0] - terms[:, 0].mean()
    return float(np.expm1(r @ z / max(float(z @ z), 1e-300) * z.std()))
