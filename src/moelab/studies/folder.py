"""A study's folder: one study, however many work on it, every step's outcome in a file of its own."""

from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.executors.options import ExecutorConfig
from moelab.files import make_folder, write_json
from moelab.lease import Terms, hold
from moelab.studies.config import StudyConfig

_STUDY = "study.yaml"


class StudyFolder:
    """Where a study keeps its data, runs, fits, plan and report."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"
        self.data = self.path / "data"
        self.report = self.path / "report.html"

    def claim(self, config: StudyConfig) -> None:
        """Take the folder for a study; others who ask for the same study share it.

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
        """Keep a step's outcome as NAME.json."""
        write_json(self.path / f"{name}.json", value)


def _decisive(config: StudyConfig) -> StudyConfig:
    """The study without what does not decide its outcome: the words that describe it, and who works on it."""
    return config.model_copy(update={"title": "", "about": "", "workers": 0, "executor": ExecutorConfig()})
