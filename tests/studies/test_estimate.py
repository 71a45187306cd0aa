"""A dry run counts exactly, times what it can, marks what it estimates, and writes nothing."""

import functools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from moelab.cli import main
from moelab.data import Dataset, PrepareConfig
from moelab.data.prepare import prepare
from moelab.executors import ExecutorConfig, Order, run_all, work
from moelab.executors.order import Needs, Sharing
from moelab.executors.probe import probe_text, tokens_per_second
from moelab.runs import RunConfig, run_columns
from moelab.studies import StudyConfig, build_runs, speeds
from moelab.studies.estimate import estimate
from moelab.studies.speeds import Speeds
from moelab.studies.steps import own_flops, study_steps
from moelab.training import resolve_run

EXPERTS = {"n_experts": 4, "top_k": 2, "d_expert": 16}


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds from a few real steps, not from a second of them."""
    monkeypatch.setattr(speeds, "tokens_per_second", functools.partial(tokens_per_second, seconds=0.02))


@pytest.fixture
def texts(write_texts: Callable[..., Path], tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


@pytest.fixture
def plain(texts: Path) -> dict[str, Any]:
    train = {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "eval_tokens": 64, "threads": 1, "precision": "fp32"}
    return {
        "name": "tiny",
        "title": "tiny",
        "data": {"sources": [str(texts)], "vocab_size": 280, "validation_share": 0.2, "max_tokens": 4000},
        "base": {
            "model": {"vocab_size": 280, "d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16},
            "train": train,
        },
        "runs": [
            {"name": "dense", "set": {"train.tokens": [640, 1280], "train.seed": [0, 1]}},
            {"name": "moe", "set": {"model.moe": EXPERTS}},
        ],
    }


@pytest.fixture(scope="module")
def prepared_probe() -> Iterator[Dataset]:
    with probe_text() as text:
        yield text


@pytest.fixture(autouse=True)
def _one_probe_text(prepared_probe: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of probes is the same each time: it is prepared once."""
    monkeypatch.setattr(speeds, "probe_text", lambda: nullcontext(prepared_probe))


@pytest.fixture
def thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every probe finds a thousand tokens per second."""
    monkeypatch.setattr(speeds, "tokens_per_second", lambda config, text: 1000.0)


@pytest.mark.usefixtures("thousand")
def test_flops_runs_and_hours_are_counted(plain: dict[str, Any], tmp_path: Path) -> None:
    study = StudyConfig.parse(plain)
    found = estimate(study, tmp_path / "out", workers=2)
    configs = build_runs(study, list(study.runs), "x", {})
    assert [run.config.name for run in found.runs] == [config.name for config in configs]
    assert found.train_flops == pytest.approx(sum(float(run_columns(config)["train_flops"]) for config in configs))
    evaluation = 4 * 64 / 3 / 1000
    long, short = 1.28 + evaluation, 0.64 + evaluation
    assert [run.seconds for run in found.runs] == pytest.approx([short, short, long, long, short], rel=1e-6)
    assert found.hours is not None
    assert found.hours * 3600 == pytest.approx(long + 2 * short)
    assert found.disk_bytes > 4 * sum(run_columns(config)["params_total"] for config in configs)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("thousand")
def test_steps_that_wait_for_an_outcome_are_marked(plain: dict[str, Any], tmp_path: Path) -> None:
    sweep = {"values": [0.01, 0.02, 0.04], "runs": [{"name": "sweep"}]}
    plan = {"fit": {"laws": ["hoffmann2022"]}, "plan": {"flops_times": 4}, "verify": {"strict": True, "seeds": [0, 1]}}
    found = estimate(StudyConfig.parse({**plain, "sweep": sweep, **plan}), tmp_path / "out")
    first, runs, last = found.steps
    assert (first.step.name, first.step.n_runs, first.step.note) == ("sweep", 3, "")
    assert "as if the middle value or first design of sweep had won" in runs.step.note
    assert last.step.n_runs == 8
    largest = max(run.flops for run in found.runs)
    assert last.step.train_flops == pytest.approx(8 * 4 * largest)
    assert last.seconds is not None


def test_branches_cost_what_their_trunk_has_not_paid(plain: dict[str, Any]) -> None:
    ladder = {"name": "ladder", "design": "ladder", "tokens": [3200, 6400], "min_steps": 10}
    study = StudyConfig.parse({**plain, "runs": [ladder]})
    (step,) = study_steps(study, "x")
    whole = [float(run_columns(config)["train_flops"]) for config in step.configs]
    own = [own_flops(config) for config in step.configs]
    assert own[0] == whole[0]
    assert own[1] == pytest.approx(0.2 * whole[1])
    assert own[2] == pytest.approx(0.2 * whole[2])


@pytest.mark.usefixtures("thousand")
def test_a_run_that_several_entries_plan_is_counted_once(plain: dict[str, Any], tmp_path: Path) -> None:
    sweep = {"values": [0.01, 0.02], "runs": [{"name": "sweep", "set": {"train.tokens": 6400}}]}
    rates = {"name": "lr", "design": "learning_rate", "tokens": 6400, "learning_rate": [0.02, 0.03]}
    ladders = [{"name": n, "design": "ladder", "tokens": [6400, 12800], "decay_fraction": 0.2} for n in ("a", "b")]
    again = {"name": "again", "design": "repeats", "of": ["a"], "which": "last", "seeds": 1}
    study = StudyConfig.parse({**plain, "sweep": sweep, "runs": [rates, *ladders, again]})
    found = estimate(study, tmp_path / "out")
    first, runs = (each.step for each in found.steps)
    assert [config.train.learning_rate for config in first.configs] == [0.01, 0.02]
    assert [config.labels["group"] for config in runs.configs] == ["lr", "a", "a", "a", "a", "a"]
    assert len(runs.planned) == 10
    assert "4 more are runs that are counted already" in runs.note
    assert len(found.runs) == found.to_dict()["n_runs"] == 8
    assert found.train_flops == pytest.approx(sum(run.flops for run in found.runs))


@pytest.mark.usefixtures("thousand")
def test_a_dry_run_reports_a_disk_without_the_text_and_tells_rates_apart(
    plain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = estimate(StudyConfig.parse(plain), tmp_path / "out")
    plain["data"].pop("max_tokens")
    plain["runs"][0]["set"]["train.learning_rate"] = [0.0123, 0.02]
    plain["runs"][0]["set"].pop("train.seed")
    whole = estimate(StudyConfig.parse(plain), tmp_path / "out")
    assert whole.text_bytes is None
    assert limited.text_bytes == pytest.approx(limited.disk_bytes - whole.disk_bytes)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(SystemExit):
        main(["study", str(path), "--out", str(tmp_path / "out"), "--dry-run"])
    out = capsys.readouterr().out
    assert "without the text (not prepared, and data.max_tokens sets no limit)" in out
    assert "learning_rate" in out
    assert "0.0123" in out
    assert "batch_tokens" not in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA device")
def test_what_this_machine_cannot_train_is_unknown(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["base"]["train"]["device"] = "cuda"
    found = estimate(StudyConfig.parse(plain), tmp_path / "out", workers=8)
    assert found.hours is None
    assert "PyTorch finds no CUDA device" in (found.speeds.missing or "")
    assert found.train_flops > 0


def test_finished_runs_cost_nothing_and_give_their_speed(plain: dict[str, Any], tmp_path: Path) -> None:
    study, out = StudyConfig.parse(plain), tmp_path / "out"
    dataset = prepare(PrepareConfig.parse(plain["data"]), out / "data").dataset
    configs = [resolve_run(config, dataset) for config in build_runs(study, list(study.runs), str(out / "data"), {})]
    train_here(configs, out)
    found = estimate(study, out)
    assert found.speeds.origin == "2 shapes of finished runs"
    assert all(run.done for run in found.runs)
    assert found.hours == 0
    longer = {**plain, "runs": [{"name": "dense", "set": {"train.tokens": 6400}}]}
    more = estimate(StudyConfig.parse(longer), out)
    assert more.speeds.origin == "1 shapes of finished runs"
    assert not more.runs[0].done
    assert more.hours


def test_runs_that_shared_a_device_give_no_speed(plain: dict[str, Any], tmp_path: Path) -> None:
    study, out = StudyConfig.parse(plain), tmp_path / "out"
    dataset = prepare(PrepareConfig.parse(plain["data"]), out / "data").dataset
    configs = [resolve_run(config, dataset) for config in build_runs(study, list(study.runs), str(out / "data"), {})]
    train_here(configs, out, Sharing(by="streams", runs=2))
    found = estimate(study, out)
    assert all(run.done for run in found.runs)
    assert found.speeds.origin == "2 of 2 shapes probed on this machine, one at a time"


def train_here(configs: list[RunConfig], out: Path, sharing: Sharing | None = None) -> None:
    """What a worker does, in this process."""
    plain = [config.to_dict() for config in configs]
    order = Order(
        name="here",
        configs=plain,
        root=str(out / "runs"),
        data=str(out / "data"),
        checkpoint_seconds=9.0,
        patience=9.0,
        needs=Needs.of(configs),
        sharing=sharing or Sharing(),
    )
    assert work(order, "me") == {}
    outcome = run_all(configs, out / "runs", out / "data", executor=ExecutorConfig())
    assert len(outcome.trained) == len(configs)


def test_between_probes_the_rate_is_interpolated(plain: dict[str, Any]) -> None:
    study = StudyConfig.parse(plain)
    dense = build_runs(study, list(study.runs), "x", {})[0]
    cost = float(run_columns(dense)["flops_per_token"])
    points = [(math.log(cost / 4), math.log(1e6)), (math.log(cost * 4), math.log(4e6))]
    seconds = Speeds(points={"dense": points}, origin="").seconds(dense, 0.0)
    assert seconds == pytest.approx(4 * 64 * cost / 3 / 2e6)


def test_a_probe_trains_real_steps(plain: dict[str, Any], prepared_probe: Dataset) -> None:
    study = StudyConfig.parse(plain)
    for config in (build_runs(study, list(study.runs), "x", {})[i] for i in (0, -1)):
        assert 100 < tokens_per_second(config, prepared_probe, seconds=0.0) < 1e8


def test_the_command_prints_json(plain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(SystemExit) as ended:
        main(["study", str(path), "--out", str(tmp_path / "out"), "--dry-run", "--json"])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_runs"], found["n_done"], found["executor"]) == (5, 0, "local")
    assert found["hours"] > 0
    assert found["speed"] == "2 of 2 shapes probed on this machine, one at a time"
    assert {run["step"] for run in found["runs"]} == {"runs"}
    with pytest.raises(SystemExit) as ended:
        main(["study", str(path), "--out", str(tmp_path / "out"), "--dry-run"])
    assert ended.value.code == 0
    assert "Time: about" in capsys.readouterr().out
