"""What the records note of the runs' health stands in the study's report and in its terminal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moelab.studies import StudyConfig, run_study
from moelab.studies.page_runs import MOST_NOTES, run_notes


def test_a_run_that_learns_nothing_is_named_in_report_and_terminal(
    write_texts: Callable[..., Path],
    tmp_path: Path,
    threads: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    threads()
    train: dict[str, Any] = {"tokens": 1280, "seq_len": 16, "batch_tokens": 64, "eval_tokens": 500, "evaluations": 1}
    train |= {"threads": 1, "precision": "fp32"}
    model = {"vocab_size": 300, "d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16}
    data = {"sources": [str(write_texts(tmp_path / "texts"))], "vocab_size": 300, "validation_share": 0.2}
    runs = [{"name": "g", "set": {"train.learning_rate": [0.02, 1e-9]}}]
    whole = {"name": "tiny", "title": "What wins?", "data": data, "base": {"model": model, "train": train}}
    outcome = run_study(StudyConfig.parse({**whole, "runs": runs}), tmp_path / "out")
    (note,) = run_notes(outcome.every)
    assert "no learning: the lowest loss of 1 evaluation is 5." in note
    assert note in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no learning" in capsys.readouterr().err
    (config, record), *_ = outcome.every
    chatty = record.replace(notes=[f"note {number}" for number in range(MOST_NOTES + 3)])
    shown = run_notes([(config, chatty)])
    assert shown[-2:] == [f"run {config.name}: note {MOST_NOTES - 1}.", "3 more notes stand in the runs' record.json."]
