"""Every analysis on runs whose losses are known: the optimum comes out, verdicts follow the noise, pages render."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from moelab.experiments import match_runs
from moelab.report import Page, render_page
from moelab.runs import RunConfig, RunRecord, run_columns
from moelab.studies import StudyConfig, build_runs
from moelab.studies.findings import Finding, find_all
from moelab.studies.findings.mixtures import reached
from moelab.studies.page_designs import matching_section, stage_section
from moelab.studies.seeds import Trained, seed_noise
from moelab.studies.stages import choose

BASE: dict[str, Any] = {
    "model": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 96},
    "train": {"tokens": 400_000, "seq_len": 128, "batch_tokens": 1024, "learning_rate": 0.02},
}
RESOLVED = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none"}


def study(*entries: dict[str, Any], **changes: Any) -> StudyConfig:
    value = {"name": "s", "title": "t", "data": {"sources": ["texts"]}, "base": BASE, "runs": list(entries), **changes}
    return StudyConfig.parse(value)


def trained(configs: list[RunConfig], loss: Callable[[dict[str, Any], RunConfig], float | None]) -> list[Trained]:
    found = []
    for config in configs:
        resolved = config.replace(
            data={**config.data.to_dict(), "manifest_hash": "h"}, train={**config.train.to_dict(), **RESOLVED}
        )
        columns = run_columns(resolved)
        value = loss(columns, resolved)
        steps = resolved.train.steps
        curve = [
            {"step": steps * share, "tokens": columns["tokens"] * share, "loss": (value or 0) + 1 - share}
            for share in (0.25, 0.5, 0.75, 1.0)
        ]
        measured = {
            "run_id": resolved.run_id,
            "status": "diverged" if value is None else "finished",
            "loss": value,
            "loss_curve": curve,
            "seconds": 1.0,
            "tokens_per_second": 1.0,
            "peak_memory_bytes": 1,
            "data_hash": "h",
            **RESOLVED,
        }
        found.append((resolved, RunRecord.parse({**columns, **measured})))
    return found


def find(value: StudyConfig, loss: Callable[[dict[str, Any], RunConfig], float | None]) -> Finding:
    runs = trained(build_runs(value, value.runs, "data", {}), loss)
    (finding,) = find_all(value, runs, seed_noise(runs))
    text = render_page(Page(title="t", answer=finding.sentences, sections=[finding.section], facts=finding.facts))
    assert finding.section.title in text
    assert all(sentence.endswith(".") for sentence in finding.sentences)
    return finding


GRANULARITY = {
    "name": "g",
    "design": "granularity",
    "granularity": [1, 2, 4, 8, 16],
    "expansion": 8,
    "flops": 4e11,
    "replicates": 2,
}


def bowl(columns: dict[str, Any], config: RunConfig) -> float:
    noise = 0.002 * (1 if config.train.seed else -1)
    if columns["kind"] == "dense":
        return 3.5 + noise
    return 3.3 + 0.05 * math.log(columns["granularity"] / 3) ** 2 + noise


def test_the_best_granularity_comes_out_with_its_verdicts() -> None:
    finding = find(study(GRANULARITY), bowl)
    optimum = finding.data["4e11 FLOPs"]["optimum"]
    assert optimum["value"] == pytest.approx(3, rel=1e-3)
    assert "lowest at a granularity of 3" in finding.sentences[0]
    assert "coarse experts (G = 1) lose 0.0" in finding.sentences[0]
    assert "more than seeds explain" in finding.sentences[0]
    assert "the best MoE beats its dense baseline by 0.196 nats, more than seeds explain" in finding.sentences[1]


def test_an_optimum_beyond_the_runs_is_reported() -> None:
    finding = find(study(GRANULARITY), lambda c, _: 3 + 0.1 * math.log(c["granularity"]))
    assert "no optimum can be fitted" in finding.sentences[0]
    assert finding.data["4e11 FLOPs"]["optimum"] is None


def test_runs_that_diverged_are_left_out_and_reported() -> None:
    finding = find(study(GRANULARITY), lambda c, r: None if c["granularity"] == 16 else bowl(c, r))
    assert finding.section.warnings == ["2 runs of g diverged and are left out."]


def test_without_repeats_no_margin_is_called_decided() -> None:
    finding = find(study({**GRANULARITY, "replicates": 1}), bowl)
    assert "no run was repeated" in finding.sentences[1]


def test_doublings_of_experts_are_measured_by_size() -> None:
    sizes = [{}, {"d_model": 48, "n_heads": 6, "d_ff": 144}]
    value = study({"name": "x", "design": "expansion", "expansion": [2, 4, 8], "sizes": sizes, "tokens": 1_000_000})
    finding = find(value, lambda c, _: 3.5 - 0.04 * math.log2(c["expansion"]) * (1 if c["d_model"] == 32 else 0.5))
    assert finding.data["d32 L2, 1M tokens"]["nats_per_doubling"] == pytest.approx(-0.04)
    assert "gains less from experts" in finding.sentences[-1]


def test_isoflop_finds_the_size_at_each_sparsity() -> None:
    value = study(
        {
            "name": "iso",
            "design": "isoflop",
            "flops": [2e11, 8e11],
            "sparsity": [0, 0.5, 0.75],
            "tokens_per_param": [5, 10, 20, 40, 80],
            "top_k": 2,
        }
    )

    def loss(columns: dict[str, Any], _: RunConfig) -> float:
        best = 40_000 * (columns["train_flops"] / 2e11) ** 0.5 / (1 - columns["sparsity"]) ** 0.6
        return 3.4 - 0.1 * columns["sparsity"] + 0.05 * math.log(columns["params_total"] / best) ** 2

    finding = find(value, loss)
    dense = finding.data["2e11 FLOPs"]["slices"]["dense"]["params_total"]["value"]
    assert dense == pytest.approx(40_000, rel=0.02)
    assert any("C^0.50 (dense" in sentence for sentence in finding.sentences)
    assert len(finding.section.figures) == 4  # slices and surface of each budget


EQUAL: dict[str, Any] = {
    "name": "equal",
    "design": "equal_resources",
    "params_total": 150_000,
    "flops": 6e11,
    "activation_rates": [0.25, 0.33, 0.45, 0.6],
    "reuse": ["fresh", "strict"],
}


def test_equal_resources_give_the_best_rate_and_the_winners() -> None:
    def loss(columns: dict[str, Any], config: RunConfig) -> float:
        if columns["kind"] == "dense":
            return 3.5 - 0.1 * (config.labels["times"] == "2")
        reuse = 0.03 * (config.labels["reuse"] == "strict")
        return 3.45 + 0.3 * math.log(columns["activation_rate"] / 0.35) ** 2 + reuse

    base = {**BASE, "model": {**BASE["model"], "n_layers": 3}}
    finding = find(study(EQUAL, base=base), loss)
    optimum = finding.data["6e11 FLOPs"]["optimum"]["fresh"]
    assert optimum["value"] == pytest.approx(0.35, rel=0.02)
    text = " ".join(finding.sentences)
    assert "beats dense trained with C by" in text
    assert "loses to dense trained with 2C by" in text
    assert "rates that win at C: 0.25, 0.3" in text


def test_overtraining_compares_serving_at_equal_loss() -> None:
    value = study(
        {
            "name": "o",
            "design": "overtraining",
            "flops": 3e11,
            "params_dense": [7_000, 15_000, 30_000, 60_000],
            "n_experts": [1, 4, 8],
            "shapes": {"n_layers": [2, 4]},
        },
        serving={"hardware": "h100", "traffic": {"prompt": 64, "output": 64}},
    )

    def loss(columns: dict[str, Any], config: RunConfig) -> float:
        width, depth = columns["d_model"], columns["n_layers"]
        size = 12.5 * width**2 * depth
        gain = {"1": 0.0, "4": 0.1, "8": -0.3}[config.labels["experts"]]
        return 3.5 - gain + 0.1 * math.log(size / 25_000) ** 2

    finding = find(value, loss)
    found = finding.data["3e11 FLOPs"]
    assert found["4 experts"]["cost_ratio"] is not None
    assert found["4 experts"]["size_at_equal_loss"] < found["4 experts"]["best_size"]
    assert found["8 experts"]["cost_ratio"] is None
    assert any("do not reach that loss" in sentence for sentence in finding.sentences)


def test_mixtures_report_when_dense_is_reached_and_what_leaks() -> None:
    entry = {"name": "m", "design": "mixture_of_tokens", "group_size": 8, "transition": 0.9, "tokens": 1_000_000}
    value = study(entry)
    losses = {"dense": 3.5, "token choice": 3.3, "mixture": 3.0, "transition": 3.2}
    finding = find(value, lambda _, config: losses[config.labels["role"]])
    text = " ".join(finding.sentences)
    assert "MoT reaches the dense model's final loss of 3.500 after 50% of the steps" in text
    assert "MoT, then token choice for the last steps ends, without leaks, at 3.200, ahead of dense" in text
    assert "token choice from the start reaches 3.300" in text


def test_the_step_where_a_loss_is_reached_is_interpolated() -> None:
    curve = [{"step": 10.0, "loss": 4.0}, {"step": 20.0, "loss": 3.0}, {"step": 40.0, "loss": 2.0}]
    assert reached(curve, 3.5) == pytest.approx(15 / 40)
    assert reached(curve, 4.5) == pytest.approx(0.25)
    assert reached(curve, 1.0) is None
    assert reached([], 1.0) is None


def test_learning_rates_stand_beside_the_rules() -> None:
    entry = {
        "name": "r",
        "design": "learning_rate",
        "tokens": 400_000,
        "learning_rate": [0.005, 0.01, 0.02, 0.04, 0.08],
    }
    finding = find(study(entry), lambda _, c: 3.5 + 0.05 * math.log(c.train.learning_rate / 0.015) ** 2)
    (found,) = finding.data.values()
    assert found["best"] == pytest.approx(0.015, rel=1e-3)
    assert "Step Law" in finding.sentences[0]


def test_a_ladder_reports_what_branching_saved() -> None:
    value = study({"name": "l", "design": "ladder", "tokens": [400_000, 800_000, 1_600_000]})
    configs = build_runs(value, value.runs, "data", {})
    branches = [
        c.replace(parent={"run": "0" * 16, "step": int(c.labels["branch_step"])})
        for c in configs
        if "branch_step" in c.labels
    ]
    runs = trained(branches, lambda c, _: 4 - 0.2 * math.log2(c["tokens"] / 4e5))
    (finding,) = find_all(value, runs, None)
    assert "each doubling of the tokens changes the loss by -0.200 nats" in finding.sentences[0]
    # 1250 trunk steps and 547 of decays, of 2734 in all.
    assert "Branching cost 66% of training each run" in finding.sentences[-1]


def test_a_stage_carries_its_winner_and_dense_does_not_compete() -> None:
    moe = {"n_experts": 8, "top_k": 2, "d_expert": 48}
    value = study(
        {"name": "after"},
        stages=[
            {
                "name": "first",
                "carry": ["model.moe", "train.seq_len"],
                "runs": [{"name": "a", "set": {"model.moe": [moe, {**moe, "top_k": 1}], "labels.role": "moe"}}],
            }
        ],
    )
    stage = value.stages[0]
    runs = trained(build_runs(value, stage.runs, "data", {}), lambda c, _: 3.0 if c["top_k"] == 1 else 3.5)
    outcome = choose(stage, runs)
    assert outcome.chosen["model.moe"]["top_k"] == 1
    assert outcome.chosen["train.seq_len"] == 128
    assert outcome.margin == pytest.approx(0.5)
    assert "model.moe" in render_page(Page(title="t", answer=["a"], sections=[stage_section(outcome)]))


def test_the_matching_table_shows_the_worst_miss() -> None:
    value = study({**GRANULARITY, "flops": 1e11})
    matches = match_runs(build_runs(value, value.runs, "data", {}))
    section = matching_section(matches)
    assert "Training FLOPs are within" in section.text[1]
    assert section.tables[0].rows[0][0] == "g, 1e11 FLOPs"
