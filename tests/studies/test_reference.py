"""The reference study: valid runs, enough of them, within the time, and useful from the first part on."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from moelab.runs import RunConfig, run_columns
from moelab.studies import load_study
from moelab.studies.build import preview

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def configs() -> list[RunConfig]:
    return preview(load_study(str(ROOT / "configs" / "studies" / "reference.yaml")))["runs"]


@pytest.fixture(scope="module")
def design() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import reference_design as module
    yield module
    for name in ("reference_design", "reference_rates", "reference_runs", "reference_speeds", "prior_tables"):
        sys.modules.pop(name, None)


def levels(configs: list[RunConfig]) -> dict[str, set[Any]]:
    rows = [run_columns(config) for config in configs]
    return {
        "d_model": {row["d_model"] for row in rows},
        "experts": {round((row["n_experts"] * row["d_expert"] + row["d_shared"]) / row["d_ff"])
                    if row["kind"] == "moe" and row["router"] == "token_choice" else 1 for row in rows},
        "granularity": {row["granularity"] for row in rows},
        "epochs": {round(row["epochs"]) for row in rows},
        "shared": {row["n_shared_experts"] for row in rows},
        "router": {row["router"] for row in rows},
    }  # fmt: skip


def test_every_run_is_valid_and_there_are_enough(configs: list[RunConfig]) -> None:
    assert len(configs) >= 150
    parts = [json.dumps([each.model.to_dict(), each.train.to_dict(), each.data.to_dict()]) for each in configs]
    assert len(set(parts)) == len(parts)
    rows = [run_columns(config) for config in configs]
    assert all(config.model.unbuildable is None for config in configs)
    assert min(row["params_active"] for row in rows) >= 25e3
    assert max(row["params_active"] for row in rows) <= 850e3
    for row in rows:
        most = 101 if row["params_active"] <= 110e3 else 41 if row["params_active"] <= 250e3 else 11
        assert 4.9 <= row["tokens"] / row["params_active"] <= most
        assert row["unique_tokens"] <= 18e6
        assert row["epochs"] == pytest.approx(round(row["epochs"]), abs=0.02)
    assert all(0.001 < config.train.learning_rate < 0.1 for config in configs)


def test_every_level_is_there_and_soon(configs: list[RunConfig]) -> None:
    every = levels(configs)
    assert every["experts"] >= {1, 2, 4, 8, 16, 32, 64}
    assert every["granularity"] >= {1, 2, 4, 8}
    assert every["epochs"] >= {1, 2, 4, 8}
    assert every["shared"] == {0, 1}
    assert every["router"] >= {"dense", "token_choice", "hash", "mixture_of_tokens"}
    early = levels(configs[:50])
    for axis in ("d_model", "experts", "granularity", "epochs", "shared", "router"):
        assert early[axis] == every[axis], axis
    seeds: dict[str, set[int]] = {}
    for config in configs:
        plain = config.replace(train={**config.train.to_dict(), "seed": 0})
        seeds.setdefault(
            json.dumps([plain.model.to_dict(), plain.train.to_dict(), plain.data.to_dict()], default=str), set()
        ).add(config.train.seed)
    assert sorted(len(found) for found in seeds.values())[-6:] == [3] * 6


def test_the_time_is_within_the_limits(design, configs: list[RunConfig]) -> None:
    speeds = json.loads(design.SPEEDS.read_text(encoding="utf-8"))
    times = []
    for config in configs:
        columns = run_columns(config)
        run = {
            "model": config.model.to_dict(), "flops": columns["flops_per_token"], "total": columns["params_total"],
            "tokens": columns["tokens"],
        }  # fmt: skip
        times.append(design.seconds(run, speeds))
    assert max(times) <= 20 * 60 + 1
    assert 11 * 3600 <= sum(times) <= 13.5 * 3600


def test_the_rates_are_the_rules(design, configs: list[RunConfig]) -> None:
    rule = design.fitted_rule()
    for config in configs:
        active = run_columns(config)["params_active"]
        assert config.train.learning_rate == pytest.approx(rule.rate(active), rel=0.01), config.name
