"""Logs hold a run's numbers by stable names, survive a kill without doubles, and need their package when asked only."""

import builtins
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.runs import RunFolder
from moelab.training import train_run
from moelab.training.log import check_log, logs_step, open_log

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "capacity_factor": 1.0}}
NAMES = {
    "train/loss",
    "train/learning_rate",
    "train/grad_norm",
    "train/tokens_per_second",
    "eval/loss",
    "eval/loss_leak_free",
    "eval/bits_per_byte",
    "eval/churn",
    "routing/0/max_violation",
    "routing/1/churn_top",
}


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A module in the place of wandb that notes what it is given."""
    given: dict[str, Any] = {"rows": [], "finished": 0}

    def init(**options: Any) -> SimpleNamespace:
        given["init"] = options

        def finish() -> None:
            given["finished"] += 1

        return SimpleNamespace(log=lambda numbers, step: given["rows"].append((step, numbers)), finish=finish)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]
    return given


def test_wandb_gets_every_number_by_its_name(
    make_run: Any, dataset: Dataset, tmp_path: Path, fake_wandb: dict[str, Any]
) -> None:
    config = make_run(MOE, tokens=6 * 64)
    record = train_run(config, tmp_path, dataset, log="wandb")
    assert fake_wandb["init"]["id"] == config.run_id
    assert fake_wandb["init"]["config"]["train"]["seq_len"] == 16
    assert fake_wandb["finished"] == 1
    rows = fake_wandb["rows"]
    assert {name for _, numbers in rows for name in numbers} >= NAMES
    losses = [(step, numbers["eval/loss"]) for step, numbers in rows if "eval/loss" in numbers]
    assert losses == [(row["step"], row["loss"]) for row in record.loss_curve]
    assert [step for step, numbers in rows if "train/loss" in numbers] == [1, 2, 3, 4, 5, 6]


def test_names_are_text_in_the_logs(
    make_run: Any, dataset: Dataset, tmp_path: Path, fake_wandb: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: dict[str, str] = {}
    writer = SimpleNamespace(add_text=texts.__setitem__, close=lambda: None)
    fake = SimpleNamespace(SummaryWriter=lambda *_, **__: writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)  # type: ignore[arg-type]
    config = make_run(tokens=64).replace(name="a\x1b[2J\u202e ``` <b>")
    folder = RunFolder.create(tmp_path, config)
    open_log("wandb", folder, config)
    assert fake_wandb["init"]["name"] == r"a\x1b[2J\u202e ``` <b>"
    open_log("tensorboard", folder, config)
    lines = texts["config"].splitlines()
    assert lines[0] == lines[-1] == "````"
    assert not {"\u202e", "\x1b"} & set(texts["config"])


def test_logging_changes_no_number(make_run: Any, dataset: Dataset, tmp_path: Path, fake_wandb: dict[str, Any]) -> None:
    config = make_run(MOE, tokens=6 * 64)
    logged = train_run(config, tmp_path / "a", dataset, log="wandb")
    assert train_run(config, tmp_path / "b", dataset).loss_curve == logged.loss_curve


@pytest.mark.filterwarnings("default")
def test_tensorboard_files_are_read_back(make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_run(MOE, tokens=12 * 64)
    train_until(config, tmp_path, dataset, 7, log="tensorboard")
    record = train_run(config, tmp_path, dataset, log="tensorboard")
    events = EventAccumulator(str(tmp_path / config.run_id / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= NAMES
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))
    found = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars("eval/loss")]
    assert [(row["step"], row["loss"]) for row in record.loss_curve] == found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_offline(make_run: Any, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = make_run(MOE, tokens=6 * 64)
    record = train_run(config, tmp_path, dataset, log="wandb")
    assert record.status == "finished"
    files = list((tmp_path / config.run_id / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    assert os.path.getsize(files[0]) > 500


@pytest.mark.parametrize(("kind", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **options)

    for name in [name for name in sys.modules if name.split(".")[0] == package or name == "torch.utils.tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"--log: the package {package} is not installed; pip install 'moelab\[log\]'"
    ):
        check_log(kind)


def test_an_unknown_log_is_named() -> None:
    with pytest.raises(InputError, match="--log: expected tensorboard or wandb, got 'mlflow'"):
        check_log("mlflow")


def test_long_runs_log_about_a_thousand_steps() -> None:
    assert sum(logs_step(step, 50_000) for step in range(1, 50_001)) == 1000
    assert all(logs_step(step, 7) for step in range(1, 8))
