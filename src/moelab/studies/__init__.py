"""The loop over many runs: from text to a verified recommendation, its findings and its page.

The names below load their file when first used: a worker that only trains needs neither laws nor figures.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.studies.build import build_runs as build_runs
    from moelab.studies.config import StudyConfig as StudyConfig
    from moelab.studies.config import Sweep as Sweep
    from moelab.studies.outcome import StudyOutcome as StudyOutcome
    from moelab.studies.study import READY as READY
    from moelab.studies.study import load_study as load_study
    from moelab.studies.study import run_study as run_study

_FILES = {
    "build": ("build_runs",),
    "config": ("StudyConfig", "Sweep"),
    "outcome": ("StudyOutcome",),
    "study": ("READY", "load_study", "run_study"),
}
_HOME = {name: f"moelab.studies.{file}" for file, names in _FILES.items() for name in names}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """Load a public name from its file (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'moelab.studies' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
