"""The report and the terminal of a study: one row per run, told apart, counted as fitted; a failed fit is reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from moelab.cli import main
from moelab.studies import StudyConfig, run_study
from moelab.studies.page import headline_facts
from moelab.studies.page_runs import runs_table

TRAIN = {"tokens": 2560, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "eval_tokens": 500, "evaluations": 1}
MODEL = {"vocab_size": 300, "d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16}


@pytest.fixture
def whole(tiny_data: dict[str, Any], threads: Callable[..., None]) -> dict[str, Any]:
    """A study of runs of forty steps, trained by threads; its entries are still to come."""
    threads()
    train = {**TRAIN, "threads": 1, "precision": "fp32"}
    return {"name": "tiny", "title": "What wins?", "data": {**tiny_data}, "base": {"model": MODEL, "train": train}}


def test_a_run_of_two_entries_has_one_row_and_runs_of_one_name_are_told_apart(
    whole: dict[str, Any], tmp_path: Path, with_data: Callable[[Path], Path]
) -> None:
    entries = [
        {"name": "rates", "set": {"train.learning_rate": [0.01, 0.02]}},
        {"name": "same", "set": {"train.tokens": [2560, 5120]}},
        {"name": "slow", "set": {"train.warmup_fraction": 0.5}},
    ]
    outcome = run_study(StudyConfig.parse({**whole, "runs": entries}), with_data(tmp_path / "out"), quiet=True)
    assert len(outcome.trained) == 5
    assert outcome.to_dict()["n_runs"] == 4
    table = runs_table(outcome.trained)
    assert table.columns[:3] == ["run", "learning rate", "train.warmup_fraction"]
    assert sorted(tuple(row[:3]) for row in table.rows) == [
        ("d8 L1 ff16 0.00256M", "0.01", "0.02"),
        ("d8 L1 ff16 0.00256M", "0.02", "0.02"),
        ("d8 L1 ff16 0.00256M", "0.02", "0.5"),
        ("d8 L1 ff16 0.00512M", "0.02", "0.02"),
    ]
    same = runs_table([pair for pair in outcome.trained if pair[0].labels["group"] == "same"])
    assert same.columns[:2] == ["run", "parameters"]
    assert pl.read_csv(tmp_path / "out" / "runs.csv").height == 4


def test_runs_that_repeat_their_text_show_their_epochs(whole: dict[str, Any], tmp_path: Path) -> None:
    whole["data"]["max_tokens"] = 2000
    study = StudyConfig.parse(
        {**whole, "runs": [{"name": "g", "set": {"train.tokens": [1280, 2560], "train.batch_tokens": 128}}]}
    )
    outcome = run_study(study, tmp_path / "out", quiet=True)
    table = runs_table(outcome.trained)
    place = list(table.columns).index("epochs")
    assert [row[place] for row in table.rows] == pytest.approx([1, 2560 / 1984])
    assert "epochs" not in runs_table(outcome.trained[:1]).columns


def test_the_report_counts_the_runs_that_were_fitted(
    whole: dict[str, Any], tmp_path: Path, with_data: Callable[[Path], Path]
) -> None:
    entries = [
        {"name": "grid", "set": {"model.d_ff": [8, 16, 24, 32], "train.tokens": [320, 640, 1280]}},
        {"name": "again", "set": {"model.d_ff": [8, 16], "train.tokens": 640}},
        {"name": "wild", "set": {"train.learning_rate": 1e30, "train.grad_clip": 0, "train.tokens": 320}},
    ]
    fit = {"laws": ["hoffmann2022"], "bootstrap": 2}
    study = StudyConfig.parse({**whole, "runs": entries, "fit": fit})
    outcome = run_study(study, with_data(tmp_path / "out"), quiet=True)
    assert outcome.analysis.comparison is not None
    assert outcome.analysis.table.height == 12
    (fact,) = [fact for fact in headline_facts(outcome) if fact.name == "Runs fitted"]
    assert fact.value == "12"


def test_a_fit_that_cannot_be_is_the_last_word_of_the_terminal(
    whole: dict[str, Any], tmp_path: Path, with_data: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**whole, "runs": [{"name": "one"}], "fit": {"laws": ["hoffmann2022"]}}))
    with pytest.raises(SystemExit) as ended:
        main(["study", str(path), "--out", str(with_data(tmp_path / "out"))])
    assert ended.value.code == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("warning: no law was fitted: ")
