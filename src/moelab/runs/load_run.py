"""One run read in one call: its record, or the config that is to be trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig, load_model
from moelab.architecture.huggingface import is_huggingface
from moelab.config import load_yaml, override
from moelab.errors import InputError
from moelab.runs.config import DATA_PLACEHOLDER, RunConfig
from moelab.runs.find import find_run
from moelab.runs.folder import RunFolder
from moelab.runs.record import RunRecord


def load_run(run: str | Path, root: str | Path | None = None) -> RunRecord:
    """The record of a finished run.

    Args:
        run: The run's folder, its id or the start of it, or its name; the folder of its runs may stand before it
            ("studies/quickstart/3f2a").
        root: The folder of runs, or of a study, to search where `run` names none; None: `runs`, then all studies' runs.

    Returns:
        A RunRecord: losses in nats per token, parameters, tokens, FLOPs, speed (tokens per second), seconds.

    Raises:
        InputError: No such run, several that could be meant, a run that is not finished, a damaged record.

    After the example of `moelab.train`:

    >>> import moelab
    >>> record = moelab.load_run("tiny")
    >>> record.status, record.tokens, record.n_experts
    ('finished', 2048, 4)
    """
    return RunFolder.open(find_run(run, root)).load_record()


def read_run_config(
    config: RunConfig | Mapping[str, Any] | str | Path, changes: Sequence[str] = (), root: str | Path = "runs"
) -> RunConfig:
    """A run config, a mapping of its fields, or a run YAML, with `changes` such as `train.seed=1`.

    `model` may name one instead: a preset, a model YAML, or the config.json of a Hugging Face model, whose architecture
    is trained from random weights; a path is looked for beside the run YAML first.
    A parent may be named by the start of its id or by its name; it is looked for in `root`. Raises InputError naming
    the field and what is allowed, for a model that cannot be trained too; needs no torch.
    """
    folder = Path()
    if isinstance(config, RunConfig):
        value, where = config.to_dict(), ""
    elif isinstance(config, Mapping):
        value, where = dict(config), ""
    else:
        value, where, folder = load_yaml(config), str(config), Path(config).parent
    if is_huggingface(value):
        raise InputError(f"config: {where} describes a model alone; name it in a run YAML as `model: {where}`")
    value = override(value, list(changes))
    if isinstance(value.get("model"), str):
        value["model"] = _named_model(value["model"], folder).to_dict()
    parent = value.get("parent")
    if isinstance(parent, Mapping) and isinstance(parent.get("run"), str):
        value["parent"] = {**parent, "run": _parent_id(parent["run"], root)}
    run = RunConfig.parse(value, where)
    if run.data.path == DATA_PLACEHOLDER and not Path(DATA_PLACEHOLDER).exists():
        raise InputError(
            "data.path: a plan leaves the data to choose; give the folder that `moelab data prepare` wrote, "
            "such as --set data.path=FOLDER"
        )
    if run.model.unbuildable:
        raise InputError(f"model: moelab counts but cannot train {run.model.unbuildable}")
    return run


def _named_model(name: str, folder: Path) -> ModelConfig:
    """The architecture of a preset or a file. Raises InputError naming `model` and what is wrong with it."""
    beside = folder / name
    try:
        return load_model(beside if beside.exists() else name)
    except InputError as error:
        raise InputError(f"model: {error}") from None


def _parent_id(run: str, root: str | Path) -> str:
    """The id of a branch's parent; a full id is taken as it is, whether or not the run is there yet."""
    if len(run) == 16 and all(digit in "0123456789abcdef" for digit in run):
        return run
    try:
        return find_run(run, root).name
    except InputError as error:
        raise InputError(f"parent.{error}") from None
