"""Runs that diverge: the study continues with the others, and where none is left a report lists what was tried."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from moelab.errors import MoelabError
from moelab.studies import StudyConfig, run_study

WILD = {"learning_rate": 1e30, "grad_clip": 0}


@pytest.fixture
def study(tiny_data: dict[str, Any], threads: Callable[..., None]) -> Callable[..., StudyConfig]:
    """A function of the parts of a study of runs of forty steps, trained by threads."""
    threads()
    train = {"tokens": 2560, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "eval_tokens": 500}

    def make(train_too: dict[str, Any] | None = None, **parts: Any) -> StudyConfig:
        how = {**train, "evaluations": 1, "threads": 1, "precision": "fp32", **(train_too or {})}
        model = {"vocab_size": 300, "d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16}
        whole = {"name": "wild", "title": "What wins?", "data": tiny_data, "base": {"model": model, "train": how}}
        return StudyConfig.parse({**whole, "runs": [{"name": "g", "set": {"train.seed": [0, 1]}}], **parts})

    return make


def text_of(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def test_where_all_diverge_a_report_shows_where_and_what_to_change(
    study: Callable[..., StudyConfig], tmp_path: Path, with_data: Callable[[Path], Path]
) -> None:
    out = with_data(tmp_path / "out")
    with pytest.raises(MoelabError, match=r"study: every run diverged; .*report\.html shows where") as error:
        run_study(study(WILD), out, quiet=True)
    assert "\n" not in str(error.value)
    page = text_of(out / "report.html")
    steps = pl.read_csv(out / "runs.csv")["stopped_at"].to_list()
    assert len(steps) == 2
    for words in (
        "This study has no answer: every run diverged.",
        "Their learning rates were 1e+30: try lower ones, such as 1e+29.",
        "Gradients were not clipped",
        "2 of 2 runs diverged",
        *(f"diverged at step {step}" for step in steps),
    ):
        assert words in page, words


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sweep": {"values": [1e30, 1e31], "runs": [{"name": "s"}]}}, "every run diverged at each of 1e"),
        ({"stages": [{"name": "first", "runs": [{"name": "s", "set": {"train.learning_rate": 1e30}}]}]}, "stage first"),
        ({"runs": [{"name": "l", "design": "ladder", "tokens": 6400, "min_steps": 5}]}, "every run diverged or failed"),
    ],
)
def test_a_choice_among_runs_that_all_diverged_is_reported(
    study: Callable[..., StudyConfig],
    tmp_path: Path,
    with_data: Callable[[Path], Path],
    parts: dict[str, Any],
    message: str,
) -> None:
    wild = WILD if "runs" in parts else {"grad_clip": 0}
    with pytest.raises(MoelabError, match=message):
        run_study(study(wild, **parts), with_data(tmp_path / "out"), quiet=True)
    assert "diverged at step" in text_of(tmp_path / "out" / "report.html")


def test_a_run_that_diverges_stands_in_the_table_of_runs(
    study: Callable[..., StudyConfig], tmp_path: Path, with_data: Callable[[Path], Path]
) -> None:
    entry = {"name": "g", "set": {"train.learning_rate": [0.02, 1e30]}}
    outcome = run_study(study({"grad_clip": 0}, runs=[entry]), with_data(tmp_path / "out"), quiet=True)
    (record,) = [record for _, record in outcome.trained if record.loss is None]
    assert f"diverged at step {record.stopped_at}" in text_of(outcome.folder.report)
    (answer,) = outcome.answer
    assert answer.startswith("The lowest loss, ")
    assert answer.endswith("; no other design was trained.")
    assert any("diverged at step" in warning for warning in outcome.warnings)
