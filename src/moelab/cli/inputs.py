"""What commands that look at a trained run share: its config, its model and the text it was trained on."""

from pathlib import Path
from typing import Any


def open_run(run: Path, data: Path | None) -> tuple[Any, Any, Any]:
    """A finished run's config, model and prepared data: `data`, else where it was, else the folder beside the runs.

    Raises InputError where that is not the data the run was trained on.
    """
    from moelab.data import Dataset
    from moelab.errors import InputError
    from moelab.training import load_trained

    config, model = load_trained(run)
    beside = run.resolve().parent.parent / "data"
    moved = not Path(config.data.path).exists() and beside.exists()
    dataset = Dataset.open(data or (beside if moved else config.data.path))
    if dataset.manifest_hash != config.data.manifest_hash:
        raise InputError(
            f"--data: {data or config.data.path} is not the data this run was trained on; name it with --data"
        )
    return config, model, dataset
