"""Every ready study parses, can be planned, matches its FLOPs within one per cent, and states how it is run."""

from pathlib import Path
from typing import Any

import pytest

import moelab
from moelab.architecture import count_parameters
from moelab.experiments import match_runs
from moelab.runs import run_columns
from moelab.studies import READY, build_runs, load_study
from moelab.studies.build import preview
from moelab.studies.config import Stage
from moelab.studies.stages import carried, competes

ROOT = Path(__file__).parents[2]
PAPERS = [name for name in READY if name != "quickstart"]


def test_every_paper_has_three_sizes() -> None:
    papers = {name.rsplit("-", 1)[0] for name in PAPERS}
    assert papers == {"krajewski2024", "yun2024", "abnar2025", "li2025", "antoniak2023"}
    assert {f"{paper}-{size}" for paper in papers for size in ("minutes", "hours", "gpu")} == set(PAPERS)


@pytest.mark.parametrize("name", READY)
def test_a_ready_study_is_whole(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    parts = preview(study)
    configs = [config for part in parts.values() for config in part]
    assert configs
    vocabulary = study.data.vocab_size
    for config in configs:
        assert config.model.vocab_size == vocabulary
        assert config.model.unbuildable is None
        unique = run_columns(config)["unique_tokens"]
        assert unique <= (study.data.max_tokens or 0), f"{config.name} would repeat text: {unique:,}"
    for match in match_runs([config for part_name, part in parts.items() if part_name != "sweep" for config in part]):
        if match.group.startswith("iso") and match.column in ("params_total", "tokens_per_param"):
            continue  # of the nearest real shape; the report shows how near
        bounds = {"train_flops": 0.01, "params_total": 0.02, "activation_rate": 0.07, "params_dense": 0.1}
        assert abs(match.miss) <= bounds[match.column], match


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith("minutes") else pytest.param(name, marks=pytest.mark.slow)
        for name in PAPERS
        if name.startswith("li2025")
    ],
)
def test_whatever_wins_a_stage_can_be_followed(name: str) -> None:
    study = load_study(name)
    assert study.sweep is not None

    def follow(stages: list[Stage], common: dict[str, Any]) -> None:
        configs = build_runs(study, stages[0].runs if stages else study.runs, "data", common)
        assert all(abs(match.miss) <= 0.07 for match in match_runs(configs))
        winners = {str(config.model): config for config in configs if competes(config)} if stages else {}
        for winner in winners.values():
            follow(stages[1:], common | carried(stages[0], winner))

    follow(study.stages, {study.sweep.field: study.sweep.values[0]})


@pytest.mark.parametrize("name", [name for name in PAPERS if name.endswith("gpu")])
def test_models_for_the_gpu_fit_one_of_80_gb(name: str) -> None:
    for part in preview(load_study(name)).values():
        assert all(count_parameters(config.model).params_total * 16 < 70e9 for config in part)


@pytest.mark.parametrize("name", PAPERS)
def test_a_ready_study_states_how_it_is_run(name: str) -> None:
    paper, size = name.rsplit("-", 1)
    text = (ROOT / "configs" / "studies" / paper / f"{size}.yaml").read_text(encoding="utf-8")
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert f"moelab study {name}" in head
    for word in ("arXiv", "Hardware and time:", "Expect:"):
        assert word in head, word
    assert load_study(str(ROOT / "configs" / "studies" / paper / f"{size}.yaml")) == load_study(name)


def test_a_study_is_run_by_name_or_path_too(tmp_path: Path) -> None:
    with pytest.raises(moelab.InputError, match="no ready study 'nothing'"):
        moelab.run_study("nothing", tmp_path / "s")
    assert not (tmp_path / "s").exists()
