"""A study's folder: one study, any number of processes working on it, one file per step's outcome."""

from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.executors.options import ExecutorConfig
from moelab.files import finite, make_folder, write_json
from moelab.lease import Terms, hold
from moelab.studies.config import StudyConfig

_STUDY = "study.yaml"


class StudyFolder:
    """The folder of a study's data, runs, fits, plan and report."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"
        self.data = self.path / "data"
        self.report = self.path / "report.html"

    def claim(self, config: StudyConfig) -> None:
        """Take the folder for a study; other processes with the same study share it.

        Before its first run a study may still change. Raises InputError for another study.
        """
        make_folder(self.path, "--out")
        with hold(self.path / ".study.lease", Terms(queue=True)):
            path = self.path / _STUDY
            begun = path.exists() and self.runs.is_dir()
            if begun and _decisive(StudyConfig.from_yaml(path)) != _decisive(config):
                raise InputError(f"--out: {self.path} holds another study ({path} differs); choose another folder")
            config.to_yaml(path)

    def save(self, name: str, value: Any) -> None:
        """Write a step's outcome to NAME.json; NaN and infinity become null."""
        write_json(self.path / f"{name}.json", finite(value))


TRAFFIC_OF_0_1 = {"max_batch": 512, "imbalance": 1.0}
"""Defaults of traffic that 0.1 wrote out; today the calibration gives them where they are not set."""


def _decisive(config: StudyConfig) -> StudyConfig:
    """The study without the fields that do not change its outcome: title, description, workers, executor."""
    traffic = config.serving.traffic
    unset = {name: None for name, value in TRAFFIC_OF_0_1.items() if getattr(traffic, name) == value}
    serving = config.serving.model_copy(update={"traffic": traffic.model_copy(update=unset)})
    same = {"title": "", "about": "", "workers": 0, "executor": ExecutorConfig(), "serving": serving}
    return config.model_copy(update=same)
