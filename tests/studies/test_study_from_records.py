"""A study goes on from records alone: what they hold counts as finished, the rest is trained."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.studies import StudyConfig, load_study, run_study


@pytest.fixture
def restore(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import study_from_records

    yield study_from_records.restore
    sys.modules.pop("study_from_records", None)


def test_only_the_runs_without_a_record_are_trained(
    restore: Any, tiny_data: dict[str, Any], threads: Callable[..., None], with_data: Any, tmp_path: Path
) -> None:
    threads()
    train = {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "eval_tokens": 500}
    model = {"vocab_size": 300, "d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16}
    how = {**train, "evaluations": 1, "threads": 1, "precision": "fp32"}
    whole = {"name": "two", "title": "Two?", "data": tiny_data, "base": {"model": model, "train": how}}
    study = StudyConfig.parse({**whole, "runs": [{"name": "g", "set": {"train.seed": [0, 1]}}]})
    first = with_data(tmp_path / "first")
    run_study(study, first, quiet=True)
    written = {folder.name: folder / "record.json" for folder in (first / "runs").iterdir()}
    kept, other = sorted(written)
    records = tmp_path / "records"
    records.mkdir()
    shutil.copyfile(written[kept], records / f"{kept}.json")
    shutil.copyfile(written[kept], records / "unknown.json")
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study.to_dict()))
    again = with_data(tmp_path / "again")
    assert restore(str(file), records, again) == ([kept], ["unknown"])
    assert not (again / "runs" / kept / "model.safetensors").exists()
    run_study(load_study(str(file)), again, quiet=True)
    assert not (again / "runs" / kept / "model.safetensors").exists()  # read, not trained
    assert (again / "runs" / other / "model.safetensors").exists()
    assert (again / "runs.csv").read_text().count("\n") == 3
