"""A study whose text cannot be read, or is too short for its runs, is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moelab.errors import InputError
from moelab.studies import StudyConfig, run_study
from moelab.studies.steps import study_steps

MODEL = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 48}
TRAIN = {"tokens": 6400, "seq_len": 32, "batch_tokens": 128, "eval_tokens": 4000, "threads": 1, "precision": "fp32"}
EQUAL = {
    "name": "equal",
    "design": "equal_resources",
    "flops": 3e8,
    "params_total": 18_000,
    "activation_rates": 0.5,
    "n_dense_layers": 0,
    "min_steps": 10,
    "dense_flops": 1,
}
Make = Callable[..., StudyConfig]


@pytest.fixture
def make(write_texts: Callable[..., Path], tmp_path: Path) -> Make:
    """A function of the text, an entry and more of the base that gives a study."""
    texts = write_texts(tmp_path / "texts", 60, 300)

    def study(text: dict[str, Any], entry: dict[str, Any] | None = None, **base: Any) -> StudyConfig:
        given = {"sources": [str(texts)], "vocab_size": 300, "validation_share": 0.2, **text}
        whole = {"name": "two", "title": "t", "data": given, "base": {"model": MODEL, "train": TRAIN, **base}}
        return StudyConfig.parse({**whole, "runs": [{"name": "grid"} if entry is None else {**EQUAL, **entry}]})

    return study


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"reuse": ["fresh", "loose"], "flops": 4e8}, r"reuse: fresh text for .* is 5,\d+ tokens, there are 4,999"),
        (
            {"reuse": "strict", "flops": 6e8},
            r"reuse: strict gives .* the 5,\d+ tokens that the dense model sees; .*4,999",
        ),
        ({"reuse": "loose", "flops": 9e8}, r"reuse: loose gives .* 6,\d+ different tokens.*; the text has 4,999"),
        (
            {"reuse": "loose", "dense_flops": [1, 2]},
            r"dense_flops: at 2, fresh text for .* 5,\d+ tokens, there are 4,999",
        ),
    ],
)
def test_text_that_is_called_fresh_is_not_repeated(
    make: Make, tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    limited = make({"max_tokens": 5000}, entry)
    for refused in (lambda: study_steps(limited, "data"), lambda: run_study(limited, tmp_path / "out", quiet=True)):
        with pytest.raises(InputError, match=f"^study two, runs equal: {message}") as error:
            refused()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_text_that_turns_out_too_short_is_found_before_anything_is_trained(make: Make, tmp_path: Path) -> None:
    long = make({}, {"flops": 1e12})
    study_steps(long, str(tmp_path / "out" / "data"))
    with pytest.raises(InputError, match=r"runs equal: reuse: fresh text for .* tokens, there are"):
        run_study(long, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "runs").exists()
    with pytest.raises(InputError, match=r"runs equal: reuse: fresh text for .* tokens, there are"):
        study_steps(long, str(tmp_path / "out" / "data"))


def test_enough_text_is_enough_and_other_runs_may_repeat_it(make: Make) -> None:
    study_steps(make({"max_tokens": 5000}, {"reuse": ["fresh", "strict", "loose"]}), "data")
    study_steps(make({"max_tokens": 5000}), "data")
    with pytest.raises(InputError, match=r"reuse: fresh text for .* there are 2,000"):
        study_steps(make({}, {}, data={"unique_tokens": 2000}), "data")
    with pytest.raises(InputError, match=r"runs grid: data.unique_tokens: .* is given 9,000; the text has 4,999"):
        study_steps(make({"max_tokens": 5000}, data={"unique_tokens": 9000}), "data")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sources": ["nosuch"]}, "study two, data: source: nosuch is no file"),
        ({"vocab_size": 500}, "runs grid: model.vocab_size: must be at least the text's 500 .*, got 300"),
        ({"vocab_size": 20}, "study two, data.vocab_size: at least 257, got 20"),
        ({"tokenizer": "nosuch.json"}, "study two, data: tokenizer: .*nosuch.json"),
    ],
)
def test_text_that_cannot_be_read_is_refused_at_once(
    make: Make, tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    study = make(data)
    for refused in (lambda: study_steps(study, "data"), lambda: run_study(study, tmp_path / "out", quiet=True)):
        with pytest.raises(InputError, match=message):
            refused()
    assert not (tmp_path / "out").exists()


def test_no_text_at_all_and_all_runs_held_out_are_refused(make: Make) -> None:
    with pytest.raises(InputError, match="data: sources: needs at least one"):
        make({"sources": []})
    with pytest.raises(InputError, match=r"fit.holdout: input should be less than 1, got 1"):
        StudyConfig.parse({**make({}).to_dict(), "fit": {"laws": ["hoffmann2022"], "holdout": 1}})
