"""One run: from a config to a checkpoint and a run record, resumable to the same numbers."""

from moelab.training.optimizer import Optimizer
from moelab.training.resolve import resolve_run
from moelab.training.trainer import Trainer, load_trained, train_run

__all__ = ["Optimizer", "Trainer", "load_trained", "resolve_run", "train_run"]
