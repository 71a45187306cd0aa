"""Scaling laws as plain NumPy: one small file per paper, with its coefficients, conventions and range. No torch."""

from moelab.laws.catalogue import all_laws, get_law
from moelab.laws.design import Conversion, Design
from moelab.laws.law import Law

__all__ = ["Conversion", "Design", "Law", "all_laws", "get_law"]
