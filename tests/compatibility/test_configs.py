"""Every config of 0.1 is read, counts the same and names the same runs for ever."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moelab.architecture import ModelConfig, MoEConfig, load_model
from moelab.config import load_yaml
from moelab.runs import RunConfig
from moelab.runs.train_config import TrainConfig

CONFIGS = Path(__file__).parents[1] / "fixtures" / "v0_1" / "configs"
MODELS, RUNS = sorted((CONFIGS / "models").glob("*.yaml")), sorted((CONFIGS / "runs").glob("*.yaml"))
STUDIES = sorted((CONFIGS / "studies").rglob("*.yaml"))


def study_name(path: Path) -> str:
    return path.relative_to(CONFIGS / "studies").with_suffix("").as_posix()


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models_count_the_same(
    path: Path, answer: Callable[[str], Any], printed: Callable[..., Any], same_numbers: Callable[..., None]
) -> None:
    """Gradients are counted in fp32 now, as they are in training: 18 bytes per parameter, not 16."""
    kept = answer("counts")[path.stem]
    kept["memory_bytes"]["training_state"] *= 18 / 16
    same_numbers(kept, printed("count", str(path), "--json"), 0)
    model = load_model(str(path))
    assert ModelConfig.parse(model.to_dict()) == model


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_runs_keep_their_ids(path: Path, answer: Callable[[str], Any], reading: ModuleType, tmp_path: Path) -> None:
    kept = answer("run_ids")["runs"][path.stem]
    assert reading.run_id(path) == kept
    RunConfig.from_yaml(path).to_yaml(tmp_path / "again.yaml")
    assert reading.run_id(tmp_path / "again.yaml") == kept


@pytest.mark.parametrize("path", STUDIES, ids=study_name)
def test_studies_keep_the_ids_of_their_runs(path: Path, answer: Callable[[str], Any], reading: ModuleType) -> None:
    kept, found = answer("run_ids")["studies"][study_name(path)], reading.study_ids(path)
    assert list(found) == list(kept)
    for step, runs in kept.items():
        assert [run.split(" ", 1)[0] for run in found[step]] == [run.split(" ", 1)[0] for run in runs], step


def test_the_configs_set_every_field_of_0_1(answer: Callable[[str], Any]) -> None:
    """The fields of 0.1, as `fields.json` lists them, each stand in one of the configs, and all are there still."""
    models = [load_yaml(path) for path in MODELS]
    runs = [load_yaml(path)["train"] for path in RUNS]
    given = {
        "model": {key for model in models for key in model},
        "moe": {key for model in models for key in model.get("moe") or {}},
        "train": {key for run in runs for key in run},
    }
    today = {"model": ModelConfig, "moe": MoEConfig, "train": TrainConfig}
    for name, fields in answer("fields").items():
        assert set(fields) == given[name], name
        assert set(fields) <= set(today[name].model_fields), name


def test_no_default_changed(answer: Callable[[str], Any], reading: ModuleType) -> None:
    """Ids leave defaults out, so another default would give old ids another meaning. New fields may be there."""
    kept, found = answer("filled_in"), reading.filled_in(CONFIGS)
    assert set(kept) == set(found)
    for name, config in kept.items():
        assert as_known(config, found[name]) == config, name


CALIBRATED = ("max_batch", "imbalance")
"""Traffic that the calibration gives where it is not set; no id of a run or study depends on it."""


def as_known(old: Any, new: Any) -> Any:
    """`new` without the keys that `old` does not have; `CALIBRATED` ones as `old` has them, where nothing is set."""
    if isinstance(old, dict) and isinstance(new, dict):
        known = {key: as_known(old[key], new[key]) for key in old if key in new}
        return known | {key: old[key] for key in CALIBRATED if key in known and known[key] is None}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [as_known(a, b) for a, b in zip(old, new, strict=True)]
    return new
