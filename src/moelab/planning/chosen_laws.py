"""The laws and rules that a plan or a comparison is to use: laws themselves, their ids, fit files, `all`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moelab.fitting import load_fits
from moelab.fitting.rules import FittedRule, holds_rules, load_rules
from moelab.laws import Law, all_laws, get_law

ALL = "all"


def laws_of(chosen: Any) -> list[Any]:
    """Each law of `chosen`: a Law, a FittedLaw, a law's id, the path of a fit file (all its fits), or `all`.

    One of these alone will do. None and files of fitted rules alone are `all`: every published law of the loss. Raises
    InputError for an unknown id and for a file that is no fit file.
    """
    if chosen is None:
        return published_laws()
    if isinstance(chosen, str | Path) or not isinstance(chosen, Iterable):
        chosen = [chosen]
    chosen = list(chosen)
    found: list[Any] = []
    for law in chosen:
        if isinstance(law, FittedRule):
            continue
        if not isinstance(law, str | Path):
            found.append(law)
        elif str(law) == ALL:
            found += published_laws()
        elif _is_file(law):
            found += [] if holds_rules(law) else load_fits(law).values()
        else:
            found.append(get_law(str(law)))
    return found if found or not rules_of(chosen) else published_laws()


def rules_of(chosen: Any) -> list[FittedRule]:
    """The fitted rules among what `laws_of` takes: rules themselves and files of them."""
    if chosen is None:
        return []
    if isinstance(chosen, str | Path) or not isinstance(chosen, Iterable):
        chosen = [chosen]
    found: list[FittedRule] = []
    for each in chosen:
        if isinstance(each, FittedRule):
            found.append(each)
        elif isinstance(each, str | Path) and str(each) != ALL and _is_file(each) and holds_rules(each):
            found += load_rules(each)
    return found


def _is_file(law: str | Path) -> bool:
    return Path(law).suffix == ".json" or Path(law).is_file()


def published_laws() -> list[Law]:
    """Every published law that predicts a loss and ships with coefficients."""
    return [law for law in all_laws().values() if law.kind == "loss" and law.published is not None]
