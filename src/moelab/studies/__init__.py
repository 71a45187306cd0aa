"""Many runs: designs, executors, and the whole loop from text to a verified recommendation."""

from moelab.studies.config import StudyConfig, Sweep, build_runs
from moelab.studies.designs import DESIGNS, RunGrid, matching
from moelab.studies.executors import ExecutorConfig, run_all
from moelab.studies.outcome import StudyOutcome
from moelab.studies.study import READY, load_study, run_study

__all__ = [
    "DESIGNS",
    "READY",
    "ExecutorConfig",
    "RunGrid",
    "StudyConfig",
    "StudyOutcome",
    "Sweep",
    "build_runs",
    "load_study",
    "matching",
    "run_all",
    "run_study",
]
