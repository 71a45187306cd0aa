"""A study's prior is checked when the study is loaded, before any run, and reaches its fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.errors import InputError
from moelab.fitting.prior import Prior, shipped
from moelab.studies import StudyConfig, load_study, run_study
from moelab.studies.analysis import analyse
from moelab.studies.steps import study_steps

MODEL = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
TRAIN = {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02}


def study_of(fit: dict[str, Any]) -> dict[str, Any]:
    data = {"sources": ["texts"], "vocab_size": 300}
    base = {"model": MODEL, "train": TRAIN}
    return {"name": "tiny", "title": "t", "data": data, "base": base, "runs": [{"name": "g"}], "fit": fit}


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyConfig]:
    """A function of the fields of `fit` that writes a study beside its prior and loads it."""
    monkeypatch.chdir(tmp_path)

    def load(**fit: Any) -> StudyConfig:
        Path("study.yaml").write_text(yaml.safe_dump(study_of({"laws": ["moelab2026"], **fit})))
        return load_study("study.yaml")

    return load


def own(name: str, **changes: Any) -> Prior:
    """A copy of the shipped prior under a name of its own, written to the file of that name."""
    known = shipped("moelab2026")
    assert known is not None
    content = {**known.to_json(), "name": name, **changes}
    Path(f"{name}.json").write_text(json.dumps(content))
    return Prior.from_json(content, name)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("nosuch.json", "no such file: nosuch.json"),
        (".", "cannot read .: Is a directory"),
        ("text.json", "text.json is not valid JSON (line 1: "),
        ("empty.json", "empty.json: the key 'coefficients' is missing"),
        ("binary.json", "binary.json is not UTF-8 text"),
        ("other.json", "other is for wang2024, which is not among fit.laws (moelab2026)"),
    ],
)
def test_a_bad_prior_is_refused_when_the_study_is_loaded(loaded: Any, prior: str, message: str) -> None:
    Path("text.json").write_text("prior")
    Path("empty.json").write_text("{}")
    Path("binary.json").write_bytes(b"\xff\xfe\xfa")
    own("other", law="wang2024")
    with pytest.raises(InputError) as error:
        loaded(prior=prior)
    assert str(error.value).startswith(f"study tiny, fit.prior: {message}")
    assert "\n" not in str(error.value)


def test_a_prior_without_a_coefficient_of_the_law_is_refused(loaded: Any, tmp_path: Path) -> None:
    known = own("whole").to_json()
    names = known["coefficients"]
    at = [k for k, name in enumerate(names) if name != "k"]
    covariance = [[known["covariance"][i][j] for j in at] for i in at]
    own("part", coefficients=[names[i] for i in at], mean=[known["mean"][i] for i in at], covariance=covariance)
    assert loaded(prior="part.json").fit is not None
    assert loaded(prior="part.json", laws=["all"]).fit is not None
    with pytest.raises(InputError, match=r"study tiny, fit.prior: part has no coefficient k of moelab2026-outer"):
        loaded(prior="part.json", laws=["moelab2026-outer"])


def test_a_study_made_in_python_is_refused_before_it_trains(tmp_path: Path) -> None:
    study = StudyConfig.parse(study_of({"laws": ["moelab2026"], "prior": str(tmp_path / "nosuch.json")}))
    for begin in (lambda: study_steps(study, "data"), lambda: run_study(study, tmp_path / "out", quiet=True)):
        with pytest.raises(InputError, match=r"study tiny, fit.prior: no such file: .*nosuch.json"):
            begin()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "laws", [["moelab2026"], ["moelab2026", "hoffmann2022"], ["mine2026", "moelab2026-outer"], ["all"]]
)
def test_a_good_prior_is_taken_by_a_path_from_the_working_directory(loaded: Any, laws: list[str]) -> None:
    Path("priors").mkdir()
    own("mine")
    Path("mine.json").rename("priors/mine.json")
    assert loaded(prior="priors/mine.json", laws=laws).fit.prior == "priors/mine.json"
    assert loaded(prior="none", laws=laws).fit.prior == "none"


def test_a_studys_own_prior_reaches_its_fit(loaded: Any, trained: Any) -> None:
    mine = own("mine")
    study = loaded(prior="mine.json", bootstrap=2)
    records = [trained(5.0 - 0.1 * k, d_model=16 + 8 * k, d_ff=32 + 16 * k)[1] for k in range(8)]
    found = analyse(study, records)
    assert found.comparison is not None
    prior = found.comparison.fits["moelab2026"].prior
    assert prior is not None
    assert (prior["name"], prior["sha256"]) == ("mine", mine.sha256)
    none = analyse(loaded(prior="none", bootstrap=2), records)
    assert none.comparison is None
    assert "8 rows are too few" in str(none.note)
