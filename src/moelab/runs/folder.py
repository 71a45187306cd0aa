"""A run's folder: `config.yaml` first, `record.json` last. A folder with a record is finished and is never changed."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moelab.errors import InputError, MoelabError
from moelab.files import make_folder, read_json, write_json
from moelab.runs.config import RunConfig
from moelab.runs.record import RunRecord

CONFIG, RECORD, WEIGHTS, PROGRESS, CHECKPOINTS, LOCK = (
    "config.yaml",
    "record.json",
    "model.safetensors",
    "progress.json",
    "checkpoints",
    ".lock",
)


class RunFolder:
    """One run on disk, under `root/RUN_ID`. Opening it checks that its config still hashes to its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, root: str | Path, config: RunConfig) -> "RunFolder":
        """The folder of a resolved run, made if it is not there. Raises InputError if its config was edited."""
        folder = cls(Path(root) / config.run_id)
        make_folder(folder.path, "--out")
        if (folder.path / CONFIG).exists():
            folder.load_config()
        else:
            config.to_yaml(folder.path / CONFIG)
        return folder

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run folder. Raises InputError when it is none."""
        folder = cls(Path(path))
        if not (folder.path / CONFIG).exists():
            raise InputError(f"run: {path} is not a run folder (it holds no {CONFIG})")
        return folder

    def load_config(self) -> RunConfig:
        """The run's config. Raises InputError if it no longer hashes to the folder's name."""
        config = RunConfig.from_yaml(self.path / CONFIG)
        if config.run_id != self.path.name:
            raise InputError(
                f"run: {self.path / CONFIG} was edited: it now describes run {config.run_id}, not {self.path.name}; "
                "restore it, or train the new config under its own name"
            )
        return config

    @property
    def finished(self) -> bool:
        """Whether the run's record was written."""
        return (self.path / RECORD).exists()

    def load_record(self) -> RunRecord:
        """The outcome. Raises InputError when there is none yet, it is damaged, or the config was edited."""
        if not self.finished:
            raise InputError(f"run: {self.path} is not finished (it holds no {RECORD})")
        self.load_config()
        record = RunRecord.parse(read_json(self.path / RECORD, "run"), str(self.path / RECORD))
        if record.run_id != self.path.name:
            raise InputError(f"run: {self.path / RECORD} is the record of another run ({record.run_id})")
        return record

    def save_record(self, record: RunRecord) -> None:
        """Write the outcome; from then on the run is finished."""
        write_json(self.path / RECORD, record.to_dict())
        (self.path / PROGRESS).unlink(missing_ok=True)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes of this machine from training the run. Raises MoelabError where one already does."""
        with open(self.path / LOCK, "a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise MoelabError(f"run: another process is training {self.path.name}; wait for it") from None
            yield

    def remove_checkpoints(self) -> None:
        """Drop what only an unfinished run needs."""
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def save_progress(self, **values: float | int | str) -> None:
        """A few live numbers for whoever watches; losing them loses nothing."""
        write_json(self.path / PROGRESS, values)

    def load_progress(self) -> dict[str, float]:
        """The live numbers, empty when there are none."""
        try:
            return dict(json.loads((self.path / PROGRESS).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def find_runs(root: str | Path) -> list[RunFolder]:
    """Every run folder directly under `root`, in the order of their names."""
    base = Path(root)
    if not base.is_dir():
        raise InputError(f"runs: no such folder: {root}")
    return [RunFolder(path) for path in sorted(base.iterdir()) if (path / CONFIG).exists()]
