"""What an export is made from: a finished run, its weights, the data it was trained on, the study it belongs to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.files import read_json
from moelab.model import LanguageModel, leaks
from moelab.runs import RunConfig, RunFolder, RunRecord
from moelab.studies import StudyConfig


@dataclass(frozen=True, kw_only=True)
class Source:
    """A finished run. `model` is what it ended with: after a transition the token-choice model."""

    folder: Path
    config: RunConfig
    record: RunRecord
    model: LanguageModel
    dataset: Dataset

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def title(self) -> str:
        """The run's name for people, else its id."""
        return self.config.name or self.run_id

    @property
    def loses_capacity(self) -> bool:
        """Whether choices were dropped in training that no other engine drops: then the leak-free model is exported."""
        return leaks(self.model.config)


def open_source(folder: Path, config: RunConfig, model: LanguageModel, dataset: Dataset) -> Source:
    """Raises InputError for a run that diverged, or has no record."""
    record = RunFolder.open(folder).load_record()
    if record.status != "finished":
        raise InputError(f"run: {folder} diverged at step {record.stopped_at}; there is nothing worth exporting")
    return Source(folder=folder, config=config, record=record, model=model, dataset=dataset)


@dataclass(frozen=True, kw_only=True)
class StudyPlace:
    """The study that contains a run, and the verification of this run (null where it was not verified)."""

    name: str
    about: str
    verified: dict[str, Any] | None


def find_study(source: Source) -> StudyPlace | None:
    """The study whose `runs` folder holds the run; None where there is none, or its files cannot be read."""
    folder = source.folder.resolve().parent.parent
    if source.folder.resolve().parent.name != "runs" or not (folder / "study.yaml").is_file():
        return None
    try:
        study = StudyConfig.from_yaml(folder / "study.yaml")
        path = folder / "verify.json"
        read = read_json(path) if path.is_file() else []
    except InputError:
        return None
    rows = read if isinstance(read, list) else []
    found = [row for row in rows if isinstance(row, dict) and row.get("run_id") == source.run_id]
    return StudyPlace(name=study.title or study.name, about=study.about, verified=found[0] if found else None)
