"""What version 0.1 and today's code are both asked for: run ids, numbers of a record, the kernels that computed them.

`tests/fixtures/v0_1/make.py` runs this with 0.1 and keeps the answers; the tests run it with today's code.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig
from moelab.config import Config
from moelab.planning import Budget, Space
from moelab.runs import RunConfig
from moelab.serving import Traffic
from moelab.studies import StudyConfig, build_runs

TEXT_TIME_NS = 10**18
"""Modification time of the text: prepared data is known by its source's size and time, and a checkout sets its own."""
MANIFEST = "0" * 64
MEASURED = ("seconds", "tokens_per_second", "peak_memory_bytes", "resumed", "versions")
"""Fields of a record that no two runs share, and the packages' versions."""


def set_text_time(text: Path) -> None:
    """Give the text the time that it had when 0.1 prepared it."""
    os.utime(text, ns=(TEXT_TIME_NS, TEXT_TIME_NS))


def pinned(config: RunConfig) -> RunConfig:
    """The run with every choice that a machine would make fixed: CPU, fp32, one thread, the dispatch `sorted`."""
    train = config.train
    fixed = {
        "device": "cpu" if train.device == "auto" else train.device,
        "precision": "fp32" if train.precision == "auto" else train.precision,
        "threads": train.threads or 1,
        "dispatch": ("sorted" if config.model.moe else "none") if train.dispatch == "auto" else train.dispatch,
    }
    return config.replace(
        data={**config.data.to_dict(), "manifest_hash": config.data.manifest_hash or MANIFEST},
        train={**train.to_dict(), **fixed},
    )


def run_id(path: Path) -> str:
    """The id of a run YAML, pinned."""
    return pinned(RunConfig.from_yaml(path)).run_id


def study_ids(path: Path) -> dict[str, list[str]]:
    """Step of a study -> "ID NAME" of its runs, pinned; every sweep and stage is won by its first run with experts."""
    study = StudyConfig.from_yaml(path)
    common: dict[str, Any] = {}
    steps: dict[str, list[str]] = {}
    if study.sweep is not None:
        for value in study.sweep.values:
            runs = build_runs(study, study.sweep.runs, "data", {study.sweep.field: value}, rates=False)
            steps[f"sweep {value:g}"] = _named(runs)
        common[study.sweep.field] = study.sweep.values[0]
    for stage in study.stages:
        runs = build_runs(study, stage.runs, "data", common)
        steps[f"stage {stage.name}"] = _named(runs)
        first = next(run for run in runs if run.model.moe is not None)
        common |= {field: _value(first.to_dict(), field) for field in stage.carry}
    steps["runs"] = _named(build_runs(study, study.runs, "data", common))
    return steps


def _named(runs: list[RunConfig]) -> list[str]:
    """A branch of a ladder gets its trunk's id as parent, as a study gives it once the trunk is trained."""
    trunks = {run.labels["trunk"]: pinned(run).run_id for run in runs if "trunk" in run.labels}
    named = []
    for run in runs:
        if "branch_of" in run.labels:
            parent = {"run": trunks[run.labels["branch_of"]], "step": int(run.labels["branch_step"])}
            run = run.replace(parent=parent)
        named.append(f"{pinned(run).run_id} {run.name}")
    return named


def _value(config: dict[str, Any], field: str) -> Any:
    for key in field.split("."):
        config = config[key]
    return config


def filled_in(configs: Path) -> dict[str, dict[str, Any]]:
    """Every config with its defaults, which ids do not show: they leave defaults out."""
    kinds: dict[str, type[Config]] = {"models": ModelConfig, "runs": RunConfig, "studies": StudyConfig}
    found = {
        f"{folder}/{path.stem}": kind.from_yaml(path).to_dict()
        for folder, kind in kinds.items()
        for path in sorted((configs / folder).glob("*.yaml"))
    }
    # A space that names no axis is the default one, which follows today's models; one that names any has these.
    defaults = (Budget(flops=1e21), Space(aspect=(48, 160)), Traffic())
    return found | {type(config).__name__: config.to_dict() for config in defaults}


def outcomes(runs: Path) -> dict[str, dict[str, Any]]:
    """Run id -> the record without what is measured, and the digest of the weights where they are kept."""
    found = {}
    for path in sorted(runs.glob("*/record.json")):
        record = {key: value for key, value in json.loads(path.read_text()).items() if key not in MEASURED}
        weights = path.with_name("model.safetensors")
        digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else None
        found[path.parent.name] = record | {"weights": digest}
    return found


def kernels() -> dict[str, str]:
    """What decides the last bits of a loss: PyTorch, the vector instructions it uses, the compiled kernels.

    The kernels' file is named by a hash of their source, the compiler and the processor.
    """
    import numpy
    import torch

    from moelab.model.native import load

    library, where = load()
    return {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "native": Path(where).name if library is not None else "none",
    }
