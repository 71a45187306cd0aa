"""The runs of a study before any is trained: for a dry run, and for tests that every ready study can be met."""

from typing import Any

from moelab.errors import InputError
from moelab.runs import RunConfig
from moelab.studies.build import build_runs
from moelab.studies.config import StudyConfig
from moelab.studies.stages import carried, competes


def preview(study: StudyConfig, data_path: str = "data") -> dict[str, list[RunConfig]]:
    """Part of the study (sweep, each stage, runs) -> its runs, nothing trained.

    What training would choose is stood in for: the middle value of the sweep, the first design of a stage. So sizes and
    costs of what follows a stage are those of that design. Raises InputError naming what cannot be met.
    """
    parts: dict[str, list[RunConfig]] = {}
    common: dict[str, Any] = {}
    if study.sweep is not None:
        sweep = study.sweep
        parts["sweep"] = [
            config.replace(name=f"{config.name} {value:g}")
            for value in sweep.values
            for config in build_runs(study, sweep.runs, data_path, {sweep.field: value}, rates=False)
        ]
        common[sweep.field] = sweep.values[len(sweep.values) // 2]
    for stage in study.stages:
        configs = build_runs(study, stage.runs, data_path, common)
        first = next((config for config in configs if competes(config)), None)
        if first is None:
            raise InputError(f"study {study.name}, stage {stage.name}: no run competes; give it one that is not dense")
        parts[f"stage {stage.name}"] = configs
        common |= carried(stage, first)
    parts["runs"] = build_runs(study, study.runs, data_path, common)
    return parts
