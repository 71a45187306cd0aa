"""Every figure moelab draws: a plain table in, an Altair chart in the house style out; `save_figure` writes it."""

from moelab.report.figures_laws import predicted_measured
from moelab.report.figures_plans import candidates, verification
from moelab.report.figures_runs import learning_curves, loss_by_size
from moelab.report.save import save_figure

__all__ = ["candidates", "learning_curves", "loss_by_size", "predicted_measured", "save_figure", "verification"]
