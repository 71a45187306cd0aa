"""What a fit misses: residuals tested against variables and settings, lack of fit against the seed noise, bounds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.observations import Observations
from moelab.fitting.table_columns import known_names, setting_columns

Array = NDArray[Any]
SIGNIFICANT = 0.01
"""Probability, over all columns tested together, of a finding by chance."""
_MOST_PAIRS, _FEWEST_ROWS = 28, 12
_NOT_IDENTIFIED = 1e8


def diagnose(fitted: FittedLaw, data: Observations, columns: Columns, target: str) -> list[str]:
    """Notes on a fit to `data`, whose rows are those of `columns`."""
    return [*_lack_of_fit(fitted, data), *_trends(fitted, data, columns, target), *_unusable(fitted)]


def _lack_of_fit(fitted: FittedLaw, data: Observations) -> list[str]:
    """Where the law misses by more than runs differ that repeat with other seeds."""
    from scipy.special import fdtrc

    noise, spare = fitted.seed_noise, data.noise_spare()
    if noise is None or not noise["rel"] > 0 or fitted.n_runs <= fitted.free:
        return []
    ratio = float(np.sqrt(np.mean(fitted.residuals**2)) / noise["rel"])
    if ratio < 1.5 or fdtrc(fitted.n_runs - fitted.free, spare, ratio**2) > SIGNIFICANT:
        return []
    return [
        f"the law misses by {ratio:.1f} times the seed noise ({noise['rel']:.2%}): something in these runs is not in it"
    ]


def _trends(fitted: FittedLaw, data: Observations, columns: Columns, target: str) -> list[str]:
    """The variable, or pair of variables, that the residuals follow most, where that is no chance."""
    residuals = np.log(fitted.measured / fitted.predicted)
    if len(residuals) < _FEWEST_ROWS or not np.ptp(residuals) > 1e-6:
        return []
    axes = _axes(data, columns, target)
    pairs = [(a, b) for i, a in enumerate(axes) for b in list(axes)[i + 1 :]][:_MOST_PAIRS]
    spare = len(residuals) - fitted.free
    tested = {a: _probability(residuals, [z, z**2], spare) for a, z in axes.items()}
    tested |= {f"{a} x {b}": _probability(residuals, [axes[a] * axes[b]], spare) for a, b in pairs}
    if not tested:
        return []
    name = min(tested, key=lambda each: tested[each])
    if tested[name] * len(tested) > SIGNIFICANT:
        return []
    return [f"residuals follow {name} (p {tested[name] * len(tested):.1g} over {len(tested)} tests): the law lacks it"]


def _axes(data: Observations, columns: Columns, target: str) -> dict[str, Array]:
    """Standardised logarithms (or values) of the law's variables and of the table's other numeric settings."""
    found: dict[str, Array] = {}
    rows = len(data)
    settings = {
        n: columns[n] for n in setting_columns(columns, target) if n not in data.variables and n in known_names()
    }
    for name, given in {**data.variables, **settings}.items():
        if not np.issubdtype(np.asarray(given).dtype, np.number) or len(given) != rows:
            continue
        values = np.asarray(given, float)
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        z = np.log(values) if (values > 0).all() else values
        z = (z - z.mean()) / z.std()
        if all(abs(np.mean(z * other)) < 0.999 for other in found.values()):
            found[name] = z
    return found


def _probability(residuals: Array, terms: list[Array], spare: int) -> float:
    """Of an F test that the residuals have no part along the terms, after the bulk is clipped to four deviations."""
    from scipy.special import fdtrc

    scale = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))) + 1e-300
    r = np.clip(residuals - np.median(residuals), -4 * scale, 4 * scale)
    r = r - r.mean()
    basis = np.stack(terms, axis=1)
    basis = basis - basis.mean(axis=0)
    rest = r - basis @ np.linalg.lstsq(basis, r, rcond=None)[0]
    left, whole = float(rest @ rest), float(r @ r)
    count, free = len(terms), max(spare - len(terms), 1)
    return float(fdtrc(count, free, (whole - left) / count / max(left / free, 1e-300)))


def _unusable(fitted: FittedLaw) -> list[str]:
    """Coefficients whose interval means nothing: at a bound, or not identified by these runs."""
    found = []
    if fitted.at_bound:
        found.append(f"{', '.join(fitted.at_bound)}: at a bound, so the interval is that of the bound, not of the runs")
    if fitted.condition > _NOT_IDENTIFIED:
        found.append(
            f"condition {fitted.condition:.1g}: some coefficients are not identified; read predictions, not them"
        )
    return found


def common_misfit(fits: Mapping[str, FittedLaw]) -> str | None:
    """A note where every law misses by more than the seed noise, with the column that most residuals follow."""
    misses = [note for fitted in fits.values() for note in fitted.diagnosis if note.startswith("the law misses by")]
    if len(misses) < max(len(fits), 1):
        return None
    least = min(float(note.split()[4]) for note in misses)
    follows = [
        n.split("residuals follow ")[1].split(" (p")[0]
        for f in fits.values()
        for n in f.diagnosis
        if n.startswith("residuals follow")
    ]
    where = f"; residuals follow {max(set(follows), key=follows.count)}" if follows else ""
    return f"every law misses by {least:.1f} times the seed noise or more{where}"
