"""Every figure moelab draws: a plain table in, an Altair chart in the house style out; `save_figure` writes it."""

from moelab.report.figures_laws import holdout_error, predicted_measured
from moelab.report.figures_lifetime import lifetime_frontier
from moelab.report.figures_plans import budget_slices, candidates, verification
from moelab.report.figures_residuals import residuals
from moelab.report.figures_runs import learning_curves, loss_by_size
from moelab.report.figures_slices import isoflop, loss_against
from moelab.report.figures_surfaces import surface
from moelab.report.figures_tradeoffs import pareto, serving_curve
from moelab.report.save import save_figure

__all__ = [
    "budget_slices",
    "candidates",
    "holdout_error",
    "isoflop",
    "learning_curves",
    "lifetime_frontier",
    "loss_against",
    "loss_by_size",
    "pareto",
    "predicted_measured",
    "residuals",
    "save_figure",
    "serving_curve",
    "surface",
    "verification",
]
