"""A study's folder: one study, one controller at a time, every step's outcome in a file of its own."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.files import make_folder, read_json, write_json
from moelab.studies.config import StudyConfig

_STUDY = "study.yaml"


class StudyFolder:
    """Where a study keeps its data, runs, fits, plan and report."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.runs = self.path / "runs"
        self.data = self.path / "data"
        self.report = self.path / "report.html"

    @contextmanager
    def hold(self, config: StudyConfig) -> Iterator[None]:
        """Take the folder for one study. Raises InputError if another study, or another process, has it."""
        make_folder(self.path, "--out")
        try:
            lock = open(self.path / ".lock", "a+")  # noqa: SIM115 - held as long as the study works
        except OSError as error:
            raise InputError(f"--out: cannot write in {self.path}: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"--out: another moelab study is at work in {self.path}") from None
            self._claim(config)
            yield

    def _claim(self, config: StudyConfig) -> None:
        path = self.path / _STUDY
        if path.exists() and _decisive(StudyConfig.from_yaml(path)) != _decisive(config):
            raise InputError(f"--out: {self.path} holds another study ({path} differs); choose another folder")
        config.to_yaml(path)

    def save(self, name: str, value: Any) -> None:
        """Keep a step's outcome as NAME.json."""
        write_json(self.path / f"{name}.json", value)

    def load(self, name: str) -> Any | None:
        """A step's outcome, or None where it has not been reached."""
        path = self.path / f"{name}.json"
        return read_json(path, "study") if path.exists() else None


def _decisive(config: StudyConfig) -> StudyConfig:
    """The study without what does not decide its outcome: the words that describe it, and how many work on it."""
    return config.model_copy(update={"title": "", "about": "", "workers": 0})
