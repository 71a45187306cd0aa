"""Finds every law: each file named author-year in this folder holds the laws of one paper in `LAWS`."""

import difflib
import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path

from moelab.errors import InputError
from moelab.laws.law import Law

_PAPER = re.compile(r"[a-z]+\d{4}\Z")


@cache
def all_laws() -> dict[str, Law]:
    """Every law by id, in the order of the years they were published."""
    names = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if _PAPER.match(m.name)]
    modules = [importlib.import_module(f"moelab.laws.{name}") for name in sorted(names, key=lambda n: (n[-4:], n))]
    return {law.id: law for module in modules for law in getattr(module, "LAWS", ())}


def get_law(law_id: str) -> Law:
    """A law by its id. Raises InputError naming the nearest ids."""
    laws = all_laws()
    if law_id not in laws:
        near = difflib.get_close_matches(law_id, laws, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"law: no such law {law_id!r}{hint} Known: {', '.join(laws)}")
    return laws[law_id]
