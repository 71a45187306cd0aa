"""What a fit misses: residuals tested against variables and settings, lack of fit against the seed noise, bounds."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from moelab.fitting.columns import Columns
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.observations import Observations
from moelab.fitting.residual_tests import SIGNIFICANT, ResidualTest, residual_tests


def diagnose(fitted: FittedLaw, data: Observations, columns: Columns, target: str) -> FittedLaw:
    """The fit to `data`, whose rows are those of `columns`, with its residual tests and notes."""
    tests = residual_tests(fitted.measured, fitted.predicted, fitted.free, data, columns, target)
    fitted = replace(fitted, residual_tests=tests)
    moved = [] if fitted.influence is None else fitted.influence.note()
    notes = (*_lack_of_fit(fitted, data), *_trends(tests), *_unusable(fitted), *_biased(fitted), *moved)
    return replace(fitted, diagnosis=notes)


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


def _trends(tests: tuple[ResidualTest, ...]) -> list[str]:
    """The variable, setting or pair of them that the residuals follow most, and the outcome, where that is no
    chance."""
    found = []
    for outcome in (False, True):
        test = next((each for each in tests if (each.kind == "outcome") == outcome), None)
        if test is None or test.p_all > SIGNIFICANT:
            continue
        meaning = "the law lacks it"
        if outcome:
            side = "above" if (test.slope_rel or 0) > 0 else "below"
            meaning = f"an outcome: runs with more of it lie {side} the law"
        found.append(f"residuals follow {test.name} (p {test.p_all:.1g} over {len(tests)} tests): {meaning}")
    return found


def _biased(fitted: FittedLaw) -> list[str]:
    """Coefficients whose value lies outside their own interval."""
    names = [name for name, note in fitted.coefficient_notes().items() if note.startswith("outside")]
    if not names:
        return []
    return [
        f"{', '.join(names)}: the value lies outside its interval. Bootstrap draws lie on one side of it (the estimate "
        "is biased, as along a valley of near-equal fits): read predictions, not these coefficients"
    ]


def _unusable(fitted: FittedLaw) -> list[str]:
    """Coefficients whose interval means nothing: at a bound, or not identified by these runs."""
    found = []
    if fitted.at_bound:
        names = ", ".join(fitted.at_bound)
        found.append(f"{names}: at a bound, so an interval would be that of the bound, not of the runs")
    if fitted.unidentified:
        names = ", ".join(fitted.unidentified)
        found.append(
            f"condition {fitted.condition:.1g}: these runs do not identify {names}; read predictions, not them"
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
