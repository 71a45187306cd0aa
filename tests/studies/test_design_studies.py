"""Studies of designs alone, in real processes: stages feed what follows, branches leave trunks, no law is needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.studies import load_study, run_study

TRAIN = {"tokens": 2560, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "eval_tokens": 1000}


@pytest.fixture
def write(write_texts: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    """A function of the parts of a tiny study that writes it and returns its path."""

    def make(**parts: Any) -> str:
        value = {
            "name": "tiny",
            "title": "What wins?",
            "data": {
                "sources": [str(write_texts(tmp_path / "texts", 60, 400))],
                "vocab_size": 300,
                "validation_share": 0.2,
            },
            "base": {
                "model": {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32},
                "train": {**TRAIN, "threads": 1, "precision": "fp32"},
            },
            **parts,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(value))
        return str(path)

    return make


@pytest.mark.dist
def test_stages_then_equal_resources_without_a_law(write: Callable[..., str], tmp_path: Path) -> None:
    moes = [{"n_experts": 6, "top_k": k, "d_expert": 16} for k in (1, 2)]
    path = write(
        stages=[{"name": "layout", "carry": ["model"], "runs": [{"name": "layout", "set": {"model.moe": moes}}]}],
        runs=[
            {"name": "equal", "design": "equal_resources", "flops": 3e8, "reuse": ["fresh", "strict"], "min_steps": 5},
            {"name": "again", "design": "repeats", "of": ["equal"], "which": "first", "seeds": 1},
        ],
    )
    out = tmp_path / "out"
    outcome = run_study(load_study(path), out, workers=2, quiet=True)
    assert outcome.plan is None
    assert outcome.analysis.comparison is None
    chosen = outcome.stages[0].chosen["model"]["moe"]
    models = [config.model.moe for config, _ in outcome.trained if config.labels["role"] == "moe"]
    assert [model.top_k for model in models if model] == [chosen["top_k"]] * 2
    assert {config.data.unique_tokens is None for config, record in outcome.trained if record.kind == "moe"} == {
        True,
        False,
    }
    assert outcome.noise is not None
    within = [match.within for match in outcome.matches if match.column == "train_flops"]
    assert within
    assert all(within)
    assert any("At equal parameters" in sentence for sentence in outcome.answer)
    page = (out / "report.html").read_text()
    assert "Stage: layout" in page
    assert "What was matched" in page
    assert json.loads((out / "findings.json").read_text())["equal"]
    assert outcome.to_dict()["matching"]


@pytest.mark.dist
def test_branches_leave_their_trunk_and_cost_less(write: Callable[..., str], tmp_path: Path) -> None:
    path = write(runs=[{"name": "ladder", "design": "ladder", "tokens": [6400, 12800], "min_steps": 5}])
    outcome = run_study(load_study(path), tmp_path / "out", workers=2, quiet=True)
    assert [record.schedule for _, record in outcome.trained] == ["wsd", "wsd"]
    assert len({record.parent_run for _, record in outcome.trained}) == 1
    assert all(record.loss is not None and record.loss < 5.7 for _, record in outcome.trained)
    assert any("Branching cost" in sentence for sentence in outcome.answer)


@pytest.mark.dist
def test_repeats_of_branches_train_their_own_trunks(write: Callable[..., str], tmp_path: Path) -> None:
    ladder = {"name": "ladder", "design": "ladder", "tokens": [6400], "min_steps": 5}
    ladder["sizes"] = [{"d_ff": 32}, {"d_ff": 48}]
    again = {"name": "again", "design": "repeats", "of": ["ladder"], "which": "last", "seeds": 2}
    outcome = run_study(load_study(write(runs=[ladder, again])), tmp_path / "out", workers=2, quiet=True)
    assert [config.train.seed for config, _ in outcome.trained] == [0, 0, 1, 2]
    assert len({record.parent_run for _, record in outcome.trained}) == 4
    assert not outcome.failed
    assert outcome.noise is not None
