"""Finds every law: a file named author-year holds one paper, its laws in `LAWS` and its rules in `RULES`."""

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from types import ModuleType

from moelab.errors import InputError
from moelab.laws.law import Law
from moelab.laws.reuse import SUFFIX, with_data_reuse
from moelab.laws.rules import Rule
from moelab.printable import suggest

_PAPER = re.compile(r"[a-z]+\d{4}\Z")
_ID = re.compile(r"[A-Za-z][\w-]{0,63}\Z")


_OWN: dict[str, Law] = {}
"""Laws that this process was given: see `add_law`."""


def all_laws() -> dict[str, Law]:
    """Every law by id, in the order of the years they were published, then those of one's own."""
    return {**_published(), **_OWN}


@cache
def _published() -> dict[str, Law]:
    return {law.id: law for module in _papers() for law in getattr(module, "LAWS", ())}


def add_law(law: Law) -> Law:
    """Make a law known by its id to this process. Raises InputError for an id that is taken or cannot be one."""
    if not _ID.match(law.id):
        raise InputError(f"law: expected an id of letters, digits, - and _, got {law.id!r}")
    if law.id in _published() or law.id in all_rules() or law.id == "all":
        raise InputError(f"law: the id {law.id!r} is taken by a published law or rule")
    _OWN[law.id] = law
    return law


@cache
def all_rules() -> dict[str, Rule]:
    """Every rule for learning rate, batch and the split of compute, by id."""
    return {rule.id: rule for module in _papers() for rule in getattr(module, "RULES", ())}


def get_law(law_id: str) -> Law:
    """A law by its id; `ID+reuse` is that law with repeated data. Raises InputError naming the nearest id."""
    laws = all_laws()
    if law_id.endswith(SUFFIX):
        return with_data_reuse(get_law(law_id.removesuffix(SUFFIX)))
    if law_id not in laws and "+" in law_id:
        near = suggest(law_id, [name + SUFFIX for name in laws])
        raise InputError(f"law: no such law {law_id!r}; {near}only {SUFFIX} goes behind a law's id")
    if law_id not in laws:
        if law_id in all_rules():
            how = "moelab.fitting.rules.fit_rule fits one"
            raise InputError(f"law: {law_id} is a rule for hyperparameters, not a law of the loss; {how}")
        raise InputError(f"law: no such law {law_id!r}; {suggest(law_id, laws)}known: {', '.join(laws)}")
    return laws[law_id]


def get_rule(rule_id: str) -> Rule:
    """A rule by its id. Raises InputError naming the known ones."""
    rules = all_rules()
    if rule_id not in rules:
        raise InputError(f"rule: no such rule {rule_id!r}; {suggest(rule_id, rules)}known: {', '.join(rules)}")
    return rules[rule_id]


@cache
def _papers() -> tuple[ModuleType, ...]:
    names = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if _PAPER.match(m.name)]
    return tuple(importlib.import_module(f"moelab.laws.{name}") for name in sorted(names, key=lambda n: (n[-4:], n)))
