"""Scaling laws as plain NumPy: one small file per paper, with its coefficients, conventions and range. No torch."""

from moelab.laws.catalogue import all_laws, all_rules, get_law, get_rule
from moelab.laws.design import Conversion, Design
from moelab.laws.law import Law
from moelab.laws.own import load_law, register_law
from moelab.laws.reuse import effective_tokens, with_data_reuse
from moelab.laws.rules import Rule

__all__ = [
    "Conversion",
    "Design",
    "Law",
    "Rule",
    "all_laws",
    "all_rules",
    "effective_tokens",
    "get_law",
    "get_rule",
    "load_law",
    "register_law",
    "with_data_reuse",
]
