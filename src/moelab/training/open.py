"""A trained run opened for use: its config, its model and the text it was trained on."""

from pathlib import Path

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.model import LanguageModel
from moelab.runs import RunConfig
from moelab.runs.find import find_run
from moelab.training.run import load_trained


def open_run(run: str | Path, data: str | Path | None = None) -> tuple[Path, RunConfig, LanguageModel, Dataset]:
    """A finished run's folder, config, model and prepared data.

    `run` is what `find_run` takes. The data is `data`, else where it was, else the folder beside the runs. Raises
    InputError where that is not the data the run was trained on.
    """
    folder = find_run(run)
    config, model = load_trained(folder)
    beside = folder.resolve().parent.parent / "data"
    moved = not Path(config.data.path).exists() and beside.exists()
    dataset = Dataset.open(data or (beside if moved else config.data.path))
    if dataset.manifest_hash != config.data.manifest_hash:
        raise InputError(
            f"--data: {data or config.data.path} is not the data this run was trained on; name it with --data"
        )
    return folder, config, model, dataset
