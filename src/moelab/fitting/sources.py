"""What predicts: the fits of a file or of a comparison, one fit, or one published law."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.fitting.comparison import Comparison
from moelab.fitting.fit_file import load_fits
from moelab.fitting.fitted import FittedLaw
from moelab.laws import Law, all_laws, get_law

Source = FittedLaw | Law


def sources_of(fit: Any, chosen: Sequence[str]) -> dict[str, Source]:
    """Law id -> what predicts, of those that are chosen. Raises InputError for what is neither a fit nor a law."""
    if isinstance(fit, str | Path):
        name = str(fit)
        if not Path(fit).exists() and (name.removesuffix("+reuse") in all_laws() or not set("./\\") & set(name)):
            fit = get_law(name)
    if isinstance(fit, Law):
        if any(name != fit.id for name in chosen):
            raise InputError(f"law: chooses among the fits of a file; {fit.id} is one published law")
        return {fit.id: fit}
    if isinstance(fit, FittedLaw):
        fits: Mapping[str, FittedLaw] = {fit.law.id: fit}
    elif isinstance(fit, Comparison):
        fits = fit.fits
    elif isinstance(fit, Mapping):
        fits = fit
    elif isinstance(fit, str | Path):
        fits = load_fits(fit)
    else:
        raise InputError(f"fit: expected a FittedLaw, a fit file or a law's id, got {type(fit).__name__}")
    for name in chosen:
        if name not in fits:
            where = fit if isinstance(fit, str | Path) else "the given fits"
            raise InputError(f"law: no fit of {name} in {where}; there are {', '.join(fits)}")
    return {name: fitted for name, fitted in fits.items() if not chosen or name in chosen}
