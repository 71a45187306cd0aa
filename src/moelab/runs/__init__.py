"""Run configs, the record of one run, run folders and tables of runs. No torch."""

from moelab.runs.config import DataConfig, RunConfig
from moelab.runs.folder import RunFolder, find_runs
from moelab.runs.record import RunRecord, model_columns, run_columns
from moelab.runs.train_config import TrainConfig

__all__ = [
    "DataConfig",
    "RunConfig",
    "RunFolder",
    "RunRecord",
    "TrainConfig",
    "find_runs",
    "model_columns",
    "run_columns",
]
