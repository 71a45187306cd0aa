"""From a table of runs to a fitted law: robust fits, bootstrap intervals, held-out error, comparison. No torch."""

from moelab.fitting.budgets import Budgets, isoflop_budgets
from moelab.fitting.compare import compare_laws
from moelab.fitting.comparison import Comparison
from moelab.fitting.findings import Finding
from moelab.fitting.fit_file import load_fits, save_fits
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.holdout import group_holdout, masked_holdout, ordered_holdout
from moelab.fitting.objective import Objective
from moelab.fitting.prediction import Holdout, Prediction
from moelab.fitting.slice import Slice, isoflop_slice
from moelab.fitting.surface import Surface, isoflop_surface
from moelab.fitting.table_checks import check_table

__all__ = [
    "Budgets",
    "Comparison",
    "Finding",
    "FittedLaw",
    "Holdout",
    "Objective",
    "Prediction",
    "Slice",
    "Surface",
    "check_table",
    "compare_laws",
    "group_holdout",
    "isoflop_budgets",
    "isoflop_slice",
    "isoflop_surface",
    "load_fits",
    "masked_holdout",
    "ordered_holdout",
    "save_fits",
]
