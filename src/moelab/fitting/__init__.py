"""From a table of runs to a fitted law: robust fits, bootstrap intervals, held-out extrapolation, comparison. No torch."""

from moelab.fitting.fit import fit
from moelab.fitting.fitted import FittedLaw, Holdout, Prediction, load_fits, save_fits
from moelab.fitting.objective import Objective

__all__ = ["FittedLaw", "Holdout", "Objective", "Prediction", "fit", "load_fits", "save_fits"]
