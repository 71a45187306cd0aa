"""A grid compares like with like: equal tokens at equal active size, or equal FLOPs; a winner only beyond the noise."""

from typing import Any

from moelab.runs import RunConfig
from moelab.studies.findings import find_all
from moelab.studies.seeds import seed_noise
from tests.studies.test_findings import build_runs, find, study, trained

MOE = {"n_experts": 8, "top_k": 2, "d_expert": 48}


def loss(columns: dict[str, Any], config: RunConfig) -> float:
    """MoE is ahead by 0.1, Muon by 0.002, a seed by 0.01 either way."""
    seed = 0.01 * (-1) ** config.train.seed
    return 3.5 - 0.1 * (columns["kind"] == "moe") - 0.002 * (config.train.optimizer == "muon") + seed


def grid(**settings: Any) -> dict[str, Any]:
    return {"name": "grid", "set": settings, "replicates": 2}


def test_winners_beyond_the_noise_are_named_and_others_are_not() -> None:
    value = study(grid(**{"model.moe": [None, MOE], "train.optimizer": ["adamw", "muon"]}))
    finding = find(value, loss)
    groups = finding.data["groups"]
    assert [(group["axis"], group["others"], group["winner"]) for group in groups] == [
        ("model.moe", "optimizer adamw", "8 top-2"),
        ("model.moe", "optimizer muon", "8 top-2"),
        ("train.optimizer", "moe dense", None),
        ("train.optimizer", "moe 8 top-2", None),
    ]
    assert all(group["equal"] for group in groups)
    assert "0.100 nats, more than seeds explain" in finding.sentences[0]
    assert "train.optimizer is not decided: 0.002 nats, no more than seeds explain" in finding.sentences[2]


def test_sizes_at_unequal_compute_and_other_tokens_are_not_compared() -> None:
    sizes = {"name": "grid", "zip": {"model.d_model": [32, 64], "model.d_ff": [96, 192]}}
    for entry in (sizes, grid(**{"train.tokens": [200_000, 400_000]})):
        value = study(entry)
        runs = trained(build_runs(value, value.runs, "data", {}), loss)
        assert find_all(value, runs, seed_noise(runs)) == []


def test_without_repeats_nothing_wins() -> None:
    finding = find(study({"name": "grid", "set": {"model.moe": [None, MOE]}}), loss)
    assert finding.data["groups"][0]["winner"] is None
    assert "the noise between seeds is unknown" in finding.sentences[0]


def test_a_study_with_a_plan_keeps_its_answer_short() -> None:
    entry = grid(**{"model.moe": [None, MOE]})
    value = study(entry, fit={"laws": ["hoffmann2022"]}, plan={"flops_times": 3})
    finding = find(value, loss)
    assert finding.sentences == []
    assert finding.section.tables[0].rows
    assert any("is ahead: " in text or "is not decided: " in text for text in finding.section.text)
