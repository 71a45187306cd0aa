"""Predictions before runs: which eight runs, the same file for the same fits, and that each began after the commit."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.fitting.fit import fit
from moelab.fitting.observations import observations
from moelab.fitting.prior import shipped, to_coefficients
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.plan import plan
from moelab.runs import RunConfig, RunRecord, run_columns
from moelab.studies import load_study
from moelab.studies.build import build_runs

ROOT = Path(__file__).parents[1]
RESOLVED = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none"}


@pytest.fixture(scope="module")
def modules() -> tuple[ModuleType, ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import predictions
        import predictions_score
    yield predictions, predictions_score
    for name in (
        "predictions",
        "predictions_score",
        "reference_rates",
        "reference_runs",
        "reference_speeds",
        "prior_tables",
    ):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fitted():
    """moelab2026 on twenty runs whose losses are the shipped prior's mean with noise."""
    law, known = get_law("moelab2026"), shipped("moelab2026")
    assert known is not None
    rng = np.random.default_rng(4)
    table = {
        "params_active": np.geomspace(3e4, 7e5, 20),
        "tokens": np.geomspace(1e6, 1e7, 20)[rng.permutation(20)],
        "expert_ratio": np.tile([1.0, 16.0, 8.0, 4.0], 5),
        "granularity": np.tile([1.0, 1.0, 4.0, 2.0], 5),
    }
    theta = known.of(law).mean.copy()
    theta[[1, 3]] -= 1.2  # scales at which losses of 30K to 700K parameters lie near 3 nats
    variables = observations({**table, "loss": np.linspace(3, 4, 20)}, law).variables
    loss = law.loss(to_coefficients(law, theta[None]), variables)[0]
    return fit({**table, "loss": loss * np.exp(0.004 * rng.standard_normal(20))}, law, bootstrap=12)


@pytest.fixture(scope="module")
def planned(modules, fitted):
    few = {"d_model": [96, 112], "n_layers": [3, 4], "n_experts": [16, 32]}
    return plan(Budget(flops=8e13), [fitted], Space.parse({**modules[0].SPACE, **few}, "space"))


def test_eight_runs_at_one_compute(modules, planned) -> None:
    runs = modules[0].eight_runs(planned)
    roles = [(run.role, run.seed) for run in runs]
    assert roles == [
        ("recommended", 0), ("recommended", 1), ("best_dense", 0), ("best_dense", 1), ("strict_dense", 0),
        ("finer", 0), ("coarser", 0), ("four_epochs", 0),
    ]  # fmt: skip
    flops = [float(count_flops(run.model, 128).train) * run.tokens for run in runs]
    assert flops == pytest.approx([planned.budget.flops] * 8, rel=0.02)
    best, strict, finer, coarser = (runs[k].model for k in (0, 4, 5, 6))
    total = count_parameters(best).params_total
    assert count_parameters(strict).params_total == pytest.approx(total, rel=0.02)
    for model, factor in ((finer, 2), (coarser, 0.5)):
        assert model.moe.n_experts == best.moe.n_experts * factor
        assert model.moe.top_k == best.moe.top_k * factor
        assert model.moe.d_expert == best.moe.d_expert / factor
        assert model.moe.top_k > 1 or not model.moe.normalize_gates
    assert runs[7].unique == runs[7].tokens // 4


def test_the_same_fits_give_the_same_file(modules, planned, fitted) -> None:
    predictions, scores = modules
    runs = predictions.eight_runs(planned)
    study = predictions.study_of(runs, predictions.fitted_rule(), load_study(str(predictions.LIKE)))
    configs = [
        config.replace(
            train={**config.train.to_dict(), **RESOLVED, "dispatch": "sorted" if config.model.moe else "none"},
            data={**config.data.to_dict(), "manifest_hash": "h"},
        )
        for config in build_runs(study, study.runs, "data", {})
    ]
    first, again = (predictions.document({"moelab2026": fitted}, "0" * 64, planned, runs, configs) for _ in range(2))
    assert json.dumps(first) == json.dumps(again)
    assert len({row["run_id"] for row in first["runs"]}) == 8
    for row, run in zip(first["runs"], runs, strict=True):
        law, whole = row["laws"]["moelab2026"], row["ensemble"]
        assert whole["value"] == pytest.approx(law["value"])
        assert whole["low"] <= whole["value"] <= whole["high"]
        assert whole["low"] == pytest.approx(law["low"], rel=0.05)  # the ensemble of one law, by one draw of the noise
        read = fitted.variables_of(run.model, row["tokens"], 128, row["unique_tokens"])
        assert law["value"] == pytest.approx(fitted.predict(read.variables).value[0])
    assert first["runs"][7]["ensemble"]["value"] > first["runs"][0]["ensemble"]["value"]  # repeats are worth less
    margins = scores.margins(first, {"moelab2026": fitted}, study)
    assert list(margins) == ["best_dense", "strict_dense", "finer", "coarser", "four_epochs"]
    by_role = {row["role"]: row["ensemble"]["value"] for row in first["runs"]}
    for role, margin in margins.items():
        assert margin["value"] == pytest.approx(by_role[role] - by_role["recommended"])
        assert margin["low"] < margin["high"]
        assert margin["measured_high"] - margin["measured_low"] >= 0.95 * (margin["high"] - margin["low"])
    finer, whole = margins["finer"], first["runs"][0]["ensemble"]
    assert finer["high"] - finer["low"] < whole["high"] - whole["low"]  # of one kind and compute: the drift is common


def record(run_id: str, loss: float, started: str | None) -> RunRecord:
    config = RunConfig.parse(
        {
            "model": {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32},
            "data": {"path": "x", "manifest_hash": "h"},
            "train": {"tokens": 640, "seq_len": 16, "batch_tokens": 64, **RESOLVED},
        }
    )
    measured = {"run_id": run_id, "status": "finished", "loss": loss, "started": started, "seconds": 1.0, **RESOLVED}
    measured |= {"tokens_per_second": 1.0, "peak_memory_bytes": 1, "data_hash": "h"}
    return RunRecord.parse({**run_columns(config), **measured})


def test_a_run_that_began_before_the_commit_was_not_predicted(modules) -> None:
    _, score = modules
    runs = [{"run_id": "a"}, {"run_id": "b"}]
    records = [record("a", 3.0, "2030-01-01T12:00:01+00:00"), record("b", 3.0, "2030-01-01T11:59:59+00:00")]
    assert score.before(records, runs, "2030-01-01T14:00:00+02:00") == [
        "b: began 2030-01-01T11:59:59+00:00, not after the commit of 2030-01-01T14:00:00+02:00"
    ]
    assert score.before([record("a", 3.0, None)], runs, "2030-01-01T12:00:00+00:00") == [
        "a: its record has no time of start"
    ]
    assert "no prediction was made of it" in score.before([record("c", 3.0, None)], runs, "2030-01-01T12:00:00Z")[0]


def test_the_commit_is_that_of_the_file_as_it_stands(modules, tmp_path: Path) -> None:
    _, score = modules
    place = tmp_path / "predictions.json"
    place.write_text("{}")

    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    assert score.committed_at(place) is None
    git("add", "predictions.json")
    git("commit", "-q", "-m", "x", "--date", "2030-01-01T12:00:00Z")
    assert score.committed_at(place) is not None
    place.write_text("{ }")
    assert score.committed_at(place) is None


def test_the_score_counts_errors_and_intervals(modules) -> None:
    _, score = modules
    guess = {"value": 3.0, "low": 2.9, "high": 3.1}
    other = {"value": 3.3, "low": 3.2, "high": 3.4}
    runs = [
        {"run_id": "a", "role": "recommended", "ensemble": guess, "laws": {"x": guess}},
        {"run_id": "b", "role": "best_dense", "ensemble": other, "laws": {}},
        {"run_id": "c", "role": "finer", "ensemble": guess, "laws": {}},
    ]
    found = score.score(runs, [record("a", 3.0, None), record("b", 3.0, None)])
    assert (found["runs"], found["finished"]) == (3, 2)
    assert found["predictors"]["ensemble"] == {"mean_abs_rel": pytest.approx(0.05), "inside": 1, "of": 2}
    assert found["predictors"]["x"]["inside"] == 1
    assert found["moe_ahead_by"] == pytest.approx(0)
    losses = [record("a", 3.0, None), record("b", 3.25, None)]
    assert score.measured_margins(runs, losses) == {"best_dense": pytest.approx(0.25)}


def test_every_committed_record_began_after_the_predictions(modules) -> None:
    _, score = modules
    place = ROOT / "results" / "predictions" / "predictions.json"
    records = score.read_records(place.parent / "runs")
    if not records:
        pytest.skip("no predicted run has finished")
    committed = score.committed_at(place)
    if committed is None:
        pytest.skip("not a git checkout, or the predictions are being changed")
    assert score.before(records, json.loads(place.read_text())["runs"], committed) == []


def test_a_top_one_moe_cannot_be_coarser(modules) -> None:
    moe = {"n_experts": 4, "top_k": 1, "d_expert": 16, "normalize_gates": False}
    model = ModelConfig.parse({"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "moe": moe})
    with pytest.raises(Exception, match="cannot be cut in two or joined"):
        modules[0].recut(model, finer=False)
