"""A run's folder: `config.yaml` first, `record.json` last. A folder with a record is finished and is never changed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from moelab.claim import Claim, find
from moelab.config import parse_mapping
from moelab.errors import InputError, MoelabError
from moelab.files import make_folder, parse_json, read_json, read_text, sha256_file, write_json
from moelab.lease import DEFAULT, Busy, Lease, Terms, hold
from moelab.runs.config import RunConfig
from moelab.runs.record import RunRecord

CONFIG, RECORD, WEIGHTS, PROGRESS, CHECKPOINTS, FAILURE, LEASE, ALONE = (
    "config.yaml",
    "record.json",
    "model.safetensors",
    "progress.json",
    "checkpoints",
    "failed.json",
    ".lease",
    ".alone",
)


class RunFolder:
    """One run on disk, under `root/RUN_ID`. Opening it checks that its config still hashes to its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lease: Lease | None = None

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
        if not folder.exists:
            raise InputError(f"run: {path} is not a run folder (it holds no {CONFIG})")
        return folder

    def load_config(self) -> RunConfig:
        """The run's config. Raises InputError if it no longer hashes to the folder's name."""
        config = _parsed(read_text(self.path / CONFIG, "config"), str(self.path / CONFIG))
        if config.run_id != self.path.name:
            raise InputError(
                f"run: {self.path / CONFIG} was edited: it now describes run {config.run_id}, not {self.path.name}; "
                "restore it, or train the new config under its own name"
            )
        return config

    @property
    def exists(self) -> bool:
        """Whether there is a run here, finished or not."""
        return (self.path / CONFIG).exists()

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

    def check_weights(self) -> tuple[Path, str | None]:
        """The file of a finished run's weights, and a note where no digest holds it (records of 0.1 have none).

        Raises InputError where the run is not finished, or its weights are missing or not those that were recorded.
        """
        weights = self.path / WEIGHTS
        if not weights.exists():
            raise InputError(f"run: {self.path} holds no {WEIGHTS}; is it finished?")
        recorded = self.load_record().weights_sha256
        if recorded is None:
            return weights, f"{self.path / RECORD} holds no SHA-256 of the weights (moelab 0.1): they are not checked"
        if sha256_file(weights) != recorded:
            raise InputError(f"run: {weights} is damaged or was replaced: its SHA-256 is not that in {RECORD}")
        return weights, None

    def save_record(self, record: RunRecord) -> None:
        """Write the outcome; from then on the run is finished."""
        write_json(self.path / RECORD, record.to_dict())
        (self.path / PROGRESS).unlink(missing_ok=True)
        (self.path / ALONE).unlink(missing_ok=True)

    @contextmanager
    def hold(self, terms: Terms = DEFAULT) -> Iterator[None]:
        """Keep every other process from training the run. Raises Busy where one already does."""
        try:
            with hold(self.path / LEASE, terms) as self._lease:
                yield
        except Busy as busy:
            raise Busy(f"run: another process is training {self.path.name}; wait for it ({busy})") from None
        finally:
            self._lease = None

    def check(self) -> None:
        """Raises LeaseLost where another process took over the run that this one holds."""
        if self._lease is not None:
            self._lease.check()

    @property
    def claim(self) -> Claim | None:
        """Who holds the run, or held it last."""
        return find(self.path / LEASE)

    def save_failure(self, reason: str, traceback: str = "") -> None:
        """Note why the run could not be trained, so that nobody tries again until `clear_failure`."""
        write_json(self.path / FAILURE, {"reason": reason, "traceback": traceback.splitlines()})

    def load_failure(self) -> str | None:
        """Why the run could not be trained; None where it did not fail."""
        try:
            text = (self.path / FAILURE).read_text(encoding="utf-8")
            return str(parse_json(text, FAILURE)["reason"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return "unknown: its note cannot be read"

    def clear_failure(self) -> None:
        """Let the run be tried again."""
        with suppress(OSError):
            (self.path / FAILURE).unlink(missing_ok=True)
            (self.path / ALONE).unlink(missing_ok=True)

    def set_alone(self) -> None:
        """Note that a worker which trained this run and others died: no other is trained beside it until it ends."""
        with suppress(MoelabError):
            write_json(self.path / ALONE, {})

    @property
    def alone(self) -> bool:
        """Whether the run is to be trained with no other in the same process."""
        return (self.path / ALONE).exists()

    def save_progress(self, **values: float | int | str) -> None:
        """A few live numbers for whoever watches; losing them loses nothing, so a full disk is no error here."""
        with suppress(MoelabError):
            write_json(self.path / PROGRESS, values)

    def load_progress(self) -> dict[str, float]:
        """The live numbers, empty when there are none."""
        try:
            return dict(read_json(self.path / PROGRESS))
        except (InputError, ValueError, TypeError):
            return {}


@lru_cache(maxsize=1024)
def _parsed(text: str, path: str) -> RunConfig:
    """A config by its text, which is read anew each time: a study asks for the same ones over and over."""
    return RunConfig.parse(parse_mapping(text, path), path)


def find_runs(root: str | Path) -> list[RunFolder]:
    """Every run folder directly under `root`, in the order of their names."""
    base = Path(root)
    if not base.is_dir():
        raise InputError(f"runs: no such folder: {root}")
    return [RunFolder(path) for path in sorted(base.iterdir()) if (path / CONFIG).exists()]
