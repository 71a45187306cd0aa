"""One run: from a config to a checkpoint and a run record, resumable to the same numbers."""

from moelab.training.optimizer import Optimizer
from moelab.training.resolve import resolve_run
from moelab.training.run import load_trained, train_run
from moelab.training.trainer import Trainer

__all__ = ["Optimizer", "Trainer", "load_trained", "resolve_run", "train_run"]
